"""Each arm of a script at several learning rates, judged on the validation text with seeds of their own.

`python -m common.tools.course sweep SCRIPT` runs what is missing, side by side; `python -m common.tools.sweep
LINE RATE SEED` is one of its runs. Where the best rate is the lowest or the highest that was tried, it goes
on in that direction.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import tyro

from common import results
from common.errors import UserError, command
from common.lessons.course import Reference, course_plan, refer
from common.one_run import Cell, run_one
from common.parsing import parse_as
from common.results import sweeps
from common.run import prepare
from common.settings import Options
from common.tools.side_by_side import Task, jobs_at_once
from common.training import threads
from common.training.presence import Presence
from common.training.recorder import Stopped

FARTHEST = 16  # times the line's rate, or a part of it: no rate beyond is tried


@dataclass(frozen=True)
class Sweep:
    """Try each arm of a script at several learning rates, with seeds that are never reported, on validation.

    Started again, it goes on where it was.
    """

    lines: tyro.conf.Positional[tuple[str, ...]]
    """Scripts (all their arms) or lines: `norm`, `norm:rmsnorm`, "pre_ln --clip 1"."""
    rates: tuple[float, ...] = ()
    """The rates for every arm (none given: half the line's own, that, and twice as much)."""
    jobs: int | None = None
    """Runs at once, one thread each (none given: as many as cores)."""


@dataclass(frozen=True)
class OneRun:
    """One run of a sweep."""

    line: tyro.conf.Positional[str]
    """A line of the course: `norm:rmsnorm`."""
    rate: tyro.conf.Positional[float]
    """The learning rate."""
    seed: tyro.conf.Positional[int]
    """The seed, one of a sweep's."""
    threads: int | None = None
    """CPU threads (none given: whatever is fastest)."""


def lines_of(name: str) -> list[Reference]:
    """The lines that a script, an arm of it, or either with flags means. Raises UserError."""
    reference = refer(name)
    plan = course_plan(reference.experiment)
    arms = [reference.arm] if ":" in name.split()[0] else plan.course_arms
    chosen = [Reference(reference.experiment, arm, reference.flags) for arm in arms]
    for line in chosen:
        if not plan.trains(line.arm) or "lr" in plan.ignores(line.arm, plan.defaults):
            raise UserError(f"{line} has no learning rate to sweep; name a script that trains a network")
        line.settings()
    return chosen


def sweep(arguments: Sweep, work: Callable[[list[Task], int], None]) -> None:
    """Try what was not tried yet, `work` running the commands; then tell what came of it."""
    if any(not 0 < rate < float("inf") for rate in arguments.rates):
        raise UserError("--rates wants numbers above 0, for example --rates 2e-3 4e-3 8e-3")
    jobs = jobs_at_once(arguments.jobs)
    if not arguments.lines:
        raise UserError("name what to sweep: python -m common.tools.course sweep norm (--help tells more)")
    lines = list(dict.fromkeys(line for name in arguments.lines for line in lines_of(name)))
    results.check_writable()
    wanted = {line: list(arguments.rates) or [own_rate(line) * by for by in (0.5, 1, 2)] for line in lines}
    tasks = _missing(wanted)
    print(f"{len(tasks)} runs to do, {sum(map(len, wanted.values())) * len(sweeps.SEEDS)} in all")
    while tasks:
        work(tasks, jobs)
        wanted = {line: [rate] for line in lines if (rate := _further(line))}
        tasks = _missing(wanted)
        if tasks:
            print(f"the best is at an end of what was tried: {', '.join(map(str, wanted))}")
    for line in lines:
        print(told(line))


def own_rate(line: Reference) -> float:
    """The learning rate that the course runs a line at."""
    return course_plan(line.experiment).own(line.arm, line.settings()).lr


def _further(line: Reference) -> float | None:
    rate = sweeps.further(sweeps.tried(line))
    near = rate and 1 / FARTHEST <= rate / own_rate(line) <= FARTHEST
    return rate if near else None


def _missing(wanted: dict[Reference, list[float]]) -> list[Task]:
    """The commands for the rates that a line was not tried at with every seed."""
    rows, tasks = results.read(), []
    for line, rates in wanted.items():
        for rate in rates:
            done = set(sweeps.rows_at(line, rate, rows).seed)
            for seed in (seed for seed in sweeps.SEEDS if seed not in done):
                program = [sys.executable, "-m", "common.tools.sweep", str(line), repr(rate), str(seed)]
                tasks.append(Task(f"{line} at {rate:g}, seed {seed}", program, [(line, seed)]))
    return tasks


def told(line: Reference) -> str:
    """What a sweep found, as a line for the terminal."""
    bits = sweeps.tried(line)
    each = "  ".join(f"{rate:g}: {sum(v) / len(v):.4f}" for rate, v in bits.items())
    chosen, own = sweeps.best(bits), own_rate(line)
    note = "" if chosen in (own, None) else f"   (the script has {own:g})"
    return f"{str(line):<44} {each}   best {chosen:g}{note}" if chosen else f"{line}: every rate diverged"


@command
def main() -> None:
    a = parse_as(OneRun, sys.argv[1:], __doc__)
    if a.seed not in sweeps.SEEDS:
        raise UserError(f"seed {a.seed} is none of a sweep; they are {' and '.join(map(str, sweeps.SEEDS))}")
    line = refer(a.line)
    plan = course_plan(line.experiment).at_rate(line.arm, a.rate)
    s = plan.own(line.arm, line.settings())
    threads.check(a.threads)
    prepare("cpu")
    cell = Cell(plan, line.arm, a.seed, s, plan.load(s, "cpu", None), sweep=True)
    try:
        with Presence() as presence:
            run_one(cell, Options(seeds=(a.seed,), threads=a.threads, resume=True), presence)
    except Stopped:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
