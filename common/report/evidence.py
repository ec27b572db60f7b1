"""What is measured: for each line of the course its rows, and whether they are those of the present code.

A line is `measured`, `stale` (its rows are those of earlier code; they are shown with a dagger) or `missing`
(not measured yet). None of the three stops anything: a script is in the course before it has rows, and a
change before its rows are renewed.
"""

from dataclasses import dataclass

import pandas as pd

from common import results
from common.errors import UserError
from common.lessons import receipts
from common.lessons.course import Reference, course_plan
from common.report.further import every_reference
from common.results import extra, families
from common.results.statistics import Interval
from common.results.table import course_rows

NOT_YET = "_not measured yet_"
DAGGER = "[†](#trust)"
MOST = 8  # names in a sentence
FOOTNOTE = "† measured with an earlier version of the code"


@dataclass(frozen=True)
class Line:
    """The rows of a line of the course, one for each of its seeds; none if it is missing."""

    rows: pd.DataFrame
    state: str
    """measured, stale or missing."""
    seeds: tuple[int, ...] = ()
    """The seeds that are measured with the present code: all, or those of a line that is still being
    measured."""

    @property
    def mark(self) -> str:
        """What stands after a figure of this line."""
        return DAGGER if self.state == "stale" else ""


class Measured:
    """The lines of the course, each looked up once: in the results file, or in these rows."""

    def __init__(self, rows: pd.DataFrame | None = None):
        self.all, self.scores = results.read() if rows is None else rows, extra.read()
        self._lines: dict[Reference, Line] = {}
        self._of_arm = dict(list(self.all.groupby(["experiment", "arm"], sort=False)))
        self.pictures: dict[str, str] = {}
        """The state of each script's pictures, as far as it was asked for."""
        self._together: dict[str, dict[str, Interval]] = {}

    def every(self, reference: Reference) -> pd.DataFrame:
        """All rows of a line's script and arm, whatever their settings and code."""
        return self._of_arm.get((reference.experiment, reference.arm), self.all.iloc[:0])

    def line(self, reference: Reference) -> Line:
        """The rows of a line and their state."""
        if reference not in self._lines:
            self._lines[reference] = self._look_up(reference)
        return self._lines[reference]

    def rows(self, reference: Reference) -> pd.DataFrame:
        """The rows of a line: of the present code, else of earlier code, else none."""
        return self.line(reference).rows

    def judged(self, experiment: str) -> dict[str, Interval]:
        """The lines of a script minus its first, judged together, once."""
        if experiment not in self._together:
            self._together[experiment] = families.judged_together(experiment, self.rows)
        return self._together[experiment]

    def score(self, reference: Reference, what: str) -> Line:
        """A line of the course with, as its rows, its values (column `value`) of a score that is no column of
        the results.

        Raises UserError for a script that gives no scores of its own, and for a name that none of its scores
        has.
        """
        if not course_plan(reference.experiment).scores:
            raise UserError(f"{reference.experiment} gives no scores of its own; mend the name")
        scores, current = extra.course_scores(reference, self.scores)
        known = set(self.scores[self.scores.experiment == reference.experiment].what)
        if known and what not in known:
            raise UserError(
                f"{reference.experiment} gives no score {what!r}; it gives {', '.join(sorted(known))}"
            )
        wanted = set(course_plan(reference.experiment).header.seeds_with(reference.flags))
        rows = scores[(scores.what == what) & scores.seed.isin(wanted)].sort_values("seed")
        whole = set(rows.seed) == wanted
        state = "missing" if not whole else "measured" if current else "stale"
        return Line(rows if whole else rows.iloc[:0], state, tuple(rows.seed))

    def _look_up(self, reference: Reference) -> Line:
        wanted = set(course_plan(reference.experiment).header.seeds_with(reference.flags))
        current = course_rows(reference, self.every(reference))
        current = current[current.seed.isin(wanted)]
        seeds = tuple(current.seed)
        if set(seeds) == wanted:
            return Line(current, "measured", seeds)
        older = stale_rows(reference, wanted, self.every(reference))
        return Line(older, "stale" if len(older) else "missing", seeds)


def stale_rows(reference: Reference, seeds: set[int], rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of these seeds with the settings of a line and the newest earlier code that has them all;
    empty if none has.
    """
    same = rows[
        (rows.experiment == reference.experiment) & (rows.arm == reference.arm) & rows.seed.isin(seeds)
    ]
    current = receipts.codes(reference.experiment, reference.arm, reference.config(), reference.code)
    same = same[(same.config_hash == reference.config()) & ~same.code_hash.isin(current)]
    for code in reversed(list(dict.fromkeys(same.code_hash))):
        codes = receipts.codes(reference.experiment, reference.arm, reference.config(), code)
        stale = results.matching(reference.experiment, reference.arm, reference.config(), codes, same)
        if set(stale.seed) == seeds:
            return stale
    return rows.iloc[:0]


def coverage(measured: Measured) -> str:
    """How many lines of the course are measured with the present code, and which are not, as one sentence of
    the README.
    """
    references = every_reference()
    states = {reference: measured.line(reference).state for reference in references}
    count = list(states.values()).count("measured")
    said = f"{count} of the {len(references)} lines of the course are measured with the present code"
    for state, what in (("stale", "measured with earlier code (†)"), ("missing", "not measured yet")):
        chosen = [reference for reference in references if states[reference] == state]
        if chosen:
            names = _names(chosen, references)
            more = f" and {len(names) - MOST} more names" if len(names) > MOST else ""
            said += f"; {len(chosen)} {what}: {', '.join(names[:MOST])}{more}"
    return said


def _names(chosen: list[Reference], references: list[Reference]) -> list[str]:
    """The names of some lines: of a script whose lines are all among them its own, of another those of the
    lines, three at most.
    """
    names = []
    for experiment in dict.fromkeys(reference.experiment for reference in chosen):
        lines = [reference for reference in chosen if reference.experiment == experiment]
        name = experiment.split("/")[1]
        if lines == [reference for reference in references if reference.experiment == experiment]:
            names.append(f"`{name}`")
        else:
            names += [f"`{str(reference).split('/', 1)[1]}`" for reference in lines[:3]]
            names += [f"{len(lines) - 3} more of `{name}`"] if len(lines) > 3 else []
    return names


def check_column(column: str) -> None:
    """Raise UserError for a name that is no column of the results."""
    if column not in results.COLUMNS:
        raise UserError(f"column {column!r} is not in the results; its columns: {', '.join(results.COLUMNS)}")
