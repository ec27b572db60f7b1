"""Grouped queries: several heads that ask share one head of keys and values.

Previous : 07_tokenizer_gqa/kv_cache.py
Changes  : MultiHeadAttention, measure
Idea     : a cache holds keys and values only, so with K heads of these instead of H it is H / K times
           smaller; all H have own queries
Source   : Shazeer 2019, arXiv:1911.02150 (multi-query: K = 1); Ainslie et al. 2023, arXiv:2305.13245
           (grouped)
Expect   : a loss that is hardly worse with half of the heads, a little worse with one; decoding is faster for
           many texts at once, hardly for one
"""

import time
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.generation.sampling import generate
from common.model.cache import Cache
from common.model.gpt import GPT
from common.run import run
from common.settings import Arm, Lesson, Settings


class MultiHeadAttention(nn.Module):
    """H heads of queries and K of keys and values, each for a group of G = H / K. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings):
        super().__init__()
        self.n_head, self.n_kv_head = s.n_head, s.n_kv_head or s.n_head
        size = s.n_embd // s.n_head
        self.query = nn.Linear(s.n_embd, s.n_embd, bias=False)
        self.key = nn.Linear(s.n_embd, self.n_kv_head * size, bias=False)
        self.value = nn.Linear(s.n_embd, self.n_kv_head * size, bias=False)
        self.projection = nn.Linear(s.n_embd, s.n_embd, bias=False)
        self.projection.writes_to_stream = True                        # starts smaller, as in gpt
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x, position, cache=None):                        # position: not needed before 08
        B, T, C = x.shape
        K, G = self.n_kv_head, self.n_head // self.n_kv_head
        q = self.query(x).view(B, T, K, G, -1).permute(0, 2, 3, 1, 4)  # (B, K, G, T, D)
        k = self.key(x).view(B, T, K, -1).transpose(1, 2)              # (B, K, T, D)
        v = self.value(x).view(B, T, K, -1).transpose(1, 2)
        if cache is not None:
            k, v = cache.append(k, v)                                  # (B, K, S, D)
        S = k.size(2)
        future = torch.ones(T, S, dtype=torch.bool, device=x.device).triu(S - T + 1)
        # To its head of keys, a group of G queries at T places is nothing but G T queries: no key or value
        # has to be copied.
        scores = (q.flatten(2, 3) @ k.transpose(-2, -1)).view(B, K, G, T, S) / q.size(-1) ** 0.5
        weights = F.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
        heads = (self.dropout(weights).flatten(2, 3) @ v).view(B, K, G, T, -1)       # (B, K, G, T, D)
        return self.projection(heads.permute(0, 3, 1, 2, 4).reshape(B, T, C))

    def new_cache(self):
        return Cache()


grouped = partial(GPT, attention=MultiHeadAttention)


@torch.no_grad()
def measure(folder, quick):
    """Bytes of the cache and tokens per second while decoding, for one text and for sixteen: 6 layers, width
    256, 4 heads of queries.
    """
    from common.report import overviews

    models, laps = {}, {}
    for name, heads in (("MHA", 4), ("GQA", 2), ("MQA", 1)):
        models[name] = grouped(Settings(n_layer=6, n_head=4, n_kv_head=heads, n_embd=256, block_size=512), 65)
    for _ in range(1 if quick else 5):                                 # in turns: all meet the same machine
        for batch, (name, model) in product((1, 16), models.items()):
            tokens = generate(model, torch.randint(65, (batch, 256)), 512, 16 if quick else 128)
            next(tokens)                                               # reads the prompt, not measured
            start = time.perf_counter()
            count = sum(batch for _ in tokens)
            laps.setdefault((name, batch), []).append(count / (time.perf_counter() - start))
    points = []
    for (name, batch), speeds in laps.items():
        cache = models[name].new_cache()
        models[name](torch.zeros(1, 100, dtype=torch.long), cache)
        kept = sum(layer.nbytes for layer in cache) // 100
        points.append((f"{batch} text{'s' * (batch > 1)} at once", name, kept, float(np.median(speeds))))
    header = ("decoding", "attention", "cache_bytes_per_token", "tokens_per_second")
    labels = ("bytes kept for each token", "tokens per second")
    title = "What do fewer heads of keys and values buy?"
    return [overviews.scaling(points, header, labels, title, folder / "decoding")]


arms = {name: Arm(grouped, n_kv_head=heads)                            # 0: as many as heads of queries
        for name, heads in (("mha", 0), ("gqa", 2), ("mqa", 1))}
lesson = Lesson(arms, Settings(lr=4e-3, warm_up=100), measure=measure)

if __name__ == "__main__":
    run(lesson)
