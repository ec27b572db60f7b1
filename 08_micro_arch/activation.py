"""Activations: what a hidden number becomes, and gates, where one number decides how much of another passes.

Previous : 08_micro_arch/norm.py
Changes  : SquaredReLU, FeedForward, GatedFeedForward
Idea     : one of two hidden layers goes through an activation and multiplies the other; the third matrix is
           paid for with width, 8C/3
Teaches  : nn.SiLU, nn.Sigmoid
Source   : Shazeer 2020, arXiv:2002.05202 (gates); Hendrycks and Gimpel 2016, arXiv:1606.08415 (GELU);
           Ramachandran et al. 2017, arXiv:1710.05941 (SiLU); So et al. 2021, arXiv:2109.08668 (ReLU²)
Expect   : at equal parameters and one rate for all, gated layers a little better than plain ones; among the
           smooth ones no measurable difference
Seeds    : 1 2 3 4 5
Stairs   : none
"""

from functools import partial

from torch import nn

from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, Settings


class SquaredReLU(nn.ReLU):
    """relu(x)²: nothing for what is below zero, and more than in proportion for what is above."""

    def forward(self, x):
        return super().forward(x).square()


class FeedForward(nn.Module):
    """Each position thinks: 4C hidden numbers, each through an activation. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings, activation):
        super().__init__()
        self.up = nn.Linear(s.n_embd, 4 * s.n_embd, bias=False)
        self.activation = activation()
        self.down = nn.Linear(4 * s.n_embd, s.n_embd, bias=False)
        self.down.writes_to_stream = True                              # starts smaller, as in gpt

    def forward(self, x):
        return self.down(self.activation(self.up(x)))                  # (B, T, 4C) inside


class GatedFeedForward(nn.Module):
    """Each position thinks: a gate decides how much of each hidden number passes. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings, activation):
        super().__init__()
        hidden = round(8 * s.n_embd / 3)                               # three matrices, as large as two of 4C
        self.gate = nn.Linear(s.n_embd, hidden, bias=False)
        self.up = nn.Linear(s.n_embd, hidden, bias=False)
        self.activation = activation()
        self.down = nn.Linear(hidden, s.n_embd, bias=False)
        self.down.writes_to_stream = True

    def forward(self, x):
        return self.down(self.activation(self.gate(x)) * self.up(x))   # (B, T, 8C/3) inside


plain = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "relu2": SquaredReLU}
gated = {"glu": nn.Sigmoid, "reglu": nn.ReLU, "geglu": nn.GELU, "swiglu": nn.SiLU}
layers = {name: partial(FeedForward, activation=activation) for name, activation in plain.items()}
layers |= {name: partial(GatedFeedForward, activation=activation) for name, activation in gated.items()}
RATES = dict.fromkeys(layers, 4e-3) | dict.fromkeys(("relu", "glu", "geglu"), 2e-3)  # the best of a sweep
arms = {name: Arm(partial(GPT, feed_forward=layer), lr=RATES[name]) for name, layer in layers.items()}
lesson = Lesson(arms, MICRO_ARCH)

if __name__ == "__main__":
    run(lesson)
