"""The tables of README.md that compare lines of the course, and how figures are written."""

from dataclasses import replace

from common.errors import UserError
from common.lessons.course import (
    Reference,
    at_own_rate,
    course_plan,
    course_references,
    predecessor,
    previous_arm,
    refer,
)
from common.report.evidence import DAGGER, FOOTNOTE, NOT_YET, Line, Measured
from common.results import families
from common.results.statistics import Interval, interval
from common.results.table import timed

# the columns of a table and how they are aligned
COMPARED = {"script": "---", "test bpc": "--:", "against": "---", "difference": "--:", "verdict": "---"}
OWN_RATES = {
    "script": "---", "at one rate": "--:", "its own": "--:", "at its own": "--:", "against": "---",
    "difference": "--:", "verdict": "---",
}  # fmt: skip
COSTS = {"script": "---", "parameters": "--:", "seconds": "--:"}
PER_TOKEN = COSTS | {"test loss": "--:", "accuracy": "--:"}


def number(value: float, form: str = ".3f", sign: bool = False) -> str:
    """A figure as text, with a real minus sign."""
    return format(value, ("+" if sign else "") + form).replace("-", "−")


def spread(estimate: Interval, form: str = ".3f", sign: bool = False) -> str:
    """`mean ± half-width`, which no line break tears apart."""
    return f"{number(estimate.mean, form, sign)}\u00a0±\u00a0{number(estimate.half, form)}"


# ---- tables --------------------------------------------------------------------------------------


def markdown(columns: dict[str, str], lines: list[list[str]]) -> str:
    """A Markdown table. columns: name -> `---`, or `--:` for numbers; cells that a line lacks are empty."""
    whole = [line + [""] * (len(columns) - len(line)) for line in lines]
    head = f"| {' | '.join(columns)} |\n|{'|'.join(columns.values())}|\n"
    return head + "".join(f"| {' | '.join(line)} |\n" for line in whole)


def table_row(measured: Measured, reference: Reference, other: Reference | None = None) -> list[str]:
    """The cells of a line of a table.

    other: what it is compared with instead of its predecessor; with itself: not at all.
    """
    line = measured.line(reference)
    name = _link(reference) + line.mark
    if line.state == "missing":
        return [name, NOT_YET]
    well = line.rows[line.rows.diverged == False]  # noqa: E712 (a column)
    if len(well) < 2:
        return [name, f"diverged in {len(line.rows) - len(well)} of {len(line.rows)} seeds"]
    against = other or predecessor(reference)
    compared = [] if against in (None, reference) else _compared(measured, reference, well, against)
    lost = len(line.rows) - len(well)
    if lost:
        compared = [*compared, "", "", ""][:3]
        compared[2] += f"{'; ' if compared[2] else ''}diverged in {lost} of {len(line.rows)} seeds"
    return [name, spread(interval(well.test_bpc)), *compared]


def own_rates_table(measured: Measured, stage: str) -> str:
    """A Markdown table: each script of a stage at the learning rate of the course and at its own, and what it
    is then from its predecessor at its own.

    Raises UserError where no script of the stage has a rate of its own.
    """
    rows = []
    for reference in (r for r in course_references(stage) if not r.flags):
        own = at_own_rate(reference)
        if own is None:
            continue
        previous = previous_arm(course_plan(reference.experiment), reference.arm)
        before = previous and at_own_rate(Reference(previous[0].experiment, previous[1]))
        name, known, *_ = table_row(measured, reference, reference)
        _, found, *compared = table_row(measured, own, before or own)
        rate = f"{own.settings().lr:.0e}".replace("e-0", "e-")
        rows.append([name, known, rate, found + measured.line(own).mark, *compared])
    if not rows:
        raise UserError(f"no script of {stage!r} has a learning rate of its own")
    shown = markdown(OWN_RATES, rows)
    return shown + (f"\n{FOOTNOTE}\n" if DAGGER in shown else "")


def score_table(measured: Measured, what: str, scores: str) -> str:
    """A Markdown table of scores that are no column of the results: a row for each line of `what`, a column
    for each score.

    An empty cell: the line has no such score, though it has others.
    """
    names = [name.strip() for name in scores.split(";")]
    rows = []
    for part in (p.strip() for p in what.split(";")):
        whole = [r for r in course_references(part) if not r.flags and r.experiment == part]
        for reference in whole or [refer(part)]:
            lines = [measured.score(reference, name) for name in names]
            known = [line for line in lines if len(line.rows)]
            cells = [_score_cell(line) if len(line.rows) else "" for line in lines]
            rows.append([_link(reference), *(cells if known else [NOT_YET])])
    shown = markdown({"script": "---"} | dict.fromkeys(names, "--:"), rows)
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
        return [name, NOT_YET]
    if set(before.rows.corpus) != set(rows.corpus):
        return []
    difference = families.difference(reference, against, measured.rows, judged=measured.judged)
    return [name, spread(difference, sign=True) + before.mark, difference.verdict]


def costs_row(measured: Measured, reference: Reference, per_token: bool) -> list[str]:
    """The cells of a line of the folded table: what a model costs.

    per_token: also what can be compared within one tokenizer only.
    """
    line = measured.line(reference)
    if line.state == "missing":
        return [_link(reference)]
    well = line.rows[line.rows.diverged == False]  # noqa: E712 (a column)
    alone = timed(line.rows)  # no seconds where other runs of the course ran beside each seed
    cells = [f"{line.rows.params.iloc[0]:,}", f"{alone.train_seconds.mean():.1f}" if len(alone) else ""]
    if per_token and len(well):
        cells += [number(well.test_loss.mean()), f"{100 * well.test_accuracy.mean():.1f}\u00a0%"]
    return [_link(reference) + line.mark, *cells]


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
    shown = markdown(COMPARED, [table_row(measured, reference, other) for reference, other in lines])
    shown += f"\n{FOOTNOTE}\n" if DAGGER in shown else ""
    costs = [costs_row(measured, reference, per_token) for reference, _ in lines]
    columns = PER_TOKEN if per_token else COSTS
    summary = f"parameters, seconds{', loss and accuracy' if per_token else ''}"
    return f"{shown}\n<details><summary>{summary}</summary>\n\n{markdown(columns, costs)}\n</details>\n"
