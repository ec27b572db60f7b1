"""How positions gather from one another."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.model.cache import Cache, Sums, causal_mask
from common.model.position import Position
from common.model.tiled import Tiled


class MultiHeadAttention(nn.Module):
    """Causal attention through several heads side by side. (B, T, C) -> (B, T, C)

    With fewer heads of keys and values than of queries (`n_kv_head`; 0: as many) each of them serves a group:
    grouped-query attention; with one, multi-query attention. `qk_norm`, called with s and the size of a head:
    a norm for queries and one for keys. The library's kernel mixes the values; classes below have other ways.
    Taught in 06_transformer/fast_gpt.py, 07_tokenizer_gqa/kv_cache.py, 07_tokenizer_gqa/gqa.py and
    08_micro_arch/qk_norm.py. s: n_embd, n_head, n_kv_head, dropout.
    """

    def __init__(self, s, qk_norm: Callable | None = None):
        super().__init__()
        self.n_head, self.n_kv_head, self.dropout = s.n_head, s.n_kv_head or s.n_head, s.dropout
        size = s.n_embd // s.n_head
        self.qkv = nn.Linear(s.n_embd, (self.n_head + 2 * self.n_kv_head) * size, bias=False)
        self.projection = nn.Linear(s.n_embd, s.n_embd, bias=False)
        self.projection.writes_to_stream = True
        self.query_norm, self.key_norm = (qk_norm(s, size) if qk_norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor, position: Position, cache: Cache | None = None) -> Tensor:
        """position: what is done to queries, keys and scores. cache: what this layer has seen before, if any.
        """
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, self.n_head + 2 * self.n_kv_head, -1).transpose(1, 2)
        # q has H heads, k, v have K
        q, k, v = qkv.split([self.n_head, self.n_kv_head, self.n_kv_head], dim=1)
        q, k = self.query_norm(q), self.key_norm(k)
        q, k = position.rotate(q, k, cache.length if cache is not None else 0)
        if cache is not None:
            k, v = cache.append(k, v)                                  # (B, K, S, D) twice
        heads = self.mix(q, k, v, position, cache)                     # (B, H, T, D)
        return self.projection(heads.transpose(1, 2).reshape(B, T, C))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, position: Position, cache: Cache | None) -> Tensor:
        """What each query gathers. q: the last T of S places, (B, H, T, D); k, v: (B, K, S, D). -> as q"""
        T, S = q.size(2), k.size(2)
        mask = position.bias(T, S)
        if mask is not None:
            mask = mask.to(q).masked_fill(~causal_mask(T, S, q.device), -torch.inf)
        elif 1 < T < S:                                                # one new position may look at all
            mask = causal_mask(T, S, q.device)
        dropout = self.dropout if self.training else 0.0
        causal, grouped = mask is None and T > 1, self.n_kv_head < self.n_head
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, enable_gqa=grouped)

    def for_all_heads(self, *kept: Tensor) -> list[Tensor]:
        """Keys or values (B, K, S, D), once for each head of queries that they serve: (B, H, S, D)."""
        return [x.repeat_interleave(self.n_head // self.n_kv_head, dim=1) for x in kept]

    def new_cache(self) -> Cache:
        return Cache()


class GroupedQueryAttention(MultiHeadAttention):
    """The same, for a model that is meant to share its keys and values. Taught in 07_tokenizer_gqa/gqa.py.

    s: as above. Raises ValueError where n_kv_head does not say among how many heads.
    """

    def __init__(self, s, qk_norm: Callable | None = None):
        super().__init__(s, qk_norm)
        if self.n_kv_head == self.n_head:
            raise ValueError(
                f"attention 'gqa' shares keys and values, and nothing is shared with {self.n_kv_head} "
                "heads of "
                f"them for {self.n_head} heads of queries; set n_kv_head to a smaller divisor of n_head, "
                "or use "
                "attention 'flash'"
            )


class ExplicitAttention(MultiHeadAttention):
    """All scores at once, as the equation has it. Taught in 08_micro_arch/attention.py. s: as above."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, position: Position, cache: Cache | None) -> Tensor:
        k, v = self.for_all_heads(k, v)
        T, S = q.size(2), k.size(2)
        scores, bias = q @ k.mT / q.size(-1) ** 0.5, position.bias(T, S)  # (B, H, T, S)
        scores = scores if bias is None else scores + bias.to(scores)
        weights = F.softmax(scores.masked_fill(~causal_mask(T, S, q.device), -torch.inf), dim=-1)
        return F.dropout(weights, self.dropout, self.training) @ v


class TiledAttention(MultiHeadAttention):
    """The same block by block, forward and backward, without ever a (T, T) matrix: flash attention by hand.

    Taught in 08_micro_arch/attention.py. s: as above. Raises ValueError for dropout, which blocks do without.
    Source: Dao et al. 2022, arXiv:2205.14135.
    """

    def __init__(self, s, qk_norm: Callable | None = None):
        super().__init__(s, qk_norm)
        if s.dropout:
            raise ValueError("attention 'tiled' has no dropout; set dropout to 0, or use 'flash' or "
                             "'explicit'")

    def mix(self, q: Tensor, k: Tensor, v: Tensor, position: Position, cache: Cache | None) -> Tensor:
        return Tiled.apply(q, *self.for_all_heads(k, v), position, 64)


class LocalAttention(MultiHeadAttention):
    """A query sees itself and what stands before it, `window` places in all: a token costs the same in any
    text.

    Taught in 08_micro_arch/attention.py. s: as above, and window. Raises ValueError for a window of no
    places. Source: Beltagy et al. 2020, arXiv:2004.05150.
    """

    def __init__(self, s, qk_norm: Callable | None = None):
        super().__init__(s, qk_norm)
        self.window = s.window
        if self.window < 1:
            raise ValueError(
                f"window {self.window} makes no sense: it sees nothing, not even the token itself; it must "
                "be at least 1"
            )

    def mix(self, q: Tensor, k: Tensor, v: Tensor, position: Position, cache: Cache | None) -> Tensor:
        """In blocks of `window` queries: each block looks at its own places and those of the block before."""
        k, v = self.for_all_heads(k, v)
        T, D, window = q.size(2), q.size(3), self.window
        known, rest = min(k.size(2) - T, window), -T % window          # before q; after it, to fill a block
        k, v = (F.pad(x[:, :, -(T + known) :], (0, 0, window - known, rest)) for x in (k, v))
        k, v = (x.unfold(2, 2 * window, window) for x in (k, v))       # (B, H, N, D, 2 window)
        q = F.pad(q, (0, 0, 0, rest)).unflatten(2, (-1, window))       # (B, H, N, window, D)
        row, column = (torch.arange(size, device=q.device) for size in (window, 2 * window))
        row = row[:, None]
        seen = ((column > row) & (column <= row + window)).repeat(q.size(2), 1, 1)
        seen[0] &= column >= window - known                               # before the text there is nothing
        scores, bias = q @ k / D**0.5, position.bias(window, 2 * window)  # (B, H, N, window, 2 window)
        scores = scores if bias is None else scores + bias.to(scores)[:, None]
        weights = F.softmax(scores.masked_fill(~seen, -torch.inf), dim=-1)
        return (F.dropout(weights, self.dropout, self.training) @ v.mT).flatten(2, 3)[:, :, :T]


class LinearAttention(MultiHeadAttention):
    """Weights are products of features above zero, so the past is one sum, carried on from chunk to chunk.

    There are no weights for dropout to act on. Taught in 08_micro_arch/attention.py. s: as above.
    Source: Katharopoulos et al. 2020, arXiv:2006.16236.
    """

    def mix(self, q: Tensor, k: Tensor, v: Tensor, position: Position, cache: Sums | None) -> Tensor:
        """Raises ValueError for positions that act on queries and keys or on scores: there are no scores."""
        if position.acts_on in ("queries and keys", "scores"):
            raise ValueError(
                f"linear attention has no scores, so positions that act on {position.acts_on} mean "
                "nothing; use "
                "learned, sinusoidal or no positions, or another attention"
            )
        past, out = cache if cache is not None else Sums(), []
        k, v = self.for_all_heads(k, v)
        chunks = (x.split(64, dim=2) for x in (F.elu(q) + 1, F.elu(k) + 1, v))
        for query, key, value in zip(*chunks, strict=True):
            weights = (query @ key.mT).tril()                          # (B, H, 64, 64), inside the chunk
            of_past = (query * past.keys).sum(dim=-1, keepdim=True)    # all the weight that the past has
            answers = weights @ value + (query @ past.products if past.length else 0.0)
            out.append(answers / (weights.sum(dim=-1, keepdim=True) + of_past))
            past.add(key, value)
        return torch.cat(out, dim=2)

    def new_cache(self) -> Sums:
        return Sums()
