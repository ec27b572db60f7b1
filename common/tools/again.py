"""How often equal models are told apart: the first arm of a script against copies of itself.

A copy sees the batches of its seed and begins with other weights, so it differs from the first arm as any
other arm does, but for the idea. `python -m common.tools.course again SCRIPT` runs ten copies with the seeds
of the script; `python -m common.tools.again SCRIPT COPY SEED` is one of these runs.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor, nn

from common import results
from common.errors import UserError, command
from common.lessons import build_model
from common.lessons.course import Reference, course_plan, find
from common.parsing import parse_as
from common.results import extra, families
from common.run import prepare
from common.tools.side_by_side import Task, jobs_at_once
from common.training import threads
from common.training.metrics import score


@dataclass(frozen=True)
class Again:
    """Train copies of a script's first arm, the same batches and other initial weights, to see how often the
    comparison tells equal models apart.

    Started again, it goes on where it was.
    """

    script: tyro.conf.Positional[str]
    """A script whose arms are judged together: `norm`."""
    jobs: int | None = None
    """Runs at once, one thread each (none given: as many as cores)."""


@dataclass(frozen=True)
class OneRun:
    """One run of a copy."""

    script: tyro.conf.Positional[str]
    """The script."""
    copy: tyro.conf.Positional[int]
    """Which copy, from 1."""
    seed: tyro.conf.Positional[int]
    """The seed of its batches."""
    threads: int = 1
    """CPU threads."""


class Steps:
    """Stands in for what happens around the steps of a run, and does nothing else."""

    def __init__(self, steps: int):
        self.total = steps

    def steps(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[int]:
        """The numbers of all steps."""
        yield from range(self.total)

    def record(self, loss: Tensor) -> None:
        """Raises UserError for a loss that is no number: a copy that diverged has no score."""
        if not math.isfinite(loss.item()):
            raise UserError("the copy diverged: its loss is no longer a finite number")


def first_arm(name: str) -> Reference:
    """The line that the others of a script are compared with. Raises UserError where there is none."""
    line = families.baseline(find(name))
    if line is None:
        raise UserError(f"the arms of {find(name)} are not judged together, so nothing can be told of that")
    return line


def again(arguments: Again, work: Callable[[list[Task], int], None]) -> None:
    """Run what is missing, `work` running the commands, and tell how often a copy is told apart."""
    jobs = jobs_at_once(arguments.jobs)
    line = first_arm(arguments.script)
    extra.check_writable()
    done = extra.copies(line)
    tasks = []
    for copy in range(1, extra.COPIES + 1):
        for seed in course_plan(line.experiment).header.seeds:
            if seed not in done.get(copy, {}):
                program = [sys.executable, "-m", "common.tools.again", line.experiment, str(copy), str(seed)]
                tasks.append(Task(f"{line}, copy {copy}, seed {seed}", program, [(line, seed)]))
    print(f"{len(tasks)} runs to do")
    work(tasks, jobs)
    told, copies = families.false_alarms(line.experiment, results.course_rows)
    print(f"{told} of {copies} copies are told apart from {line}")


def train_copy(line: Reference, copy: int, seed: int) -> float:
    """Test bits per character of a copy of a line."""
    plan = course_plan(line.experiment)
    s = plan.own(line.arm, line.settings())
    data = plan.load(s, "cpu", None)
    model = build_model(plan.arms[line.arm], s, data.tokenizer.vocab_size, 1000 * copy + seed)
    plan.train(model, data.with_seed(seed), s, Steps(s.steps))
    return score(model, data.test, "cpu").bpc


@command
def main() -> None:
    a = parse_as(OneRun, sys.argv[1:], __doc__)
    line = first_arm(a.script)
    if a.copy < 1 or a.seed not in course_plan(line.experiment).header.seeds:
        raise UserError(f"{line} has no copy {a.copy} with seed {a.seed}")
    threads.check(a.threads)
    torch.set_num_threads(a.threads)
    prepare("cpu")
    extra.append([extra.copy_score(line, a.copy, a.seed, train_copy(line, a.copy, a.seed))])


if __name__ == "__main__":
    main()
