"""Deep: eight letters, three hidden layers, and batch normalisation, which keeps tanh where it has a slope.

Previous : 01_bigram/names_mlp.py
Changes  : BatchNorm, Layer, Model
Idea     : whatever the weights do, every hidden feature is brought back to mean 0 and variance 1 over the
           batch
Teaches  : nn.Sequential
Source   : Ioffe and Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2
Expect   : better than one layer and three letters, by a tenth of a nat at most; most of it from the longer
           context
Also     : --keep-duplicates; --keep-duplicates --drop-leaked
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from common.data import names_data
from common.run import run
from common.settings import Lesson, NamesSettings


class BatchNorm(nn.Module):
    """Each feature to mean 0, variance 1 over the batch (and positions), then scale and shift.

    (..., C) -> (..., C)
    """

    def __init__(self, n_features: int):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(n_features)), nn.Parameter(torch.zeros(n_features))
        self.register_buffer("running_mean", torch.zeros(n_features))
        self.register_buffer("running_variance", torch.ones(n_features))

    def forward(self, x):
        mean, variance = self.running_mean, self.running_variance  # in evaluation: not of the batch
        if self.training:
            rows = x.flatten(0, -2)                                # (N, C), whether x is (B, C) or (B, T, C)
            mean, variance = rows.mean(dim=0), rows.var(dim=0, correction=0)
            unbiased = variance.detach() * len(rows) / max(1, len(rows) - 1)
            self.running_mean.lerp_(mean.detach(), 0.1)            # moving average, of some ten batches
            self.running_variance.lerp_(unbiased, 0.1)
        return (x - mean) * (self.scale / (variance + 1e-5) ** 0.5) + self.shift


class Layer(nn.Module):
    """Linear map, batch normalisation, tanh. (..., n_in) -> (..., n_out)"""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=False)           # the shift of the norm is its bias
        self.norm = BatchNorm(n_out)

    def forward(self, x):
        return torch.tanh(self.norm(self.linear(x)))


class Model(nn.Module):
    """The letters before (B, T) -> logits (B, V) of the one that follows."""

    def __init__(self, s: NamesSettings, vocab_size: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)            # a table: row a is the vector of letter a
        sizes = [s.block_size * s.n_embd, *[8 * s.n_embd] * s.n_layer]
        self.hidden = nn.Sequential(*(Layer(n_in, n_out) for n_in, n_out in pairwise(sizes)))
        self.head = nn.Linear(8 * s.n_embd, vocab_size)

    def forward(self, ids):
        x = self.token(ids).flatten(1)    # (B, T, C) -> (B, T * C), side by side
        return self.head(self.hidden(x))  # (B, V)


def train(model, data, s, recorder):
    """The same steps with AdamW: large ones first, to come far, small ones last, to settle."""
    # a running mean of gradients, each entry divided by its typical size; weights also shrink a little at
    # every step (weight decay)
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.lr)
    for step in recorder.steps(model, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = s.lr * (1 - step / s.steps)
        x, y = data.batch(step)                                         # (B, T), (B,)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.record(loss)


settings = NamesSettings(block_size=8, batch_size=1024, lr=4e-3, n_embd=24, n_layer=3)
lesson = Lesson(Model, settings, load=names_data, train=train)

if __name__ == "__main__":
    run(lesson)
