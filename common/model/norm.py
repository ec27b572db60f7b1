"""How the scale of the stream is kept in hand."""

from torch import nn


class LayerNorm(nn.LayerNorm):
    """Mean 0 and variance 1 over the C numbers of each vector, then a learned scale; no shift. (..., C) -> (..., C)

    Taught in 05_residual_norm/layer_norm.py. s: n_embd.
    """

    def __init__(self, s):
        super().__init__(s.n_embd, bias=False)
