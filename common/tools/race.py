"""Lines of the course by turns, on this machine: which is faster, and what does each reach?

From the command line:

    python -m common.tools.race pretrain "pretrain --preset sixteenth" [--against "gpt --preset yardstick"]
        [--rounds 5] [--out FILE]

A machine has fast and slow minutes: in a round all lines are trained, one after the other, and what counts is
the ratio of their times within it.
The time is that of training, and of what comes before it: reading the text, learning a vocabulary, encoding.
Imports, evaluation and saving are left out, of all lines. Nothing is added to the results of the course.
"""

import math
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

from common import results
from common.errors import UserError, command
from common.lessons.course import Reference, course_plan, refer
from common.parsing import parse_as
from common.results.statistics import interval
from common.training import checkpoint

COLUMNS = (
    "round", "line", "seed", "alone", "threads", "loading", "training", "seconds", "steps",
    "tokens_per_second", "parameters", "test_bpc", "test_nats", "last10_bpc", "last10_nats", "corpus",
    "torch", "machine", "commit",
)  # fmt: skip


@dataclass(frozen=True)
class Race:
    """Train lines by turns and compare their times."""

    lines: tyro.conf.Positional[tuple[str, ...]] = ("pretrain",)
    """Scripts of the course, with an arm and flags if any: `pretrain`, "pretrain --preset sixteenth"."""
    against: str = "gpt --preset yardstick"
    """What they are compared with, written in the same way."""
    rounds: int = 5
    """How often each is trained; the number of a round is its seed."""
    out: str | None = None
    """A CSV file for what was measured, one line for each run; it must not exist."""


def trained(line: Reference, seed: int) -> dict:
    """What one run gave. Raises UserError if it fails."""
    plan = course_plan(line.experiment)
    arm = [] if line.arm == "default" else ["--arms", line.arm]
    command = [str(plan.script), *shlex.split(line.flags), *arm, "--seeds", str(seed), "--no-pictures"]
    with tempfile.TemporaryDirectory() as logs:
        environment = os.environ | {"GPT_STAIRCASE_LOGS": logs}
        done = subprocess.run(
            [sys.executable, *command], env=environment, stdout=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            raise UserError(f"{line} ended with exit code {done.returncode}; mend that first")
        row = next(results.read(Path(logs) / "results_All.csv").itertuples())
        loading = checkpoint.read_state(next(Path(logs).rglob(checkpoint.NAME)))["loading"]
    if row.diverged:
        raise UserError(f"{line} seed {seed} diverged; there is nothing to compare")
    return {
        "line": str(line), "seed": seed, "alone": row.alone, "threads": row.threads,
        "loading": round(loading, 3), "training": row.train_seconds,
        "seconds": round(row.train_seconds + loading, 3), "steps": row.steps,
        "tokens_per_second": row.tokens_per_second, "parameters": row.params,
        "test_bpc": row.test_bpc, "test_nats": row.test_bpc * math.log(2),
        "last10_bpc": row.last10_bpc, "last10_nats": row.last10_bpc * math.log(2),
        "corpus": row.corpus, "torch": row.torch_version, "machine": machine(), "commit": row.git_commit,
    }  # fmt: skip


def machine() -> str:
    """The processor, as far as the system tells, and how many cores of it there are."""
    names = []
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else sys.platform}, {os.cpu_count()} cores"


def summary(runs: pd.DataFrame) -> str:
    """Means with 95 % intervals over the rounds, as a table; below it the ratios of the times within a round,
    to the last line's.
    """
    names = [*dict.fromkeys(runs[runs["round"] == 1].line)]
    shown = {"seconds": ".1f", "test_bpc": ".3f", "test_nats": ".3f", "last10_nats": ".3f"}
    text = f"{'':<60}{''.join(f'{name:>18}' for name in shown)}\n"
    for line in names:
        own = runs[runs.line == line]
        cells = (interval(own[name]) for name in shown)
        texts = (f"{c.mean:{form}} ± {c.half:{form}}" for c, form in zip(cells, shown.values(), strict=True))
        text += f"{line:<60}{''.join(f'{cell:>18}' for cell in texts)}\n"
    seconds = runs.pivot(index="round", columns="line", values="seconds")
    for line in names[:-1]:
        ratio = interval(seconds[line] / seconds[names[-1]])
        text += f"{line} takes {ratio.mean:.4f} ± {ratio.half:.4f} of the time of {names[-1]}\n"
    return text.rstrip()


@command
def main() -> None:
    a = parse_as(Race, sys.argv[1:], __doc__)
    if a.rounds < 1:
        raise UserError(f"--rounds {a.rounds} makes no sense; it must be at least 1")
    if a.out and Path(a.out).exists():
        raise UserError(f"{a.out} exists; name another file, or move that one away")
    if a.out and not Path(a.out).absolute().parent.is_dir():
        raise UserError(f"the folder of {a.out} does not exist; make it first")
    lines = [*map(refer, a.lines), refer(a.against)]
    if len(set(lines)) < len(lines) or not a.lines:
        raise UserError("a line against itself says nothing; name each line once, and another with --against")
    runs: list[dict] = []
    for number in range(1, a.rounds + 1):
        for line in lines if number % 2 else reversed(lines):  # none always comes last
            runs.append(run := {"round": number} | trained(line, number))
            told = f"{run['seconds']:8.1f} s  test bpc {run['test_bpc']:.4f}"
            print(f"{number}  {run['line']:<60}{told}", flush=True)
    frame = pd.DataFrame(runs, columns=COLUMNS)
    if not frame.alone.all():
        print("note: another run of the course was going on; these times are worth little")
    if a.out:
        frame.to_csv(a.out, index=False, float_format="%.6g")
    print(summary(frame))


if __name__ == "__main__":
    main()
