"""Whether a solution keeps its promises; and if not, which of the usual mistakes it looks like."""

import itertools
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from common.errors import UserError
from common.exercises.catalogue import Exercise, Mistake, errors, promises
from common.exercises.counting import watch_counting, watch_finding, watch_windows
from common.exercises.decoding import watch_decoding, watch_memory
from common.exercises.dropping import watch_dropout
from common.exercises.learning import (
    watch_adamw,
    watch_groups,
    watch_initialisation,
    watch_loss,
    watch_muon,
    watch_precision,
)
from common.exercises.mixing import (
    watch_alibi,
    watch_angles,
    watch_assembled,
    watch_experts,
    watch_linear,
    watch_local,
    watch_norms,
    watch_tiled,
    watch_turning,
    watch_waves,
)
from common.exercises.models import watch_models
from common.exercises.observation import Failed, Observation, difference, same
from common.exercises.parts import watch_bpe, watch_cache, watch_rope, watch_sampling
from common.exercises.running import execute
from common.exercises.steps import watch_schedule, watch_training
from common.exercises.wiring import watch_device, watch_dropped, watch_gather, watch_norm, watch_stream

WATCHING = {
    "model": watch_models, "training": watch_training, "schedule": watch_schedule, "adamw": watch_adamw,
    "muon": watch_muon, "sampling": watch_sampling, "cache": watch_cache,
    "rope": watch_rope, "bpe": watch_bpe,
    "tiled": watch_tiled, "local": watch_local, "linear": watch_linear, "angles": watch_angles,
    "waves": watch_waves, "alibi": watch_alibi, "turning": watch_turning, "norms": watch_norms,
    "experts": watch_experts, "assembled": watch_assembled,
    "device": watch_device, "gather": watch_gather, "stream": watch_stream, "dropped": watch_dropped,
    "norm": watch_norm, "initialisation": watch_initialisation, "groups": watch_groups,
    "precision": watch_precision, "loss": watch_loss, "dropout": watch_dropout,
    "decoding": watch_decoding, "memory": watch_memory,
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
    seen: tuple[Seen, ...]

    @property
    def broken(self) -> tuple[Seen, ...]:
        """What is not as in the reference; first what does not only wait for a part that is not written."""
        return tuple(sorted((one for one in self.seen if not one.holds), key=_waits))

    @property
    def title(self) -> str:
        return promises()[self.promise]["holds"]

    @property
    def meaning(self) -> str:
        """What it usually means; of an error, what that error means."""
        own = self.broken[0].own if self.broken else None
        if isinstance(own, Failed):
            said = f"{own.kind}: {own.message}"
            known = (entry["means"] for entry in errors() if re.search(entry["error"], said))
            return next(known, promises()[self.promise]["broken"]).strip()
        return promises()[self.promise]["broken"].strip()

    @property
    def waits(self) -> bool:
        """Whether nothing is wrong but that a part is not written."""
        return bool(self.broken) and all(map(_waits, self.broken))

    @property
    def begun(self) -> bool:
        """Whether some of it holds."""
        return len(self.broken) < len(self.seen)


def _waits(one: Seen) -> bool:
    return isinstance(one.own, Failed) and one.own.is_gap


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


def look_at(text: str, exercise: Exercise, path: Path, dear: bool = True) -> list[Seen]:
    """Everything that is seen in a solution, beside the reference; or all but what takes long (dear)."""
    expected = reference(exercise)
    try:
        own = list(observations(text, exercise, path))
        if len(own) != len(expected):
            raise UserError("something outside of the gaps was changed: an arm, a schedule; put it back")
    except (Exception, SystemExit) as error:
        failed = Observation("loads", partial(_raise, error))
        return [Seen(failed, failed.taken(str(path)), True)]
    both = zip(own, expected, strict=True)
    return [Seen(o, o.taken(str(path)), there) for o, there in both if dear or not o.dear]


def _raise(error: BaseException):
    raise error


def verdicts(seen: list[Seen]) -> list[Verdict]:
    """Each promise, in the order in which it was first looked at."""
    names = dict.fromkeys(one.observation.promise for one in seen)
    return [Verdict(name, tuple(one for one in seen if one.observation.promise == name)) for name in names]


def unfinished(seen: list[Seen]) -> str:
    """The first part that is asked for and not written yet, or nothing."""
    return next((str(one.own) for one in seen if _waits(one)), "")


def gaps(text: str) -> list[str]:
    """The parts that are not written yet, whether they are asked for or not."""
    return re.findall(r"raise NotImplementedError\(\"([\w.]+)\"\)", text)


# ---- which mistake it looks like -----------------------------------------------------------------


def looks_like(seen: list[Seen], exercise: Exercise) -> tuple[Mistake, ...]:
    """The usual mistake that does exactly what the solution does, or two of them; none if there is none.

    Of several that fail alike, one that ends in the same words goes first; and where most observations end
    in an error, only that one counts.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mistakes that are not the reader's
        return _found(seen, exercise)


def _found(seen: list[Seen], exercise: Exercise) -> tuple[Mistake, ...]:
    failed = sum(isinstance(one.own, Failed) for one in seen)
    for same_words in (True, False) if 0 < failed <= len(seen) / 2 else (True,):
        for mistake in exercise.mistakes:
            if _does_the_same(seen, exercise, (mistake,), same_words):
                return (mistake,)
    # a second mistake that only shows on another device shall not hide the first
    here = [one for one in seen if one.observation.promise != "device"]
    if any(not one.holds for one in here) and not all(one.holds for one in seen if one not in here):
        for mistake in exercise.mistakes:
            if _does_the_same(seen, exercise, (mistake,), same_words=True, here=True):
                return (mistake,)
    end = time.monotonic() + PAIRS_SECONDS
    for pair in itertools.combinations(exercise.mistakes, 2):
        if time.monotonic() > end:
            break
        if _does_the_same(seen, exercise, pair, same_words=True):
            return pair
    return ()


def _does_the_same(
    seen: list[Seen], exercise: Exercise, mistakes: tuple[Mistake, ...], same_words: bool, here: bool = False
) -> bool:
    """Whether the solution of the course with these mistakes gives exactly what was seen. here: leaving out
    what is seen on another device.
    """
    made, seen = _behaviour(exercise, mistakes), [one for one in seen if not one.observation.dear]
    if len(made) != len(seen):
        return False
    pairs = zip(seen, made, strict=True)
    return all(
        _alike(one.own, look(), max(one.observation.tolerance, 1e-6), same_words)
        for one, look in sorted(pairs, key=lambda pair: pair[0].holds)  # what is wrong tells most
        if not (here and one.observation.promise == "device")
    )


def _alike(own: object, made: object, tolerance: float, same_words: bool) -> bool:
    """same_words: errors have to say the same."""
    if same_words and isinstance(own, Failed) and isinstance(made, Failed):
        return (own.kind, own.message) == (made.kind, made.message)
    return same(own, made, tolerance)


@cache
def _behaviour(exercise: Exercise, mistakes: tuple[Mistake, ...]) -> tuple[Callable[[], object], ...]:
    """Each observation of the solution with these mistakes but the dear, taken when first asked for."""
    text, file = exercise.source.read_text(encoding="utf-8"), exercise.source
    try:
        for mistake in mistakes:
            text = mistake.made_in(text, exercise.write)
        made = list(observations(text, exercise, file))
    except Exception:  # two edits that do not go together
        return ()
    return tuple(cache(partial(one.taken, str(file))) for one in made if not one.dear)
