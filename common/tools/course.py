"""The course as a whole: what it has, what is measured, and running what is missing.

From the command line:

    python -m common.tools.course tour
    python -m common.tools.course list
    python -m common.tools.course samples
    python -m common.tools.course run [STAGE ...] [--seeds 1 2 3] [--quick] [--again] [--jobs N]
    python -m common.tools.course status
    python -m common.tools.course sweep SCRIPT ... [--rates 2e-3 4e-3 8e-3] [--jobs N]
    python -m common.tools.course again SCRIPT
    python -m common.tools.course time [STAGE ...]
    python -m common.tools.course prove [STAGE ...]
    python -m common.tools.course verify LINE [--seed N]
    python -m common.tools.course predictions
    python -m common.tools.course merge ANNA.csv BEN.csv ... [--out CLASS.csv]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Union

import tyro

from common import results
from common.errors import UserError, command
from common.lessons.course import COURSE, Reference, course_references, find, refer
from common.parsing import parse_as
from common.report import pictures
from common.report.further import every_reference
from common.tools.again import Again, again
from common.tools.listing import clock, expected_seconds, missing, own_seeds, show_list, show_status
from common.tools.merge import Merge, merge
from common.tools.predictions import show_predictions
from common.tools.prove import prove
from common.tools.samples import Samples, samples
from common.tools.side_by_side import Job, Pool, Task, gathers, jobs_at_once, only_numbers, plan_tasks, small
from common.tools.step_time import Time, time_lines
from common.tools.sweep import Sweep, sweep
from common.tools.tour import Tour, tour
from common.tools.verify import verify


@dataclass(frozen=True)
class Run:
    """Run what is missing.

    Rows are appended to the results file as each run ends; started again, it goes on where it was.
    """

    stages: tyro.conf.Positional[tuple[str, ...]] = ()
    """Stages or scripts (none named: the whole course), for example 02_attention or 01_bigram/ngram."""
    seeds: tuple[int, ...] | None = None
    """One run of each line of the course per seed (none named: the seeds that a script's header gives, 1 2 3
    if it gives none)."""
    quick: bool = False
    """One seed of the smaller form of each script, nothing logged: shows that everything works. A command
    line that differs from another in numbers alone (`--lr 4e-3`) is left out."""
    again: bool = False
    """Also what has a row already (its learning curve was lost, say)."""
    jobs: int | None = None
    """Lines to run at once, one thread each (none given: as many as cores). What measures time runs alone all
    the same."""


@dataclass(frozen=True)
class List:
    """List the scripts in course order."""


@dataclass(frozen=True)
class Status:
    """Tell which lines are measured with the current code and settings; exit code 1 if not all are."""


@dataclass(frozen=True)
class Prove:
    """Compare with the code that rows were made with: where both compute the same bits, rows stay valid."""

    stages: tyro.conf.Positional[tuple[str, ...]] = ()
    """Stages or scripts (none named: the whole course)."""


@dataclass(frozen=True)
class Verify:
    """Train one line again and compare with what is published: the same bits, or inside or outside the
    published spread.
    """

    line: tyro.conf.Positional[str]
    """A line of the course: `pre_ln`, `gqa:mqa`, or "gpt --preset yardstick"."""
    seed: int = 1
    """The seed to train."""


@dataclass(frozen=True)
class Predictions:
    """Show what you predicted with --predict, what came of it, and how often you were right."""


def chosen(stages: tuple[str, ...], further: bool = True) -> list[Reference]:
    """The lines of the course that the named stages or scripts have, and further ones that README names.

    Raises UserError for a name that means none.
    """
    names = [*dict.fromkeys(e.split("/")[0] for e in COURSE), *COURSE]
    wanted = [s.rstrip("/").removesuffix(".py") for s in stages] or [""]
    wanted = [s if s in names or not s else find(s) for s in wanted]
    references = [
        r
        for r in (every_reference() if further else course_references())
        if any(r.experiment == s or not s or r.experiment.startswith(s + "/") for s in wanted)
    ]
    return list(dict.fromkeys(references))


def to_draw(jobs: list[Job], experiments: list[str], again: bool) -> list[str]:
    """Of these scripts, those that have something to draw or measure after these runs; what has flags is in
    no picture.
    """
    trained = {reference.experiment for reference, _ in jobs if not reference.flags}
    return [e for e in experiments if gathers(e) and (again or e in trained or not pictures.is_drawn(e))]


def run(arguments: Run) -> None:
    if arguments.seeds is not None and (not arguments.seeds or min(arguments.seeds) < 0):
        raise UserError("--seeds wants one or more whole numbers from 0 up, for example --seeds 1 2 3")
    jobs = jobs_at_once(arguments.jobs)
    references = chosen(arguments.stages, further=not arguments.quick)
    results.check_writable()
    if arguments.quick:  # fine-tuning needs a run at full length to start from
        tasks = [small(r) for r in references if not (r.settings().init_from or only_numbers(r.flags))]
        tasks = list({task.name: task for task in tasks}.values())
        print(f"{len(tasks)} runs to do")
    else:
        wanted = [(r, seed) for r in references for seed in (arguments.seeds or own_seeds(r))]
        todo = wanted if arguments.again else missing(wanted)
        whole = arguments.seeds is None  # a picture shows the course's own seeds
        draw = (
            to_draw(todo, list(dict.fromkeys(r.experiment for r in references)), arguments.again)
            if whole
            else []
        )
        tasks = plan_tasks(todo, draw, arguments.again)
        print(f"{len(todo)} runs to do, {len(wanted) - len(todo)} of {len(wanted)} are done already")
    work(tasks, jobs, arguments.quick)
    lost = [] if arguments.quick else missing(todo)
    # a text that is not here and cannot be fetched is replaced by the built-in one, whose rows are another
    # line's
    if lost:
        print(
            f"note: {len(lost)} of {len(todo)} runs left no row of the course, {lost[0][0]} first: is its "
            "text here?"
        )
    print(
        "done; python -m common.report brings README and plots up to date"
        if not arguments.quick
        else "everything runs"
    )


def work(tasks: list[Task], jobs: int, quick: bool = False) -> None:
    """Run the tasks, telling of each when it begins, and how long all will take."""
    rows = results.read()
    measured = rows.groupby("experiment").train_seconds.mean().to_dict() if len(rows) else {}
    for task in tasks:
        task.seconds = sum(expected_seconds(job, measured, quick) for job in task.jobs)
    pool = Pool(tasks, jobs)
    begun = ended = 0
    for event, task, seconds in pool.run():
        if event == "end":
            ended += 1
            if task.jobs:
                measured[task.jobs[0][0].experiment] = max(0.0, seconds - 4.0)
            continue
        begun += 1
        left = [task, *pool.waiting, *pool.running.values()]
        shared, alone = (
            sum(
                expected_seconds(job, measured, quick)
                for other in left
                if other.alone == kind
                for job in other.jobs
            )
            for kind in (False, True)
        )
        print(f"[{begun}/{len(tasks)}] {task.name}   (about {clock(shared / jobs + alone)} left)", flush=True)
    if pool.stopped:
        print(f"stopped after {ended} of {len(tasks)} commands; the same command goes on from there")
        raise SystemExit(130)
    if pool.failed:
        raise UserError(
            f"{len(pool.failed)} commands failed, {pool.failed[0]} first; mend that and run the same "
            "command again"
        )


@command
def main() -> None:
    answers: dict[type, Callable] = {
        Run: run,
        Tour: tour,
        Samples: lambda a: samples(a, work),
        List: lambda _: show_list(),
        Status: lambda _: show_status(),
        Sweep: lambda a: sweep(a, work),
        Again: lambda a: again(a, work),
        Time: lambda a: time_lines(chosen(a.stages, further=False)),
        Prove: lambda a: prove(chosen(a.stages)),
        Predictions: lambda _: show_predictions(),
        Merge: merge,
        Verify: lambda a: verify(refer(a.line), a.seed),
    }
    kinds = [Annotated[kind, tyro.conf.subcommand(kind.__name__.lower())] for kind in answers]
    a = parse_as(Union[tuple(kinds)], sys.argv[1:], __doc__)  # noqa: UP007 (of a list)
    if answers[type(a)](a) is False:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
