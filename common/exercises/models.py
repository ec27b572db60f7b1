"""What is looked at in a model."""

from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.exercises.catalogue import Exercise
from common.exercises.observation import Observation
from common.exercises.running import (
    V,
    arms_of,
    build,
    execute,
    given_weights,
    ids,
    one_target,
    small_settings,
    tensors,
    with_given_weights,
)
from common.settings import Settings
from common.training.loop import auxiliary_loss
from common.training.metrics import pair_entropy


def watch_models(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """Everything that is promised of a model, for each arm of an exercise."""
    arms = arms_of(module, exercise)
    for arm in arms:
        yield from Watched(module, exercise, arm, arm if len(arms) > 1 else "").observations()


@cache
def given_to(exercise: Exercise, arm: str) -> dict[str, Tensor]:
    """The weights that the reference and every solution are compared with."""
    text = exercise.source.read_text(encoding="utf-8")
    return given_weights(execute(text, exercise.source), exercise, arm)


class Watched:
    """The model of an arm of a solution."""

    def __init__(self, module: ModuleType, exercise: Exercise, arm: str, what: str):
        self.module, self.exercise, self.arm, self.what = module, exercise, arm, what

    def build(self, seed: int = 1, **changed) -> tuple[nn.Module, Settings]:
        return build(self.module, self.exercise, self.arm, seed, **changed)

    def given(self, **changed) -> tuple[nn.Module, Settings]:
        """The model with given weights, which does not drop anything."""
        model, s = self.build(**changed)
        return with_given_weights(model, given_to(self.exercise, self.arm)).eval(), s

    def observations(self) -> Iterator[Observation]:
        def watched(promise: str, look: Callable[[], object], tolerance=1e-6) -> Observation:
            return Observation(promise, look, tolerance, self.what)

        yield watched("parameters", self.parameters)
        yield watched("shape", lambda: tuple(self.logits().shape))
        yield watched("influence", self.influence)
        yield watched("logits", self.logits)
        if not one_target(self.module.lesson.settings):
            yield watched("shorter", lambda: self.logits(5))
        yield watched("gradient", self.gradient)
        if self._trains():
            yield watched("start", self.start, 0.15)
            yield watched("first loss", self.first_loss, 0.1)
            yield watched("training", self.in_training, 0.05 if self._drops() else 1e-6)
        if _has_cache(self.exercise, self.arm):
            yield watched("cache", self.piece_by_piece)
        if self._trains() and not self._is_table():
            yield Observation("learns", self.learns, what=self.what, dear=True, single=True)

    def _trains(self) -> bool:
        return any("weight" in name or "table" in name for name in given_to(self.exercise, self.arm))

    def _is_table(self) -> bool:
        """Whether it is a table of pairs, which cannot learn more than pairs."""
        return set(given_to(self.exercise, self.arm)) == {"table"}

    def _drops(self) -> bool:
        return small_settings(self.module, self.exercise, self.arm).dropout > 0

    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in tensors(self.build()[0]).items()}

    def logits(self, length: int | None = None) -> Tensor:
        model, s = self.given()
        return model(ids(s, 3, length)).detach()

    @torch.no_grad()
    def influence(self) -> Tensor:
        """True where the answer at place t (rows) depends on the token at place s. (T, T)"""
        model, s = self.given()
        x = ids(s, 1)
        before, found = model(x), []
        for place in range(x.size(1)):
            changed = x.clone()
            changed[:, place] = (changed[:, place] + 1) % V
            apart = (model(changed) - before).abs().amax(dim=(0, -1))  # (T,), or () for one answer
            found.append(apart.reshape(-1) > 1e-9)
        return torch.stack(found, dim=1)

    def gradient(self) -> dict[str, Tensor]:
        """The gradient of each parameter on given weights."""
        model, s = self.given()
        x = ids(s, 3)
        logits = model(x)
        y = ids(s, 3, seed=4) if logits.ndim == 3 else ids(s, 3, seed=4)[:, 0]
        loss = F.cross_entropy(logits.flatten(0, -2), y.flatten()) + auxiliary_loss(model)
        if not loss.requires_grad:
            return {}
        loss.backward()
        nothing = torch.zeros(())
        return {name: nothing if p.grad is None else p.grad for name, p in model.named_parameters()}

    def start(self) -> dict[str, float | str]:
        """How large each parameter is at first (root mean square), if there are enough numbers to tell."""
        model, _ = self.build(n_embd=72)
        sizes: dict[str, float | str] = {}
        for name, p in model.named_parameters():
            known = p.numel() >= 400 or (p.numel() > 0 and p.std(correction=0) == 0)
            sizes[name] = p.detach().double().square().mean().sqrt().item() if known else "random"
        return sizes

    def first_loss(self) -> float:
        model, s = self.build()
        logits = model.eval()(ids(s, 16))
        y = ids(s, 16, seed=4) if logits.ndim == 3 else ids(s, 16, seed=4)[:, 0]
        return F.cross_entropy(logits.flatten(0, -2), y.flatten()).item()

    @torch.no_grad()
    def in_training(self) -> dict[str, Tensor]:
        """The answers in training mode, and buffers after them; of dropout, how far it moves the answers."""
        model, s = self.given()
        if s.dropout:
            torch.default_generator.manual_seed(5)
            answers = model.train()(ids(s, 1).repeat(300, 1))
            return {"mean answer": answers.mean(dim=0).std(), "spread of answers": answers.std(dim=0).mean()}
        answers = model.train()(ids(s, 8))
        kept = {name: b.double() for name, b in tensors(model).items() if name in dict(model.named_buffers())}
        return {"answers": answers, **kept}

    @torch.no_grad()
    def piece_by_piece(self) -> Tensor:
        """The answers to a text that is read in pieces, with the cache."""
        model, s = self.given()
        model(ids(s, 2, seed=5), model.new_cache())  # type: ignore[operator]  # another text leaves nothing
        cache, x = model.new_cache(), ids(s, 2)  # type: ignore[operator]
        pieces = x.split([5, 1, 1, 3, 2], dim=1)
        return torch.cat([model(piece, cache) for piece in pieces], dim=1)

    def learns(self) -> bool:
        """Whether one batch is learned better than a table of pairs could."""
        model, s = self.build(dropout=0.0)
        x = ids(s, 4)
        y = ids(s, 4, seed=4) if model(x).ndim == 3 else ids(s, 4, seed=4)[:, 0]
        floor = pair_entropy(x if x.ndim == y.ndim else x[:, -1], y)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
        for _ in range(300):
            loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
            if loss.item() < floor + 0.05:
                return True
            if not loss.isfinite():
                return False
            optimizer.zero_grad()
            (loss + auxiliary_loss(model)).backward()
            optimizer.step()
        return False


@cache
def _has_cache(exercise: Exercise, arm: str) -> bool:
    """Whether the reference's model goes on with a text from a cache."""
    text = exercise.source.read_text(encoding="utf-8")
    return hasattr(build(execute(text, exercise.source), exercise, arm)[0], "new_cache")
