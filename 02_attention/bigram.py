"""Bigram: the next character guessed from the current one alone, now with the loop from common: the control.

Previous : 01_bigram/by_hand.py
Changes  : Model, train
Idea     : an embedding and a linear head in place of the table; what attention adds is measured from here
Source   : Bengio et al. 2003, JMLR 3 (the embedding of a token as a learned vector)
Expect   : the loss of the counted table: a vector between two matrices can say no more than the table did
Seeds    : 1 2 3 4 5 6 7 8
"""

from torch import nn

from common.run import run
from common.settings import Lesson, Settings


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.head = nn.Linear(s.n_embd, vocab_size)

    def forward(self, ids):
        x = self.token(ids)  # (B, T, C)
        return self.head(x)  # (B, T, V)


lesson = Lesson(Model)

if __name__ == "__main__":
    run(lesson)
