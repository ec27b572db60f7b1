"""`--check`: a model that cannot learn one batch by heart has a fault."""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from common.data import Data
from common.errors import UserError
from common.lessons.plan import Plan
from common.settings import Settings
from common.training import memory
from common.training.loop import auxiliary_loss
from common.training.metrics import pair_entropy


def overfit(plan: Plan, arms: list[str], s: Settings, load: Callable[[Settings], Data]) -> None:
    """Train on one batch of four windows and compare with the best that any table of letter pairs could do on
    that batch.
    """
    failed = []
    for arm in arms:
        if not plan.trains(arm):
            raise UserError(
                f"{plan.experiment} counts; it has nothing to overfit, so --check has nothing to check"
            )
        small = dataclasses.replace(plan.own(arm, s), batch_size=4)
        data = load(small)
        memory.check(plan.experiment, plan.arms[arm], small, data)
        x, y = data.batch(0)
        floor = pair_entropy(x if x.ndim == y.ndim else x[:, -1], y)
        best = math.inf
        for rate in (1e-2, 1e-3):  # some learn at the smaller one only
            best = min(best, learn_one_batch(plan, arm, small, data, rate, floor + 0.05))
            learned = best <= floor + 0.05
            if learned:
                break
        verdict = "ok" if learned else "FAILED"
        print(
            f"{arm}: one batch learned to {best:.3f} nats, the best table of pairs has {floor:.3f}: {verdict}"
        )
        failed += [] if learned else [arm]
    if failed:
        raise SystemExit(1)


def learn_one_batch(plan: Plan, arm: str, s: Settings, data: Data, rate: float, enough: float) -> float:
    """The lowest loss on the first batch within 1000 steps at this learning rate; a loss that is low enough
    ends it.
    """
    torch.manual_seed(1)
    model = plan.arms[arm](s, data.tokenizer.vocab_size).to(data.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    x, y = data.batch(0)
    best = math.inf
    for _ in range(1000):
        loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        best = min(best, loss.item())
        if best <= enough:
            break
        optimizer.zero_grad()
        (loss + auxiliary_loss(model)).backward()
        optimizer.step()
    return best
