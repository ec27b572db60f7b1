"""Optimizers beside torch's own. Taught in 09_pretraining/optimizer.py."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw as adamw_step

from common.model.embedding import BigramEmbedding
from common.training.distributed import part_of, whole


def orthogonal(g: Tensor, rounds: int = 5) -> Tensor:
    """The nearest matrices (M, A, B) whose singular values are all about 1: between 0.7 and 1.2.

    Rounds of a x + b x³ + c x⁵ on the singular values, by products of matrices alone. Source: Jordan et
    al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    turned = g.size(-2) > g.size(-1)  # products of the smaller size
    x = g.mT if turned else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # now none is above 1
    for _ in range(rounds):
        square = x @ x.mT
        inner = torch.baddbmm(square, square, square, beta=b, alpha=c)  # b x² + c x⁴, in one pass
        x = torch.baddbmm(x, inner, x, beta=a)
    return x.mT if turned else x


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, for parameter groups with `orthogonal=True` (matrices); AdamW for the others.

    A step of a matrix has numbers as large as one of AdamW's, so one learning rate serves both. Every group
    has a `weight_decay`. Source: as `orthogonal`; Liu et al. 2025, arXiv:2502.16982 (the size of a step).
    AdamW's part is the library's step, which does in one pass over memory what takes ten when written out.
    """

    def __init__(self, parts: Iterable[dict], lr: float, betas: tuple[float, float], momentum: float = 0.95):
        super().__init__(parts, {"lr": lr, "betas": betas, "momentum": momentum, "orthogonal": False})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (self._turn if group["orthogonal"] else self._adam)(group)

    def _turn(self, group: dict) -> None:
        """Matrices of one shape in one batch: a product of many small matrices costs less than many."""
        shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p in group["params"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.mul_(group["momentum"]).add_(p.grad)
            shapes.setdefault(p.shape, []).append((p, p.grad + group["momentum"] * momentum))
        for shape, pairs in shapes.items():
            size = 0.2 * max(shape) ** 0.5
            steps = orthogonal(torch.stack([whole(ahead) for _, ahead in pairs]))  # (M, A, B)
            for (p, _), step in zip(pairs, steps, strict=True):
                p.sub_(part_of(step, p), alpha=group["lr"] * size)

    def _adam(self, group: dict) -> None:
        for p in group["params"]:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
                self.state[p] |= {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        states = [self.state[p] for p in group["params"]]
        means, squares, steps = ([state[name] for state in states] for name in ("mean", "square", "step"))
        gradients, (beta1, beta2) = [p.grad for p in group["params"]], group["betas"]
        adamw_step(
            group["params"], gradients, means, squares, [], steps, fused=_has_fused(group["params"][0]),
            amsgrad=False, maximize=False, beta1=beta1, beta2=beta2, lr=group["lr"],
            weight_decay=group["weight_decay"], eps=1e-8,
        )  # fmt: skip


def _has_fused(p: Tensor) -> bool:
    """Whether the library has one kernel for a whole step of AdamW where this tensor lies."""
    return p.device.type != "mps"


def parameter_groups(
    model: nn.Module, weight_decay: float, pair_decay: float = 0.0, share: float = 1.0
) -> list[dict]:
    """The parameters of a GPT as groups for an optimizer, each with its `weight_decay`, and with the `share`
    of the learning rate that it gets.

    The matrices inside the blocks decay. All else does not: embeddings and head, norms, biases; but a table
    of pairs decays by `pair_decay`. share: of all that is no matrix inside a block.
    """
    inside = [p for p in model.get_submodule("blocks").parameters() if p.ndim == 2]
    pairs = [part.pairs.weight for part in model.modules() if isinstance(part, BigramEmbedding)]
    chosen = {id(p) for p in inside + pairs}
    others = [p for p in model.parameters() if id(p) not in chosen]
    parts = [
        {"params": inside, "weight_decay": weight_decay, "share": 1.0},
        {"params": others, "weight_decay": 0.0, "share": share},
        {"params": pairs, "weight_decay": pair_decay, "share": share},
    ]
    return [part for part in parts if part["params"]]


def muon(parts: list[dict], lr: float, beta2: float) -> Muon:
    """Muon for the first part, the matrices inside the blocks, and AdamW for the others."""
    first, *others = parts
    return Muon([first | {"orthogonal": True}, *others], lr, (0.9, beta2))


def adamw(parts: list[dict], lr: float, beta2: float) -> torch.optim.AdamW:
    """AdamW for all parts."""
    return torch.optim.AdamW(parts, lr=lr, betas=(0.9, beta2), fused=_has_fused(parts[0]["params"][0]))
