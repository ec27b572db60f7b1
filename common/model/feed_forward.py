"""How each position thinks about what it gathered."""

from collections.abc import Callable

from torch import Tensor, nn


class SquaredReLU(nn.ReLU):
    """relu(x)², of any shape.

    Taught in 08_micro_arch/activation.py. Source: So et al. 2021, arXiv:2109.08668.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).square()


class FeedForward(nn.Sequential):
    """Two linear layers, wider in between, with an activation. (B, T, C) -> (B, T, C)

    Taught in 03_ffn/feed_forward.py, 08_micro_arch/ffn_width.py and 08_micro_arch/activation.py. s: n_embd.
    activation: makes a module. multiple: how many times as wide as the stream.
    """

    def __init__(self, s, activation: Callable[[], nn.Module] = nn.GELU, multiple: float = 4):
        hidden = round(multiple * s.n_embd)
        super().__init__(
            nn.Linear(s.n_embd, hidden, bias=False), activation(), nn.Linear(hidden, s.n_embd, bias=False)
        )
        self[-1].writes_to_stream = True


class GatedFeedForward(nn.Module):
    """One linear layer decides how much of another's answer passes. (B, T, C) -> (B, T, C)

    Three matrices instead of two, so the layer is 8/3 times as wide as the stream where FeedForward is four
    times. Taught in 08_micro_arch/activation.py. s: n_embd. activation: makes a module, which the gate goes
    through. Source: Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(self, s, activation: Callable[[], nn.Module] = nn.SiLU, multiple: float = 8 / 3):
        super().__init__()
        hidden = round(multiple * s.n_embd)
        self.gate = nn.Linear(s.n_embd, hidden, bias=False)
        self.up = nn.Linear(s.n_embd, hidden, bias=False)
        self.down = nn.Linear(hidden, s.n_embd, bias=False)
        self.down.writes_to_stream = True
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x)) * self.up(x))
