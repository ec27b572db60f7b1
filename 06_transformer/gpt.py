"""GPT: everything so far in one model, complete and readable: the reference of the course.

Previous : 05_residual_norm/pre_ln.py
Changes  : MultiHeadAttention, FeedForward, Block, Model
Idea     : weights that start small, so that the first guess is an even one and no block shouts; the token
           embedding, transposed, is the head; no biases. (Dropout is back, in three places, and off by
           default: --dropout 0.1)
Teaches  : nn.init
Source   : Radford et al. 2019 (GPT-2: small weights, smaller still where a block writes to the stream); Press
           and Wolf 2017, arXiv:1608.05859 (one table for embedding and head); Chowdhery et al. 2022,
           arXiv:2204.02311 (no biases)
Expect   : a first loss of ln V; after 1500 steps about the loss of pre-LN, from fewer parameters
Also     : --preset yardstick; --clip 1 --lr 4e-3
Seeds    : 1 2 3; 1 2 3 4 5 with --clip 1 --lr 4e-3
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.run import run
from common.settings import Lesson, Settings


class MultiHeadAttention(nn.Module):
    """Each position gathers from its past, through several heads side by side. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()
        self.n_head = s.n_head
        self.query = nn.Linear(s.n_embd, s.n_embd, bias=False)         # what am I looking for?
        self.key = nn.Linear(s.n_embd, s.n_embd, bias=False)           # what do I have to offer?
        self.value = nn.Linear(s.n_embd, s.n_embd, bias=False)         # what do I give who takes it?
        self.projection = nn.Linear(s.n_embd, s.n_embd, bias=False)    # what the heads found, mixed
        self.dropout = nn.Dropout(s.dropout)                           # dropout on attention weights
        self.register_buffer("mask", torch.full((s.block_size, s.block_size), -torch.inf).triu(1),
                             persistent=False)

    def forward(self, x):
        B, T, C = x.shape
        q = self.query(x).view(B, T, self.n_head, -1).transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
        k = self.key(x).view(B, T, self.n_head, -1).transpose(1, 2)
        v = self.value(x).view(B, T, self.n_head, -1).transpose(1, 2)
        # A query and a key of D numbers of size 1 have a product of size sqrt(D): divided by it, scores start
        # at one size for any D.
        scores = q @ k.transpose(-2, -1) / q.size(-1) ** 0.5           # (B, H, T, T): what t thinks of s
        weights = F.softmax(scores + self.mask[:T, :T], dim=-1)        # rows sum to 1; 0 for the future
        heads = self.dropout(weights) @ v                              # (B, H, T, D)
        return self.projection(heads.transpose(1, 2).reshape(B, T, C))


class FeedForward(nn.Sequential):
    """Each position thinks about what it gathered; four times as wide in between. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__(
            nn.Linear(s.n_embd, 4 * s.n_embd, bias=False), nn.GELU(),
            nn.Linear(4 * s.n_embd, s.n_embd, bias=False)
        )


class Block(nn.Module):
    """Gather, then think; each reads a normalised copy and adds its answer. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(s.n_embd, bias=False), nn.LayerNorm(s.n_embd, bias=False)
        self.attention = MultiHeadAttention(s)
        self.feed_forward = FeedForward(s)
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)                # what stands here
        self.position = nn.Embedding(s.block_size, s.n_embd)           # and where
        self.dropout = nn.Dropout(s.dropout)
        self.blocks = nn.Sequential(*(Block(s) for _ in range(s.n_layer)))
        self.norm = nn.LayerNorm(s.n_embd, bias=False)                 # pre-LN leaves its end unnormalised
        self.head = nn.Linear(s.n_embd, vocab_size, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:                                       # matrices; scales of norms stay 1
                # Each block writes to the stream twice: 2N answers of 1/sqrt(2N) the size add up to one.
                writes = name.endswith(("attention.projection.weight", "feed_forward.2.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * s.n_layer) ** 0.5 if writes else 0.02)
        self.head.weight = self.token.weight                           # tied: what the stream points to

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.size(1)]      # (B, T, C)
        x = self.norm(self.blocks(self.dropout(x)))                    # (B, T, C)
        return self.head(x)                                            # (B, T, V)


# The well-known recipe for this text on a laptop. Its schedule, its decay of matrices only and its clipping
# are taught in stage 09.
YARDSTICK = {
    "n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64, "batch_size": 12, "steps": 2000, "lr": 1e-3,
    "warm_up": 100,
    "cosine": True, "min_lr": 1e-4, "beta2": 0.99, "weight_decay": 0.1, "decay_matrices": True, "clip": 1.0,
}
# The same for a GPU: published validation loss 1.4697.
GPU = YARDSTICK | {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "batch_size": 64,
                   "steps": 5000, "dropout": 0.2}

lesson = Lesson(Model, presets={"yardstick": YARDSTICK, "gpu": GPU})

if __name__ == "__main__":
    run(lesson)
