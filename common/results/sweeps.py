"""Learning rates that were tried, judged on the validation text.

The rows of a sweep stand in logs/results_All.csv with the others, without test columns: their seeds are never
among those that are reported, and a rate is never chosen by the text that the result is read from.
"""

import math

import pandas as pd

from common.lessons import receipts
from common.lessons.course import Reference, course_plan
from common.results.table import matching, read

SEEDS = (101, 102)


def tried(reference: Reference, rows: pd.DataFrame | None = None) -> dict[float, list[float]]:
    """Validation bits per character at each rate that a line was tried at, in order, one for each seed; nan
    where the run diverged.

    Rates at which a seed is missing are left out.
    """
    rows = read() if rows is None else rows
    same = rows[
        (rows.experiment == reference.experiment) & (rows.arm == reference.arm) & rows.seed.isin(SEEDS)
    ]
    bits = {}
    for rate in sorted(set(same.lr.dropna())):
        at_rate = rows_at(reference, rate, same)
        if set(at_rate.seed) == set(SEEDS):
            bits[rate] = list(at_rate.val_bpc.where(at_rate.diverged == False))  # noqa: E712 (a column)
    return bits


def rows_at(reference: Reference, rate: float, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a sweep of a line at a rate, by the present code or one proved equal to it."""
    experiment, arm = reference.experiment, reference.arm
    config = course_plan(experiment).at_rate(arm, rate).config(arm, reference.settings(), reference.family())
    # what computes the same at one rate does so at another
    codes = [receipts.codes(experiment, arm, c, reference.code) for c in (config, reference.config())]
    swept = rows[rows.seed.isin(SEEDS) & rows.test_loss.isna()]
    return matching(experiment, arm, config, frozenset.union(*codes), swept, scored=False)


def best(bits: dict[float, list[float]]) -> float | None:
    """The rate with the lowest mean over the seeds, none of which diverged; None where there is none."""
    means = {rate: sum(values) / len(values) for rate, values in bits.items()}
    means = {rate: mean for rate, mean in means.items() if not math.isnan(mean)}
    return min(means, key=means.__getitem__) if means else None


def further(bits: dict[float, list[float]]) -> float | None:
    """The rate to try next: half the lowest or twice the highest, where the best one is that; else None."""
    chosen, rates = best(bits), sorted(bits)
    if not rates or chosen not in (rates[0], rates[-1], None):
        return None
    return rates[-1] * 2 if chosen == rates[-1] and len(rates) > 1 else rates[0] / 2
