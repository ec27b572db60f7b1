"""Norms: four ways to keep the scale of the stream in hand, and pairs of two of them.

Previous : 08_micro_arch/ffn_width.py
Changes  : LayerNorm, RMSNorm, ScaleNorm, NoNorm, measure
Idea     : LayerNorm sets mean and variance of a vector, RMSNorm its mean square only, ScaleNorm its length,
           by one learned number
Teaches  : F.layer_norm, F.rms_norm
Source   : Ba et al. 2016, arXiv:1607.06450 (LayerNorm); Zhang and Sennrich 2019, arXiv:1910.07467 (RMSNorm);
           Nguyen and Salazar 2019, arXiv:1910.05895 (ScaleNorm)
Expect   : no measurable difference between the three norms or their pairs; without any norm, clearly worse;
           RMSNorm written out is faster than LayerNorm written out, the library's kernels faster than both
Seeds    : 1 2 3 4 5
Stairs   : none
"""

import time
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, Settings

EPS = 1e-5                                                             # so that zeros are not divided by zero


class LayerNorm(nn.Module):
    """Mean 0 and variance 1 over the numbers of each vector, then a learned scale. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(s.n_embd))

    def forward(self, x):
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)         # (B, T, 1)
        return self.weight * centred * (variance + EPS).rsqrt()


class RMSNorm(nn.Module):
    """A mean square of 1, then a learned scale; the mean stays what it is. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(s.n_embd))

    def forward(self, x):
        mean_square = x.square().mean(dim=-1, keepdim=True)            # (B, T, 1)
        return self.weight * x * (mean_square + EPS).rsqrt()


class ScaleNorm(nn.Module):
    """One learned length for every vector; it starts as the one RMSNorm gives. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()
        self.length = nn.Parameter(torch.tensor(s.n_embd**0.5))

    def forward(self, x):
        return self.length * x / x.norm(dim=-1, keepdim=True).clamp(min=EPS)


class NoNorm(nn.Identity):
    """The stream as it is. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()


def measure(folder, quick):
    """Microseconds of a norm and its gradients for the 1,024 vectors of a step: ours, and the library's."""
    from common.report import overviews

    points = []
    for width in (64, 256, 1024):
        s, x = Settings(n_embd=width), torch.randn(1024, width, requires_grad=True)
        ours = {"LayerNorm": LayerNorm(s), "RMSNorm": RMSNorm(s), "ScaleNorm": ScaleNorm(s)}
        weight = torch.ones(width, requires_grad=True)
        known = {"normalized_shape": (width,), "weight": weight, "eps": EPS}
        theirs = {"F.layer_norm": partial(F.layer_norm, **known), "F.rms_norm": partial(F.rms_norm, **known)}
        norms = ours | theirs
        laps = {name: [] for name in norms}
        for _ in range(10 if quick else 200):                          # in turns: all meet the same machine
            for name, norm in norms.items():
                start = time.perf_counter()
                norm(x).sum().backward()
                laps[name].append(1e6 * (time.perf_counter() - start))
        what = "a norm and its gradients (µs)"
        points += [(what, name, width, float(np.median(own))) for name, own in laps.items()]
    header, labels = ("what", "norm", "width", "microseconds"), ("numbers in a vector", "microseconds")
    return [overviews.scaling(points, header, labels, "What does a norm cost?", folder / "time")]


norms = {"layernorm": LayerNorm, "rmsnorm": RMSNorm, "scalenorm": ScaleNorm, "none": NoNorm}
# Of a pair, the first is for what goes into attention, the second for the feed-forward layer and the head.
norms |= {"LN-RN": (LayerNorm, RMSNorm), "RN-LN": (RMSNorm, LayerNorm)}
RATES = dict.fromkeys(norms, 4e-3) | {"none": 8e-3}                    # the best of a sweep for each
arms = {name: Arm(partial(GPT, norm=norm), lr=RATES[name]) for name, norm in norms.items()}
lesson = Lesson(arms, MICRO_ARCH, measure=measure)

if __name__ == "__main__":
    run(lesson)
