"""How the scale of the stream is kept in hand."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm(nn.LayerNorm):
    """Mean 0 and variance 1 over the C numbers of each vector, then a learned scale; no shift.
    (..., C) -> (..., C)

    Taught in 05_residual_norm/layer_norm.py and 08_micro_arch/norm.py. s: n_embd.
    """

    def __init__(self, s):
        super().__init__(s.n_embd, bias=False)


class RMSNorm(nn.RMSNorm):
    """A mean square of 1 over the numbers of each vector, then a learned scale; the mean stays.
    (..., C) -> (..., C)

    Taught in 08_micro_arch/norm.py. s: n_embd. size: how many numbers, if not n_embd (of a head, say).
    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, s, size: int | None = None):
        super().__init__(size or s.n_embd, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        # in mixed precision x may be bfloat16
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class ScaleNorm(nn.Module):
    """The length g for each vector, one learned number for all of them. (..., C) -> (..., C)

    Taught in 08_micro_arch/norm.py. s: n_embd. Source: Nguyen and Salazar 2019, arXiv:1910.05895.
    """

    def __init__(self, s):
        super().__init__()
        self.length = nn.Parameter(torch.tensor(s.n_embd**0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.length * F.normalize(x, dim=-1, eps=1e-5)


class NoNorm(nn.Identity):
    """The vectors as they are. (..., C) -> (..., C)"""

    def __init__(self, s):
        super().__init__()
