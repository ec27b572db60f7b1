"""The generated parts of README.md: tables and figures in sentences.

A block between `<!-- table: A; B vs C -->` and `<!-- end -->` is the table of these references (an experiment, a stage, or an experiment
with flags; each compared with its predecessor, or with the one after `vs`), one between `<!-- data: NAME -->` and `<!-- end -->` shows
what is in the file `logs/plots/NAME.csv`. A figure in a sentence stands as `<!--=value(multi_head, test_bpc, .2f)-->2.34<!--/-->`.
"""

import csv
import re

from common import plots, results
from common.errors import UserError
from common.lesson import Reference, course_plan, course_references, refer
from common.results import Interval, course_rows, interval, paired

HEADER = (
    "| script | parameters | seconds | test loss | accuracy | test bpc | against | difference | verdict |\n"
    "|---|--:|--:|--:|--:|--:|---|--:|---|\n"
)


class Measured:
    """The rows of the course, looked up once per reference."""

    def __init__(self):
        self.all, self._rows = results.read(), {}

    def rows(self, reference: Reference):
        """Raises UserError, naming the command to run, when a seed of the course is missing."""
        if reference not in self._rows:
            seeds = course_plan(reference.experiment).lesson.seeds
            found = course_rows(reference, self.all)
            found = found[found.seed.isin(seeds)]
            missing = sorted(set(seeds) - set(found.seed))
            if missing:
                raise UserError(
                    f"{reference} has no current row for seed {' '.join(map(str, missing))}: "
                    f"python -m common.tools.course run {reference.experiment}"
                )
            self._rows[reference] = found
        return self._rows[reference]


def number(value: float, form: str = ".3f", sign: bool = False) -> str:
    """A figure as text, with a real minus sign."""
    return format(value, ("+" if sign else "") + form).replace("-", "−")


def spread(found: Interval, form: str = ".3f", sign: bool = False) -> str:
    """`mean ± half-width`."""
    return f"{number(found.mean, form, sign)} ± {number(found.half, form)}"


def predecessor(reference: Reference) -> Reference | None:
    """What a line of the course is compared with: the same arm and flags of the script before, as far as it has them."""
    own = course_plan(reference.experiment).lesson
    if own.previous is None:
        return None
    plan = course_plan(own.previous)
    arm = own.previous_arm or (reference.arm if reference.arm in plan.arms else next(iter(plan.arms)))
    if reference.flags not in plan.lesson.variants:
        return None
    return Reference(own.previous, arm, reference.flags)


BITS_ONLY = (
    "| script | parameters | seconds | test bpc | against | difference | verdict |\n"
    "|---|--:|--:|--:|---|--:|---|\n"
)  # where the lines of a table were cut into tokens differently: loss and accuracy per token say nothing then


def table_row(measured: Measured, reference: Reference, other: Reference | None = None, bits_only: bool = False) -> str:
    """A line of a table; `other`: what it is compared with instead of its predecessor. `bits_only`: without loss and accuracy."""
    rows = measured.rows(reference)
    name = str(reference).removeprefix(reference.experiment).removeprefix(":")
    name = f"[{reference.experiment.split('/')[1]}]({reference.experiment}.py){f' `{name}`' if name.strip() else ''}".replace("` ", "`")
    well = rows[rows.diverged == False]  # noqa: E712 (a column)
    if len(well) < 2:
        share = f"diverged in {len(rows) - len(well)} of {len(rows)} seeds"
        return f"| {name} | {rows.params.iloc[0]:,} | {rows.train_seconds.mean():.1f} | {share}{' |' * (4 if bits_only else 6)}\n"
    before, against, change, verdict = other or predecessor(reference), "", "", ""
    if before and set(measured.rows(before).corpus) == set(rows.corpus):
        difference = paired(well, measured.rows(before))
        name_of_other = str(before).split("/")[1] if other else before.experiment.split("/")[1]
        against, change, verdict = name_of_other, spread(difference, sign=True), difference.verdict
    per_token = [] if bits_only else [number(well.test_loss.mean()), f"{100 * well.test_accuracy.mean():.1f} %"]
    cells = [
        name, f"{rows.params.iloc[0]:,}", f"{rows.train_seconds.mean():.1f}", *per_token, spread(interval(well.test_bpc)), against, change,
        verdict,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def table(measured: Measured, what: str) -> str:
    """A Markdown table of references separated by `;`; a stage stands for all its lines without flags.

    A script that draws one picture of all its arms is left out of its stage's table. Where the lines have different tokenizers,
    loss and accuracy per token, which cannot be compared then, are left out.
    """
    lines: list[tuple[Reference, Reference | None]] = []
    for part in filter(None, (p.strip() for p in what.split(";"))):
        whole = [r for r in course_references(part) if not r.flags and (r.experiment == part or r.experiment.startswith(part + "/"))]
        whole = [r for r in whole if r.experiment == part or not course_plan(r.experiment).board]  # those have a picture instead
        own, _, other = part.partition(" vs ")
        lines += [(r, refer(other) if other else None) for r in whole or [refer(own)]]
    bits_only = len({name for reference, _ in lines for name in measured.rows(reference).tokenizer}) > 1
    shown = "".join(table_row(measured, reference, other, bits_only) for reference, other in lines)
    return (BITS_ONLY if bits_only else HEADER) + shown


def data_lines(name: str) -> list[dict[str, str]]:
    """The lines of a data file in logs/plots. Raises UserError if there is none of that name."""
    path = plots.folder() / f"{name}.csv"
    if not path.exists():
        raise UserError(f"{name}.csv is not in {path.parent}; run the script that measures it, and python -m common.report")
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    if not lines:
        raise UserError(f"{path} is empty; run the script that measures it, and python -m common.report")
    return lines


def data_table(name: str) -> str:
    """A Markdown table of a data file, numbers to three digits."""
    lines = data_lines(name)
    header = [column.replace("_", " ") for column in lines[0]]
    shown = [[_cell(value) for value in line.values()] for line in lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, ["---"] * len(header), *shown))


def _cell(value: str) -> str:
    try:
        return f"{int(value):,}" if value.isdigit() else f"{float(f'{float(value):.3g}'):,.12g}"
    except ValueError:
        return value


def cell(name: str, key: str, column: str) -> float:
    """A number of a data file, from the line whose first cells are `key` (joined by `/`). Raises UserError if there is none."""
    wanted = key.split("/")
    for line in data_lines(name):
        if list(line.values())[: len(wanted)] == wanted and column in line:
            return float(line[column])
    raise UserError(f"{name}.csv has no line that begins with {key}, or no column {column!r}")


def figure(measured: Measured, expression: str) -> str:
    """The text of an inline figure: value, spread, difference, ratio or verdict. Raises UserError for an expression it cannot read."""
    match = re.fullmatch(r"(\w+)\((.*)\)", expression.strip())
    parts = [part.strip() for part in match[2].split(",")] if match else []
    known = {"value": 2, "spread": 2, "difference": 3, "ratio": 3, "verdict": 2, "cell": 3, "cells": 4}
    if not match or len(parts) < known.get(match[1], 99):
        raise UserError(
            f"figure {expression!r} is none of value(A, column, format), spread(A, column, format), "
            "difference(A, B, column, format), ratio(A, B, column, format), verdict(A, B), cell(file, line, column, format), "
            "cells(file, line, other line, column, format), which is a ratio"
        )
    if match[1] == "cell":
        return number(cell(*parts[:3]), parts[3] if len(parts) > 3 else ".3f")
    if match[1] == "cells":
        file, one, other, column = parts[:4]
        return number(cell(file, one, column) / cell(file, other, column), parts[4] if len(parts) > 4 else ".3f")
    name, rows = match[1], measured.rows(refer(parts[0]))
    if name in ("value", "spread"):
        _known_column(rows, parts[1])
        form = parts[2] if len(parts) > 2 else ".3f"
        return number(rows[parts[1]].mean(), form) if name == "value" else spread(interval(rows[parts[1]]), form)
    base = measured.rows(refer(parts[1]))
    if name == "verdict":
        return paired(rows, base).verdict
    _known_column(rows, parts[2])
    form = parts[3] if len(parts) > 3 else ".3f"
    if name == "ratio":
        return number(rows[parts[2]].mean() / base[parts[2]].mean(), form)
    return spread(paired(rows, base, parts[2]), form, sign=True)


def _known_column(rows, column: str) -> None:
    if column not in rows.columns:
        raise UserError(f"column {column!r} is not in the results; its columns: {', '.join(rows.columns)}")


def render(text: str, measured: Measured) -> str:
    """README text with every table and every figure made anew."""
    text = re.sub(r"(<!-- table: (.*?) -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table(measured, m[2])}{m[3]}", text, flags=re.DOTALL)
    text = re.sub(r"(<!-- data: (\w+) -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{data_table(m[2])}{m[3]}", text, flags=re.DOTALL)
    return re.sub(r"<!--=(.*?)-->.*?<!--/-->", lambda m: f"<!--={m[1]}-->{figure(measured, m[1])}<!--/-->", text)


def first_difference(old: str, new: str) -> str:
    """`line 12: has 'x', the results say 'y'`."""
    a, b = old.splitlines(), new.splitlines()
    for line, (x, y) in enumerate(zip(a, b, strict=False), start=1):
        if x != y:
            at = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
            start = max(0, at - 20)
            return f"line {line}: has {x[start : at + 30]!r}, the results say {y[start : at + 30]!r}"
    return f"line {min(len(a), len(b)) + 1}: {len(a)} lines, the results give {len(b)}"
