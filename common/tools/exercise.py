"""Exercises: write the part of a script that its lesson is about, and see at once whether it is right.

From the command line:

    python -m common.tools.exercise list
    python -m common.tools.exercise start self_attention
    python -m common.tools.exercise check [self_attention]
    python -m common.tools.exercise hint self_attention
    python -m common.tools.exercise solution self_attention
    python -m common.tools.exercise progress
"""

import difflib
import os
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Union

import tyro

from common.errors import UserError, command
from common.exercises.catalogue import Exercise, exercise, exercises, written
from common.exercises.desk import Desk, Event
from common.parsing import parse_as
from common.paths import ROOT

LONGEST = 60.0  # seconds that a check may take


@dataclass(frozen=True)
class Folder:
    """Where the exercises lie."""

    folder: str | None = None
    """The folder you work in (none named: exercises/ in the project)."""


@dataclass(frozen=True)
class List(Folder):
    """List the exercises in course order."""


@dataclass(frozen=True)
class Named(Folder):
    """An exercise by name."""

    name: tyro.conf.Positional[str] = ""
    """The exercise: `self_attention`."""


@dataclass(frozen=True)
class Start(Named):
    """Write a copy of the script, with gaps where the lesson is. What you have is never overwritten."""


@dataclass(frozen=True)
class Check(Named):
    """See which promises your solution keeps, and what a broken one usually means (no name: all you began).

    Exit code 1 where one is broken.
    """


@dataclass(frozen=True)
class Hint(Named):
    """Get the next hint."""


@dataclass(frozen=True)
class Solution(Named):
    """Show how your file differs from the solution of the course."""


@dataclass(frozen=True)
class Progress(Folder):
    """Show what you have begun and what is done."""


def show_list(asked: List) -> None:
    """Print every exercise with its idea, and how far the reader is."""
    states = _states(Desk(asked.folder))
    folder = ""
    for name, one in exercises().items():
        if one.source.parent.name != folder:
            folder = one.source.parent.name
            print(f"\n{folder}")
        print(f"  {name:<18}{states.get(name, ''):<12}{', '.join(one.write)}")
    print("\npython -m common.tools.exercise start NAME")


def start(asked: Start) -> None:
    """Write the copy with gaps, and say what to do with it."""
    from common.exercises.gaps import with_gaps

    desk, one = Desk(asked.folder), exercise(_name(asked))
    desk.events()  # a record that is none is told before anything is written
    desk.put(one, with_gaps(one))
    desk.note(Event(one.name, "started"))
    again = f" --folder {asked.folder}" if asked.folder else ""
    print(f"{desk.shown(one)}: write {', '.join(one.write)}")
    print(f"idea      {one.idea}")
    print(f"check     python -m common.tools.exercise check {one.name}{again}")
    print(f"a hint    python -m common.tools.exercise hint {one.name}{again}")


def check(asked: Check) -> None:
    """Check one exercise, or all that were begun; SystemExit(1) where a promise is broken."""
    desk = Desk(asked.folder)
    chosen = (
        [exercise(asked.name)] if asked.name else [e for e in exercises().values() if desk.path(e).exists()]
    )
    if not chosen:
        raise UserError(
            "nothing is begun yet; begin with: python -m common.tools.exercise start self_attention"
        )
    texts = [desk.read(one) for one in chosen]
    right = [_check(desk, one, text) for one, text in zip(chosen, texts, strict=True)]
    if not all(right):
        raise SystemExit(1)


def _check(desk: Desk, one: Exercise, text: str) -> bool:
    import torch

    from common.exercises import judge

    torch.set_num_threads(1)  # small models: threads would wait for one another
    judge.reference(one)
    with _Watch(str(desk.path(one))):
        seen = judge.look_at(text, one, desk.path(one))
        found = judge.verdicts(seen)
        broken = [verdict for verdict in found if verdict.broken]
        unfinished = judge.unfinished(seen)
        likely = judge.looks_like(seen, one) if broken and not unfinished else ()
    print(desk.shown(one))
    if unfinished:
        print(f"  not written yet: {', '.join(judge.gaps(text)) or unfinished}")
    told = set()
    for verdict in (verdict for verdict in found if verdict.begun or not verdict.waits):
        state = "so far" if verdict.waits else "FAILED" if verdict.broken else "ok"
        print(f"  {state:<8}{verdict.title}")
        wrong = verdict.broken[0].wrong if verdict.broken and not verdict.waits else ""
        if wrong:
            print(f"{'':<10}{'the same error' if wrong in told else wrong}")
        told.add(wrong)
    print(f"  {len(found) - len(broken)} of {len(found)} promises kept")
    first = next((verdict for verdict in broken if not verdict.waits), None)
    if likely:
        for mistake in likely:
            print(f"this does what comes of a usual mistake: {mistake.hint}")
    elif first:
        print(f"usually that means: {first.meaning}")
    desk.note(Event(one.name, "checked", len(found) - len(broken), len(found)))
    if not broken:
        trains = f" Train it: python {desk.shown(one)} (--help shows its settings)"
        print(f"all right.{trains if 'run(lesson' in text else ''}")
    return not broken


class _Watch:
    """Ends the program with a line that says where it hangs, if a check takes too long."""

    def __init__(self, file: str):
        self.file, self.thread = file, threading.get_ident()
        self.timer = threading.Timer(LONGEST, self._end)
        self.timer.daemon = True

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_) -> None:
        self.timer.cancel()

    def _end(self) -> None:
        frames = traceback.extract_stack(sys._current_frames()[self.thread])
        lines = [frame.lineno for frame in frames if frame.filename == self.file]
        where = f", now in line {lines[-1]} of {self.file}" if lines else ""
        print(f"error: no end after {LONGEST:.0f} seconds{where}: a loop that never ends?", file=sys.stderr)
        sys.stderr.flush()
        os._exit(2)


def hint(asked: Hint) -> None:
    """Print the next of an exercise's hints, and how many there are."""
    desk, one = Desk(asked.folder), exercise(_name(asked))
    desk.read(one)
    given = sum(event.exercise == one.name and event.what == "hint" for event in desk.events())
    hints = [" ".join(said.split()) for said in one.hints]
    if given >= len(hints):
        for number, said in enumerate(hints, 1):
            print(f"{number}  {said}")
        print("that was all; `check` says what a broken promise means, `solution` shows the difference")
        return
    print(f"hint {given + 1} of {len(hints)}: {hints[given]}")
    desk.note(Event(one.name, "hint"))


def solution(asked: Solution) -> None:
    """Print the difference between what the reader wrote and the script of the course."""
    desk, one = Desk(asked.folder), exercise(_name(asked))
    own, course = desk.read(one), one.source.read_text(encoding="utf-8")
    mine, theirs = ("\n\n".join(written(text, one.write)).splitlines() for text in (own, course))
    names = str(desk.shown(one)), one.source.relative_to(ROOT).as_posix()
    lines = list(difflib.unified_diff(mine, theirs, *names, lineterm=""))
    colours = {"+": "\033[32m", "-": "\033[31m"} if sys.stdout.isatty() else {}
    for line in lines:
        colour = colours.get(line[0], "")
        print(f"{colour}{line}\033[0m" if colour else line)
    if not lines:
        print("no difference")
    desk.note(Event(one.name, "solution"))


def progress(asked: Progress) -> None:
    """Print for each exercise that was begun how often it was checked, and what it keeps."""
    desk = Desk(asked.folder)
    events, states = desk.events(), _states(desk)
    counts = Counter((event.exercise, event.what) for event in events)
    for name in exercises():
        if name in states:
            checks, hints = counts[name, "checked"], counts[name, "hint"]
            looked = "  solution seen" if counts[name, "solution"] else ""
            print(f"{name:<18}{states[name]:<12}{checks:>4} checks{hints:>4} hints{looked}")
    done = sum(state == "done" for state in states.values())
    print(
        f"{done} of {len(exercises())} exercises done" + (f", {len(states) - done} begun" if states else "")
    )


def _states(desk: Desk) -> dict[str, str]:
    """How far each exercise is that was begun: `begun`, `4 of 9`, `done` (whatever was tried afterwards)."""
    states: dict[str, str] = {}
    for event in desk.events():
        if event.what == "started":
            states.setdefault(event.exercise, "begun")
        if event.what == "checked" and not states.get(event.exercise, "").startswith("done"):
            states[event.exercise] = "done" if event.kept == event.of else f"{event.kept} of {event.of}"
    return states


def _name(asked: Named) -> str:
    if not asked.name:
        raise UserError("name an exercise, for example self_attention (python -m common.tools.exercise list)")
    return asked.name


Subcommand = Union[  # noqa: UP007 (tyro wants a union type)
    Annotated[List, tyro.conf.subcommand("list")],
    Annotated[Start, tyro.conf.subcommand("start")],
    Annotated[Check, tyro.conf.subcommand("check")],
    Annotated[Hint, tyro.conf.subcommand("hint")],
    Annotated[Solution, tyro.conf.subcommand("solution")],
    Annotated[Progress, tyro.conf.subcommand("progress")],
]
DOES: dict[type, Callable] = {
    List: show_list, Start: start, Check: check, Hint: hint, Solution: solution, Progress: progress,
}  # fmt: skip


@command
def main() -> None:
    asked = parse_as(Subcommand, description=(__doc__ or "").splitlines()[0])
    DOES[type(asked)](asked)


if __name__ == "__main__":
    main()
