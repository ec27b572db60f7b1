"""How each position thinks about what it gathered."""

from torch import nn


class FeedForward(nn.Sequential):
    """Two linear layers, four times as wide in between, with a GELU. (B, T, C) -> (B, T, C)

    Taught in 03_ffn/feed_forward.py. s: n_embd.
    """

    def __init__(self, s):
        super().__init__(
            nn.Linear(s.n_embd, 4 * s.n_embd, bias=False), nn.GELU(), nn.Linear(4 * s.n_embd, s.n_embd, bias=False)
        )
        self[-1].writes_to_stream = True
