"""Whether other runs of the course are on this machine: their times would say more about one another than
about the scripts.
"""

import contextlib
import os
import socket
import uuid
from pathlib import Path

import platformdirs
import psutil


def folder() -> Path:
    """Where every process of the course that trains or measures leaves a note while it runs, whatever folder
    its results go to.
    """
    return Path(platformdirs.user_cache_dir("gpt-staircase")) / "running"


class Presence:
    """The note of this process.

    `with Presence() as presence: ...`; where no note can be left, nothing is known of others. counts: whether
    it is a run of its own, and not one of several processes that train a model together.
    """

    def __init__(self, counts: bool = True):
        self.counts = counts
        self.path = folder() / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.known = False

    def __enter__(self) -> "Presence":
        self.join()
        return self

    def __exit__(self, *_) -> None:
        self.leave()

    def join(self) -> None:
        """Leave the note, and tell the processes that are running."""
        if not self.counts:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            self.known = True
            for other in self.others():
                _met(other).touch()

    def leave(self) -> None:
        """Take the note away: from here on this process is none that others have to reckon with."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            _met(self.path).unlink(missing_ok=True)

    def others(self) -> list[Path]:
        """The notes of the other processes that are running.

        Those of processes that were killed are removed.
        """
        running = []
        for path in self.path.parent.glob("*-*-*"):
            host, process, _ = path.name.rsplit("-", 2)
            if (
                path == self.path
                or path.name.endswith("~")
                or host != socket.gethostname()
                or not process.isdigit()
            ):
                continue  # of this process, or of another machine that has the same home
            if psutil.pid_exists(int(process)):
                running.append(path)
            else:
                path.unlink(missing_ok=True)
                _met(path).unlink(missing_ok=True)
        return running

    def begin(self) -> None:
        """From now on `alone()` tells whether another process was there."""
        with contextlib.suppress(OSError):
            _met(self.path).unlink(missing_ok=True)
            if self.others():
                _met(self.path).touch()

    def alone(self) -> bool | None:
        """Whether no other process has been there since `begin()`; None where that is not known."""
        return not (_met(self.path).exists() or self.others()) if self.known else None


def _met(path: Path) -> Path:
    """What another process leaves beside the note of one that it found running."""
    return path.with_name(path.name + "~")
