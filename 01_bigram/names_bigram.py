"""Names, letter by letter: the table of pairs again, on a list of names and with the loop from common.

Previous : 01_bigram/by_hand.py
Changes  : Model, train
Idea     : one question per letter: given the letters so far (here: only the last), which comes next, or does the name end?
Source   : Karpathy 2022, github.com/karpathy/makemore (the names and the task)
Expect   : little better than a guess among a dozen letters, as a pair says nothing of where in a name it stands
Also     : --keep-duplicates
"""

import torch
from torch import nn

from common.data import names_data
from common.run import run
from common.settings import NamesSettings


class Model(nn.Module):
    """The letters before (B, T) -> logits (B, V) of the one that follows."""

    def __init__(self, s: NamesSettings, vocab_size: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocab_size, vocab_size))  # table[a, b]: the logit of b after a

    def forward(self, ids):
        return self.table[ids[:, -1]]                                   # (B, V)


if __name__ == "__main__":
    run(Model, NamesSettings(block_size=1, batch_size=1024, lr=1e-2), load=names_data)
