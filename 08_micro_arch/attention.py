"""Attention: the same sum five ways, and what each costs as the text grows.

Previous : 08_micro_arch/qk_norm.py
Changes  : explicit, Tiled, tiled, library, local, features, linear, Sums, Attention, overview, cost, measure
Idea     : softmax over blocks needs no (T, T) matrix (tiled: flash attention by hand); a window of the last
           places, or weights that are a product of features, make the cost of a token independent of the past
Teaches  : F.pad, F.elu
Source   : Dao et al. 2022, arXiv:2205.14135, algorithm 1, and Dao 2023, arXiv:2307.08691 (tiled); Milakov and
           Gimelshein 2018, arXiv:1805.02867 (softmax as one goes); Beltagy et al. 2020, arXiv:2004.05150
           (window); Katharopoulos et al. 2020, arXiv:2006.16236 (linear)
Expect   : at long contexts, time grows as T² for explicit, tiled and the library's kernel, as T for local and
           linear; memory as T² for explicit only. Full attention learns best, a window of 32 a little worse,
           linear clearly worse, the more so the longer the context
Seeds    : 1 2 3 4 5
Stairs   : none
"""

import multiprocessing
import time
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.model.cache import Cache, causal_mask
from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, Settings
from common.training import memory


def explicit(q, k, v):
    """All scores at once. q: the last T of S places, (B, H, T, D); k, v: (B, H, S, D). -> (B, H, T, D)"""
    scores = q @ k.mT / q.size(-1) ** 0.5                              # (B, H, T, S), kept for the way back
    future = ~causal_mask(q.size(2), k.size(2), q.device)
    return F.softmax(scores.masked_fill(future, -torch.inf), dim=-1) @ v


class Tiled(torch.autograd.Function):
    """The same, block by block: of all scores only one block is there at a time, on the way back too."""

    @staticmethod
    def blocks(q, k, size):
        """Pairs of blocks that see one another: (rows, columns, scores), rows after rows."""
        T, S, scale = q.size(2), k.size(2), q.size(-1) ** -0.5
        for top in range(0, T, size):
            rows = slice(top, min(top + size, T))
            for left in range(0, S - T + rows.stop, size):
                columns = slice(left, min(left + size, S))
                scores = q[:, :, rows] @ k[:, :, columns].mT * scale   # (B, H, size, size)
                place = torch.arange(rows.start, rows.stop, device=q.device)[:, None] + S - T
                future = torch.arange(columns.start, columns.stop, device=q.device) > place
                yield rows, columns, scores.masked_fill(future, -torch.inf)

    @staticmethod
    def forward(ctx, q, k, v, size):
        most = q.new_full(q.shape[:3], -torch.inf)                     # (B, H, T): the largest score so far
        total, out = torch.zeros_like(most), torch.zeros_like(q)       # of weights, and of weighted v
        for rows, columns, scores in Tiled.blocks(q, k, size):
            larger = torch.maximum(most[:, :, rows], scores.amax(dim=-1))
            shrink = (most[:, :, rows] - larger).exp()                 # what was summed so far is too large
            weights = (scores - larger[..., None]).exp()
            total[:, :, rows] = total[:, :, rows] * shrink + weights.sum(dim=-1)
            out[:, :, rows] = out[:, :, rows] * shrink[..., None] + weights @ v[:, :, columns]
            most[:, :, rows] = larger
        out = out / total[..., None]
        ctx.save_for_backward(q, k, v, out, most + total.log())        # enough to make the weights again
        ctx.size = size
        return out

    @staticmethod
    def backward(ctx, d_out):
        q, k, v, out, log_total = ctx.saved_tensors
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        mean = (d_out * out).sum(dim=-1, keepdim=True)                 # (B, H, T, 1)
        for rows, columns, scores in Tiled.blocks(q, k, ctx.size):
            weights = (scores - log_total[:, :, rows, None]).exp()     # those of the softmax
            d_weights = d_out[:, :, rows] @ v[:, :, columns].mT
            d_scores = weights * (d_weights - mean[:, :, rows]) * q.size(-1) ** -0.5
            dv[:, :, columns] += weights.mT @ d_out[:, :, rows]
            dq[:, :, rows] += d_scores @ k[:, :, columns]
            dk[:, :, columns] += d_scores.mT @ q[:, :, rows]
        return dq, dk, dv, None


def tiled(q, k, v, size=64):
    return Tiled.apply(q, k, v, size)


def library(q, k, v):
    """The library's kernel, which goes about it in blocks too."""
    if q.size(2) == k.size(2):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.scaled_dot_product_attention(q, k, v, causal_mask(q.size(2), k.size(2), q.device))


def local(q, k, v, window=32):
    """Only the last `window` places, in blocks of as many: each block looks at itself and the one before."""
    T, D = q.shape[2:]
    known, rest = min(k.size(2) - T, window), -T % window              # before q; after it, to fill a block
    k, v = (F.pad(x[:, :, -(T + known) :], (0, 0, window - known, rest)) for x in (k, v))
    k, v = (x.unfold(2, 2 * window, window) for x in (k, v))           # (B, H, N, D, 2 window)
    q = F.pad(q, (0, 0, 0, rest)).unflatten(2, (-1, window))           # (B, H, N, window, D)
    row, column = torch.arange(window, device=q.device)[:, None], torch.arange(2 * window, device=q.device)
    seen = ((column > row) & (column <= row + window)).repeat(q.size(2), 1, 1)
    seen[0] &= column >= window - known                                # before the text there is nothing
    scores = (q @ k / D**0.5).masked_fill(~seen, -torch.inf)           # (B, H, N, window, 2 window)
    return (F.softmax(scores, dim=-1) @ v.mT).flatten(2, 3)[:, :, :T]


def features(x):
    """Numbers above zero, so that weights are."""
    return F.elu(x) + 1


class Sums:
    """What linear attention keeps of the past, however long it is: the sums of k v^T and of k."""

    def __init__(self):
        self.length, self.products, self.keys = 0, 0.0, 0.0            # (B, H, D, D), (B, H, 1, D)


def linear(q, k, v, past=None, size=64):
    """Weights are products of features, so the past is a sum that is carried on from chunk to chunk."""
    past, out = past or Sums(), []
    for query, key, value in zip(*(x.split(size, dim=2) for x in (features(q), features(k), v)), strict=True):
        weights = (query @ key.mT).tril()                              # (B, H, size, size), inside the chunk
        of_past = (query * past.keys).sum(dim=-1, keepdim=True)        # all the weight that the past has
        answers = weights @ value + (query @ past.products if past.length else 0.0)
        out.append(answers / (weights.sum(dim=-1, keepdim=True) + of_past))
        past.products = past.products + key.mT @ value
        past.keys = past.keys + key.sum(dim=2, keepdim=True)
        past.length += key.size(2)
    return torch.cat(out, dim=2)


class Attention(nn.Module):
    """Queries, keys and values of each head, and one of the ways to mix them. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings, mix):
        super().__init__()
        self.n_head, self.mix = s.n_head, mix
        self.qkv = nn.Linear(s.n_embd, 3 * s.n_embd, bias=False)
        self.projection = nn.Linear(s.n_embd, s.n_embd, bias=False)
        self.projection.writes_to_stream = True                        # starts smaller, as in gpt

    def forward(self, x, position, cache=None):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        if cache is not None and self.mix is not linear:
            k, v = cache.append(k, v)                                  # (B, H, S, D)
        heads = self.mix(q, k, v, cache) if self.mix is linear else self.mix(q, k, v)
        return self.projection(heads.transpose(1, 2).reshape(B, T, C))

    def new_cache(self):
        return Sums() if self.mix is linear else Cache()


def overview(results, folder):
    """Draw test bits per character against the context, for each kind that is trained."""
    from common.report import overviews

    rows = [r.row for r in results if not r.row["diverged"]]
    marks = [overviews.Mark(row["arm"].split("-")[0], row["block_size"], row["test_bpc"], row)
             for row in rows]
    labels = ("context (tokens)", "test, bits per character")
    return marks and [overviews.points(marks, labels, "What does looking back less cost?", folder / "bits")]


def cost(name, T):
    """Milliseconds of a layer and its gradients at context T, one thread; megabytes of its peak (±0.3)."""
    torch.set_num_threads(1)
    layer, x = Attention(Settings(), KINDS[name]), torch.randn(1, T, 64, requires_grad=True)
    layer(x[:, :64], None).sum().backward()
    memory.free_at_once()
    filled, before = memory.up_to_the_peak(), memory.peak()            # what comes now is a new peak
    layer(x, None).sum().backward()
    taken, laps = memory.peak() - before, []
    memory.keep_freed()                                                # as in training
    while len(laps) < 4 or (sum(laps) < 0.5 and len(laps) < 50):
        start = time.perf_counter()
        layer(x, None).sum().backward()
        laps.append(time.perf_counter() - start)
    del filled
    return 1000 * float(np.median(laps[1:])), taken / 1e6


def measure(folder, quick):
    """Time and peak memory against the context, a process for each point; and the power of T in each."""
    from common.report import overviews

    contexts = (64, 256) if quick else (64, 128, 256, 512, 1024, 2048, 4096)
    points, powers = [], []
    for name in KINDS:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            costs = np.array([pool.apply(cost, (name, T)) for T in contexts])
        for what, values in zip(("time (ms)", "peak memory (MB)"), costs.T, strict=True):
            points += [(what, name, T, float(value)) for T, value in zip(contexts, values, strict=True)]
            slope = np.polyfit(np.log(contexts[-3:]), np.log(np.maximum(values[-3:], 1e-3)), 1)[0]
            powers.append((what, name, float(slope)))
    overviews.write_table(folder / "powers", ["what", "attention", "power_of_T"], powers)
    header, labels = ("what", "attention", "context", "value"), ("context (tokens)", "")
    return [overviews.scaling(points, header, labels, "What does a longer text cost?", folder / "cost")]


KINDS = {"explicit": explicit, "tiled": tiled, "library": library, "local": local, "linear": linear}
TRAINED = {"full": library, "local": local, "linear": linear}          # explicit and tiled: the same as full
models = {name: partial(GPT, attention=partial(Attention, mix=mix)) for name, mix in TRAINED.items()}
arms = {f"{name}-{T}": Arm(model, block_size=T, batch_size=1024 // T)
        for name, model in models.items() for T in (64, 128, 256, 512)}
lesson = Lesson(arms, MICRO_ARCH, overview=overview, measure=measure)

if __name__ == "__main__":
    run(lesson)
