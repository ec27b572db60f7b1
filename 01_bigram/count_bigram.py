"""Counting pairs: after this character, which one follows how often?

Previous : none
Changes  : Model, count
Idea     : one pass over the text fills a table; a row of it, divided by its sum, is the probability of the
           next character
Teaches  : register_buffer
Source   : Shannon 1948, A Mathematical Theory of Communication, section 3
Expect   : far better than guessing; every model that sees more than one character has to beat it
"""

import torch
from torch import nn

from common.run import run
from common.settings import Lesson, Settings


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V): scores that softmax turns into probabilities.

    Here they are log-probabilities, so softmax gives back exactly the probabilities that were counted.
    """

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        # a buffer is saved and moved with the model, but not trained
        self.register_buffer("counts", torch.zeros(vocab_size, vocab_size))  # [a, b]: how often b follows a

    def forward(self, ids):
        smoothed = self.counts + 1                                           # never seen: rare, possible
        return (smoothed / smoothed.sum(dim=1, keepdim=True)).log()[ids]     # (B, T, V)


def count(model, data, s, recorder):
    """Read the training text once."""
    here, following = data.train.tokens[:-1], data.train.tokens[1:]
    model.counts.index_put_((here, following), torch.ones(len(here)), accumulate=True)  # counts[a, b] += 1


lesson = Lesson(Model, train=count)

if __name__ == "__main__":
    run(lesson)
