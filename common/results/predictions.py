"""What a reader expected of a run, and what came: logs/predictions.csv, one line for each prediction."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import filelock

from common.errors import UserError
from common.paths import logs_folder
from common.results.statistics import Interval

WORDS = {"better": "better", "worse": "worse", "no measurable difference": "same"}
COLUMNS = ("timestamp", "experiment", "arm", "against", "said", "difference", "half", "seeds", "config_hash")


def predictions_path() -> Path:
    return logs_folder() / "predictions.csv"


def check(said: str) -> None:
    """Raise UserError for what is neither better, worse, same nor a number of bits."""
    if said in WORDS.values():
        return
    try:
        if math.isfinite(float(said)):
            return
    except ValueError:
        pass
    raise UserError(
        f"--predict {said!r} says nothing; write better, worse, same, or the difference that you expect, in "
        "bits per character: --predict=-0.05 (below zero is better)"
    )


@dataclass(frozen=True)
class Prediction:
    """What was said, and the difference that was found, in bits per character (below zero is better)."""

    said: str
    found: Interval

    @property
    def outcome(self) -> str:
        """better, worse or same; nothing where one seed cannot tell."""
        return WORDS.get(self.found.verdict.split(",")[0], "")

    @property
    def number(self) -> float | None:
        """The number of bits that was said, if it was one."""
        return None if self.said in WORDS.values() else float(self.said)

    @property
    def right(self) -> bool | None:
        """Whether the word is what was found, or the number lies inside the interval; None where one seed
        cannot tell.
        """
        if not self.outcome:
            return None
        if self.number is not None:
            return abs(self.number - self.found.mean) <= self.found.half
        return self.said == self.outcome


def append(prediction: Prediction, known: dict[str, str], path: Path | None = None) -> None:
    """Add a line under a lock, in a single write. known: the columns that say which run it was.

    Raises UserError if the file is not ours, or cannot be written.
    """
    path = path or predictions_path()
    line = known | {
        "said": prediction.said, "difference": repr(prediction.found.mean),
        "half": repr(prediction.found.half), "seeds": str(prediction.found.n),
    }  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):
            if _is_new(path):
                writer.writerow(COLUMNS)
            elif not path.read_bytes().endswith(b"\n"):  # a write that was cut off stays a line of its own
                text.write("\n")
            writer.writerow([line[name] for name in COLUMNS])
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(text.getvalue())
    except OSError as error:
        raise UserError(f"the prediction cannot be kept in {path} ({error.strerror})") from None


def read(path: Path | None = None) -> list[tuple[dict[str, str], Prediction]]:
    """Every prediction with its line, in order. Raises UserError for a file that is not ours."""
    path = path or predictions_path()
    if _is_new(path):
        return []
    found = []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for line in csv.DictReader(file):
            try:
                said = line["said"]
                check(said)
                interval = Interval(float(line["difference"]), float(line["half"]), int(line["seeds"]))
                found.append((line, Prediction(said, interval)))
            except (UserError, TypeError, ValueError, AttributeError):
                raise UserError(
                    f"{path}, line {len(found) + 2} is no prediction of this course; remove that line"
                ) from None
    return found


def _is_new(path: Path) -> bool:
    """Whether there is no file yet, or an empty one. Raises UserError for a foreign one."""
    if not path.exists() or not path.stat().st_size:
        return True
    with path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline().strip()
    if line != ",".join(COLUMNS):
        raise UserError(
            f"{path} has no predictions of this course (its first line is {line[:60]!r}); move it away"
        )
    return False
