"""What happened in each step of a long run, in a file of its own; and how hard the machine was at work."""

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn


class StepLog:
    """Writes a line of numbers for each step as it comes: a run can be watched, and drawn again later.

    A run that goes on from a checkpoint takes back what came after it. dashboard: where the same numbers are
    logged too, if anywhere (training.tracking). writes: not so in a process that leaves it to another.
    """

    def __init__(self, path: Path, columns: Sequence[str], dashboard: Any = None, writes: bool = True):
        self.path, self.columns, self.dashboard = path, ["step", *columns], dashboard
        self.writes = writes
        self.file: TextIO | None = None

    def add(self, step: int, *values: float) -> None:
        """Append the numbers of a step. The first line decides what is kept of an older log."""
        if not self.writes:
            return
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read_steps(self.path) if line["step"] < step]
            self.file = self.path.open("w", encoding="utf-8", buffering=1, newline="")
            csv.writer(self.file, lineterminator="\n").writerow(self.columns)
            for line in kept:
                self._write(int(line["step"]), [line.get(name, float("nan")) for name in self.columns[1:]])
        self._write(step, values)
        if self.dashboard is not None:
            self.dashboard.log(dict(zip(self.columns[1:], values, strict=True)), step=step)

    def _write(self, step: int, values: Sequence[float]) -> None:
        assert self.file is not None
        self.file.write(",".join([str(step), *(f"{value:.8g}" for value in values)]) + "\n")

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        if self.dashboard is not None:
            self.dashboard.finish()


def read_steps(path: Path) -> list[dict[str, float]]:
    """Each line of a log by column; none where there is no log.

    A last line that a killed process left without its end, and whatever is no line of numbers, is left out.
    """
    if not path.exists():
        return []
    header, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] or [""]
    columns, found = header.split(","), []
    for line in lines:
        try:
            values = [float(cell) for cell in line.split(",")]
        except ValueError:
            continue
        if len(values) == len(columns):
            found.append(dict(zip(columns, values, strict=True)))
    return found


# ---- speed ---------------------------------------------------------------------------------------


def operations_of_a_token(model: nn.Module, n_layer: int, n_embd: int, block_size: int) -> int:
    """Floating-point operations to train on one token: 6 for each weight that multiplies it, and what
    attention does with its context.

    Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B. Tables that are looked up are not counted,
    but for one of embeddings that is the head too. model: a GPT of common.model.
    """
    heads = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear)}
    counted = 0
    for name, p in model.named_parameters():
        table = name.startswith(("token.", "position."))
        counted += p.numel() if not table or id(p) in heads else 0
    return 6 * counted + 12 * n_layer * n_embd * block_size


def speed_of_products(device: str, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """Floating-point operations a second of a large product of matrices on this machine, now: the best of
    several, the first of which, with all that is set up in it, does not count.
    """
    size = 4096 if device == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    laps, begun = [0.0], time.perf_counter()
    while len(laps) < 6 or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        laps.append(time.perf_counter() - start)
    return 2 * size**3 / min(laps[2:])
