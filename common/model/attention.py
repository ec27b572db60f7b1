"""How positions gather from one another."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.model.cache import Cache, causal_mask
from common.model.position import Position


class MultiHeadAttention(nn.Module):
    """Causal attention through several heads side by side. (B, T, C) -> (B, T, C)

    With fewer heads of keys and values than of queries (`n_kv_head`; 0: as many) each of them serves a group: grouped-query attention;
    with one, multi-query attention. `qk_norm`, called with s and the size of a head: a norm for queries and one for keys.
    Taught in 06_transformer/fast_gpt.py, 07_tokenizer_gqa/kv_cache.py, 07_tokenizer_gqa/gqa.py and 08_micro_arch/qk_norm.py.
    s: n_embd, n_head, n_kv_head, dropout.
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
        """position: what is done to queries, keys and scores. cache: what this layer has seen before, if anything."""
        B, T, C = x.shape
        heads = self.qkv(x).view(B, T, self.n_head + 2 * self.n_kv_head, -1).transpose(1, 2)
        q, k, v = heads.split([self.n_head, self.n_kv_head, self.n_kv_head], dim=1)  # (B, H, T, D), (B, K, T, D) twice
        q, k = self.query_norm(q), self.key_norm(k)
        q, k = position.rotate(q, k, cache.length if cache is not None else 0)
        if cache is not None:
            k, v = cache.append(k, v)                                                # (B, K, S, D) twice
        S = k.size(2)
        mask = position.bias(T, S)
        if mask is not None:
            mask = mask.to(q).masked_fill(~causal_mask(T, S, x.device), -torch.inf)
        elif 1 < T < S:                                                              # one new position may look at all
            mask = causal_mask(T, S, x.device)
        dropout = self.dropout if self.training else 0.0
        causal, grouped = mask is None and T > 1, self.n_kv_head < self.n_head
        heads = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, enable_gqa=grouped)  # (B, H, T, D)
        return self.projection(heads.transpose(1, 2).reshape(B, T, C))

    def new_cache(self) -> Cache:
        return Cache()
