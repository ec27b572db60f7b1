"""The tables beside the pictures of scripts, to be shown in tables and sentences of the README."""

import csv

from common.errors import UserError
from common.report import plots
from common.report.pictures import owner


class NotDrawnError(Exception):
    """The data file belongs to a script of the course that has not measured it yet."""


def data_lines(name: str) -> list[dict[str, str]]:
    """The lines of a data file in logs/plots.

    Raises NotDrawnError, or UserError where no script makes a file of that name.
    """
    path = plots.folder() / f"{name}.csv"
    if not path.exists() and owner(name):
        raise NotDrawnError
    if not path.exists():
        raise UserError(
            f"{name}.csv is not in {path.parent}, and no script of the course draws it; mend the name"
        )
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    if not lines:
        raise UserError(f"{path} is empty; run the script that measures it, and python -m common.report")
    return lines


def cell(name: str, key: str, column: str) -> float:
    """A number of a data file, from the line whose first cells are `key` (joined by `/`).

    Raises UserError if there is none.
    """
    wanted = key.split("/")
    for line in data_lines(name):
        if list(line.values())[: len(wanted)] == wanted and column in line:
            return float(line[column])
    raise UserError(f"{name}.csv has no line that begins with {key}, or no column {column!r}")
