"""Let a script of each stage write after the same word, for the strip in the README.

From the command line:

    python -m common.tools.course samples
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass

from common.generation.load import load_run
from common.lessons.course import Reference, course_plan, refer
from common.lessons.run_folder import find_run
from common.report import samples as kept
from common.tools.side_by_side import Task, jobs_at_once
from common.tools.side_by_side import kept as is_trained


@dataclass(frozen=True)
class Samples:
    """Write anew what a script of each stage writes after a word (logs/samples.csv).

    Lines whose checkpoint is not here are trained first, which logs nothing.
    """

    prompt: str = "KING"
    """What each goes on from."""
    length: int = 90
    """Tokens that each writes, at most; shown are as many characters."""
    jobs: int | None = None
    """Lines to train at once (none given: as many as cores)."""


def samples(a: Samples, work: Callable) -> None:
    """Train what is not here, and write the file. Raises UserError."""
    references = [refer(name) for name in kept.LINES]
    tasks = [_training(reference) for reference in references if not is_trained((reference, 1))]
    if tasks:
        print(f"{len(tasks)} lines to train first; nothing of them is logged")
        work(tasks, jobs_at_once(a.jobs))
    rows = []
    for number, (name, reference) in enumerate(zip(kept.LINES, references, strict=True), start=1):
        plan = course_plan(reference.experiment)
        run = load_run(find_run(plan, reference.arm, 1, reference.settings()))
        mark = kept.fingerprint_of(reference, run.state["code_hash"])
        for temperature in kept.TEMPERATURES if name == kept.TEMPERED else ("1",):
            text = run.sample(a.prompt, a.length, seed=number, temperature=float(temperature))[: a.length]
            print(f"{name}, temperature {temperature}: {text!r}")
            values = (name, temperature, a.prompt, str(number), mark, text)
            rows.append(dict(zip(kept.COLUMNS, values, strict=True)))
    kept.write(rows)


def _training(reference: Reference) -> Task:
    flags = [
        "--seeds",
        "1",
        "--arms",
        reference.arm,
        *shlex.split(reference.flags),
        "--no-log",
        "--no-pictures",
    ]
    script = str(course_plan(reference.experiment).script)
    return Task(f"{reference} seed 1", [sys.executable, script, *flags], [(reference, 1)])
