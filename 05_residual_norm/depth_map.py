"""Depth map: which wirings of a block train, how deep, and with or without a warm-up of the rate?

Previous : 05_residual_norm/pre_ln.py
Changes  : Block, Model, probe, overview
Idea     : the four wirings of this course at six depths, at a small equal budget: 400 steps of 16 windows,
           width 32, context 32; half of the cells begin with a warm-up, a learning rate that rises from zero
           over the first 100 steps
Teaches  : nn.Identity
Source   : He et al. 2016, arXiv:1512.03385; Xiong et al. 2020, arXiv:2002.04745, figure 1 (post-LN needs
           warm-up, pre-LN does not)
Expect   : plain fails from depth 4; residual trains, but not at 32; post-LN fails deep without warm-up, and
           goes deeper with it; pre-LN always trains
Seeds    : 1 2
"""

from functools import partial
from itertools import product

import torch
from torch import nn
from torch.nn import functional as F

from common.run import run
from common.settings import Arm, Lesson, Settings

WIRINGS, DEPTHS, WARM_UP = ("plain", "residual", "post-LN", "pre-LN"), (1, 2, 4, 8, 16, 32), 100


class MultiHeadAttention(nn.Module):
    """Each position gathers from its past, through several heads side by side. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int, n_head: int, block_size: int):
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.projection = nn.Linear(n_embd, n_embd)
        self.register_buffer("mask", torch.full((block_size, block_size), -torch.inf).triu(1),
                             persistent=False)

    def forward(self, x):
        B, T, C = x.shape
        q = self.query(x).view(B, T, self.n_head, -1).transpose(1, 2)  # (B, T, H, D) -> (B, H, T, D)
        k = self.key(x).view(B, T, self.n_head, -1).transpose(1, 2)
        v = self.value(x).view(B, T, self.n_head, -1).transpose(1, 2)
        scores = q @ k.transpose(-2, -1) / q.size(-1) ** 0.5           # (B, H, T, T)
        weights = F.softmax(scores + self.mask[:T, :T], dim=-1)
        return self.projection((weights @ v).transpose(1, 2).reshape(B, T, C))  # side by side again, mixed


class FeedForward(nn.Sequential):
    """Each position thinks about what it gathered. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int):
        super().__init__(nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd))


class Block(nn.Module):
    """Gather, then think, wired in one of four ways. (B, T, C) -> (B, T, C)"""

    def __init__(self, n_embd: int, n_head: int, block_size: int, wiring: str):
        super().__init__()
        self.wiring = wiring
        norm = nn.LayerNorm if "LN" in wiring else nn.Identity         # nn.Identity hands on what it gets
        self.norm1, self.norm2 = norm(n_embd), norm(n_embd)
        self.attention = MultiHeadAttention(n_embd, n_head, block_size)
        self.feed_forward = FeedForward(n_embd)

    def forward(self, x):
        return self.wire(self.wire(x, self.attention, self.norm1), self.feed_forward, self.norm2)

    def wire(self, x, sublayer, norm):
        if self.wiring == "plain":
            return sublayer(x)
        if self.wiring == "pre-LN":
            return x + sublayer(norm(x))
        return norm(x + sublayer(x))                                   # post-LN, or residual without a norm


class Model(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, s: Settings, vocab_size: int, wiring: str):
        super().__init__()
        self.token = nn.Embedding(vocab_size, s.n_embd)
        self.position = nn.Embedding(s.block_size, s.n_embd)
        self.blocks = nn.Sequential(*(Block(s.n_embd, s.n_head, s.block_size, wiring)
                                      for _ in range(s.n_layer)))
        self.norm = nn.LayerNorm(s.n_embd) if wiring == "pre-LN" else nn.Identity()
        self.head = nn.Linear(s.n_embd, vocab_size)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.size(1)]      # (B, T, C)
        return self.head(self.norm(self.blocks(x)))                    # (B, T, V)


def probe(model, x, y):
    """Gradient norm of the first block's weights, at one batch."""
    F.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    norms = [p.grad.double().norm() for p in model.blocks[0].parameters()]  # 1e-30 squared is a number
    return {"gradient norm": [torch.stack(norms).norm().item()]}


def overview(results, folder):
    """Draw the map of all cells, and the gradient of the first block against depth, before training and
    after.
    """
    from common.report import maps, overviews

    rows = [f"{wiring}{warm_up}" for wiring in WIRINGS for warm_up in ("", "-warm-up")]
    cells = [(row, depth, r) for row, depth, r in product(rows, DEPTHS, results)
             if r.row["arm"] == f"{row}-{depth}"]
    scores = [(row, str(depth), r.row["arm"], r.row["seed"], r.row["test_bpc"]) for row, depth, r in cells]
    norms = [overviews.Mark(row, depth, r.probes[at][1]["gradient norm"][0], r.row, when)
             for row, depth, r in cells if not r.row["diverged"] and "warm-up" not in row
             for at, when in ((0, "before the first step"), (-1, "after the last"))]
    labels = ("blocks", "test, bits per character")
    paths = [maps.heat_map(scores, labels, "Which wiring trains, how deep?", folder / "map")]
    labels = ("blocks", "gradient norm of the first block")
    title = "How much gradient reaches the first block?"
    return paths + ([overviews.points(norms, labels, title, folder / "gradient", 1e-6)] if norms else [])


cells = {f"{wiring}{'-warm-up' if warm_up else ''}-{depth}":
         Arm(partial(Model, wiring=wiring), n_layer=depth, warm_up=warm_up)
         for wiring, warm_up, depth in product(WIRINGS, (0, WARM_UP), DEPTHS)}
rows = [*WIRINGS, "post-LN-warm-up"]
small = {"steps": 160, "batch_size": 8, "arms": [f"{row}-{depth}" for row in rows for depth in (1, 4, 32)]}
settings = Settings(steps=400, batch_size=16, n_embd=32, block_size=32)
lesson = Lesson(cells, settings, probe=probe, overview=overview, quick=small)

if __name__ == "__main__":
    run(lesson)
