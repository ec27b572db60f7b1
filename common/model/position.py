"""How a model knows where a token stands."""

import torch
from torch import Tensor, nn


class Position(nn.Module):
    """What a scheme of positions may do, each left out here: to the embedding, to queries and keys, to the
    scores.

    Knows nothing itself. `acts_on` says which of the three a scheme changes.
    """

    acts_on = "nothing"

    def __init__(self, s):
        super().__init__()

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Embedded tokens (B, T, C), the first of which stands at `start`, with what is added to them. ->
        (B, T, C)
        """
        return x

    def rotate(self, q: Tensor, k: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """Queries (B, H, T, D) and keys (B, K, T, D) of tokens, the first of which stands at `start`. -> the
        same shapes
        """
        return q, k

    def bias(self, T: int, S: int) -> Tensor | None:
        """What is added to the scores of the last T of S positions before softmax: (H, T, S), or None for
        nothing.

        It depends on distances alone, so a part of a text can be asked for by itself.
        """
        return None


class LearnedPosition(Position):
    """A learned vector for each place in the window, added to the embedding.

    Taught in 02_attention/positions.py. s: block_size, n_embd.
    """

    acts_on = "the embedding"

    def __init__(self, s):
        super().__init__(s)
        self.weight = nn.Embedding(s.block_size, s.n_embd).weight

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        if start + x.size(1) > len(self.weight):
            raise ValueError(
                f"position {start + x.size(1) - 1} is outside the window of {len(self.weight)}: no vector "
                "was learned for it; "
                "use fewer tokens, or RoPE, ALiBi or sinusoidal positions, which go on"
            )
        return x + self.weight[start : start + x.size(1)]


class SinusoidalPosition(Position):
    """Waves of C / 2 frequencies, a sine and a cosine of each, added to the embedding times sqrt(C). Nothing
    is learned.

    Taught in 08_micro_arch/position.py. Source: Vaswani et al. 2017, arXiv:1706.03762, sections 3.4 and 3.5.
    """

    acts_on = "the embedding"

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        angles = _angles(start, x.size(1), x.size(2), 10_000.0)                                # (T, C/2)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[:, : x.size(2)]  # (T, C)
        return x * x.size(2) ** 0.5 + waves.to(x)


class RoPE(Position):
    """Rotary positions: each pair of numbers of a query or key is turned by an angle that grows with its
    position.

    The score of a query and a key then depends on their distance alone. Pair i is (i, i + D/2), as in the
    published weights of Llama and GPT-NeoX; `interleaved`: (2i, 2i + 1), as in GPT-J. Both are the same up to
    the order of the numbers in a head. Taught in 08_micro_arch/position.py. s: n_embd, n_head. Source: Su et
    al. 2021, arXiv:2104.09864.
    """

    acts_on = "queries and keys"

    def __init__(self, s, theta: float = 10_000.0, interleaved: bool = False):
        super().__init__(s)
        size = s.n_embd // s.n_head
        if size % 2:
            raise ValueError(
                f"RoPE turns pairs of numbers, and a head of {size} (--n-embd {s.n_embd} by --n-head "
                f"{s.n_head}) is odd; "
                "choose another of the two"
            )
        self.theta, self.interleaved = theta, interleaved

    def rotate(self, q: Tensor, k: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        angles = _angles(start, q.size(-2), q.size(-1), self.theta)                    # (T, D/2)
        cos, sin = angles.cos().to(q), angles.sin().to(q)
        return self._turn(q, cos, sin), self._turn(k, cos, sin)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = (x[..., ::2], x[..., 1::2]) if self.interleaved else x.chunk(2, dim=-1)  # (B, H, T, D/2) twice
        a, b = a * cos - b * sin, a * sin + b * cos
        return torch.stack([a, b], dim=-1).flatten(-2) if self.interleaved else torch.cat([a, b], dim=-1)


def _angles(start: int, T: int, size: int, theta: float) -> Tensor:
    """Position times frequency: (T, size / 2), in float64, so that far positions are as exact as near ones.
    """
    frequencies = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    return torch.arange(start, start + T, dtype=torch.float64)[:, None] * frequencies


class ALiBi(Position):
    """Attention with linear biases: a score falls with the distance, in each head at another slope. Nothing
    is learned.

    Taught in 08_micro_arch/position.py. s: n_head. Source: Press et al. 2021, arXiv:2108.12409.
    """

    acts_on = "scores"

    def __init__(self, s):
        super().__init__(s)
        self.slopes = alibi_slopes(s.n_head)

    def bias(self, T: int, S: int) -> Tensor:
        distance = torch.arange(S - T, S)[:, None] - torch.arange(S)                      # (T, S)
        return -torch.tensor(self.slopes, dtype=torch.float64)[:, None, None] * distance  # (H, T, S)


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8/H), 2^(-16/H), ..., 2^-8 for a power of two; for others those of the next smaller one, then every
    other of the next larger.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    return slopes if power == heads else slopes + alibi_slopes(2 * power)[::2][: heads - power]
