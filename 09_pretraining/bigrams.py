"""Bigrams: each pair of neighbours brings a vector of its own into the stream.

Previous : 09_pretraining/loss.py
Changes  : BigramEmbedding, scores
Idea     : stage 01 counted pairs; here each has a vector beside that of its token. Pairs are too many for a
           row each, so a hash says which row a pair has, and some share theirs
Source   : Svenstrup et al. 2017, arXiv:1709.03933 (hashed tables); Huang et al. 2025, arXiv:2501.16975
           (tables of n-grams at the input)
Expect   : better, and the better the more rows, until most pairs that the text has are alone on theirs; a
           step takes hardly longer, since rows are looked up and nothing is multiplied
Seeds    : 1 2 3 4 5
Stairs   : none
"""

from functools import partial

import torch
from torch import nn

from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, BigramSettings, Lesson


class BigramEmbedding(nn.Embedding):
    """A vector for the token, and one for the token with the one before it. (B, T) -> (B, T, C)"""

    def __init__(self, s, vocab_size):
        super().__init__(vocab_size, s.n_embd)
        self.pairs = nn.Embedding(s.n_bigram, s.n_embd)
        self.pairs.starts_at_zero = True                               # the model begins as one without pairs

    def row(self, previous, ids):
        """Which row a pair has. Another row for each token behind the same one; pairs of others may share it.
        """
        return (7919 * previous + ids) % self.pairs.num_embeddings     # 7,919 is the thousandth prime

    def forward(self, ids, before=None):
        """before (B, 1): the token in front of the first, if it is known, as when a text is gone on with."""
        nothing = torch.full_like(ids[:, :1], self.num_embeddings)     # the beginning is a token of its own
        previous = torch.cat([nothing if before is None else before, ids[:, :-1]], dim=1)
        return super().forward(ids) + self.pairs(self.row(previous, ids))


def scores(model, data, s):
    """How many pairs of the training text there are, and what share of them has a row alone."""
    ids = data.train.tokens
    pairs = torch.stack([ids[:-1], ids[1:]]).unique(dim=1)             # (2, N)
    if not isinstance(model.token, BigramEmbedding):
        return {"different pairs": pairs.size(1), "share alone on a row": 0.0}
    alone = (model.token.row(*pairs).bincount() == 1).sum().item()
    return {"different pairs": pairs.size(1), "share alone on a row": alone / pairs.size(1)}


arms = {"tokens": GPT}
arms |= {f"rows-{n}": Arm(partial(GPT, embedding=BigramEmbedding), n_bigram=n) for n in (512, 4096, 32768)}
lesson = Lesson(arms, BigramSettings(**vars(MICRO_ARCH)), scores=scores)

if __name__ == "__main__":
    run(lesson)
