"""The results of a class: several results files beside one another, and what they say together.

A file has the rows of the course, which are left out, and those that a student added. Two students who take
the same seed make the same run twice, up to rounding: so the values of a seed are one, their mean, and an
interval is over seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from common import results
from common.errors import UserError
from common.lessons.course import Reference, predecessor
from common.report.further import every_reference
from common.results import families
from common.results.statistics import Interval, interval
from common.results.table import COLUMNS, repeated_rows
from common.tools.listing import clock

KEY = ["timestamp", "experiment", "arm", "seed", "config_hash", "code_hash"]


@dataclass(frozen=True)
class Merge:
    """Put the results files of a class together: class-wide means and differences, with intervals."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """Results files, one for each student (the name of the file is that of the student)."""
    out: Annotated[str | None, tyro.conf.arg(name="out")] = None
    """Where to write all rows of the students together, with a column for the student."""


def merge(a: Merge) -> None:
    """Print what the class measured; each line with its predecessor, where the same students have both."""
    rows = together([Path(name) for name in a.files])
    if a.out:
        _write(rows, Path(a.out))
    lines = {line: repeated_rows(line, rows) for line in every_reference()}
    shown = [_said(line, own, rows) for line, own in lines.items() if len(own)]
    if not shown:
        raise UserError("no row of these files belongs to a line of the course with the code as it is here")
    print(
        f"{'':<44}{'students':>9}{'seeds':>6}   {'test bpc':<18}{'published':<11}difference to the one before"
    )
    print("\n".join(shown))
    unknown = len(rows) - sum(map(len, lines.values()))
    seconds = rows.train_seconds.sum()
    print(f"{len(rows)} rows of {rows.student.nunique()} students, {clock(seconds)} of training", end="")
    print(f"; {unknown} of them with other settings or other code" if unknown else "")


def together(files: Sequence[Path]) -> pd.DataFrame:
    """The rows that each file has beyond those of the course, with a column `student`.

    Raises UserError for fewer than two files, two of one name, and a row that two files have.
    """
    names = [path.stem for path in files]
    if len(files) < 2 or len(set(names)) < len(names):
        raise UserError(
            "merge wants two results files or more, each with a name of its own: anna.csv ben.csv"
        )
    published = set(results.read()[KEY].astype(str).itertuples(index=False, name=None))
    owner: dict[tuple, str] = {}
    found = []
    for name, path in zip(names, files, strict=True):
        if not path.is_file():
            raise UserError(f"results file {str(path)!r} does not exist")
        rows = results.read(path)
        keys = list(rows[KEY].astype(str).itertuples(index=False, name=None))
        own = rows[[key not in published for key in keys]]
        for key in (key for key in keys if key not in published):
            if owner.setdefault(key, name) != name:
                row = " ".join(key[:4])
                raise UserError(
                    f"{owner[key]} and {name} have the same row ({row}): one of the two was copied"
                )
        print(f"{name}: {len(own)} rows" + ("" if len(own) else ", nothing beyond those of the course"))
        found.append(own.assign(student=name))
    return pd.concat(found, ignore_index=True)


def _said(line: Reference, own: pd.DataFrame, rows: pd.DataFrame) -> str:
    """A line of the table: beside the first arm where that is the baseline of its script, else the one
    before.
    """
    estimate = interval(own[own.diverged == False].groupby("seed").test_bpc.mean())  # noqa: E712 (a column)
    known = repeated_rows(line)
    published = f"{known.test_bpc.mean():.3f}" if len(known) else "-"
    first = families.baseline(line.experiment)
    before = first if first not in (None, line) else predecessor(line)
    compared = difference(own, repeated_rows(before, rows)) if before else None
    told = f"{_figures(compared, sign='+')}  {compared.verdict}" if compared else ""
    students = f"{own.student.nunique():>9}{own.seed.nunique():>6}"
    return f"{str(line):<44}{students}   {_figures(estimate):<18}{published:<11}{told}".rstrip()


def difference(own: pd.DataFrame, base: pd.DataFrame) -> Interval | None:
    """`own` minus `base`, paired by student and seed, since each pair is of one machine; None without a
    pair.
    """
    both = own.merge(base, on=["student", "seed"], suffixes=("", "_base"))
    both = both[both.test_bpc.notna() & both.test_bpc_base.notna() & (both.corpus == both.corpus_base)]
    if not len(both):
        return None
    return interval((both.test_bpc - both.test_bpc_base).groupby(both.seed).mean())


def _figures(estimate: Interval, sign: str = "") -> str:
    half = f" ± {estimate.half:.3f}" if estimate.n > 1 else " (one seed)"
    return f"{estimate.mean:{sign}.3f}{half}"


def _write(rows: pd.DataFrame, path: Path) -> None:
    if path.exists():
        raise UserError(f"--out {path} is there already; name another file")
    try:
        rows[["student", *COLUMNS]].to_csv(path, index=False, lineterminator="\n")
    except OSError as error:
        raise UserError(f"--out {path} cannot be written ({error.strerror})") from None
