"""Feed-forward: after gathering from the past, each position thinks about what it gathered.

Previous : 02_attention/multi_head.py
Changes  : FeedForward, Model
Idea     : two linear layers with a non-linearity between them, the same for every position; the choice
           is ReLU or GELU
Teaches  : nn.Sequential, nn.ReLU, nn.GELU
Source   : Vaswani et al. 2017, arXiv:1706.03762, section 3.3; GELU: Hendrycks and Gimpel 2016,
           arXiv:1606.08415
Expect   : a large gain, larger than that of several heads; between ReLU and GELU a difference too small to
           see here
"""

from functools import partial

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
        self.register_buffer("mask", torch.full((block_size, block_size), -torch.inf).triu(1),
                             persistent=False)

    def forward(self, x):
        B, T, C = x.shape
        q = self.query(x).view(B, T, self.n_head, -1).transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
        k = self.key(x).view(B, T, self.n_head, -1).transpose(1, 2)
        v = self.value(x).view(B, T, self.n_head, -1).transpose(1, 2)
        scores = q @ k.transpose(-2, -1) / q.size(-1) ** 0.5           # (B, H, T, T)
        weights = F.softmax(scores + self.mask[:T, :T], dim=-1)
        return (weights @ v).transpose(1, 2).reshape(B, T, C)          # heads side by side again


class FeedForward(nn.Sequential):
    """Each position thinks about what it gathered. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int, activation: type[nn.Module]):
        super().__init__(nn.Linear(n_embd, 4 * n_embd), activation(), nn.Linear(4 * n_embd, n_embd))


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, s: Settings, vocab_size: int, activation: type[nn.Module]):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.position = nn.Embedding(s.block_size, s.n_embd)
        self.attention = MultiHeadAttention(s.n_embd, s.n_head, s.block_size)
        self.feed_forward = FeedForward(s.n_embd, activation)
        self.head = nn.Linear(s.n_embd, vocab_size)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.size(1)]      # (B, T, C)
        return self.head(self.feed_forward(self.attention(x)))         # (B, T, V)


lesson = Lesson({"relu": partial(Model, activation=nn.ReLU), "gelu": partial(Model, activation=nn.GELU)})

if __name__ == "__main__":
    run(lesson)
