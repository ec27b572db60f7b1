"""The course as a whole: what it has, what is measured, and running what is missing.

From the command line:

    python -m common.tools.course list
    python -m common.tools.course run [STAGE ...] [--seeds 1 2 3] [--quick] [--again]
    python -m common.tools.course status
"""

import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import tyro

from common import checkpoint, results
from common.errors import UserError, command
from common.lesson import COURSE, ROOT, Reference, course_plan, course_references, find
from common.results import course_rows
from common.runs import find_run
from common.settings import parse_as

Job = tuple[Reference, int]


@dataclass(frozen=True)
class Run:
    """Run what is missing. Rows are appended to the results file as each run ends; started again, it goes on where it was."""

    stages: tyro.conf.Positional[tuple[str, ...]] = ()
    """Stages or scripts (none named: the whole course), for example 02_attention or 01_bigram/ngram."""
    seeds: tuple[int, ...] | None = None
    """One run of each line of the course per seed (none named: the seeds that a script's header gives, 1 2 3 if it gives none)."""
    quick: bool = False
    """One seed of the smaller form of each script, nothing logged: shows that everything works."""
    again: bool = False
    """Also what has a row already (its learning curve was lost, say)."""


@dataclass(frozen=True)
class List:
    """List the scripts in course order."""


@dataclass(frozen=True)
class Status:
    """Tell which lines of the course are measured with the current code and settings."""


def chosen(stages: tuple[str, ...]) -> list[Reference]:
    """The lines of the course that the named stages or scripts have. Raises UserError for a name that means none."""
    names = [*dict.fromkeys(e.split("/")[0] for e in COURSE), *COURSE]
    wanted = [s.rstrip("/").removesuffix(".py") for s in stages] or [""]
    wanted = [s if s in names or not s else find(s) for s in wanted]
    found = [r for r in course_references() if any(r.experiment == s or not s or r.experiment.startswith(s + "/") for s in wanted)]
    return list(dict.fromkeys(found))


def own_seeds(reference: Reference) -> list[int]:
    """The seeds that the course runs a reference with."""
    return course_plan(reference.experiment).lesson.seeds


def missing(jobs: list[Job]) -> list[Job]:
    """Those without a current row."""
    rows = results.read()
    done = {r: set(course_rows(r, rows).seed) for r, _ in jobs}
    return [(r, seed) for r, seed in jobs if seed not in done[r]]


def expected_seconds(job: Job, measured: dict[str, float], quick: bool) -> float:
    """A guess from an earlier run of the same script: training time plus start and evaluation."""
    return measured.get(job[0].experiment, 10.0) * (0.1 if quick else 1.0) + 4.0


def clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def resumable(reference: Reference, seed: int) -> bool:
    """Whether a checkpoint of this run is there that the present code wrote."""
    try:
        folder = find_run(course_plan(reference.experiment), reference.arm, seed, reference.settings())
        return checkpoint.load(folder / checkpoint.NAME).state["code_hash"] == reference.code
    except UserError:
        return False


def tasks(jobs: list[Job]) -> list[list[Job]]:
    """Jobs that are run by one command: each alone, but those of a script that draws one picture of all its arms together."""
    together: dict = {}
    for reference, seed in jobs:
        board = course_plan(reference.experiment).board
        together.setdefault(reference.experiment if board else (reference, seed), []).append((reference, seed))
    return list(together.values())


def command_line(task: list[Job], quick: bool, again: bool = False) -> list[str]:
    """The command of a task, as a user would give it; an interrupted run goes on from its checkpoint."""
    reference, seed = task[0]
    plan = course_plan(reference.experiment)
    flags = shlex.split(reference.flags)
    if quick:
        flags.append("--quick")
    elif plan.board:  # all its arms: those that are finished cost nothing
        flags += [] if again else ["--resume"]
    elif not again and resumable(reference, seed):
        flags.append("--resume")
    arms = [] if plan.board else ["--arms", reference.arm]
    seeds = dict.fromkeys(seed for _, seed in task)
    if plan.board and not quick:  # its pictures show every seed of the course
        seeds = sorted({*seeds, *plan.lesson.seeds})
    return [sys.executable, str(plan.script), "--seeds", *map(str, seeds), *arms, *flags]


def run_task(arguments: list[str]) -> int:
    """Run one script; its exit code. What it prints is shown if it fails."""
    previous = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the script too, which saves its state: wait for it
    try:
        done = subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    finally:
        signal.signal(signal.SIGINT, previous)
    if done.returncode not in (0, 130):
        print(done.stdout)
    return done.returncode


def run(arguments: Run) -> None:
    references = chosen(arguments.stages)
    if arguments.seeds is not None and (not arguments.seeds or min(arguments.seeds) < 0):
        raise UserError("--seeds wants one or more whole numbers from 0 up, for example --seeds 1 2 3")
    results.check_writable()
    wanted = [(r, seed) for r in references for seed in (arguments.seeds or own_seeds(r))[: 1 if arguments.quick else None]]
    if arguments.quick:  # fine-tuning needs a run at full length to start from
        wanted = [(r, seed) for r, seed in wanted if not r.settings().init_from]
    jobs = wanted if arguments.again or arguments.quick else missing(wanted)
    rows = results.read()
    measured = rows.groupby("experiment").train_seconds.mean().to_dict() if len(rows) else {}
    print(f"{len(jobs)} runs to do, {len(wanted) - len(jobs)} of {len(wanted)} are done already")
    waiting = tasks(jobs)
    for number, task in enumerate(waiting):
        (reference, seed), count = task[0], len(task)
        left = sum(expected_seconds(job, measured, arguments.quick) for other in waiting[number:] for job in other)
        what = f"{reference} seed {seed}" if count == 1 else f"{reference.experiment}, {count} runs"
        print(f"[{number + 1}/{len(waiting)}] {what}   (about {clock(left)} left)", flush=True)
        start = time.perf_counter()
        code = run_task(command_line(task, arguments.quick, arguments.again))
        if code == 130:
            print(f"stopped after {number} of {len(waiting)} commands; the same command goes on from there")
            raise SystemExit(130)
        if code:
            raise UserError(f"{what} ended with exit code {code}; mend that and run the same command again")
        measured[reference.experiment] = max(0.0, (time.perf_counter() - start) / count - 4.0)
    print("done; python -m common.report brings README and plots up to date" if not arguments.quick else "everything runs")


def show_list() -> None:
    for experiment in COURSE:
        plan = course_plan(experiment)
        arms = f"  [{', '.join(plan.arms)}]" if len(plan.arms) > 1 else ""
        print(f"{experiment + '.py':<32} {plan.lesson.title}{arms}")
        for flags in plan.lesson.variants[1:]:
            print(f"{'':<32}   also with {flags}")


def show_status() -> None:
    rows, lacking = results.read(), 0
    for reference in course_references():
        found = course_rows(reference, rows)
        lacking += not set(own_seeds(reference)) <= set(found.seed)
        note = (
            f"test bpc {found.test_bpc.mean():.4f}   {found.train_seconds.mean():.1f} s"
            if len(found)
            else "not measured with the current code and settings"
        )
        print(f"{str(reference):<72} seeds {' '.join(map(str, found.seed)) or '-':<8} {note}")
    print(f"{lacking} lines to run: python -m common.tools.course run" if lacking else "complete")


@command
def main() -> None:
    kinds = (
        Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Status, tyro.conf.subcommand("status")]
    )
    chosen_command = parse_as(kinds, sys.argv[1:], __doc__)
    if isinstance(chosen_command, Run):
        run(chosen_command)
    elif isinstance(chosen_command, List):
        show_list()
    else:
        show_status()


if __name__ == "__main__":
    main()
