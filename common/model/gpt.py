"""The GPT of 06_transformer/fast_gpt.py, with a socket for each kind of part."""

from torch import Tensor, nn

from common.model.attention import MultiHeadAttention
from common.model.feed_forward import FeedForward
from common.model.norm import LayerNorm
from common.model.position import LearnedPosition


class Block(nn.Module):
    """Gather, then think. Each reads a normalised copy of the stream and adds its answer to the stream itself. (B, T, C) -> (B, T, C)"""

    def __init__(self, s, attention, feed_forward, norm):
        super().__init__()
        self.norm1, self.norm2 = norm(s), norm(s)
        self.attention = attention(s)
        self.feed_forward = feed_forward(s)
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class GPT(nn.Module):
    """Token ids (B, T) -> logits (B, T, V).

    s: n_layer, n_embd, dropout, and what the parts ask for. Each part is a class that is called with `s`; a matrix that writes to the
    stream is found by its name (`projection` of attention, the last layer of the feed-forward part) and starts smaller than the others.
    """

    def __init__(
        self, s, vocab_size: int, attention=MultiHeadAttention, feed_forward=FeedForward, norm=LayerNorm, position=LearnedPosition
    ):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.position = position(s)
        self.dropout = nn.Dropout(s.dropout)
        self.blocks = nn.Sequential(*(Block(s, attention, feed_forward, norm) for _ in range(s.n_layer)))
        self.norm = norm(s)
        self.head = nn.Linear(s.n_embd, vocab_size, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("attention.projection.weight", "feed_forward.2.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * s.n_layer) ** 0.5 if writes else 0.02)
        self.head.weight = self.token.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.dropout(self.position(self.token(ids)))  # (B, T, C)
        return self.head(self.norm(self.blocks(x)))       # (B, T, V)
