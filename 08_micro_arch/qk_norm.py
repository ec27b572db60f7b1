"""QK-norm: queries and keys are normalised, so that no score of attention can grow without bound.

Previous : 08_micro_arch/position.py
Changes  : MultiHeadAttention, scores, bits, holding, overview
Idea     : RMSNorm over the numbers of each head, for queries and for keys, before their product
Source   : Henry et al. 2020, arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442, section 2.1 (at scale)
Expect   : no measurable difference at the usual rate; the largest scores stay smaller with the norm, and
           higher rates hold
Seeds    : 1 2 3 4 5
Baseline : none
Stairs   : none
"""

from functools import partial
from itertools import takewhile

import torch
from torch import nn
from torch.nn import functional as F

from common.model.cache import Cache, causal_mask
from common.model.gpt import GPT
from common.model.norm import RMSNorm
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, Settings


class MultiHeadAttention(nn.Module):
    """Each position gathers from its past, by scores that stay below a bound. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: Settings, normalised: bool):
        super().__init__()
        self.n_head = s.n_head
        size = s.n_embd // s.n_head
        self.qkv = nn.Linear(s.n_embd, 3 * s.n_embd, bias=False)
        self.projection = nn.Linear(s.n_embd, s.n_embd, bias=False)
        self.projection.writes_to_stream = True                        # starts smaller, as in gpt
        self.query_norm = RMSNorm(s, size) if normalised else nn.Identity()
        self.key_norm = RMSNorm(s, size) if normalised else nn.Identity()

    def queries_keys_values(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        return self.query_norm(q), self.key_norm(k), v                 # over the D numbers of each head

    def forward(self, x, position, cache=None):
        B, T, C = x.shape
        q, k, v = self.queries_keys_values(x)
        start = 0 if cache is None else cache.length
        q, k = position.rotate(q, k, start)                            # after the norm: turning keeps lengths
        if cache is not None:
            k, v = cache.append(k, v)                                  # (B, H, S, D)
        past = None if cache is None else causal_mask(T, k.size(2), x.device)
        heads = F.scaled_dot_product_attention(q, k, v, past, is_causal=past is None)  # (B, H, T, D)
        return self.projection(heads.transpose(1, 2).reshape(B, T, C))

    def new_cache(self):
        return Cache()


@torch.no_grad()
def scores(model, data, s):
    """The largest score of attention, of any layer and head, in the first windows of the test text."""
    largest = []

    def look(attention, inputs, _):
        q, k, _ = attention.queries_keys_values(inputs[0])
        largest.append((q @ k.transpose(-2, -1)).tril().abs().max().item() / q.size(-1) ** 0.5)

    hooks = [block.attention.register_forward_hook(look) for block in model.blocks]
    model(next(data.test.in_order(16))[0].to(data.device))
    for hook in hooks:
        hook.remove()
    return {"largest attention score": max(largest)}


def bits(row):
    return float("nan") if row["diverged"] else row["test_bpc"]


def holding(rows):
    """The worst seed's row of each rate, from the lowest up to the largest that no seed breaks at."""
    def worst(rate):
        own = [row for row in rows if row["lr"] == rate]
        return max(own, key=lambda row: (row["diverged"], row["test_bpc"]), default=None)

    def holds(row):
        return row and not row["diverged"] and row["test_bpc"] < BROKEN

    return list(takewhile(holds, map(worst, RATES)))


def overview(results, folder):
    """Draw test bits per character against the learning rate; and write down the largest rate that holds."""
    from common.report import overviews

    rows, marks, lines = [r.row for r in results], [], []
    for kind in KINDS:
        own = [row for row in rows if row["arm"].startswith(kind)]
        lines += [(kind, row["lr"], row["arm"], row["seed"], row["test_bpc"]) for row in holding(own)[-1:]]
        marks += [overviews.Mark(kind, row["lr"], bits(row), row) for row in own]
    overviews.write_table(folder / "holds", ["attention", "lr", "arm", "seed", "test_bpc"], lines)
    labels = ("learning rate", "test, bits per character")
    return marks and [overviews.points(marks, labels, "How fast may it learn?", folder / "rates")]


BROKEN = 3.0                                                           # bits: counting triples gives as many
RATES = [4e-3 * 2**doubled for doubled in range(8)]                    # 0.004 to 0.512
KINDS = {name: partial(GPT, attention=partial(MultiHeadAttention, normalised=normalised))
         for name, normalised in (("plain", False), ("normalised", True))}
arms = {f"plain-{rate:g}": Arm(KINDS["plain"], lr=rate) for rate in RATES[:5]}  # broken long before its end
arms |= {f"normalised-{rate:g}": Arm(KINDS["normalised"], lr=rate) for rate in RATES}
lesson = Lesson(arms, MICRO_ARCH, scores=scores, overview=overview)

if __name__ == "__main__":
    run(lesson)
