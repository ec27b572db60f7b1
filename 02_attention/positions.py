"""Positions: a token says where it stands, not only what it is.

Previous : 02_attention/self_attention.py
Changes  : Model, picture
Idea     : a learned vector per position, added to the token's vector
Source   : Gehring et al. 2017, arXiv:1705.03122 (learned positions); Vaswani et al. 2017, arXiv:1706.03762,
           section 3.5
Expect   : better than without: the head can now find the last few characters
Seeds    : 1 2 3 4 5 6 7 8
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.run import run
from common.settings import Lesson, Settings


class Head(nn.Module):
    """Each position gathers what it needs from its past. (B, T, C) -> (B, T, D)"""

    def __init__(self, n_embd: int, head_size: int, block_size: int):
        super().__init__()
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)
        self.register_buffer("mask", torch.full((block_size, block_size), -torch.inf).triu(1),
                             persistent=False)

    def weights(self, x):
        """How much position t takes of position s: rows sum to 1, zero for s > t. (B, T, C) -> (B, T, T)"""
        T = x.size(1)
        q, k = self.query(x), self.key(x)                     # (B, T, D), (B, T, D)
        scores = q @ k.transpose(-2, -1) / q.size(-1) ** 0.5  # (B, T, T); sqrt(D) keeps their size
        return F.softmax(scores + self.mask[:T, :T], dim=-1)

    def forward(self, x):
        return self.weights(x) @ self.value(x)                # (B, T, D)


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.position = nn.Embedding(s.block_size, s.n_embd)
        self.attention = Head(s.n_embd, s.n_embd, s.block_size)
        self.head = nn.Linear(s.n_embd, vocab_size)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.size(1)]  # (B, T, C)
        return self.head(self.attention(x))                        # (B, T, V)


def picture(model, data, result, folder):
    """Draw what each character of a line of the test text attends to."""
    from common.report import inside

    ids = data.first_line()                                       # (T,)
    x = model.token(ids[None]) + model.position.weight[: len(ids)]
    weights = model.attention.weights(x)[0]                       # (T, T)
    return [inside.attention(weights, data.symbols(ids), folder / "attention")]


lesson = Lesson(Model, picture=picture)

if __name__ == "__main__":
    run(lesson)
