"""How a model knows where a token stands."""

from torch import Tensor, nn


class LearnedPosition(nn.Embedding):
    """A learned vector for each place in the window, added to the embedding. (B, T, C) -> (B, T, C)

    Taught in 02_attention/positions.py. s: block_size, n_embd.
    """

    def __init__(self, s):
        super().__init__(s.block_size, s.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.size(1)]
