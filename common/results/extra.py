"""logs/extra.csv: scores that have no column in the results, one number a line."""

import csv
import io
import math
import os
from pathlib import Path

import filelock

from common.errors import UserError
from common.lessons import receipts
from common.lessons.course import Reference, course_plan
from common.lessons.plan import Plan
from common.paths import logs_folder

COLUMNS = ("experiment", "arm", "seed", "what", "value", "fingerprint")


def extra_path() -> Path:
    return logs_folder() / "extra.csv"


def fingerprint_of(plan: Plan, config: str, code: str) -> str:
    """What a score was made with: the settings of its run, the code of the run, and the code of the script's
    `scores`.
    """
    return f"{config}-{code}-{plan.scores_code}"


def lines(plan: Plan, arm: str, seed: int, config: str, scores: dict[str, float]) -> list[dict]:
    """The rows of a run."""
    fingerprint = fingerprint_of(plan, config, plan.code(arm))
    known = {"experiment": plan.experiment, "arm": arm, "seed": seed, "fingerprint": fingerprint}
    return [known | {"what": what, "value": float(value)} for what, value in scores.items()]


def measured(experiment: str, folder: Path) -> list[dict]:
    """The rows of what a script measured besides training: of its tables with a panel, a series, x and a
    value. Seed 0: they have none.
    """
    scores = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            header, *table = csv.reader(file)
        if len(header) == 4:
            known = {"experiment": experiment, "seed": 0, "fingerprint": folder.name}
            scores += [
                known | {"arm": series, "what": f"{panel}, {header[2]} {x}", "value": float(value)}
                for panel, series, x, value in table
            ]
    return scores


STEP = "milliseconds a step"


def step_time(reference: Reference, value: float) -> dict:
    """The row of the milliseconds that a step of a line takes. Seed 0: it has none."""
    known = {"experiment": reference.experiment, "arm": reference.arm, "seed": 0, "what": STEP}
    return known | {"value": value, "fingerprint": f"{reference.config()}-{reference.code}-step"}


def step_of(reference: Reference, rows) -> tuple[float | None, bool]:
    """The milliseconds of a step of a line as last measured, None where they were not; and whether that was
    with the present code.
    """
    rows = rows[(rows.experiment == reference.experiment) & (rows.arm == reference.arm) & (rows.what == STEP)]
    same = rows[rows.fingerprint.str.startswith(f"{reference.config()}-")]
    codes = receipts.codes(reference.experiment, reference.arm, reference.config(), reference.code)
    current = same[same.fingerprint.str.split("-").str[1].isin(codes)]
    shown = current if len(current) else same
    return (float(shown.value.iloc[-1]) if len(shown) else None), bool(len(current))


COPIES = 10
COPY = "test bpc, copy "


def copy_score(reference: Reference, copy: int, seed: int, value: float) -> dict:
    """The row of a copy of a line: the same batches, other initial weights."""
    known = {"experiment": reference.experiment, "arm": reference.arm, "seed": seed, "what": f"{COPY}{copy}"}
    return known | {"value": value, "fingerprint": f"{reference.config()}-{reference.code}-copy"}


def copies(reference: Reference, rows=None) -> dict[int, dict[int, float]]:
    """Copy -> seed -> test bits per character, of a line as the present code trains it."""
    rows = read() if rows is None else rows
    rows = rows[(rows.experiment == reference.experiment) & (rows.arm == reference.arm)]
    rows = rows[rows.what.str.startswith(COPY)]
    codes = receipts.codes(reference.experiment, reference.arm, reference.config(), reference.code)
    good = rows[rows.fingerprint.isin([f"{reference.config()}-{code}-copy" for code in codes])]
    by_copy: dict[int, dict[int, float]] = {}
    for row in good.itertuples():
        by_copy.setdefault(int(row.what.removeprefix(COPY)), {}).setdefault(row.seed, row.value)
    return by_copy


def _good(plan: Plan, arm: str, config: str) -> set[str]:
    """The fingerprints that count now: of the present code, or of code proved equal to it."""
    codes = receipts.codes(plan.experiment, arm, config, plan.code(arm))
    return {fingerprint_of(plan, config, code) for code in codes}


def check_writable(path: Path | None = None) -> None:
    """Raise UserError now, not after the training, if the file cannot be appended to or is not ours."""
    path = path or extra_path()
    if not _is_new(path) and not os.access(path, os.W_OK):
        raise UserError(
            f"scores cannot be written to {path} (Permission denied); set GPT_STAIRCASE_LOGS to another "
            "folder"
        )


def append(rows: list[dict], path: Path | None = None) -> None:
    """Add rows under a lock, in a single write. Raises UserError if the file is not ours."""
    path = path or extra_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if _is_new(path):
            writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(
                [repr(row[name]) if isinstance(row[name], float) else row[name] for name in COLUMNS]
            )
        with path.open("ab") as file:
            file.write(text.getvalue().encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def _is_new(path: Path) -> bool:
    """Whether there is no file yet, or an empty one. Raises UserError for a foreign one."""
    if not path.exists() or not path.stat().st_size:
        return True
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        line = file.readline().strip()
    if line != ",".join(COLUMNS):
        raise UserError(
            f"{path} is not a file of scores of this course (its first line is {line[:60]!r}); move it away"
        )
    return False


def read(path: Path | None = None):
    """Every row as a pandas DataFrame, empty if there is no file.

    Raises UserError for a foreign file or a row that is not whole.
    """
    import pandas as pd

    path = path or extra_path()
    if _is_new(path):
        return pd.DataFrame(columns=list(COLUMNS))
    number = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, line in enumerate(csv.reader(file, strict=True), start=1):
                seed, value = (line[2], line[4]) if len(line) == len(COLUMNS) else ("", "")
                if not value or (number > 1 and not (_is_seed(seed) and _is_number(value))):
                    raise UserError(f"{path}, line {number} is no score of this course; remove that line")
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged after line {number} ({error}); git checkout {path} restores what was "
            "committed"
        ) from None
    names = dict.fromkeys(("experiment", "arm", "what", "fingerprint"), str)
    return pd.read_csv(path, dtype=names, keep_default_na=False)


def _is_seed(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def of_run(plan: Plan, arm: str, seed: int, config: str, rows=None) -> dict[str, float]:
    """The scores of one run, by name, with its settings and the present code; none if they are not there."""
    rows = read() if rows is None else rows
    scores = rows[(rows.experiment == plan.experiment) & (rows.arm == arm) & (rows.seed == seed)]
    scores = scores[scores.fingerprint.isin(_good(plan, arm, config))]
    return dict(zip(scores.what, scores.value, strict=True))


def course_scores(reference: Reference, rows=None):
    """The rows of a line of the course and whether they count now: those of the present code, else those of
    any other.
    """
    rows = read() if rows is None else rows
    plan = course_plan(reference.experiment)
    scores = rows[(rows.experiment == reference.experiment) & (rows.arm == reference.arm)]
    config = reference.config()
    current = scores[scores.fingerprint.isin(_good(plan, reference.arm, config))]
    if len(current):
        return current.drop_duplicates(["seed", "what"]), True
    return scores[scores.fingerprint.str.startswith(f"{config}-")].drop_duplicates(
        ["seed", "what"], keep="last"
    ), False


def unscored(plan: Plan, arm: str, seed: int, config: str, rows=None) -> bool:
    """Whether a script gives scores of its own, and those of this run are not there."""
    return bool(plan.scores) and not of_run(plan, arm, seed, config, rows)
