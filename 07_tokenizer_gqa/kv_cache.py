"""KV cache: keys and values are kept, so that only the newest token has to go through the model.

Previous : 07_tokenizer_gqa/weight_tying.py
Changes  : Cache, MultiHeadAttention, greedy, measure
Idea     : causal attention lets no position see a later one, so a new token changes nothing about earlier
           keys and values
Source   : Shazeer 2019, arXiv:1911.02150 (the cost of decoding one token after the other)
Expect   : the same tokens, at a time for each that hardly grows with the length of the text; memory that
           grows in proportion to it
"""

import time
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.model.gpt import GPT
from common.run import run
from common.settings import Lesson, Settings


class Cache:
    """Keys and values of one layer, (B, H, S, D) each, with room for more."""

    def __init__(self):
        self.length, self.keys, self.values = 0, None, None

    def append(self, k, v):
        """Take in those of new positions, (B, H, T, D); hand out those of all, (B, H, S, D)."""
        end = self.length + k.size(2)
        if self.keys is None or end > self.keys.size(2):               # twice the room: moves are rare
            room = k.new_empty(2, *k.shape[:2], 2 * end, k.size(3))    # (2, B, H, room, D)
            if self.keys is not None:
                room[0, :, :, : self.length] = self.keys[:, :, : self.length]
                room[1, :, :, : self.length] = self.values[:, :, : self.length]
            self.keys, self.values = room
        self.keys[:, :, self.length : end], self.values[:, :, self.length : end] = k, v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    @property
    def nbytes(self):                                                  # of what is there, not of the room
        return 2 * self.keys[:, :, : self.length].numel() * self.keys.element_size()


class MultiHeadAttention(nn.Module):
    """Each position gathers what it needs from its past, which may be in the cache. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()
        self.n_head, self.dropout = s.n_head, s.dropout
        self.qkv = nn.Linear(s.n_embd, 3 * s.n_embd, bias=False)
        self.projection = nn.Linear(s.n_embd, s.n_embd, bias=False)
        self.projection.writes_to_stream = True                        # starts smaller, as in gpt

    def forward(self, x, position, cache=None):                        # position: not needed before 08
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        if cache is not None:
            k, v = cache.append(k, v)                                  # (B, H, S, D): S is T and all before
        # With a cache, the T newest of S positions: the last of them may look at all, each before it at one
        # less.
        past = (None if cache is None else
                torch.ones(T, k.size(2), dtype=torch.bool, device=x.device).tril(k.size(2) - T))
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v, past, dropout, is_causal=past is None)  # (B, H, T, D)
        return self.projection(heads.transpose(1, 2).reshape(B, T, C))

    def new_cache(self):
        return Cache()


cached = partial(GPT, attention=MultiHeadAttention)                    # fast_gpt with this attention


def greedy(model, ids, length, cache):
    """The `length` likeliest tokens after `ids` (B, T), one after the other, with a cache or (None) without.
    -> (B, T + length)
    """
    new = ids                                                          # at first, all of the text is new
    for _ in range(length):
        logits = model(ids) if cache is None else model(new, cache)    # the cache knows where `new` stands
        new = logits[:, -1:].argmax(dim=-1)                            # (B, 1)
        ids = torch.cat([ids, new], dim=1)
    return ids


@torch.no_grad()
def measure(folder, quick):
    """Time of one more token, and what is kept, against the length of the text; and a whole text with the
    cache and without.
    """
    from common.report import overviews

    s = Settings(n_layer=6, n_head=8, n_embd=256, block_size=512)
    model, ids = cached(s, 65).eval(), torch.randint(65, (1, s.block_size))
    points = []
    for length in (16, 32, 64, 128, 256, 512):
        cache, laps = model.new_cache(), []
        model(ids[:, : length - 1], cache)
        for _ in range(5 if quick else 25):                            # in turns: both meet the same machine
            start = time.perf_counter()
            model(ids[:, length - 1 : length], cache)
            middle = time.perf_counter()
            model(ids[:, :length])
            laps.append((middle - start, time.perf_counter() - middle))
            kept = sum(layer.nbytes for layer in cache)
            for layer in cache:
                layer.length -= 1                                      # forget that token again
        for series, seconds in zip(("with a cache", "without"), np.median(laps, axis=0), strict=True):
            points.append(("one more token (ms)", series, length, 1000 * seconds))
        points.append(("kept (MB)", "with a cache", length, kept / 1e6))
    for prompt in (16, 64, 256):
        for cache, series in ((model.new_cache(), "with a cache"), (None, "without")):
            start, new = time.perf_counter(), 16 if quick else 256
            greedy(model, ids[:, :prompt], new, cache)
            points.append((f"{new} more tokens (s)", series, prompt, time.perf_counter() - start))
    header, labels = ("what", "decoding", "tokens_before", "value"), ("tokens before", "")
    return [overviews.scaling(points, header, labels, "What do further tokens cost?", folder / "decoding")]


lesson = Lesson(cached, Settings(lr=4e-3, warm_up=100), measure=measure)

if __name__ == "__main__":
    run(lesson)
