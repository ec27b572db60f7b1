"""What is looked at in greedy decoding, and how much a cache keeps."""

from collections.abc import Iterator
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from common.exercises.catalogue import Exercise
from common.exercises.models import Watched
from common.exercises.observation import Observation
from common.exercises.running import V, arms_of, ids

NEW = 6  # tokens to decode


class ToyModel:
    """A model with fixed answers: each depends on every token before it and on the place of each."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.table = torch.randn(V, 16, generator=generator)
        self.head = torch.randn(16, V, generator=generator)
        self.read = 0  # tokens that it was given, in all calls

    def __call__(self, ids: Tensor, cache: "ToyCache | None" = None) -> Tensor:
        self.read += ids.numel() // len(ids)
        seen = ids if cache is None else cache.append(ids)  # (B, S)
        places = torch.arange(1, seen.size(1) + 1).sqrt()[:, None]  # (S, 1)
        sums = (self.table[seen] * torch.cos(places)).cumsum(dim=1)  # (B, S, 16)
        return (torch.sin(2 * sums) @ self.head)[:, -ids.size(1) :]


class ToyCache:
    """The tokens that a toy model has read."""

    def __init__(self):
        self.ids: Tensor | None = None

    def append(self, ids: Tensor) -> Tensor:
        self.ids = ids if self.ids is None else torch.cat([self.ids, ids], dim=1)
        return self.ids


def watch_decoding(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """The tokens that `greedy` finds with a model of fixed answers, and how many that model has to read."""

    def text(rows: int, length: int) -> Tensor:
        generator = torch.Generator().manual_seed(rows + length)
        return torch.randint(V, (rows, length), generator=generator)

    def decoded(rows: int, length: int, new: int, cached: bool) -> Tensor:
        cache = ToyCache() if cached else None
        return module.greedy(ToyModel(), text(rows, length), new, cache)

    def reads_once() -> bool:
        """Whether no more is read than the text and what was added to it."""
        model = ToyModel()
        module.greedy(model, text(2, 5), NEW, ToyCache())
        return model.read <= 5 + NEW

    for cached in (False, True):
        for rows, length, new in ((1, 4, NEW), (3, 5, NEW), (2, 1, NEW), (2, 4, 1)):
            what = f"{new} after {rows} x {length} tokens, {'with' if cached else 'without'} a cache"
            yield Observation("decoded", partial(decoded, rows, length, new, cached), what=what)
    yield Observation("reads once", reads_once)


def watch_memory(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """How many bytes the caches of a model keep of a text, for each arm of an exercise."""

    @torch.no_grad()
    def kept(arm: str) -> int:
        model, s = Watched(module, exercise, arm, "").given()
        cache = model.new_cache()  # type: ignore[operator]
        model(ids(s, 1, 5), cache)
        return sum(int(layer.nbytes) for layer in cache)

    for arm in arms_of(module, exercise):
        yield Observation("memory", partial(kept, arm), what=arm)
