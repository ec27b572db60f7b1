"""Counting pairs: after this letter, which one follows how often?

Previous : none
Changes  : Model, count
Idea     : one pass over the text fills a table; a row of it, divided by its sum, is the probability of the next character
Source   : Shannon 1948, A Mathematical Theory of Communication, section 3
Expect   : far better than guessing, and every later script must beat it to be worth its time
"""

import torch
from torch import nn

from common.run import run
from common.settings import Settings


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V), here log-probabilities: softmax leaves them as they are."""

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        self.register_buffer("counts", torch.zeros(vocab_size, vocab_size))  # counts[a, b]: how often b follows a

    def forward(self, ids):
        smoothed = self.counts + 1                                           # a pair never seen is rare, not impossible
        return (smoothed / smoothed.sum(dim=1, keepdim=True)).log()[ids]     # (B, T, V)


def count(model, data, s, journal):
    """Read the training text once."""
    here, following = data.train.tokens[:-1], data.train.tokens[1:]
    model.counts.index_put_((here, following), torch.ones(len(here)), accumulate=True)


if __name__ == "__main__":
    run(Model, train=count)
