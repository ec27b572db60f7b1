"""The tables of README.md that compare lines of the course, and how figures are written."""

from dataclasses import replace

from common.lessons.course import Reference, course_plan, course_references, predecessor, refer
from common.report.evidence import DAGGER, FOOTNOTE, NOT_YET, Line, Measured
from common.results.statistics import Interval, interval, paired
from common.results.table import timed

HEADER = "| script | test bpc | against | difference | verdict |\n|---|--:|---|--:|---|\n"
COSTS = "| script | parameters | seconds |\n|---|--:|--:|\n"
PER_TOKEN = "| script | parameters | seconds | test loss | accuracy |\n|---|--:|--:|--:|--:|\n"


def number(value: float, form: str = ".3f", sign: bool = False) -> str:
    """A figure as text, with a real minus sign."""
    return format(value, ("+" if sign else "") + form).replace("-", "−")


def spread(estimate: Interval, form: str = ".3f", sign: bool = False) -> str:
    """`mean ± half-width`, which no line break tears apart."""
    return f"{number(estimate.mean, form, sign)}\u00a0±\u00a0{number(estimate.half, form)}"


# ---- tables --------------------------------------------------------------------------------------


def table_row(measured: Measured, reference: Reference, other: Reference | None = None) -> str:
    """A line of a table; `other`: what it is compared with instead of its predecessor, with itself: not at
    all.
    """
    line = measured.line(reference)
    name = _link(reference) + line.mark
    if line.state == "missing":
        return f"| {name} | {NOT_YET} | | | |\n"
    well = line.rows[line.rows.diverged == False]  # noqa: E712 (a column)
    if len(well) < 2:
        return f"| {name} | diverged in {len(line.rows) - len(well)} of {len(line.rows)} seeds | | | |\n"
    against = other or predecessor(reference)
    compared = (
        _compared(measured, reference, well, against) if against not in (None, reference) else ["", "", ""]
    )
    return f"| {' | '.join([name, spread(interval(well.test_bpc)), *compared])} |\n"


def score_table(measured: Measured, what: str, scores: str) -> str:
    """A Markdown table of scores that are no column of the results: a row for each line of `what`, a column
    for each score.

    An empty cell: the line has no such score, though it has others.
    """
    names = [name.strip() for name in scores.split(";")]
    shown = f"| script | {' | '.join(names)} |\n|---|{'--:|' * len(names)}\n"
    for part in (p.strip() for p in what.split(";")):
        whole = [r for r in course_references(part) if not r.flags and r.experiment == part]
        for reference in whole or [refer(part)]:
            lines = [measured.score(reference, name) for name in names]
            known = [line for line in lines if len(line.rows)]
            cells = [_score_cell(line) if len(line.rows) else "" for line in lines]
            cells = cells if known else [NOT_YET, *[""] * (len(names) - 1)]
            shown += f"| {_link(reference)} | {' | '.join(cells)} |\n"
    return shown + (f"\n{FOOTNOTE}\n" if DAGGER in shown else "")


def _score_cell(line: Line) -> str:
    """Mean and interval of a score, with three decimals below ten and none above a hundred."""
    estimate = interval(line.rows.value)
    return (
        spread(estimate, ".3f" if abs(estimate.mean) < 10 else ".1f" if abs(estimate.mean) < 100 else ",.0f")
        + line.mark
    )


def _link(reference: Reference) -> str:
    """The name of a line, as a link to its script."""
    rest = str(reference).removeprefix(reference.experiment).removeprefix(":").strip()
    return f"[{reference.experiment.split('/')[1]}]({reference.experiment}.py){f' `{rest}`' if rest else ''}"


def _compared(measured: Measured, reference: Reference, rows, against: Reference) -> list[str]:
    """The cells against, difference and verdict; empty where the other line was measured on another text."""
    before = measured.line(against)
    same_script = against.experiment == reference.experiment
    name = against.arm if same_script else str(replace(against, flags="")).split("/")[1]
    if before.state == "missing":
        return [name, NOT_YET, ""]
    if set(before.rows.corpus) != set(rows.corpus):
        return ["", "", ""]
    difference = paired(rows, before.rows)
    return [name, spread(difference, sign=True) + before.mark, difference.verdict]


def costs_row(measured: Measured, reference: Reference, per_token: bool) -> str:
    """A line of the folded table: what a model costs, and what can be compared within one tokenizer only."""
    line = measured.line(reference)
    if line.state == "missing":
        return f"| {_link(reference)} | | |{' | |' if per_token else ''}\n"
    well = line.rows[line.rows.diverged == False]  # noqa: E712 (a column)
    alone = timed(line.rows)  # no seconds where other runs of the course ran beside each seed
    cells = [f"{line.rows.params.iloc[0]:,}", f"{alone.train_seconds.mean():.1f}" if len(alone) else ""]
    if per_token:
        cells += (
            [number(well.test_loss.mean()), f"{100 * well.test_accuracy.mean():.1f}\u00a0%"]
            if len(well)
            else ["", ""]
        )
    return f"| {' | '.join([_link(reference) + line.mark, *cells])} |\n"


def table(measured: Measured, what: str) -> str:
    """A Markdown table of references separated by `;`; a stage stands for all its lines without flags. Below
    it, folded, the costs.

    A script that draws one picture of all its arms is left out of its stage's table. Where the lines have
    different tokenizers, loss and accuracy per token, which cannot be compared then, are left out.
    """
    lines: list[tuple[Reference, Reference | None]] = []
    for part in filter(None, (p.strip() for p in what.split(";"))):
        whole = [
            r
            for r in course_references(part)
            if not r.flags and (r.experiment == part or r.experiment.startswith(part + "/"))
        ]
        # those have a picture instead
        whole = [r for r in whole if r.experiment == part or not course_plan(r.experiment).overview]
        first, _, other = part.partition(" vs ")
        lines += [(r, refer(other) if other else None) for r in whole or [refer(first)]]
    per_token = len({name for reference, _ in lines for name in measured.rows(reference).tokenizer}) <= 1
    shown = HEADER + "".join(table_row(measured, reference, other) for reference, other in lines)
    shown += f"\n{FOOTNOTE}\n" if DAGGER in shown else ""
    costs = (PER_TOKEN if per_token else COSTS) + "".join(
        costs_row(measured, reference, per_token) for reference, _ in lines
    )
    summary = f"parameters, seconds{', loss and accuracy' if per_token else ''}"
    return f"{shown}\n<details><summary>{summary}</summary>\n\n{costs}\n</details>\n"
