"""Decay: what was seen once is forgotten.

Previous : 09_pretraining/bigrams.py
Changes  : DecaySettings, train, scores
Idea     : the row of a pair that came once holds what chance put behind it. If all rows shrink a little in
           every step, only what is said again and again stays
Source   : Loshchilov and Hutter 2017, arXiv:1711.05101 (decay apart from the gradient); Kneser and Ney 1995
           (counting takes a discount from every count, for the same reason)
Expect   : better than no decay, most between 0.3 and 3; at 30 the table has forgotten all, and nothing is
           left of what it brought
Seeds    : 1 2 3 4 5
Stairs   : none
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from common.model.embedding import BigramEmbedding
from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, BigramSettings, Lesson
from common.training.loop import learning_rate


@dataclass(frozen=True)
class DecaySettings(BigramSettings):
    """Settings of a run whose table of pairs decays."""

    pair_decay: float = 0.0
    """Decay of the table of pairs per step, times the learning rate."""


def train(model, data, s, recorder):
    """The course's loop, with a decay of its own for the table of pairs."""
    pairs = model.token.pairs.weight
    others = [p for p in model.parameters() if p is not pairs]
    groups = [{"params": others, "weight_decay": s.weight_decay},
              {"params": [pairs], "weight_decay": s.pair_decay}]       # p = p - lr x decay x p, in every step
    optimizer = torch.optim.AdamW(groups, lr=s.lr, betas=(0.9, s.beta2))
    for step in recorder.steps(model, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(s, step)
        x, y = data.batch(step)                                        # (B, T), (B, T)
        loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        if s.clip:
            nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        optimizer.step()
        recorder.record(loss)


def scores(model, data, s):
    """How long the rows are (root mean square of their numbers): those of a tenth of the text that comes
    most often in the training text, and those of a tenth that comes most rarely.
    """
    ids = data.train.tokens
    rows = (7919 * ids[:-1] + ids[1:]) % s.n_bigram                    # of each place in the text
    size = model.token.pairs.weight.square().mean(dim=1).sqrt()        # (n_bigram,)
    often = rows.bincount(minlength=s.n_bigram)[rows].argsort()        # places, those of rare rows first
    tenth = len(rows) // 10
    return {"size of rare rows": size[rows[often[:tenth]]].mean().item(),
            "size of frequent rows": size[rows[often[-tenth:]]].mean().item()}


model = partial(GPT, embedding=BigramEmbedding)
arms = {f"decay-{decay:g}": Arm(model, pair_decay=decay) for decay in (0.0, 0.3, 1.0, 3.0, 30.0)}
lesson = Lesson(arms, DecaySettings(**vars(MICRO_ARCH)), train=train, scores=scores)

if __name__ == "__main__":
    run(lesson)
