"""Mixture of experts: many feed-forward layers, of which a token goes through a few."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.model.feed_forward import FeedForward


class MoE(nn.Module):
    """A router sends each token to a few of many feed-forward layers. (B, T, C) -> (B, T, C)

    To the `n_expert_per_token` likeliest of `n_expert`; those that a token goes through are together as wide
    as one FeedForward. While training an expert takes at most `capacity` times its fair share of a batch
    (None: whatever comes); what is too much is dropped. After a forward pass, `load` (E,) is the share of the
    choices that fell on each expert, `dropped` the share that was dropped, and `auxiliary_loss` what the loop
    adds: `balance` times the load-balancing loss, 1 where all experts are equally likely and get equal work.

    Taught in 08_micro_arch/moe.py. s: n_embd, n_expert, n_expert_per_token, capacity, balance. Raises
    ValueError for numbers that cannot be. Source: Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021,
    arXiv:2101.03961 (capacity, load-balancing loss); Jiang et al. 2024, arXiv:2401.04088 (top-2).
    """

    def __init__(self, s):
        super().__init__()
        check(s)
        self.chosen, self.capacity, self.balance = s.n_expert_per_token, s.capacity, s.balance
        self.router = nn.Linear(s.n_embd, s.n_expert, bias=False)
        self.experts = nn.ModuleList(FeedForward(s, multiple=4 / self.chosen) for _ in range(s.n_expert))
        self.load, self.dropped, self.auxiliary_loss = None, 0.0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        tokens, E, k = x.flatten(0, -2), len(self.experts), self.chosen  # (N, C)
        p = F.softmax(self.router(tokens), dim=-1)                       # (N, E)
        weights, chosen = p.topk(k)                                      # (N, k) twice
        weights = weights if k == 1 else weights / weights.sum(dim=-1, keepdim=True)
        room = len(tokens) * k
        if self.training and self.capacity is not None:
            room = math.ceil(self.capacity * len(tokens) * k / E)
        out, served = torch.zeros_like(tokens), 0
        for number, expert in enumerate(self.experts):
            rows, place = (chosen == number).nonzero(as_tuple=True)    # in the order of the text
            rows, place = rows[:room], place[:room]
            answers = weights[rows, place, None].to(x) * expert(tokens[rows])
            out = out.index_add(0, rows, answers.to(out))
            served += len(rows)
        self.load = torch.bincount(chosen.flatten(), minlength=E) / chosen.numel()  # (E,)
        self.dropped = 1 - served / chosen.numel()
        self.auxiliary_loss = self.balance * E * (self.load * p.mean(dim=0)).sum()
        return out.view_as(x)


def check(s) -> None:
    """Raise ValueError for numbers of experts, a capacity or a balance that cannot be."""
    k = s.n_expert_per_token
    for name, fits, rule in (
        ("n_expert_per_token", 1 <= k <= s.n_expert, f"at least 1, at most all {s.n_expert}"),
        ("capacity", s.capacity is None or s.capacity > 0, "above 0, or no token has room"),
        ("balance", 0 <= s.balance < math.inf, "at least 0"),
    ):
        if not fits:
            raise ValueError(f"{name} {getattr(s, name)} makes no sense; it must be {rule}")
