"""Optimizers beside torch's own. Taught in 09_pretraining/optimizer.py."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.training.distributed import part_of, whole


def orthogonal(g: Tensor, rounds: int = 5) -> Tensor:
    """The nearest matrices (..., A, B) whose singular values are all about 1: between 0.7 and 1.2.

    Rounds of a x + b x³ + c x⁵ on the singular values, by products of matrices alone. Source: Jordan et
    al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    turned = g.size(-2) > g.size(-1)  # products of the smaller size
    x = g.mT if turned else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # now none is above 1
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if turned else x


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, for parameter groups with `orthogonal=True` (matrices); AdamW for the others.

    A step of a matrix has numbers as large as one of AdamW's, so one learning rate serves both. Every group
    has a `weight_decay`. Source: as `orthogonal`; Liu et al. 2025, arXiv:2502.16982 (the size of a step).
    """

    def __init__(self, parts: Iterable[dict], lr: float, betas: tuple[float, float], momentum: float = 0.95):
        super().__init__(parts, {"lr": lr, "betas": betas, "momentum": momentum, "orthogonal": False})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            (self._turn if group["orthogonal"] else self._adam)(group)

    def _turn(self, group: dict) -> None:
        """Matrices of one shape in one batch: a product of many small matrices costs less than many."""
        shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p in group["params"]:
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.mul_(group["momentum"]).add_(p.grad)
            shapes.setdefault(p.shape, []).append((p, p.grad + group["momentum"] * momentum))
        for shape, pairs in shapes.items():
            size = 0.2 * max(shape) ** 0.5
            steps = orthogonal(torch.stack([whole(ahead) for _, ahead in pairs]))  # (M, A, B)
            for (p, _), step in zip(pairs, steps, strict=True):
                p.sub_(part_of(step, p), alpha=group["lr"] * size)

    def _adam(self, group: dict) -> None:
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


def matrices_and_others(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices inside the blocks of a GPT; and all else: embeddings and head, norms, biases."""
    inside = [p for p in model.get_submodule("blocks").parameters() if p.ndim == 2]
    chosen = {id(p) for p in inside}
    return inside, [p for p in model.parameters() if id(p) not in chosen]


def muon(model: nn.Module, lr: float, beta2: float, weight_decay: float) -> Muon:
    """Muon for the matrices inside the blocks, which alone decay, and AdamW for the rest."""
    inside, others = matrices_and_others(model)
    parts = [
        {"params": inside, "weight_decay": weight_decay, "orthogonal": True},
        {"params": others, "weight_decay": 0.0},
    ]
    return Muon(parts, lr, (0.9, beta2))


def adamw(model: nn.Module, lr: float, beta2: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, with decay for the matrices inside the blocks alone."""
    inside, others = matrices_and_others(model)
    parts = [{"params": inside, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = inside[0].device.type != "mps"
    return torch.optim.AdamW(parts, lr=lr, betas=(0.9, beta2), fused=fused)
