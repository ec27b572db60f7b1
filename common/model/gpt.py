"""The GPT of 06_transformer/fast_gpt.py, with a socket for each kind of part."""

from torch import Tensor, nn

from common.model.attention import MultiHeadAttention
from common.model.cache import Cache, Caches
from common.model.embedding import TokenEmbedding
from common.model.feed_forward import FeedForward
from common.model.head import TiedHead
from common.model.norm import LayerNorm
from common.model.position import LearnedPosition, Position


class Block(nn.Module):
    """Gather, then think; each reads a normalised copy and adds its answer. (B, T, C) -> (B, T, C)"""

    def __init__(self, s, attention, feed_forward, norm1, norm2):
        super().__init__()
        self.norm1, self.norm2 = norm1(s), norm2(s)
        self.attention = attention(s)
        self.feed_forward = feed_forward(s)
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x: Tensor, position: Position, cache: Cache | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), position, cache))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class GPT(nn.Module):
    """Token ids (B, T) -> logits (B, T, V).

    s: n_layer, n_embd, dropout, and what the parts ask for. Each part is a class that is called with `s`, the
    embedding with the size of the vocabulary too, the head with the embedding; `norm` may be two of them, for
    what goes into attention and for what goes into the feed-forward part (and the head). The linear layer of
    a part that writes to the stream says so (`writes_to_stream`): its weights start smaller than the others.
    A table that has nothing to say at first says that too (`starts_at_zero`).
    """

    def __init__(
        self, s, vocab_size: int, attention=MultiHeadAttention, feed_forward=FeedForward, norm=LayerNorm,
        position=LearnedPosition, head=TiedHead, embedding=TokenEmbedding,
    ):
        super().__init__()
        norm1, norm2 = norm if isinstance(norm, tuple) else (norm, norm)
        self.token = embedding(s, vocab_size)
        self.position = position(s)
        self.dropout = nn.Dropout(s.dropout)
        self.blocks = nn.Sequential(
            *(Block(s, attention, feed_forward, norm1, norm2) for _ in range(s.n_layer))
        )
        self.norm = norm2(s)
        self.head = head(s, self.token)
        writing = [id(part.weight) for part in self.modules() if getattr(part, "writes_to_stream", False)]
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02 / (2 * s.n_layer) ** 0.5 if id(weight) in writing else 0.02)
        for part in self.modules():
            if getattr(part, "starts_at_zero", False):
                nn.init.zeros_(part.weight)

    def forward(self, ids: Tensor, cache: Caches | None = None) -> Tensor:
        """cache: what `new_cache` gave, if `ids` go on from those of earlier calls with it."""
        start, before = (cache[0].length, cache.last) if cache else (0, None)
        x = self.dropout(self.position(self.token(ids, before), start))  # (B, T, C)
        for block, seen in zip(self.blocks, cache or [None] * len(self.blocks), strict=True):
            x = block(x, self.position, seen)
        if cache:
            cache.last = ids[:, -1:]                             # the next one may look back at it
        return self.head(self.norm(x))                           # (B, T, V)

    def new_cache(self) -> Caches:
        """An empty cache, one part for each layer."""
        return Caches(block.attention.new_cache() for block in self.blocks)
