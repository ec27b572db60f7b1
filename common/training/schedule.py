"""The learning rate as a function of the step. Taught in 09_pretraining/schedule.py.

A schedule is called with the share of the steps after the warm-up that are done, 0 to 1, and gives the share
of the peak.
"""

import math
from collections.abc import Callable


def constant(done: float) -> float:
    return 1.0


def cosine(done: float) -> float:
    """Half a cosine to zero. Source: Loshchilov and Hutter 2017, arXiv:1608.03983."""
    return 0.5 * (1 + math.cos(math.pi * done))


def linear(done: float) -> float:
    """A straight line to zero. Source: Bergsma et al. 2025, arXiv:2502.15938."""
    return 1 - done


def stable_decay(done: float) -> float:
    """Constant, and a straight line to zero over the last fifth. Source: Hu et al. 2024, arXiv:2404.06395."""
    return min(1.0, 5 * (1 - done))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "stable-decay": stable_decay,
}


def rate(step: int, steps: int, peak: float, warm_up: int, schedule: str) -> float:
    """The learning rate of a step (from 0) of so many: rising over the warm-up, then as the schedule says.

    Raises KeyError for a schedule that is none.
    """
    rising = min(1.0, (step + 1) / (warm_up + 1))
    return peak * rising * SCHEDULES[schedule](max(0, step - warm_up) / max(1, steps - warm_up))
