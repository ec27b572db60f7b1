"""The losses of a run, step by step, in a file of its own."""

from pathlib import Path
from typing import TextIO

HEADER = "step,loss"


class LossLog:
    """Writes `step,loss` lines as they come, so that a run can be watched, and drawn again without training.

    A run that goes on from a checkpoint takes back what came after it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file: TextIO | None = None

    def add(self, step: int, loss: float) -> None:
        """Append the loss of a step. The first line that is added decides what is kept of an older log."""
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = [f"{s},{value!r}" for s, value in read_losses(self.path) if s < step]
            self.file = self.path.open("w", encoding="utf-8", buffering=1)
            self.file.write("\n".join([HEADER, *kept]) + "\n")
        self.file.write(f"{step},{loss!r}\n")

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def read_losses(path: Path) -> list[tuple[int, float]]:
    """(step, loss) of each line of a log; none where there is no log.

    A last line that a killed process left without its end, and whatever is no pair of numbers, is left out.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    pairs = []
    for line in lines:
        step, _, loss = line.partition(",")
        try:
            pairs.append((int(step), float(loss)))
        except ValueError:
            continue
    return pairs
