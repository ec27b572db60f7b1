"""The folder a reader works in, and the record of what was tried there.

Nothing in it is ever overwritten: a file that is there stays as it is, and the record only grows.
"""

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import filelock

from common.errors import UserError
from common.exercises.catalogue import Exercise
from common.paths import ROOT

COLUMNS = ("timestamp", "exercise", "what", "kept", "of")


@dataclass(frozen=True)
class Event:
    """Something a reader did: started, checked, hint, solution."""

    exercise: str
    what: str
    kept: int = 0
    """Promises that the solution kept, of so many."""
    of: int = 0


class Desk:
    """A folder of exercises."""

    def __init__(self, folder: str | None = None):
        self.folder = Path(folder).expanduser() if folder else ROOT / "exercises"
        self.record = self.folder / "progress.csv"

    def path(self, exercise: Exercise) -> Path:
        return self.folder / f"{exercise.name}.py"

    def shown(self, exercise: Exercise) -> Path:
        """The path of an exercise as one would type it here."""
        path = self.path(exercise)
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

    def put(self, exercise: Exercise, text: str) -> None:
        """Write the file of an exercise that was not begun yet. Raises UserError for one that was."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path(exercise).open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except FileExistsError:
            raise UserError(
                f"{self.shown(exercise)} is there already, with your work in it; go on with it "
                f"(check {exercise.name}), or rename that file to begin again"
            ) from None
        except OSError as error:
            raise UserError(f"{self.shown(exercise)} cannot be written ({error.strerror})") from None

    def read(self, exercise: Exercise) -> str:
        """What the reader has written. Raises UserError where there is nothing to read."""
        try:
            return self.path(exercise).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(
                f"{self.shown(exercise)} is not there; begin with: "
                f"python -m common.tools.exercise start {exercise.name}"
            ) from None
        except UnicodeDecodeError:
            raise UserError(f"{self.shown(exercise)} is not UTF-8 text; save it as such") from None
        except OSError as error:
            raise UserError(f"{self.shown(exercise)} cannot be read ({error.strerror})") from None

    def note(self, event: Event) -> None:
        """Add to the record what was done. Raises UserError where that cannot be written."""
        line = (datetime.now().astimezone().isoformat(timespec="seconds"), event.exercise, event.what,
                event.kept, event.of)  # fmt: skip
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{self.record}.lock"):
                new = not self.record.exists()
                self.events()  # refuses what is no record
                with self.record.open("a", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    writer.writerows([COLUMNS, line] if new else [line])
        except OSError as error:
            raise UserError(f"{self.record} cannot be written ({error.strerror})") from None

    def events(self) -> list[Event]:
        """What was done, in order. Raises UserError for a record that is not ours."""
        if not self.record.exists():
            return []
        try:
            with self.record.open(encoding="utf-8", newline="") as file:
                lines = list(csv.reader(file, strict=True))
            if tuple(lines[0]) != COLUMNS:
                raise ValueError
            return [Event(name, what, int(kept), int(of)) for _, name, what, kept, of in lines[1:]]
        except (ValueError, IndexError, csv.Error, OSError):
            raise UserError(f"{self.record} is no record of exercises; move it away") from None
