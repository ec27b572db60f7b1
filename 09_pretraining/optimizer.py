"""Optimizer: three ways to make a step of a gradient, and what a limit on its length is good for.

Previous : 09_pretraining/schedule.py
Changes  : groups, orthogonal, Muon, sgd, adamw, muon, train, seconds, measure
Idea     : momentum; a rate for each number (AdamW), and decay for matrices only; or a step that turns every
           direction of a matrix by the same amount (Muon)
Teaches  : torch.optim.Optimizer, torch.optim.SGD
Source   : Loshchilov and Hutter 2019, arXiv:1711.05101 (AdamW); Jordan et al. 2024, "Muon: an optimizer for
           hidden layers in neural networks" (the polynomial); Liu et al. 2025, arXiv:2502.16982 (a step of
           AdamW's size); Pascanu et al. 2013, arXiv:1211.5063 (clipping)
Expect   : each at its own rate, SGD far behind; Muon ahead of AdamW; groups no different at this length;
           without clipping SGD worse, AdamW and Muon the same, but single seeds further apart
Seeds    : 1 2 3 4 5
Stairs   : none
"""

import time

import torch
from torch import nn
from torch.nn import functional as F

from common.model.gpt import GPT
from common.run import run
from common.settings import MICRO_ARCH, Arm, Lesson, OptimizerSettings, Settings


def groups(model):
    """The matrices inside the blocks; and all else: embeddings (the head is one), norms, biases."""
    inside = [p for p in model.blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in inside}
    return inside, [p for p in model.parameters() if id(p) not in chosen]


def orthogonal(g):
    """The nearest matrices (..., A, B) whose singular values are all about 1, without finding these.

    Five rounds of a x + b x³ + c x⁵ on the singular values x drive them from (0, 1] to about 0.7 to 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    turned = g.size(-2) > g.size(-1)                                   # products of the smaller size
    x = g.mT if turned else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)                # now none is above 1
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if turned else x


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal, for the groups that say so; AdamW for the others."""

    def __init__(self, parts, lr, betas, momentum=0.95):
        super().__init__(parts, {"lr": lr, "betas": betas, "momentum": momentum, "orthogonal": False})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])        # decay, apart from the gradient
            (self.turn if group["orthogonal"] else self.adam)(group)

    def turn(self, group):
        """Matrices of one shape in one batch: a product of many small matrices costs less than many."""
        shapes = {}
        for p in group["params"]:
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.mul_(group["momentum"]).add_(p.grad)
            shapes.setdefault(p.shape, []).append((p, p.grad + group["momentum"] * momentum))
        for shape, pairs in shapes.items():
            size = 0.2 * max(shape) ** 0.5                             # numbers as large as a step of AdamW's
            steps = orthogonal(torch.stack([ahead for _, ahead in pairs]))  # (M, A, B)
            for (p, _), step in zip(pairs, steps, strict=True):
                p.sub_(step, alpha=group["lr"] * size)

    def adam(self, group):
        """Means of the gradient and of its square, each divided by what it lacks after few steps."""
        (beta1, beta2), lr = group["betas"], group["lr"]
        for p in group["params"]:
            state = self.state[p]
            if not state:
                state |= {"step": torch.zeros((), dtype=torch.float64)}
                state |= {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
            state["step"] += 1
            state["mean"].lerp_(p.grad, 1 - beta1)
            state["square"].lerp_(p.grad.square(), 1 - beta2)
            mean = state["mean"] / (1 - beta1 ** state["step"])
            square = state["square"] / (1 - beta2 ** state["step"])
            p.sub_(mean / (square.sqrt() + 1e-8), alpha=lr)


def sgd(model, s):
    return torch.optim.SGD(model.parameters(), lr=s.lr, momentum=0.9)


def adamw(model, s):
    """As in the loop of the course, where everything decays a little; or with decay for matrices only."""
    inside, others = groups(model)
    decays = (s.weight_decay, 0.0 if s.decay_matrices else s.weight_decay)
    parts = [{"params": p, "weight_decay": decay} for p, decay in zip((inside, others), decays, strict=True)]
    return torch.optim.AdamW(parts, lr=s.lr, betas=(0.9, s.beta2), fused=True)


def muon(model, s):
    inside, others = groups(model)
    parts = [{"params": inside, "weight_decay": s.weight_decay, "orthogonal": True},
             {"params": others, "weight_decay": 0.0}]
    return Muon(parts, s.lr, (0.9, s.beta2))


def train(model, data, s, recorder):
    """The loop of the course, with an optimizer by name."""
    optimizer = OPTIMIZERS[s.optimizer](model, s)
    for step in recorder.steps(model, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = s.lr * min(1.0, (step + 1) / (s.warm_up + 1))
        x, y = data.batch(step)                                        # (B, T), (B, T)
        loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        if s.clip:                                                     # all gradients together, as one vector
            nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        optimizer.step()
        recorder.record(loss)


def seconds(name, width):
    """Median seconds of a whole step, and of the optimizer's part of it, at a width."""
    s = Settings(n_embd=width)
    model, laps = GPT(s, 1024), []
    optimizer, x = OPTIMIZERS[name](model, s), torch.randint(1024, (16, 64))
    for _ in range(12):
        start = time.perf_counter()
        model(x).square().mean().backward()
        middle = time.perf_counter()
        optimizer.step()
        laps.append((time.perf_counter() - start, time.perf_counter() - middle))
    return torch.tensor(laps[2:]).median(dim=0).values.tolist()


def measure(folder, quick):
    """Draw the optimizer's share of a step against the width of the model."""
    from common.report import overviews

    lines = []
    for name in OPTIMIZERS:
        for width in (32, 64) if quick else (32, 64, 128, 256):
            whole, own = seconds(name, width)
            lines.append(("", name, width, 100 * own / whole))
    header, title = ("panel", "optimizer", "width", "share"), "What part of a step is the optimizer's?"
    return [overviews.scaling(lines, header, ("width of the model", "share of the step (%)"), title,
                              folder / "share")]


OPTIMIZERS = {"sgd": sgd, "adamw": adamw, "muon": muon}
KINDS = {                                                              # rates: the best of a sweep
    "adamw": {"optimizer": "adamw", "lr": 4e-3},
    "adamw-groups": {"optimizer": "adamw", "weight_decay": 0.1, "decay_matrices": True, "lr": 4e-3},
    "sgd": {"optimizer": "sgd", "lr": 0.125},
    "muon": {"optimizer": "muon", "lr": 8e-3},
    "adamw-unclipped": {"optimizer": "adamw", "clip": 0.0, "lr": 2e-3},
    "sgd-unclipped": {"optimizer": "sgd", "clip": 0.0, "lr": 0.25},
    "muon-unclipped": {"optimizer": "muon", "clip": 0.0, "lr": 8e-3},
}
arms = {name: Arm(GPT, **own) for name, own in KINDS.items()}
lesson = Lesson(arms, OptimizerSettings(**vars(MICRO_ARCH)), train=train, measure=measure)

if __name__ == "__main__":
    run(lesson)
