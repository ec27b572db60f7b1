"""From the stream to the logits."""

from torch import nn


class TiedHead(nn.Linear):
    """The table of embeddings, transposed: a token is likely where the stream points to it.
    (B, T, C) -> (B, T, V)

    Taught in 06_transformer/gpt.py and 07_tokenizer_gqa/weight_tying.py. s: n_embd. token: the embedding.
    """

    def __init__(self, s, token: nn.Embedding):
        super().__init__(s.n_embd, token.num_embeddings, bias=False)
        self.weight = token.weight


class UntiedHead(nn.Linear):
    """A matrix of its own. (B, T, C) -> (B, T, V)

    Taught in 02_attention/bigram.py. s: n_embd. token: the embedding.
    """

    def __init__(self, s, token: nn.Embedding):
        super().__init__(s.n_embd, token.num_embeddings, bias=False)
