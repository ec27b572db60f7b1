"""Milliseconds of a training step, of every line by turns, with one thread and nothing beside it.

`python -m common.tools.course time STAGE` writes them to logs/extra.csv. The times of whole runs do not
serve: several lines are trained side by side, and one is measured today and another tomorrow.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from common.errors import UserError
from common.lessons import build_model
from common.lessons.course import Reference, course_plan
from common.lessons.fingerprint import asked
from common.lessons.plan import Plan
from common.results import extra
from common.run import prepare
from common.training.distributed import ALONE
from common.training.presence import Presence

ROUNDS, STEPS, UNTIMED = 6, 10, 3


@dataclass(frozen=True)
class Time:
    """Measure the milliseconds of a step of every line that is trained with the course's loop.

    One thread, the lines by turns; nothing else should run on the machine.
    """

    stages: tyro.conf.Positional[tuple[str, ...]] = ()
    """Stages or scripts (none named: the whole course)."""


class Clock:
    """Stands in for what happens around the steps of a run, and times some."""

    def __init__(self):
        self.laps: list[float] = []
        self.state: dict = {"curve": []}
        self.kept = tempfile.TemporaryDirectory()  # for the log of a loop that writes one
        self.folder, self.dashboard, self.group, self.loss = Path(self.kept.name), None, ALONE, 0.0

    def steps(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[int]:
        """The numbers of a few steps."""
        for step in range(UNTIMED + STEPS):
            start = time.perf_counter()
            yield step
            if step >= UNTIMED:
                self.laps.append(time.perf_counter() - start)

    def record(self, loss: Tensor) -> None:
        """As in a run, the loss is looked at in every step."""
        self.loss = loss.item()


def measure(lines: list[Reference]) -> dict[Reference, float]:
    """Milliseconds of a step of each line: the median over rounds in which every line has its turn."""
    torch.set_num_threads(1)
    prepare("cpu")
    runs = []
    for line in lines:
        plan = course_plan(line.experiment)
        s = plan.own(line.arm, line.settings())
        data = plan.load(s, "cpu", None)
        model = build_model(plan.arms[line.arm], s, data.tokenizer.vocab_size, 1)
        runs.append((plan, model, data, s, Clock()))
    for _ in tqdm(range(ROUNDS), desc="rounds", leave=False):
        for plan, model, data, s, clock in runs:
            plan.train(model, data, s, clock)
    return {line: 1000 * float(np.median(run[-1].laps)) for line, run in zip(lines, runs, strict=True)}


def _is_timed(plan: Plan) -> bool:
    """Whether a script trains with the loop of the course, or with that of a long run."""
    return plan.train.__module__ == "common.training.loop" or "group" in asked(plan.train)


def time_lines(lines: list[Reference]) -> None:
    """Measure, append to logs/extra.csv, and tell. Raises UserError where the machine is not free."""
    lines = [r for r in lines if course_plan(r.experiment).trains(r.arm)]
    lines = [r for r in lines if _is_timed(course_plan(r.experiment))]
    if not lines:
        raise UserError("nothing there is trained with a loop that is timed; name another stage or script")
    extra.check_writable()
    with Presence() as presence:
        if presence.others():
            raise UserError("another run of the course is going on; time is measured when it has ended")
        found = measure(lines)
    extra.append([extra.step_time(line, value) for line, value in found.items()])
    for line, value in found.items():
        print(f"{str(line):<60} {value:7.1f} ms a step")
