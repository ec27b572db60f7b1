"""Names, letter by letter: the table of pairs again, on a list of names, with a better way to step downhill.

Previous : 01_bigram/by_hand.py
Changes  : Model, train
Idea     : AdamW: step along a running mean of the gradients, each entry at a size of its own
Teaches  : torch.optim.AdamW
Source   : Karpathy 2022, github.com/karpathy/makemore (the names and the task); Loshchilov and Hutter 2019,
           arXiv:1711.05101
Expect   : little better than a guess among a dozen letters, as a pair says nothing of where in a name it
           stands
Also     : --keep-duplicates; --keep-duplicates --drop-leaked
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.data import names_data
from common.run import run
from common.settings import Lesson, NamesSettings


class Model(nn.Module):
    """The letters before (B, T) -> logits (B, V) of the one that follows."""

    def __init__(self, s: NamesSettings, vocab_size: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocab_size, vocab_size))  # table[a, b]: the logit of b after a

    def forward(self, ids):
        return self.table[ids[:, -1]]                                   # (B, V)


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


lesson = Lesson(Model, NamesSettings(block_size=1, batch_size=1024, lr=1e-1), load=names_data, train=train)

if __name__ == "__main__":
    run(lesson)
