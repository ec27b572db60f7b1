"""How a model knows where a token stands."""

from torch import Tensor, nn


class Position(nn.Module):
    """What a scheme of positions may do, each left out here: to the embedding, to queries and keys, to the scores. Knows nothing itself."""

    def __init__(self, s):
        super().__init__()

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Embedded tokens (B, T, C), the first of which stands at `start`, with what is added to them. -> (B, T, C)"""
        return x

    def rotate(self, q: Tensor, k: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """Queries (B, H, T, D) and keys (B, K, T, D) of tokens, the first of which stands at `start`. -> the same shapes"""
        return q, k

    def bias(self, T: int, S: int) -> Tensor | None:
        """What is added to the scores of the last T of S positions before softmax: (H, T, S), or None for nothing."""
        return None


class LearnedPosition(Position):
    """A learned vector for each place in the window, added to the embedding.

    Taught in 02_attention/positions.py. s: block_size, n_embd.
    """

    def __init__(self, s):
        super().__init__(s)
        self.weight = nn.Embedding(s.block_size, s.n_embd).weight

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        if start + x.size(1) > len(self.weight):
            raise ValueError(f"position {start + x.size(1) - 1} is outside the window of {len(self.weight)}")
        return x + self.weight[start : start + x.size(1)]
