"""Average: each position looks at its whole past, every character of it equally.

Previous : 02_attention/bigram.py
Changes  : Average, Model
Idea     : a mean over the past, as a product with a matrix of weights that are zero for the future
Teaches  : F.softmax
Source   : the weights are those of attention with all scores equal: Bahdanau et al. 2015, arXiv:1409.0473
Expect   : worse than the bigram: the current character, which says most, is drowned in the mean
Seeds    : 1 2 3 4 5 6 7 8
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.run import run
from common.settings import Lesson, Settings


class Average(nn.Module):
    """Each position becomes the mean of itself and its past. (B, T, C) -> (B, T, C)"""

    def __init__(self, block_size: int):
        super().__init__()
        # 0 for the position itself and its past, -infinity for what is ahead
        self.register_buffer("mask", torch.full((block_size, block_size), -torch.inf).triu(1),
                             persistent=False)

    def forward(self, x):
        T = x.size(1)
        scores = torch.zeros(T, T, device=x.device)              # all equal, for now     (T, T)
        weights = F.softmax(scores + self.mask[:T, :T], dim=-1)  # row t, counted from 1: t times 1/t, then 0
        return weights @ x                                       # (B, T, C)


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.average = Average(s.block_size)
        self.head = nn.Linear(s.n_embd, vocab_size)

    def forward(self, ids):
        x = self.token(ids)                # (B, T, C)
        return self.head(self.average(x))  # (B, T, V)


lesson = Lesson(Model)

if __name__ == "__main__":
    run(lesson)
