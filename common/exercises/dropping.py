"""What is looked at in dropout: at which places it happens, and that it happens in training only."""

from collections.abc import Iterator
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from common.exercises.catalogue import Exercise
from common.exercises.models import Watched
from common.exercises.observation import Observation
from common.exercises.running import WIDTH, arms_of, ids

TIMES, PLACES = 1000, 6
PARTS = ("blocks.0.attention", "blocks.0.feed_forward", "blocks.0")


def watch_dropout(module: ModuleType, exercise: Exercise) -> Iterator[Observation]:
    """How far dropout moves the answers of a block and of its parts, and what it sets to zero."""
    for arm in arms_of(module, exercise):
        watched = Watched(module, exercise, arm, "")
        yield Observation("evaluation", partial(_same_twice, watched))
        yield Observation(
            "places of dropout", partial(_zeros_in_the_stream, watched), 0.06, "the first block"
        )
        for part in PARTS:
            yield Observation("places of dropout", partial(_spread, watched, part), 0.06, part)


@torch.no_grad()
def _same_twice(watched: Watched) -> bool:
    model, s = watched.given()
    x = ids(s, 3)
    return torch.equal(model(x), model(x))


@torch.no_grad()
def _spread(watched: Watched, part: str) -> dict[str, Tensor]:
    """How far the answers of a part to one input are from one another, at each place, and from 0."""
    model, _ = watched.given()
    x = torch.randn(1, PLACES, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.manual_seed(5)
    answers = model.train().get_submodule(part)(x.expand(TIMES, -1, -1))  # (TIMES, PLACES, C)
    return {"spread at each place": answers.std(dim=0).mean(dim=-1)}


@torch.no_grad()
def _zeros_in_the_stream(watched: Watched) -> dict[str, float]:
    """Of what goes into a block, of what it adds and of what comes out, the share that is zero."""
    model, s = watched.given()
    seen: list[Tensor] = []
    model.get_submodule("blocks.0").register_forward_hook(lambda _, x, y: seen.extend((x[0], y)))
    torch.manual_seed(5)
    model.train()(ids(s, 1, PLACES).repeat(TIMES, 1))
    before, after = seen[:2]

    def zeros(x: Tensor) -> float:
        return (x.abs() < 1e-12).double().mean().item()

    return {"zeros that go in": zeros(before), "zeros that are added": zeros(after - before),
            "zeros that come out": zeros(after)}  # fmt: skip
