"""logs/receipts.csv: which code was proved to compute, bit for bit, what earlier code computed, so that rows
of the earlier stay valid.

A line says that for an arm of a script, with the settings of one configuration, `new_code` does what
`old_code` did. `python -m common.tools.course prove` appends them.
"""

import csv
import io
from functools import cache
from pathlib import Path

import filelock

from common.errors import UserError
from common.paths import logs_folder

COLUMNS = (
    "timestamp", "experiment", "arm", "config_hash", "old_code", "new_code", "old_commit", "new_commit",
    "steps", "digest", "threads",
    "torch_version", "platform",
)  # fmt: skip


def receipts_path() -> Path:
    return logs_folder() / "receipts.csv"


def read(path: Path | None = None) -> list[dict[str, str]]:
    """Every receipt. Raises UserError for a file with other columns or a line that is not whole."""
    path = path or receipts_path()
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged ({error}); git checkout {path} restores what was committed"
        ) from None
    if tuple(lines[0]) != COLUMNS:
        raise UserError(
            f"{path} is not a file of receipts (its first line is {','.join(lines[0])[:60]!r}); restore "
            f"it: git checkout {path}"
        )
    for number, line in enumerate(lines, start=1):
        if len(line) != len(COLUMNS):
            raise UserError(
                f"{path}, line {number} has {len(line)} cells instead of {len(COLUMNS)}; remove that line"
            )
    return [dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]]


def append(receipt: dict, path: Path | None = None) -> None:
    """Add one receipt under a lock, in a single write. Raises as `read`."""
    path = path or receipts_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not read(path) and not (path.exists() and path.stat().st_size):
            writer.writerow(COLUMNS)
        elif not path.read_bytes().endswith(b"\n"):
            text.write("\n")
        writer.writerow([receipt[name] for name in COLUMNS])
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())


def codes(experiment: str, arm: str, config: str, code: str) -> frozenset[str]:
    """The codes whose rows with this configuration are as good as those of `code`, by the receipts that are
    there.
    """
    return equal_codes((experiment, arm, config), code, _known(receipts_path(), _changed(receipts_path())))


def _changed(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


@cache
def _known(path: Path, changed: float) -> list[dict[str, str]]:
    """The receipts, read again when the file has changed."""
    return read(path)


def equal_codes(line: tuple[str, str, str], code: str, known: list[dict[str, str]]) -> frozenset[str]:
    """The codes whose rows are as good as those of `code`: itself, and what receipts lead to it from,
    directly or not.

    line: experiment, arm and configuration.
    """
    steps = [
        (r["old_code"], r["new_code"]) for r in known if (r["experiment"], r["arm"], r["config_hash"]) == line
    ]
    equal: frozenset[str] = frozenset({code})
    before: frozenset[str] = frozenset()
    while equal != before:
        before = equal
        equal |= {old for old, new in steps if new in before}
    return equal
