"""How many CPU threads a run uses. More are not always faster: a small model, or a machine with other work,
is best served by one.

The number decides in which order sums are taken. The same number gives the same bits; between different
numbers nothing is promised. So it is chosen before step 0, kept in the checkpoint, and a column of the
results.
"""

import copy
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from common.data import Data
from common.errors import UserError
from common.training import checkpoint

# more threads must take at most this share of the time: an advantage that small is soon lost to other work
GAIN = 0.9
SHARE = 0.003  # of a run's time may be spent on a choice that is not clear at once
SHORT = 2.0  # seconds; for a run that takes no longer the choice would cost more than it brings


@dataclass(frozen=True)
class Choice:
    """A number of threads, and in words why that many."""

    threads: int
    why: str


def limit(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process may use: those of the machine, or fewer where the system or a container
    allows fewer.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, round(min(cores, _quota(root))))


def _quota(root: Path) -> float:
    """The cores that the container's CPU limit is worth, infinity without a limit.

    Source: the kernel's cgroup-v1 and -v2 texts.
    """
    try:
        groups = [
            line.split("::", 1)[1]
            for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
            if "::" in line
        ]
    except OSError:
        groups = []
    folders = [root / part.strip("/") for part in groups]
    quotas = [math.inf]
    for folder in {
        root,
        *(parent for f in folders for parent in (f, *f.parents) if parent.is_relative_to(root)),
    }:
        quotas += [
            _read_quota(folder / "cpu.max"),
            _read_quota(folder / "cpu/cpu.cfs_quota_us", folder / "cpu/cpu.cfs_period_us"),
        ]
    return min(quotas)


def _read_quota(*paths: Path) -> float:
    """Cores of a limit written as `quota period` in one file, or as one number in each of two."""
    try:
        quota, period = " ".join(path.read_text(encoding="utf-8") for path in paths).split()
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or `max`
        return math.inf


def share() -> int:
    """The threads of one process, where torchrun started several on this machine."""
    return max(1, limit() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def check(threads: int | None) -> None:
    """Raise UserError for a number of threads that this process cannot use."""
    if threads is not None and not 1 <= threads <= limit():
        raise UserError(f"--threads {threads} makes no sense; this process may use 1 to {limit()}")


def settle(
    name: str, model: nn.Module, data: Data, steps: int, given: int | None, begun: Path | None
) -> int | None:
    """Set the number of threads of a run and say it: given by hand, that of the checkpoint it goes on from,
    or the fastest.

    Returns the number, None on another device than the CPU.
    """
    if data.device != "cpu":
        return None
    kept = checkpoint.read_state(begun).get("threads") if begun and begun.exists() else None
    trains = any(True for _ in model.parameters())
    if given:
        choice = Choice(given, "as given")
    elif kept and kept <= limit():
        choice = Choice(kept, "as the run began")
    elif trains:
        choice = choose(model, data, steps)
    else:
        choice = Choice(torch.get_num_threads(), "nothing is trained")
    torch.set_num_threads(choice.threads)
    if trains:
        print(f"threads     {choice.threads} for {name}: {choice.why}", flush=True)
    return choice.threads


def choose(model: nn.Module, data: Data, steps: int) -> Choice:
    """The fastest number of threads for `model`, found by timing a few training steps on a throw-away copy.

    steps: how long the run will be, which decides how much time the choice may take.
    """
    most = min(torch.get_num_threads(), limit())  # OMP_NUM_THREADS counts too
    if most == 1:
        return Choice(1, "all that this process may use")
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        step = _steps_of_a_copy(model, data)
        try:
            _seconds(step, 1)  # the first step of a process is slow, whatever the number
            one = _seconds(step, 1)
            if one * steps < SHORT:
                return Choice(1, "the run is short")
            counts = [*(2**i for i in range(1, most.bit_length()) if 2**i < most), most]
            return _fastest(step, one, counts, SHARE * one * steps)
        finally:
            torch.set_num_threads(before)


def _fastest(step, one: float, counts: list[int], budget: float) -> Choice:
    """Time steps with each number of threads, until the answer is clear or the budget of seconds is spent.

    one: seconds of a step with one thread.
    """
    times = {1: [one]} | {count: [_seconds(step, count), _seconds(step, count)] for count in counts}
    start = time.perf_counter()
    while not _is_clear(times) and time.perf_counter() - start < budget:
        for count, laps in times.items():
            laps.append(_seconds(step, count))
    mean = {count: sum(laps) / len(laps) for count, laps in times.items()}
    best = 1
    for count in counts:
        if mean[count] < GAIN * mean[best]:
            best = count
    others = ", ".join(f"{count} {1000 * seconds:.0f} ms" for count, seconds in mean.items() if count != best)
    return Choice(best, f"{1000 * mean[best]:.0f} ms a step (with {others})")


def _is_clear(times: dict[int, list[float]]) -> bool:
    """Whether for each number of threads every step so far, beside every step with one thread, gives the same
    answer.
    """
    low, high = GAIN * min(times[1]), GAIN * max(times[1])
    return all(max(laps) < low or min(laps) > high for count, laps in times.items() if count > 1)


def _steps_of_a_copy(model: nn.Module, data: Data):
    """A function that does one training step on a copy of `model`."""
    other = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-4, fused=data.device == "cpu")
    x, y = data.batch(0)

    def step() -> None:
        loss = F.cross_entropy(other(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _seconds(step, count: int) -> float:
    torch.set_num_threads(count)
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
