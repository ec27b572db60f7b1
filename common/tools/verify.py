"""Any reader's check of any claim: train one line of the course again and compare it with what is published.

On the same kind of machine the same bits come out; on another the score lies inside the spread of the
published seeds, or it does not, and then something is wrong. `python -m common.tools.course verify LINE
[--seed N]`.
"""

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import results
from common.errors import UserError
from common.lessons.course import Reference, course_plan, refer
from common.report.evidence import Measured
from common.results.statistics import one_more
from common.tools.side_by_side import gathers
from common.training import threads

COMPARED = ("train_loss", "val_loss", "test_loss", "test_accuracy", "test_bpc")


def verify(reference: Reference, seed: int) -> bool:
    """Train a line again and say what came out. True if it is the same, or inside the published spread."""
    line = Measured().line(reference)
    published = line.rows[line.rows.seed == seed]
    if not len(published):
        seeds = ", ".join(map(str, line.rows.seed)) or "none"
        raise UserError(f"{reference} has no published row of seed {seed}; published seeds: {seeds}")
    row = published.iloc[0]
    trained = _train(reference, seed, row)
    if trained.diverged or row.diverged:
        same = bool(trained.diverged) == bool(row.diverged)
        print(
            f"{reference} seed {seed}: "
            f"{'diverged, as published' if same else 'diverged in one of the two only'}"
        )
        return same
    if trained.corpus != row.corpus:
        raise UserError(
            f"{reference} was published on {row.corpus}, and only {trained.corpus} is here; nothing can be "
            "compared"
        )
    print(f"{reference} seed {seed}: test bpc {float(trained.test_bpc)!r}, published {float(row.test_bpc)!r}")
    if all(getattr(trained, name) == row[name] for name in COMPARED):
        print("the same bits")
        return True
    print(f"not the same bits; published with torch {row.torch_version} and {_threads(row)},")
    print(f"here with torch {trained.torch_version} and {_threads(trained)}")
    spread = one_more(line.rows.test_bpc)
    if math.isnan(spread.half):
        print("one published seed only: its spread is not known")
        return False
    inside = abs(trained.test_bpc - spread.mean) <= spread.half
    where = "inside" if inside else "outside"
    print(
        f"{where} of what {spread.n} published seeds let one more be, with 95 % confidence: "
        f"{spread.mean:.4f} ± {spread.half:.4f}"
    )
    return inside


def _threads(row) -> str:
    return "threads not noted" if math.isnan(row.threads) else f"{row.threads:.0f} threads"


def _train(reference: Reference, seed: int, row):
    """The row of the run, made in a folder of its own: nothing is added to the results."""
    flags = (
        [*reference.flags.split(), "--arms", reference.arm]
        if reference.arm != "default"
        else reference.flags.split()
    )
    flags += ["--no-pictures"] if gathers(reference.experiment) else []
    if not math.isnan(row.threads) and row.threads <= threads.limit():
        flags += ["--threads", f"{row.threads:.0f}"]
    elif math.isnan(row.threads):
        flags += ["--threads", str(threads.limit())]  # before it was noted, runs had every core
    start = reference.settings().init_from
    with tempfile.TemporaryDirectory() as folder:
        if start and not Path(start).is_dir():  # what it starts from is trained first
            base = refer(start)
            _run(
                [str(course_plan(base.experiment).script), "--seeds", str(seed), *base.flags.split()], folder
            )
        _run([str(course_plan(reference.experiment).script), "--seeds", str(seed), *flags], folder)
        return list(results.read(Path(folder) / "results_All.csv").itertuples())[-1]


def _run(command: list[str], logs: str) -> None:
    """Run a script with a logs folder of its own. Raises UserError if it fails."""
    environment = os.environ | {"GPT_STAIRCASE_LOGS": logs}
    done = subprocess.run(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    if done.returncode:
        raise UserError(f"{' '.join(command)} ended with exit code {done.returncode}; mend that first")
