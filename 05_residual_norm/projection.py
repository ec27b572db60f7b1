"""Projection: what the heads found is mixed before it is added to the stream.

Previous : 05_residual_norm/residual.py
Changes  : MultiHeadAttention
Idea     : a linear layer after the heads: each head may write anywhere in the stream, not only to its own
           slice
Source   : Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2 (the matrix W^O)
Expect   : a little better
Also     : --clip 1 --lr 4e-3
Seeds    : 1 2 3; 1 2 3 4 5 with --clip 1 --lr 4e-3
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.run import run
from common.settings import Lesson, Settings


class MultiHeadAttention(nn.Module):
    """Each position gathers from its past, through several heads side by side. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int, n_head: int, block_size: int):
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.projection = nn.Linear(n_embd, n_embd)
        self.register_buffer("mask", torch.full((block_size, block_size), -torch.inf).triu(1),
                             persistent=False)

    def forward(self, x):
        B, T, C = x.shape
        q = self.query(x).view(B, T, self.n_head, -1).transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
        k = self.key(x).view(B, T, self.n_head, -1).transpose(1, 2)
        v = self.value(x).view(B, T, self.n_head, -1).transpose(1, 2)
        scores = q @ k.transpose(-2, -1) / q.size(-1) ** 0.5           # (B, H, T, T)
        weights = F.softmax(scores + self.mask[:T, :T], dim=-1)
        return self.projection((weights @ v).transpose(1, 2).reshape(B, T, C))  # side by side again, mixed


class FeedForward(nn.Sequential):
    """Each position thinks about what it gathered. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int):
        super().__init__(nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd))


class Block(nn.Module):
    """Gather, then think; each adds its answer to the stream. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int, n_head: int, block_size: int):
        super().__init__()
        self.attention = MultiHeadAttention(n_embd, n_head, block_size)
        self.feed_forward = FeedForward(n_embd)

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.position = nn.Embedding(s.block_size, s.n_embd)
        self.blocks = nn.Sequential(*(Block(s.n_embd, s.n_head, s.block_size) for _ in range(s.n_layer)))
        self.head = nn.Linear(s.n_embd, vocab_size)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.size(1)]      # (B, T, C)
        return self.head(self.blocks(x))                               # (B, T, V)


lesson = Lesson(Model)

if __name__ == "__main__":
    run(lesson)
