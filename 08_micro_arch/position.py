"""Positions: five ways to say where a token stands, and how far each reaches past the trained window.

Previous : 08_micro_arch/activation.py
Changes  : LearnedPosition, SinusoidalPosition, RoPE, angles_of, turn, ALiBi, slopes, scores, overview
Idea     : positions go into the embedding (learned, sinusoidal), turn queries and keys by an angle (RoPE), or
           lower the score of what is far away (ALiBi); those that are computed go on past the trained window
Source   : Vaswani et al. 2017, arXiv:1706.03762, sections 3.4 and 3.5 (sinusoidal); Su et al. 2021,
           arXiv:2104.09864 (RoPE); Press et al. 2021, arXiv:2108.12409 (ALiBi); Haviv et al. 2022,
           arXiv:2203.16634 (none)
Expect   : RoPE and ALiBi better than learned, no positions worst; four times past the window ALiBi is as good
           as in it, sinusoidal and RoPE are worse
Seeds    : 1 2 3 4 5
Stairs   : none
"""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from common.model.gpt import GPT
from common.model.position import Position
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, Settings
from common.training.metrics import score


class LearnedPosition(Position):
    """A learned vector for each place, added to the embedding; past the window there is none."""

    def __init__(self, s: Settings):
        super().__init__(s)
        self.weight = nn.Embedding(s.block_size, s.n_embd).weight      # (block_size, C)

    def forward(self, x, start=0):
        end = start + x.size(1)
        if end > len(self.weight):
            wrong = f"position {end - 1} is outside the window of {len(self.weight)}"
            raise ValueError(f"{wrong}: no vector was learned for it")
        return x + self.weight[start:end]                              # (B, T, C)


class SinusoidalPosition(Position):
    """Waves, long and short, added to the embedding, which grows by sqrt(C) so that they do not drown it."""

    def forward(self, x, start=0):
        angles = angles_of(start, x.size(1), x.size(2))                # (T, C/2)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[:, : x.size(2)]
        return x * x.size(2) ** 0.5 + waves.to(x)                      # (B, T, C)


class RoPE(Position):
    """Each pair of numbers of a query or key turns by an angle that grows with its place."""

    def __init__(self, s: Settings):
        super().__init__(s)
        size = s.n_embd // s.n_head
        if size % 2:
            wrong = f"RoPE turns pairs of numbers, and a head of {size} is odd"
            raise ValueError(f"{wrong}; choose another --n-embd or --n-head")

    def rotate(self, q, k, start=0):
        angles = angles_of(start, q.size(-2), q.size(-1))              # (T, D/2)
        return turn(q, angles), turn(k, angles)                        # (B, H, T, D)


def angles_of(start, T, size):
    """Position times frequency, from 1 down to nearly 1 / 10,000: (T, size / 2)."""
    frequencies = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    return torch.arange(start, start + T, dtype=torch.float64)[:, None] * frequencies


def turn(x, angles):
    """Turn the pairs (i, i + D/2), as Llama does. GPT-J pairs (2i, 2i + 1): the same in another order."""
    a, b = x.chunk(2, dim=-1)                                          # (B, H, T, D/2) twice
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class ALiBi(Position):
    """What is far away scores lower, in each head at another slope: 2^(-8/H), 2^(-16/H), ..., 2^-8."""

    def __init__(self, s: Settings):
        super().__init__(s)
        self.slopes = slopes(s.n_head)

    def bias(self, T, S):                                              # (H, T, S)
        distance = torch.arange(S - T, S)[:, None] - torch.arange(S)   # (T, S)
        return -torch.tensor(self.slopes, dtype=torch.float64)[:, None, None] * distance


def slopes(heads):
    """For no power of two: those of the next smaller one, then every other of the next larger one."""
    power = 1 << (heads.bit_length() - 1)
    own = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    return own if power == heads else own + slopes(2 * power)[::2][: heads - power]


def scores(model, data, s):
    """Test bits per character in windows of 64 to 512 tokens, as far as the scheme has positions."""
    scored = {}
    for context in CONTEXTS:
        if context > s.block_size and isinstance(model.position, LearnedPosition):
            print(f"learned positions end with the window of {s.block_size}: no score at {context}")
        else:
            scored[f"bpc at {context}"] = score(model, data.test.in_windows(context), data.device).bpc
    return scored


def overview(results, folder):
    """Draw test bits per character against the length of the window that a trained model is scored in."""
    from common.report import overviews

    points = [(r.row["arm"], r.row["seed"], int(what.split()[-1]), what, value)
             for r in results for what, value in r.scores.items()]
    labels = ("tokens in a window (trained at 64)", "test, bits per character")
    return points and [overviews.scored(points, labels, "How far do positions reach?", folder / "lengths")]


CONTEXTS = (64, 128, 256, 512)
schemes = {"learned": LearnedPosition, "none": Position, "sinusoidal": SinusoidalPosition}
schemes |= {"rope": RoPE, "alibi": ALiBi}
RATES = dict.fromkeys(schemes, 4e-3) | {"sinusoidal": 2e-3}            # the best of a sweep for each
arms = {name: Arm(partial(GPT, position=scheme), lr=RATES[name]) for name, scheme in schemes.items()}
longer = replace(MICRO_ARCH, steps=1500)                               # positions are learned late
lesson = Lesson(arms, longer, scores=scores, overview=overview)

if __name__ == "__main__":
    run(lesson)
