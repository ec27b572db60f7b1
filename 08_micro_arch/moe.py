"""Mixture of experts: many feed-forward layers, of which a router picks a few for each token.

Previous : 08_micro_arch/attention.py
Changes  : MoE, layers, probe, scores, overview
Idea     : a model can hold more than a token pays for: parameters grow with the number of experts, work only
           with the number of experts that a token goes through
Teaches  : Tensor.topk, Tensor.nonzero, Tensor.index_add, torch.bincount
Source   : Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021, arXiv:2101.03961 (top-1, capacity, the
           load-balancing loss); Jiang et al. 2024, arXiv:2401.04088 (top-2 of 8, weights over the chosen)
Expect   : better than dense at equal work, not as good as dense at equal parameters; without the
           load-balancing loss some experts get almost nothing, and the result is a little worse; at a
           capacity of 1 a tenth is dropped, which costs little
Seeds    : 1 2 3 4 5
Stairs   : none
"""

import math
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from common.model.feed_forward import FeedForward
from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, ExpertSettings, Lesson


class MoE(nn.Module):
    """Each token goes through the k likeliest of E feed-forward layers. (B, T, C) -> (B, T, C)"""

    def __init__(self, s: ExpertSettings):
        super().__init__()
        self.k, self.capacity, self.balance = s.n_expert_per_token, s.capacity, s.balance
        for name, fits, rule in (
            ("n-expert-per-token", 1 <= self.k <= s.n_expert, f"at least 1, at most all {s.n_expert}"),
            ("capacity", self.capacity is None or self.capacity > 0, "above 0, or no token has room"),
            ("balance", 0 <= self.balance < math.inf, "at least 0"),
        ):
            if not fits:
                value = getattr(s, name.replace("-", "_"))
                raise ValueError(f"--{name} {value} makes no sense; it must be {rule}")
        self.router = nn.Linear(s.n_embd, s.n_expert, bias=False)
        self.experts = nn.ModuleList(FeedForward(s, multiple=4 / self.k) for _ in range(s.n_expert))

    def forward(self, x):
        tokens, E = x.flatten(0, -2), len(self.experts)                # (N, C): a router knows no places
        p = F.softmax(self.router(tokens), dim=-1)                     # (N, E)
        weights, chosen = p.topk(self.k)                               # (N, k) each, the likeliest first
        if self.k > 1:                                                 # if there is one, p moves the router
            weights = weights / weights.sum(dim=-1, keepdim=True)
        room = chosen.numel()                                          # in evaluation nothing is dropped
        if self.training and self.capacity is not None:
            room = math.ceil(self.capacity * chosen.numel() / E)       # so many fair shares
        out, served = torch.zeros_like(tokens), 0
        for number, expert in enumerate(self.experts):
            rows, place = (chosen == number).nonzero(as_tuple=True)    # in the order of the text
            rows, place = rows[:room], place[:room]                    # to the rest nothing is added
            answers = weights[rows, place, None].to(x) * expert(tokens[rows])
            out = out.index_add(0, rows, answers.to(out))
            served += len(rows)
        self.load = torch.bincount(chosen.flatten(), minlength=E) / chosen.numel()  # (E,), sums to 1
        self.dropped = 1 - served / chosen.numel()
        # the loop adds this to the loss. load has no gradient, p has: it falls where much is chosen
        self.auxiliary_loss = self.balance * E * (self.load * p.mean(dim=0)).sum()
        return out.view_as(x)


def layers(model):
    return [block.feed_forward for block in model.blocks if isinstance(block.feed_forward, MoE)]


@torch.no_grad()
def probe(model, x, y):
    """The share of the choices that falls on each expert, by layer."""
    model(x)
    loads = [layer.load.tolist() for layer in layers(model)]           # (n_layer, E)
    return {f"expert {e + 1}": list(share) for e, share in enumerate(zip(*loads, strict=True))}


@torch.no_grad()
def scores(model, data, s):
    """On test text, in fair shares: busiest and idlest expert, and how much is above a fair share."""
    if not layers(model):                                              # one expert, which gets everything
        return {"busiest expert": 1.0, "idlest expert": 1.0, "dropped at capacity 1": 0.0}
    seen = []
    for x, _ in data.test.in_order(data.batch_size):
        model.eval()(x.to(data.device))
        seen.append(torch.stack([layer.load for layer in layers(model)]) * s.n_expert)
    loads = torch.stack(seen)                                          # (batches, n_layer, E)
    mean, over = loads.mean(dim=0), (loads - 1).clamp(min=0)
    return {"busiest expert": float(mean.max()), "idlest expert": float(mean.min()),
            "dropped at capacity 1": float(over.mean())}


def overview(results, folder):
    """Draw bits against parameters; and how choices fall on experts while training, of the first seed."""
    from common.report import overviews

    rows = [r.row for r in results if not r.row["diverged"]]
    marks = [overviews.Mark(row["arm"], round(row["params"] / 1e6, 2), row["test_bpc"], row) for row in rows]
    labels = ("parameters (millions)", "test, bits per character")
    title = "Are more parameters better, and where?"
    drawn = marks and [overviews.points(marks, labels, title, folder / "bits")]
    shares = [(r.row["arm"], r.row["seed"], step, layer + 1, int(name.split()[1]), share)
             for r in results if r.row["seed"] == results[0].row["seed"]
             for step, loads in r.probes
             for name, loads_of in loads.items() for layer, share in enumerate(loads_of)]
    title = "Which expert gets how much of the text?"
    return [*drawn, *([overviews.loads(shares, title, folder / "load")] if shares else [])]


moe = partial(GPT, feed_forward=MoE)
arms = {
    "dense": Arm(GPT),                                                 # as much work for a token as top-2
    "dense-16x": Arm(partial(GPT, feed_forward=partial(FeedForward, multiple=16))),  # as many parameters
    "top-2": Arm(moe),                                                 # of 8, half as wide as the dense layer
    "top-1": Arm(moe, n_expert=4, n_expert_per_token=1),               # of 4, as wide as the dense layer
    "top-2-unbalanced": Arm(moe, balance=0.0),
    "top-2-capacity-1": Arm(moe, capacity=1.0),
}
lesson = Lesson(arms, ExpertSettings(**vars(MICRO_ARCH)), probe=probe, scores=scores, overview=overview)

if __name__ == "__main__":
    run(lesson)
