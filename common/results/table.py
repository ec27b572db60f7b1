"""logs/results_All.csv: its columns, the locked append, and reading."""

import csv
import io
import math
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import filelock

from common.errors import UserError
from common.lessons import receipts
from common.lessons.course import Reference
from common.paths import ROOT, logs_folder
from common.training.metrics import PROTOCOL

FIRST_COLUMNS = (
    "timestamp", "experiment", "arm", "seed", "corpus", "tokenizer", "vocab_size", "params", "n_layer",
    "n_head", "n_embd", "block_size",
    "batch_size", "steps", "tokens_seen", "lr", "train_seconds", "tokens_per_second", "device", "dtype",
    "train_loss", "val_loss",
    "val_bpc", "test_loss", "test_accuracy", "test_bpc", "test_perplexity", "last10_loss", "diverged",
    "config_hash", "code_hash",
    "protocol", "git_commit", "torch_version",
)  # fmt: skip
# a new column goes to the end: older rows have no value there
COLUMNS = (*FIRST_COLUMNS, "threads", "alone", "last10_bpc", "parts")
TIMES = ("train_seconds", "tokens_per_second")
TEXTS = (
    "timestamp", "experiment", "arm", "corpus", "tokenizer", "device", "dtype", "config_hash", "code_hash",
    "git_commit", "torch_version", "alone", "diverged", "parts",
)  # fmt: skip
VARYING = ("timestamp", *TIMES, "git_commit", "alone")  # what may differ when a run is repeated


def results_path() -> Path:
    return logs_folder() / "results_All.csv"


def check_writable(path: Path | None = None) -> None:
    """Raise UserError now, not after an hour of training, if the results file cannot be appended to or has a
    foreign header.
    """
    path = path or results_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock"), timeout=60):
            _header(path)
            if not os.access(path if path.exists() else path.parent, os.W_OK):
                raise PermissionError(13, "Permission denied")
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"results cannot be written to {path} ({getattr(error, 'strerror', None) or error}); set "
            "GPT_STAIRCASE_LOGS to another folder"
        ) from None
    name_unknown_columns(path)


def name_unknown_columns(path: Path | None = None) -> None:
    """Say on stderr which columns of the results file the course does not know. They are kept."""
    path = path or results_path()
    unknown = [name for name in _header(path) or () if name not in COLUMNS]
    if unknown:
        what = f"a column {unknown[0]!r}" if len(unknown) == 1 else f"columns {', '.join(map(repr, unknown))}"
        print(f"note: {path} has {what} that this version of the course does not know; kept", file=sys.stderr)


def _header(path: Path) -> list[str] | None:
    """The columns of the file, None if there is no file yet or an empty one. Raises UserError for a foreign
    header.

    A file is ours if it has the columns of the first version. Later ones may be missing, unknown ones may be
    there.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            header = next(csv.reader(file), [])
        except csv.Error:
            header = []
    lacking = [name for name in FIRST_COLUMNS if name not in header]
    twice = sorted({name for name in header if header.count(name) > 1})
    if len(lacking) > len(FIRST_COLUMNS) // 2:
        line = ",".join(header)[:60]
        raise UserError(
            f"{path} is not a results file of this course (its first line is {line!r}); move it away, it "
            "is not overwritten"
        )
    if lacking or twice:
        what = f"lacks the column {lacking[0]!r}" if lacking else f"has the column {twice[0]!r} twice"
        raise UserError(f"{path} {what}; mend its first line, or move the file away, it is not overwritten")
    return header


def append(row: dict, path: Path | None = None) -> None:
    """Add one row under a lock, in a single write. Raises UserError if the file is not ours, KeyError for a
    missing column.

    A file of an earlier version gets its new columns first, empty in the rows that are there.
    """
    path = path or results_path()
    with filelock.FileLock(path.with_suffix(".lock")):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        header = _header(path)
        if header is None:
            header = list(COLUMNS)
            writer.writerow(header)
        else:
            header = _with_new_columns(path, header)
            if not _ends_with_a_whole_line(path):
                text.write("\n")  # a write that was cut off stays a line of its own
        values = {name: row[name] for name in COLUMNS}
        writer.writerow([_cell(values.get(name)) for name in header])
        with path.open("ab") as file:
            file.write(text.getvalue().encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def _with_new_columns(path: Path, header: list[str]) -> list[str]:
    """The header of the file, which first gets the columns that it lacks, at the end, in one step."""
    new = [name for name in COLUMNS if name not in header]
    if not new:
        return header
    part = path.with_suffix(".part")
    with (
        path.open(encoding="utf-8", errors="surrogateescape", newline="") as old,
        part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        for number, line in enumerate(csv.reader(old)):
            whole = len(line) == len(header)  # what is not whole stays as it is, to be named when it is read
            writer.writerow(line + (new if number == 0 else [""] * len(new)) if whole else line)
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(path, part)
    part.replace(path)
    return header + new


def _ends_with_a_whole_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _cell(value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def read(path: Path | None = None):
    """Every row as a pandas DataFrame, empty if there is no file. A column that came after a row has no value
    there.

    Raises UserError for a foreign file or a row that is not whole.
    """
    import pandas as pd

    path = path or results_path()
    header = _header(path)
    if header is None:
        return pd.DataFrame(columns=list(COLUMNS))
    _check(path, header)
    names = dict.fromkeys(("experiment", "arm", "corpus", "tokenizer", "config_hash", "code_hash"), str)
    rows = pd.read_csv(  # a corpus may be called NA
        path, encoding="utf-8-sig", dtype=names | {"git_commit": str}, keep_default_na=False, na_values=[""]
    )
    return rows.reindex(columns=[*header, *(name for name in COLUMNS if name not in header)])


def _check(path: Path, header: list[str]) -> None:
    """Raise UserError for a row that is not whole or has no number where one belongs, as after an edit by
    hand. Blank lines are none.
    """
    numbers = [(place, name) for place, name in enumerate(header) if name in COLUMNS and name not in TEXTS]
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(csv.reader(file, strict=True), start=1):
                if line and len(line) != len(header):
                    raise UserError(
                        f"{path}, line {number} has {len(line)} cells instead of {len(header)}; remove "
                        "that line"
                    )
                for place, name in numbers if line and number > 1 else ():
                    if not _is_number(line[place], name == "seed"):
                        raise UserError(
                            f"{path}, line {number} has {line[place]!r} for {name}, which is no number (a "
                            "point stands before decimals); mend or remove that line"
                        )
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged after line {number} ({error}); git checkout {path} restores what was "
            "committed"
        ) from None


def _is_number(text: str, whole: bool) -> bool:
    """Whether a cell holds a number; an empty one says that there is none, but a seed there must be."""
    if whole:
        return text.isascii() and text.isdigit()
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


def timed(rows):
    """The rows whose times may be published: nothing else of the course ran beside them.

    Before this was noted, nothing did.
    """
    return rows[rows.alone.astype(str) != "False"]


def logged(run: dict, path: Path | None = None) -> dict | None:
    """The first row of a run (same seed, settings, code, corpus, and the current protocol), None if it has
    none.
    """
    rows = read(path)
    for name in ("experiment", "arm", "seed", "config_hash", "corpus", "protocol"):
        rows = rows[rows[name].astype(str) == str(run.get(name, PROTOCOL))]
    rows = rows[
        rows.code_hash.isin(
            receipts.codes(run["experiment"], run["arm"], run["config_hash"], run["code_hash"])
        )
    ]
    return rows.iloc[0].to_dict() if len(rows) else None


def matching(experiment: str, arm: str, config: str, codes, rows=None, scored: bool = True):
    """Per seed the first row with these settings and one of these codes; all on the corpus of the first of
    them.

    scored: without rows of a sweep, which was judged on the validation text alone.
    """
    same = every(experiment, arm, config, codes, rows, scored)
    return same.drop_duplicates("seed").sort_values("seed")


def every(experiment: str, arm: str, config: str, codes, rows=None, scored: bool = True):
    """All rows as in `matching`, also where a run was repeated, in the order in which they were made."""
    rows = read() if rows is None else rows
    wanted = (rows.experiment == experiment) & (rows.arm == arm) & (rows.protocol == PROTOCOL)
    wanted &= (rows.config_hash == config) & rows.code_hash.isin(codes)
    same = rows[wanted & (rows.test_loss.notna() | rows.diverged) if scored else wanted]
    return same[same.corpus == same.corpus.iloc[0]] if len(same) else same


def course_rows(reference: Reference, rows=None):
    """The rows the course uses for a reference: those with its settings, of the code as it is now or proved
    equal to it.
    """
    config, codes = _asked(reference)
    return matching(reference.experiment, reference.arm, config, codes, rows)


def repeated_rows(reference: Reference, rows=None):
    """The rows that the course could use for a reference: those of `course_rows`, and of runs that were
    repeated since, which differ by rounding.
    """
    config, codes = _asked(reference)
    return every(reference.experiment, reference.arm, config, codes, rows)


def _asked(reference: Reference) -> tuple[str, frozenset[str]]:
    """The settings of a reference, and the codes that are as good as the present one."""
    config = reference.config()
    return config, receipts.codes(reference.experiment, reference.arm, config, reference.code)


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


@cache
def git_commit() -> str:
    """The short hash of the commit, with a + when the course's code was changed since; empty outside a
    repository.

    Asked once: a run names the commit of the code that it began with.
    """
    try:
        changed = _git("status", "--porcelain", "--", "common", "0*")
        return _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""
