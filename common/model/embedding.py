"""From token ids to the stream."""

import torch
from torch import Tensor, nn

PRIME = 7919


class TokenEmbedding(nn.Embedding):
    """A vector for each token. (B, T) -> (B, T, C)

    Taught in 02_attention/bigram.py. s: n_embd.
    """

    def __init__(self, s, vocab_size: int):
        super().__init__(vocab_size, s.n_embd)

    def forward(self, ids: Tensor, before: Tensor | None = None) -> Tensor:
        """before: the token in front of the first (B, 1), where it is known; not needed here."""
        return super().forward(ids)


class BigramEmbedding(TokenEmbedding):
    """The same, and a vector for each token together with the one before it. (B, T) -> (B, T, C)

    Pairs are too many for a row each: a hash says which of `n_bigram` rows a pair has, and some share one.
    All begin as zeros. Taught in 09_pretraining/bigrams.py. s: n_embd, n_bigram.
    """

    def __init__(self, s, vocab_size: int):
        super().__init__(s, vocab_size)
        self.pairs = nn.Embedding(s.n_bigram, s.n_embd)
        self.pairs.starts_at_zero = True

    def forward(self, ids: Tensor, before: Tensor | None = None) -> Tensor:
        """before: the token in front of the first (B, 1), where it is known."""
        nothing = torch.full_like(ids[:, :1], self.num_embeddings)
        previous = torch.cat([nothing if before is None else before, ids[:, :-1]], dim=1)
        return super().forward(ids) + self.pairs((PRIME * previous + ids) % self.pairs.num_embeddings)
