"""By hand: the same table of pairs, learned by gradient, with the training loop written out once.

Previous : 01_bigram/count_bigram.py
Changes  : Model, count, train
Idea     : start from a table of zeros, guess, measure the surprise, and push every entry a little where it
           would have helped
Teaches  : nn.Parameter, F.cross_entropy, loss.backward, common.training
Source   : Rumelhart, Hinton and Williams 1986, Nature 323 (learning by gradient); Bridle 1990 (softmax)
Expect   : the loss of the counted table, slowly: gradient descent finds by small steps what counting finds at
           once
"""

import torch
from torch import nn

from common.run import run
from common.settings import Lesson, Settings


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V): scores that softmax turns into probabilities."""

    def __init__(self, s: Settings, vocab_size: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocab_size, vocab_size))  # table[a, b]: the logit of b after a

    def forward(self, ids):
        return self.table[ids]                                          # (B, T, V)


def train(model, data, s, recorder):
    """The steps of common.training, written out: guess, measure, differentiate, update."""
    for step in recorder.steps(model):                                  # 0, 1, ...; it shows progress, saves
        x, y = data.batch(step)                                         # (B, T), (B, T): what follows what
        logits = model(x)                                               # (B, T, V)
        log_probability = logits - logits.logsumexp(dim=-1, keepdim=True)  # the log of softmax(logits)
        loss = -log_probability.gather(-1, y[..., None]).mean()         # mean surprise, nats: F.cross_entropy
        model.table.grad = None                                         # else gradients would add up
        loss.backward()                                                 # d loss / d table, entry by entry
        with torch.no_grad():
            model.table -= s.lr * (1 - step / s.steps) * model.table.grad  # downhill, in ever smaller steps
        recorder.record(loss)                                           # progress bar, learning curve


lesson = Lesson(Model, Settings(lr=400.0, steps=3000), train=train)

if __name__ == "__main__":
    run(lesson)
