"""Running lines of the course side by side: which commands that takes, which of them need the machine to
themselves, and in what order.
"""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UserError
from common.lessons import receipts
from common.lessons.course import Reference, course_plan, course_references, refer
from common.lessons.run_folder import run_folder
from common.paths import ROOT
from common.report import pages
from common.report.further import every_reference
from common.report.readme import timed_lines
from common.training import checkpoint, threads
from common.training.presence import Presence
from common.training.recorder import finished

Job = tuple[Reference, int]


@dataclass
class Task:
    """One command."""

    name: str
    command: list[str]
    jobs: list[Job]
    alone: bool = False
    """Whether it measures time, so that nothing may run beside it."""
    after: list[Job] = field(default_factory=list)
    """What has to be done before."""
    seconds: float = 0.0
    """How long it may take."""


def training(job: Job, again: bool, timed: set[Reference]) -> Task:
    """The command that trains one line of the course with one seed; an interrupted run goes on from its
    checkpoint.
    """
    reference, seed = job
    plan, s = course_plan(reference.experiment), reference.settings()
    flags = ["--seeds", str(seed), "--arms", reference.arm, *shlex.split(reference.flags)]
    flags += ["--resume"] if not again and kept(job) else []
    flags += ["--no-pictures"] if gathers(reference.experiment) else []
    after = [] if s.init_from is None or Path(s.init_from).is_dir() else [(refer(s.init_from), seed)]
    alone = bool(plan.own(reference.arm, s).seconds) or reference in timed
    return Task(f"{reference} seed {seed}", [sys.executable, str(plan.script), *flags], [job], alone, after)


def gathers(experiment: str) -> bool:
    """Whether a script has something to do when all its lines are trained: one picture of all runs, or
    measuring speed.
    """
    plan = course_plan(experiment)
    return bool(plan.overview or plan.measure)


def gathering(experiment: str, after: list[Job]) -> Task:
    """The command that draws or measures what a script gathers. What is trained already costs nothing."""
    plan = course_plan(experiment)
    seeds = plan.header.seeds if plan.overview else plan.header.seeds[:1]
    flags = [
        "--seeds",
        *map(str, seeds),
        "--resume",
        *([] if plan.overview else ["--arms", plan.course_arms[0]]),
    ]
    what = "measuring" if plan.measure else "picture"
    return Task(
        f"{experiment}, {what}", [sys.executable, str(plan.script), *flags], [], bool(plan.measure), after
    )


def only_numbers(flags: str) -> bool:
    """Whether a command line has flags, and each of them a number: `--clip 1 --lr 4e-3`."""
    words = shlex.split(flags)
    names, values = words[::2], words[1::2]
    return (
        0 < len(names) == len(values)
        and all(name.startswith("--") for name in names)
        and all(re.fullmatch(r"[-+.e\d]+", value) for value in values)
    )


def small(reference: Reference) -> Task:
    """The command of the smaller form, seed 1; of a script with one picture of all its arms, all of them."""
    plan = course_plan(reference.experiment)
    flags = ["--seeds", "1", "--quick", *shlex.split(reference.flags)]
    flags += [] if plan.overview else ["--arms", reference.arm]
    name = reference.experiment if plan.overview else str(reference)
    return Task(f"{name} seed 1", [sys.executable, str(plan.script), *flags], [(reference, 1)])


def kept(job: Job) -> bool:
    """Whether a checkpoint of this run is there that the present code wrote."""
    return bool(_saved(job))


def _saved(job: Job) -> dict:
    """The state in the checkpoint of a run that the present code wrote; empty if there is none."""
    reference, seed = job
    path = (
        run_folder(reference.experiment, reference.arm, seed, reference.config(), reference.code)
        / checkpoint.NAME
    )
    state = checkpoint.whole_state(path)
    good = receipts.codes(reference.experiment, reference.arm, reference.config(), reference.code)
    return state if state.get("code_hash") in good else {}


def _is_trained(job: Job) -> bool:
    reference = job[0]
    resolved = course_plan(reference.experiment).own(reference.arm, reference.settings())
    state = _saved(job)
    return bool(state) and finished(state, resolved.steps, resolved.seconds)


def plan_tasks(jobs: list[Job], draw: list[str], again: bool) -> list[Task]:
    """The commands for these runs, and for what the scripts in `draw` gather, in the order of the course.

    A picture of all runs needs every run's checkpoint: those that are not here are trained too.
    """
    timed = timed_lines(pages.text())
    wanted = list(jobs)
    for experiment in draw:
        plan = course_plan(experiment)
        if plan.overview:
            cells = [
                (r, seed) for r in course_references(experiment) if not r.flags for seed in plan.header.seeds
            ]
            wanted += [job for job in cells if job not in jobs and not _is_trained(job)]
    tasks = [training(job, again, timed) for job in wanted]
    for experiment in draw:
        tasks.append(gathering(experiment, [job for job in wanted if job[0].experiment == experiment]))
    last = {reference.experiment: number for number, reference in enumerate(course_references())}
    order = {reference: number for number, reference in enumerate(every_reference())}
    return sorted(
        tasks, key=lambda task: order.get(task.jobs[0][0], -1) if task.jobs else last[task.name.split(",")[0]]
    )


def jobs_at_once(given: int | None) -> int:
    """How many commands run at once: as many as --jobs says, else as there are cores. Raises UserError."""
    jobs = threads.limit() if given is None else given
    if jobs < 1:
        raise UserError(f"--jobs {jobs} makes no sense; it must be at least 1")
    return jobs


class Pool:
    """Runs tasks, as many at once as there are `jobs`. What measures time runs when nothing else does, after
    everything else.

    With several jobs each task has one thread; with one, a script chooses as it does by hand. A task that
    fails stops no other.
    """

    def __init__(self, tasks: list[Task], jobs: int):
        self.waiting, self.jobs = list(tasks), jobs
        self.running: dict[Future, Task] = {}
        self.stopped = False
        self.failed: list[str] = []
        self.presence = Presence()
        if jobs > 1:
            self.waiting.sort(key=lambda task: task.alone)

    def run(self) -> Iterator[tuple[str, Task, float]]:
        """Yield ("begin", task, 0) and ("end", task, seconds).

        Ctrl-C lets what runs save its state and begins nothing more.
        """
        before = signal.signal(signal.SIGINT, self._stop)
        try:
            with ThreadPoolExecutor(self.jobs) as pool:
                while self.running or (self.waiting and not self.stopped):
                    for task in iter(self._next, None):
                        yield "begin", task, 0.0
                        self.running[pool.submit(self._work, task)] = task
                    if not self.running:
                        break
                    done, _ = wait(self.running, return_when=FIRST_COMPLETED)
                    for future in done:
                        task = self.running.pop(future)
                        code, seconds, said = future.result()
                        self._ended(task, code, said)
                        if not code:
                            yield "end", task, seconds
        finally:
            self.presence.leave()
            signal.signal(signal.SIGINT, before)

    def _next(self) -> Task | None:
        """The next task that may begin now, taken from those that wait; None if it has to wait for one that
        runs.
        """
        if (
            self.stopped
            or len(self.running) >= self.jobs
            or any(task.alone for task in self.running.values())
        ):
            return None
        undone = [job for task in [*self.waiting, *self.running.values()] for job in task.jobs]
        ready = [task for task in self.waiting if not any(job in undone for job in task.after)]
        if self.jobs > 1:
            ready = [task for task in ready if not task.alone] or (ready if not self.running else [])
        if not ready:
            return None
        if (
            self.jobs > 1 and len(self.waiting) <= 3 * self.jobs
        ):  # towards the end a long one must not come last
            ready.sort(key=lambda task: -task.seconds)
        self.waiting.remove(ready[0])
        if self.jobs > 1 and not ready[0].alone:
            # so that the last one too, when no other is left beside it, counts as not alone
            self.presence.join()
        else:
            self.presence.leave()
        return ready[0]

    def _work(self, task: Task) -> tuple[int, float, str]:
        """Run a command. Its exit code, its seconds, and what it printed."""
        several = self.jobs > 1
        start = time.perf_counter()
        done = subprocess.run(
            [*task.command, *(["--threads", "1"] if several and not task.alone else [])],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT
            if several
            else None,  # progress bars of several would overwrite one another
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        return done.returncode, time.perf_counter() - start, done.stdout

    def _ended(self, task: Task, code: int, said: str) -> None:
        if code == 130:
            self.stopped = True
        elif code and not self.stopped:
            print(said)
            print(f"{task.name} ended with exit code {code}", flush=True)
            self.failed.append(task.name)

    def _stop(self, *_) -> None:
        """Ctrl-C reaches the scripts too, which save their state: wait for them."""
        self.stopped = True
