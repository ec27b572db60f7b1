"""Whether a solution keeps its promises; and if not, which of the usual mistakes it looks like."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from common.exercises.catalogue import Exercise, Mistake, promises
from common.exercises.counting import watch_counting, watch_finding, watch_windows
from common.exercises.models import watch_models
from common.exercises.observation import Failed, Observation, difference, same
from common.exercises.parts import watch_bpe, watch_cache, watch_rope, watch_sampling
from common.exercises.running import execute
from common.exercises.steps import watch_adamw, watch_muon, watch_schedule, watch_training

WATCHING = {
    "model": watch_models, "training": watch_training, "schedule": watch_schedule, "adamw": watch_adamw,
    "muon": watch_muon, "sampling": watch_sampling, "cache": watch_cache,
    "rope": watch_rope, "bpe": watch_bpe,
    "counting": watch_counting, "finding": watch_finding, "windows": watch_windows,
}  # fmt: skip
PAIRS_SECONDS = 3.0  # so long may the search for two mistakes at once take


@dataclass(frozen=True)
class Seen:
    """An observation of a solution beside that of the reference."""

    observation: Observation
    own: object
    reference: object

    @property
    def holds(self) -> bool:
        return same(self.own, self.reference, self.observation.tolerance)

    @property
    def wrong(self) -> str:
        """What is wrong, in one line."""
        what = f"{self.observation.what}: " if self.observation.what else ""
        return what + difference(self.observation.promise, self.own, self.reference)


@dataclass(frozen=True)
class Verdict:
    """A promise, and where it is broken, how."""

    promise: str
    broken: tuple[Seen, ...]

    @property
    def title(self) -> str:
        return promises()[self.promise]["holds"]

    @property
    def meaning(self) -> str:
        """What it usually means."""
        return promises()[self.promise]["broken"].strip()


def observations(text: str, exercise: Exercise, path: Path) -> Iterator[Observation]:
    """What there is to look at in a solution. Raises what its source raises where it cannot be run."""
    module = execute(text, path)
    for name in exercise.watch:
        yield from WATCHING[name](module, exercise)


@cache
def reference(exercise: Exercise) -> tuple[object, ...]:
    """What is seen in the solution of the course."""
    text = exercise.source.read_text(encoding="utf-8")
    path = exercise.source
    return tuple(seen.taken(str(path)) for seen in observations(text, exercise, path))


def look_at(text: str, exercise: Exercise, path: Path) -> list[Seen]:
    """Everything that is seen in a solution, beside the reference."""
    torch.set_num_threads(1)  # small models: threads would wait for one another
    expected = reference(exercise)
    try:
        own = list(observations(text, exercise, path))
    except (Exception, SystemExit) as error:
        failed = Observation("loads", partial(_raise, error))
        return [Seen(failed, failed.taken(str(path)), True)]
    return [Seen(o, o.taken(str(path)), there) for o, there in zip(own, expected, strict=True)]


def _raise(error: BaseException):
    raise error


def verdicts(seen: list[Seen]) -> list[Verdict]:
    """Each promise, in the order in which it was first looked at."""
    names = dict.fromkeys(one.observation.promise for one in seen)
    return [
        Verdict(name, tuple(one for one in seen if one.observation.promise == name and not one.holds))
        for name in names
    ]


def unfinished(seen: list[Seen]) -> str:
    """The first part that is asked for and not written yet, or nothing."""
    failed = [
        one.own for one in seen if isinstance(one.own, Failed) and one.own.kind == "NotImplementedError"
    ]
    return str(failed[0]) if failed else ""


# ---- which mistake it looks like -----------------------------------------------------------------


def looks_like(seen: list[Seen], exercise: Exercise) -> tuple[Mistake, ...]:
    """The usual mistake that does exactly what the solution does, or two of them; none if there is none."""
    for mistake in exercise.mistakes:
        if _does_the_same(seen, exercise, (mistake,)):
            return (mistake,)
    end = time.monotonic() + PAIRS_SECONDS
    for pair in itertools.combinations(exercise.mistakes, 2):
        if time.monotonic() > end:
            break
        if _does_the_same(seen, exercise, pair):
            return pair
    return ()


def _does_the_same(seen: list[Seen], exercise: Exercise, mistakes: tuple[Mistake, ...]) -> bool:
    """Whether the solution of the course with these mistakes gives exactly what was seen."""
    text = exercise.source.read_text(encoding="utf-8")
    try:
        for mistake in mistakes:
            text = mistake.made_in(text, exercise.write)
        made = list(observations(text, exercise, exercise.source))
    except Exception:  # two edits that do not go together
        return False
    if len(made) != len(seen):
        return False
    return all(
        same(one.own, other.taken(str(exercise.source)), max(one.observation.tolerance, 1e-6))
        for one, other in zip(seen, made, strict=True)
        if not one.observation.dear
    )
