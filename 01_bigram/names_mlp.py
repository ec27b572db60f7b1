"""Neural probabilistic language model: letters become vectors, and a hidden layer looks at several.

Previous : 01_bigram/names_bigram.py
Changes  : Model
Idea     : a table for every three letters would stay nearly empty; learned vectors let similar letters share
           what they know. The rate falls to zero, as it did by hand
Teaches  : nn.Embedding, nn.Linear
Source   : Bengio et al. 2003, JMLR 3, 1137-1155
Expect   : clearly better than pairs, by a quarter of a nat or more: three letters say far more than one
Also     : --block-size 8; --keep-duplicates; --keep-duplicates --drop-leaked
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
        self.token = nn.Embedding(vocab_size, s.n_embd)  # a table: row a is the vector of letter a
        self.hidden = nn.Linear(s.block_size * s.n_embd, 8 * s.n_embd)   # x @ weight.T + bias
        self.head = nn.Linear(8 * s.n_embd, vocab_size)

    def forward(self, ids):
        x = self.token(ids).flatten(1)                # (B, T, C) -> (B, T * C), side by side
        return self.head(torch.tanh(self.hidden(x)))  # (B, V)


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


settings = NamesSettings(block_size=3, batch_size=1024, lr=2e-2, n_embd=24)
lesson = Lesson(Model, settings, load=names_data, train=train)

if __name__ == "__main__":
    run(lesson)
