"""What is looked at in models that count instead of learning, and in windows of other lengths."""

from collections.abc import Iterator
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from common.exercises.catalogue import Exercise
from common.exercises.models import Watched
from common.exercises.observation import Observation
from common.exercises.running import V, arms_of, build, ids, tensors
from common.exercises.steps import ToyData, ToyRecorder
from common.settings import Settings


class Counted:
    """A model of an arm after it has counted a toy text; it counts when first asked about."""

    def __init__(self, module: ModuleType, exercise: Exercise, arm: str):
        self.module, self.exercise, self.arm = module, exercise, arm
        self.done: tuple | None = None

    def model(self) -> tuple[torch.nn.Module, Settings]:
        if self.done is None:
            model, s = build(self.module, self.exercise, self.arm)
            self.module.lesson.train(model, ToyData(s, False), s, ToyRecorder(1))
            self.done = model.eval(), s
        return self.done

    def tables(self) -> dict[str, Tensor]:
        return tensors(self.model()[0])

    def logits(self, length: int | None = None) -> Tensor:
        model, s = self.model()
        return model(ids(s, 3, length)).detach()

    def sums(self) -> Tensor:
        """The probabilities of all tokens together, at each place. (B, T)"""
        return self.logits().exp().sum(dim=-1)

    @torch.no_grad()
    def influence(self) -> Tensor:
        """True where the answer at place t (rows) depends on the token at place s. (T, T)

        Each token is changed to each other: a longer context that was never seen changes nothing.
        """
        model, s = self.model()
        x = ToyData(s, False).train.tokens[:9][None]
        before, found = model(x), []
        for place in range(x.size(1)):
            changed = x.repeat(V, 1)
            changed[:, place] = torch.arange(V)
            found.append((model(changed) - before).abs().amax(dim=(0, -1)) > 1e-5)
        return torch.stack(found, dim=1)


def watch_counting(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """The tables after a toy text, and the probabilities that a model makes of them."""
    arms = arms_of(module, exercise)
    for arm in arms:
        run, said = Counted(module, exercise, arm), f"order {arm}" if len(arms) > 1 else ""
        for promise, look, tolerance in (
            ("counted", run.tables, 1e-5), ("influence", run.influence, 1e-6), ("sums", run.sums, 1e-4),
            ("logits", run.logits, 1e-5), ("shorter", partial(run.logits, 5), 1e-5),
        ):  # fmt: skip
            yield Observation(promise, look, tolerance, said, single=True)


def watch_finding(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Where a table finds keys: all of them, some that it lacks, and some beyond its last."""

    def found(asked: list[int] | list[list[int]]) -> Tensor:
        table = module.Table()
        table.keys = torch.tensor([2, 3, 7, 20])
        return table.find(torch.tensor(asked))

    cases: dict[str, list[int] | list[list[int]]] = {
        "keys that are there": [2, 3, 7, 20], "keys that are not there": [0, 4, 8, 19],
        "keys above the last": [21, 500], "rows of keys": [[20, 5], [2, 7]],
    }  # fmt: skip
    for what, asked in cases.items():
        yield Observation("found", partial(found, asked), what=what)


def watch_windows(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Windows of other lengths: those that can be halved down to a pair, and those that cannot."""
    arm = arms_of(module, exercise)[0]
    watched = Watched(module, exercise, arm, "")

    def seen(size: int) -> list:
        model, s = watched.build(block_size=size)
        weights = {name: tuple(p.shape) for name, p in tensors(model).items()}
        return [weights, tuple(model.eval()(ids(s, 2)).shape)]

    for size in (2, 4, 16):
        yield Observation("windows", partial(seen, size), what=f"{size} letters")

    def let_through(size: int) -> bool:
        return bool(watched.build(block_size=size))

    for size in (1, 6):
        yield Observation("refused", partial(let_through, size), what=f"a window of {size}")
