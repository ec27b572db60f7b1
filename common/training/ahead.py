"""What a long run will take, told before it begins."""

from collections.abc import Callable

import torch

from common.data import Data
from common.settings import Settings
from common.training import memory
from common.training.distributed import ALONE, Group

# of the machine's speed at products of matrices; measured: 0.47 on an H200, 0.2 to 0.5 on two cores
REACHED = 0.4


def ahead(build: Callable, s: Settings, data: Data, seconds: float, group: Group = ALONE) -> str:
    """In two lines: how much text a run sees, the memory that it needs, and about how long it takes.

    build: the model, as in `Lesson`. seconds: what a token takes at the full speed of a process's device.
    group: the processes that share the work. Memory is that of weights, gradients, moments and one batch on
    its way, in the arithmetic of float32; the time leaves out evaluation, and what processes send around.
    """
    rows = s.batch_size * getattr(s, "accumulate", 1)
    tokens = s.steps * rows * data.predicted
    window = data.train.at(torch.zeros(1, dtype=torch.long))
    weights, activations = memory.needed(build, s, data.tokenizer.vocab_size, *window, group)
    duration = _duration(tokens * seconds / REACHED / group.size)
    each = f" in each of {group.size} processes" if group.size > 1 else ""
    return (
        f"ahead       {s.steps:,} steps of {rows} x {data.predicted} tokens, {tokens:,} in all: "
        f"{tokens / len(data.train):.2g} times the training text\n"
        f"            about {memory.size(weights + activations)} of memory{each} and "
        f"{duration} (at {100 * REACHED:.0f} % of the machine's speed)"
    )


def _duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
