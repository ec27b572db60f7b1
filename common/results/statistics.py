"""Means, differences and their intervals, over the seeds of a line."""

import math
from dataclasses import dataclass

from common.errors import UserError


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds and the half-width of its 95 % interval (Student's t); the half-width is nan for a
    single seed.
    """

    mean: float
    half: float
    n: int

    @property
    def verdict(self) -> str:
        """What a difference of something that should be low means: better, worse, or no measurable
        difference.
        """
        if math.isnan(self.half):
            return "one seed only: no verdict"
        if abs(self.mean) <= self.half or self.mean == 0:
            return "no measurable difference"
        return "better" if self.mean < 0 else "worse"


def interval(values) -> Interval:
    """Mean and 95 % interval of independent values, one per seed."""
    from scipy import stats

    values = [float(v) for v in values]
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.nan, len(values))
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return Interval(
        mean, float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values)), len(values)
    )


def one_more(values) -> Interval:
    """Where one more value of the same kind lies with 95 % confidence: Student's t, with the spread of a
    single value.
    """
    estimate = interval(values)
    return Interval(estimate.mean, estimate.half * math.sqrt(estimate.n + 1), estimate.n)


def paired(rows, base, column: str = "test_bpc") -> Interval:
    """`rows` minus `base` in `column`, paired by seed.

    Raises UserError if they share no seed or were measured on different corpora.
    """
    both = rows.merge(base, on="seed", suffixes=("", "_base"))
    if not len(both):
        raise UserError("the two have no seed in common; run both with the same --seeds")
    if set(both.corpus) != set(both.corpus_base):
        raise UserError(
            f"the two were measured on different corpora: {rows.corpus.iloc[0]} and {base.corpus.iloc[0]}"
        )
    return interval(both[column] - both[f"{column}_base"])
