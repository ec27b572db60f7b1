"""Arms of a script at equal seconds instead of equal steps.

After its warm-up a run of constant rate is the beginning of every longer one. So what a model has learned in
so many seconds can be read from the learning curve of a run that took more steps, with the milliseconds of a
step that were measured by turns.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import UserError
from common.lessons.course import Reference, course_plan, course_references, find, refer
from common.report import plots
from common.report.evidence import DAGGER, FOOTNOTE, NOT_YET, Measured
from common.report.tables import markdown, number, spread
from common.results import extra
from common.results.statistics import Interval, family
from common.results.table import repeated_rows

COLUMNS = {
    "arm": "---", "ms a step": "--:", "steps in equal time": "--:", "at equal steps": "--:",
    "at equal time": "--:", "verdict at equal time": "---",
}  # fmt: skip


def table(measured: Measured, text: str) -> str:
    """A Markdown table: each arm of a script minus its first, in bits per character of the validation text,
    after the same steps and after the same seconds, as many as the shortest run took.

    text: a script, and those of its arms that are meant, if not all: `norm`, `bpe char bpe-1024`. Raises
    UserError for an arm that the script does not have, and for a script whose rate is not constant.
    """
    name, *arms = text.split()
    experiment = find(name)
    lines = [refer(f"{name}:{arm}") for arm in arms] or [
        line for line in course_references(experiment) if not line.flags
    ]
    if any(course_plan(experiment).own(line.arm, line.settings()).cosine for line in lines):
        raise UserError(f"{experiment}: a run with --cosine is not the beginning of a longer one")
    curves = {line: curve for line in lines if (curve := _curves(measured, line)) is not None}
    known = {line: extra.step_of(line, measured.scores) for line in lines}
    times = {line: value for line, (value, _) in known.items() if value is not None}
    if set(curves) != set(lines) or set(times) != set(lines):
        return f"{NOT_YET}\n"
    steps = {line: float(curves[line].index[-1]) for line in lines}
    fair = _steps_in_equal_time(times, steps)
    whole = [line for line in lines if steps[line] == steps[lines[0]]]
    at_steps, at_time = _differences(whole, curves, steps), _differences(lines, curves, fair)
    rows = []
    for line in lines:
        mark = "" if known[line][1] else DAGGER
        shown = [line.arm, number(times[line], ".1f") + mark, f"{fair[line]:.0f}"]
        if line in at_time:
            equal = spread(at_steps[line], sign=True) if line in at_steps else f"{steps[line]:.0f} steps only"
            shown += [equal, spread(at_time[line], sign=True)]
            shown.append(at_time[line].verdict)
        rows.append(shown)
    text = markdown(COLUMNS, rows)
    return text + (f"\n{FOOTNOTE}\n" if DAGGER in text else "")


def scripts(text: str) -> list[str]:
    """The scripts whose arms a text compares at equal time."""
    return list(dict.fromkeys(find(name) for name in re.findall(r"<!-- equal time: (\S+)", text)))


def curves_path(experiment: str) -> Path:
    """The file with the learning curves of a script: that of its stage, or one of its own where one picture
    of all its arms stands in for their curves.
    """
    own = course_plan(experiment).overview
    name = experiment.replace("/", "_") if own else experiment.split("/")[0]
    return plots.folder() / f"curves_{name}.csv"


def _steps_in_equal_time(
    times: dict[Reference, float], steps: dict[Reference, float]
) -> dict[Reference, float]:
    """How many steps each makes in the time that the first to be done takes for all of its steps."""
    done = min(steps[line] * value for line, value in times.items())
    return {line: done / value for line, value in times.items()}


def _differences(lines: list[Reference], curves, counts: dict[Reference, float]) -> dict[Reference, Interval]:
    """Each line minus the first, read from the curves at so many steps, judged together."""
    bits = {
        line: [
            float(np.interp(counts[line], curves[line].index, curves[line][seed])) for seed in curves[line]
        ]
        for line in lines
    }
    first, *others = lines
    intervals = family(bits[first], {str(line): bits[line] for line in others})
    return {line: intervals[str(line)] for line in others}


def _curves(measured: Measured, line: Reference) -> pd.DataFrame | None:
    """Validation bits per character at each step (rows) for each seed (columns); None where a curve is not in
    logs/plots.
    """
    rows = measured.rows(line)
    path = curves_path(line.experiment)
    if not len(rows) or rows.diverged.any() or not path.exists():
        return None
    known = pd.read_csv(path, dtype={"arm": str, "config_hash": str, "code_hash": str})
    known = known[(known.experiment == line.experiment) & (known.arm == line.arm)]
    key = ["seed", "config_hash", "code_hash"]
    known = known.merge(repeated_rows(line, measured.every(line))[key].drop_duplicates(), on=key)
    table = known.pivot(index="step", columns="seed", values="val_bpc")
    return table if set(table) == set(rows.seed) and not table.isna().any(axis=None) else None
