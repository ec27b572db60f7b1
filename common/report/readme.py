"""The generated parts of README.md and of the pages in Research/: tables, figures in sentences, and pictures.

A block between `<!-- table: A; B vs C -->` and `<!-- end -->` is the table of these references (an
experiment, a stage, or an experiment with flags; each compared with its predecessor, or with the one after
`vs`), one between `<!-- scores: A; B | NAME; NAME -->` and `<!-- end -->` has scores of these references that
are no column of the results, one between `<!-- data: NAME -->` and `<!-- end -->` shows what is in the file
`logs/plots/NAME.csv`, one between `<!-- diff: SCRIPT -->` and `<!-- end -->` what a script changes in the
code of the one before it, `<!-- drawing: LINE -->` its model as boxes, one between `<!-- samples: PROMPT
-->` and `<!-- end -->` what a script of each stage writes after a word (`temperatures`: one of them at
several temperatures), and `<!-- picture: NAME | what it shows -->` has the picture `logs/plots/NAME.png`. A
figure in a sentence stands as `<!--=value(multi_head, test_bpc, .2f)-->2.34<!--/-->`. What is not measured
yet says so, and what earlier code measured has a dagger.
"""

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from common.errors import UserError
from common.lessons.course import Reference, course_references, find, refer
from common.report import code, drawing, equal_time, pictures, plots, samples
from common.report.evidence import DAGGER, FOOTNOTE, NOT_YET, Line, Measured, check_column, coverage
from common.report.picture_data import NotDrawnError, cell, data_lines
from common.report.tables import markdown, number, own_rates_table, score_table, spread, table
from common.results import extra, families
from common.results.statistics import interval
from common.results.table import TIMES, repeated_rows, timed
from common.settings import Settings

# ---- data files ----------------------------------------------------------------------------------


def data_table(measured: Measured, name: str) -> str:
    """A Markdown table of a data file, numbers to three digits."""
    try:
        lines = data_lines(name)
    except NotDrawnError:
        return f"{NOT_YET}\n"
    columns = {column.replace("_", " "): "---" for column in lines[0]}
    text = markdown(columns, [[_cell(value) for value in line.values()] for line in lines])
    return text + (f"\n{FOOTNOTE}\n" if data_mark(measured, name) else "")


def data_mark(measured: Measured, name: str) -> str:
    """The dagger, where the data file was made by earlier code."""
    experiment = pictures.owner(name)
    if experiment and experiment not in measured.pictures:
        measured.pictures[experiment] = pictures.state(experiment, measured)
    return DAGGER if experiment and measured.pictures[experiment] == "stale" else ""


def _cell(value: str) -> str:
    try:
        return f"{int(value):,}" if value.isdigit() else f"{float(f'{float(value):.3g}'):,.12g}"
    except ValueError:
        return value


def picture(measured: Measured, name: str, shows: str) -> str:
    """A picture of logs/plots with what a reader who cannot see it should know; a line in its place where it
    is not drawn yet.
    """
    if not (plots.folder() / f"{name}.png").exists():
        return f"_{shows}: not measured yet_\n"
    old = f"\n{FOOTNOTE}\n" if data_mark(measured, name) else ""
    return f"![{shows}](logs/plots/{name}.png)\n{old}"


# ---- figures in sentences ------------------------------------------------------------------------

FIGURES = {
    "value": "A, column, format", "spread": "A, column, format", "difference": "A, B, column, format",
    "ratio": "A, B, column, format", "verdict": "A, B", "cell": "file, line, column, format",
    "cells": "file, line, other line, column, format", "coverage": "", "minutes": "what",
    "score": "A, name, format", "step": "A, format", "alarms": "script", "best": "stage",
}  # fmt: skip


def figure(measured: Measured, expression: str) -> str:
    """The text of an inline figure. Raises UserError for an expression that it cannot read."""
    match = re.fullmatch(r"(\w+)\((.*)\)", expression.strip())
    kind, parts = (match[1], [part.strip() for part in match[2].split(", ")]) if match else ("", [])
    arguments = [name for name in FIGURES.get(kind, "").split(", ") if name]
    parts = parts if arguments else []
    if kind not in FIGURES or not len([a for a in arguments if a != "format"]) <= len(parts) <= len(
        arguments
    ):
        known = ", ".join(f"{name}({arguments})" for name, arguments in FIGURES.items())
        raise UserError(f"figure {expression!r} is none of {known}")
    if kind == "coverage":
        return coverage(measured)
    if kind in ("minutes", "best"):
        return (minutes if kind == "minutes" else best)(measured, parts[0])
    if kind in ("cell", "cells"):
        return _data_figure(measured, kind, parts)
    if kind == "score":
        line, form = measured.score(refer(parts[0]), parts[1]), [*parts, ".3f"][2]
        return spread(interval(line.rows.value), form) + line.mark if len(line.rows) else NOT_YET
    if kind == "alarms":
        told, copies = families.false_alarms(find(parts[0]), measured.rows, measured.scores)
        return f"{told} of {copies}" if copies else NOT_YET
    if kind == "step":
        value, current = extra.step_of(refer(parts[0]), measured.scores)
        form = [*parts, ".0f"][1]
        return NOT_YET if value is None else number(value, form) + ("" if current else DAGGER)
    if kind in ("value", "spread"):
        return _own_figure(kind, measured.line(refer(parts[0])), *parts[1:])
    return _paired_figure(measured, kind, refer(parts[0]), refer(parts[1]), *parts[2:])


def minutes(measured: Measured, what: str) -> str:
    """Minutes of training for one seed of each line of a stage or script; of a line that never ran alone, as
    long as it took beside others. Of a single line: its fastest run, which others disturbed least.
    """
    lines = course_references(what)
    if not lines:
        line = refer(what)
        shortest = repeated_rows(line, measured.every(line)).train_seconds.min()
        return NOT_YET if math.isnan(shortest) else f"{max(1, shortest / 60):.0f}"
    rows = [timed(own) if len(timed(own)) else own for own in map(measured.rows, lines)]
    known = [lines.train_seconds.mean() for lines in rows if len(lines)]
    return f"{max(1, sum(known) / 60):.0f}" if known else NOT_YET


def best(measured: Measured, stage: str) -> str:
    """The lowest mean of a line of a stage, in bits per character of the course's text."""
    lines = [measured.line(r) for r in course_references(stage) if r.settings().corpus == Settings.corpus]
    found = [(line.rows.test_bpc.mean(), line.mark) for line in lines if len(line.rows)]
    if not lines:
        raise UserError(f"best({stage}): no stage or script of the course has this name")
    known = [(bits, mark) for bits, mark in found if not math.isnan(bits)]
    return number(min(known)[0], ".2f") + min(known)[1] if known else NOT_YET


def timed_lines(text: str) -> set[Reference]:
    """The lines of the course whose time a figure in a sentence of `text` uses: these have to run alone."""
    lines = set()
    for kind, arguments in re.findall(r"<!--=(\w+)\((.*?)\)-->", text):
        parts = [part.strip() for part in arguments.split(",")]
        if kind in ("value", "spread", "difference", "ratio") and set(parts) & set(TIMES):
            lines |= {refer(part) for part in parts[: 2 if kind in ("difference", "ratio") else 1]}
    return lines


def _data_figure(measured: Measured, kind: str, parts: list[str]) -> str:
    """A number of a data file, or the ratio of two."""
    try:
        if kind == "cell":
            file, line, column, form = [*parts, ".3f"][:4]
            value = cell(file, line, column)
        else:
            file, line, other, column, form = [*parts, ".3f"][:5]
            value = cell(file, line, column) / cell(file, other, column)
    except NotDrawnError:
        return NOT_YET
    return number(value, form) + data_mark(measured, file)


def _own_figure(kind: str, line: Line, column: str, form: str = ".3f") -> str:
    """A column of one line: its mean, or mean and interval, over the seeds that did not diverge."""
    check_column(column)
    rows = _rows_for(line, column)
    if not len(rows):
        return NOT_YET
    rows = rows[rows[column].notna()]
    if not len(rows):
        return "diverged" + line.mark
    shown = number(rows[column].mean(), form) if kind == "value" else spread(interval(rows[column]), form)
    return shown + line.mark


def _paired_figure(
    measured: Measured, kind: str, a: Reference, b: Reference, column: str = "test_bpc", form: str = ".3f"
) -> str:
    """Two lines compared: the difference with its interval, its verdict, or the ratio of their means."""
    check_column(column)
    line, base = measured.line(a), measured.line(b)
    rows, others = _rows_for(line, column), _rows_for(base, column)
    if not len(rows) or not len(others):
        return NOT_YET
    if kind == "ratio":
        shown = number(rows[column].mean() / others[column].mean(), form)  # where one diverged: of the others
    else:

        def rows_of(one: Reference):
            return _rows_for(measured.line(one), column)

        difference = families.difference(a, b, rows_of, column, measured.judged)
        shown = difference.verdict if kind == "verdict" else spread(difference, form, sign=True)
    return shown + (line.mark or base.mark)


def _rows_for(line: Line, column: str):
    """The rows that a column may be read from: its times are those of runs that had the machine to
    themselves.
    """
    return timed(line.rows) if column in TIMES else line.rows


# ---- the whole text ------------------------------------------------------------------------------


@dataclass
class Rendered:
    """The text with every generated part made anew, and what could not be: there it is as it was."""

    text: str
    problems: list[str] = field(default_factory=list)


UNREADABLE = (UserError, ValueError, TypeError, ZeroDivisionError)  # a format that fits no number, say


def render(text: str, measured: Measured, link: Callable[[str], str] = str) -> Rendered:
    """The text of a page with every table, picture and figure made anew. link: leads the links of a generated
    part from where the page is.
    """
    problems = []

    def remade(make, match: re.Match) -> str:
        try:
            return f"{match[1]}{link(make(*match.groups()[1:-1]))}{match[match.re.groups]}"
        except UNREADABLE as error:
            problems.append(f"{match[1].strip()}: {error}")
            return match[0]

    makers = {
        r"(<!-- table: (.*?) -->\n).*?(<!-- end -->)": lambda what: table(measured, what),
        r"(<!-- scores: (.*?) \| (.*?) -->\n).*?(<!-- end -->)": lambda what, names: score_table(
            measured, what, names
        ),
        r"(<!-- own rates: (.*?) -->\n).*?(<!-- end -->)": lambda stage: own_rates_table(measured, stage),
        r"(<!-- equal time: (.*?) -->\n).*?(<!-- end -->)": lambda name: equal_time.table(measured, name),
        r"(<!-- drawing: (.*?) -->\n).*?(<!-- end -->)": drawing.block,
        r"(<!-- diff: (\w+) -->\n).*?(<!-- end -->)": code.difference,
        r"(<!-- temperatures: (\w+) -->\n).*?(<!-- end -->)": samples.tempered,
        r"(<!-- samples: (\w+) -->\n).*?(<!-- end -->)": lambda prompt: samples.strip(measured, prompt),
        r"(<!-- sample: (\w+) -->\n).*?(<!-- end -->)": lambda stage: samples.written(measured, stage),
        r"(<!-- data: (\w+) -->\n).*?(<!-- end -->)": lambda name: data_table(measured, name),
        r"(<!-- picture: (\w+) \| ([^\n]*?) -->\n).*?(<!-- end -->)": lambda name, shows: picture(
            measured, name, shows
        ),
        r"(<!--=(.*?)-->).*?(<!--/-->)": lambda expression: figure(measured, expression),
    }
    text, torn = off_line_starts(text)
    problems += torn
    for pattern, make in makers.items():
        flags = 0 if pattern.startswith("(<!--=") else re.DOTALL
        text = re.sub(pattern, lambda match, make=make: remade(make, match), text, flags=flags)
    return Rendered(text, problems)


def off_line_starts(text: str) -> tuple[str, list[str]]:
    """The text with no figure at the beginning of a line, and a problem for each that cannot be moved.

    A line that begins with a comment is a block of HTML in Markdown (CommonMark 0.31, section 4.6, kind 2):
    it would end the paragraph, and what follows in the line would be shown as it is written. So the figure
    moves up, to the end of the line before.
    """
    text = re.sub(r"(?<=[^\s>])[ \t]*\n[ \t]*(?=<!--=)", " ", text)
    text = re.sub(r"(?<=<!--/-->)[ \t]*\n[ \t]*(?=<!--=)", " ", text)
    torn = re.finditer(r"^[ \t]*(?:[-*+>]|\d+[.)])?[ \t]*<!--=.*", text, re.MULTILINE)
    return text, [
        f"a paragraph begins with a figure, which tears it apart: {match[0][:60]!r}; begin it with a word"
        for match in torn
    ]


def differences(old: str, new: str) -> list[str]:
    """One line for each place where two texts differ: `line 12: has 'x', the results say 'y'`."""
    a, b = old.splitlines(), new.splitlines()
    places = []
    for kind, a1, a2, b1, b2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "replace" and a2 - a1 == b2 - b1:
            places += [
                f"line {a1 + 1 + i}: {_first_difference(a[a1 + i], b[b1 + i])}" for i in range(a2 - a1)
            ]
        elif kind != "equal":
            shown = [repr(lines[0][:50]) if lines else "nothing" for lines in (a[a1:a2], b[b1:b2])]
            places.append(
                f"line {a1 + 1}: {a2 - a1} lines, {shown[0]}; the results give {b2 - b1}, {shown[1]}"
            )
    return places


def _first_difference(x: str, y: str) -> str:
    at = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
    start = max(0, at - 20)
    return f"has {x[start : at + 30]!r}, the results say {y[start : at + 30]!r}"
