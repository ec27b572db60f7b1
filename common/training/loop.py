"""The training loop, and nothing else: the steps that `01_bigram/by_hand.py` writes out, with the AdamW of
`01_bigram/names_bigram.py`.

At the course setting the learning rate is constant, everything decays a little, and no gradient is clipped.
The recipe that large models are trained by (warm-up and cosine, decay of matrices only, clipping) is there
for presets; stage 09 teaches it.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from common.data import Data
from common.settings import Settings


def train(model: nn.Module, data: Data, s: Settings, recorder) -> None:
    """Train `model` in place with AdamW.

    The recorder (common.training.recorder) counts steps, shows progress and saves.
    """
    device = torch.device(data.device)
    optimizer = adamw(model, s)
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=s.dtype == "bfloat16")
    for step in recorder.steps(model, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(s, step)
        x, y = data.batch(step)                                       # (B, T), (B, T)
        with mixed:
            logits = model(x)                                         # (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, -2), y.flatten())
            total = loss + auxiliary_loss(model)
        optimizer.zero_grad()
        total.backward()
        if s.clip:
            nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        optimizer.step()
        recorder.record(loss)


def auxiliary_loss(model: nn.Module) -> torch.Tensor | float:
    """What layers ask for besides right predictions (a mixture of experts: that its experts get equal work);
    0 for most models.
    """
    return sum(part.auxiliary_loss for part in model.modules() if hasattr(part, "auxiliary_loss"))


def learning_rate(s: Settings, step: int) -> float:
    """The rate of a step: rising during the warm-up, then constant, or falling along half a cosine to
    `min_lr`.
    """
    if step < s.warm_up:
        return s.lr * (step + 1) / (s.warm_up + 1)
    if not s.cosine:
        return s.lr
    done = (step - s.warm_up) / max(1, s.steps - s.warm_up)
    return s.min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (s.lr - s.min_lr)


def adamw(model: nn.Module, s: Settings) -> torch.optim.AdamW:
    """AdamW over all parameters, or, with `decay_matrices`, with decay for those of two or more dimensions
    only.
    """
    parameters = list(model.parameters())
    groups = [{"params": parameters, "weight_decay": s.weight_decay}]
    if s.decay_matrices:
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": s.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(groups, lr=s.lr, betas=(0.9, s.beta2), fused=parameters[0].device.type != "mps")
