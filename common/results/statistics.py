"""Means, differences and their intervals, over the seeds of a line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from common.errors import UserError


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds and the half-width of its 95 % interval (Student's t); the half-width is nan for a
    single seed.
    """

    mean: float
    half: float
    n: int
    together: int = 1
    """How many such differences hold together."""

    @property
    def verdict(self) -> str:
        """What a difference of something that should be low means: better, worse, or no measurable
        difference; of one that is judged together with others, then also what it is smaller than.
        """
        if math.isnan(self.half):
            return "one seed only: no verdict"
        if abs(self.mean) <= self.half or self.mean == 0:
            return "no measurable difference" + (f", below {self.bound:.3f}" if self.together > 1 else "")
        return "better" if self.mean < 0 else "worse"

    @property
    def bound(self) -> float:
        """What the difference is smaller than, in either direction."""
        return abs(self.mean) + self.half


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
    """`rows` minus `base` in `column`, paired by seed; a seed that diverged in either is left out.

    Raises UserError if they share no seed or were measured on different corpora.
    """
    both = rows.merge(base, on="seed", suffixes=("", "_base"))
    both = both[both[column].notna() & both[f"{column}_base"].notna()]
    if not len(both):
        raise UserError("the two have no seed in common; run both with the same --seeds")
    if set(both.corpus) != set(both.corpus_base):
        raise UserError(
            f"the two were measured on different corpora: {rows.corpus.iloc[0]} and {base.corpus.iloc[0]}"
        )
    return interval(both[column] - both[f"{column}_base"])


# ---- several arms against one baseline -----------------------------------------------------------

UNLIKE = 0.01  # an arm whose spread is so unlikely beside that of the others is judged by its own


def family(baseline: Sequence[float], arms: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """Each arm minus the baseline, both in the order of the same seeds, so that all of the intervals together
    hold with 95 %.

    The spread is pooled over the arms, after the mean of each arm and of each seed is taken out (a seed that
    is good for one arm is good for most), and multiplied by Dunnett's constant. An arm whose spread differs
    from that of the others is left out of the pool, and judged by its own differences at 1 - 0.05 / k.
    """
    from scipy import stats

    scores = {"": np.asarray(baseline, float)} | {name: np.asarray(v, float) for name, v in arms.items()}
    n, k = len(scores[""]), len(arms)
    if n < 2 or not k:
        return {name: interval(scores[name] - scores[""]) for name in arms}
    unlike = _unlike(scores, UNLIKE / k) if k > 2 else set()
    alike = [values for name, values in scores.items() if name not in unlike]
    intervals = {}
    for name in arms:
        difference = scores[name] - scores[""]
        if name in unlike or len(alike) < 3:
            spread, df = difference.std(ddof=1) / math.sqrt(n), n - 1
            constant = float(stats.t.ppf(1 - 0.025 / k, df))
        else:
            residuals, df = _residuals(alike), (len(alike) - 1) * (n - 1)
            spread = math.sqrt((residuals**2).sum() / df * 2 / n)
            constant = dunnett(k, df)
        intervals[name] = Interval(float(difference.mean()), constant * float(spread), n, k)
    return intervals


def _residuals(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Scores (arms, seeds) without the mean of each arm and of each seed."""
    table = np.stack(scores)
    table = table - table.mean(axis=1, keepdims=True)
    return table - table.mean(axis=0)


def _unlike(scores: Mapping[str, np.ndarray], level: float) -> set[str]:
    """The arms (never the baseline) whose spread is so much larger or smaller than that of the others."""
    from scipy import stats

    names, squares = list(scores), (_residuals(list(scores.values())) ** 2).sum(axis=1)
    df = len(scores[""]) - 1
    unlike = set()
    for number, name in enumerate(names):
        others = np.delete(squares, number)
        ratio = squares[number] / df / (others.sum() / (df * len(others)))
        tail = float(stats.f.sf(ratio, df, df * len(others)))
        if name and 2 * min(tail, 1 - tail) < level:
            unlike.add(name)
    return unlike


@cache
def dunnett(k: int, df: int, level: float = 0.95) -> float:
    """The constant that none of k differences from the same baseline exceeds with so much confidence, in
    standard errors (df: degrees of freedom of these). For k = 1 it is Student's t.

    Source: Dunnett 1955, A multiple comparison procedure for comparing several treatments with a control. The
    library's (scipy.stats.dunnett) integrates at random points, and a page that is compared digit by digit
    needs the same ones every time.
    """
    from scipy import optimize, stats

    share = (np.arange(400) + 0.5) / 400
    spread = np.sqrt(stats.chi2.ppf(share, df) / df)[:, None]  # (S, 1), equally likely each
    z, weight = np.polynomial.hermite_e.hermegauss(61)  # (Z,): of the baseline's own deviate

    def confidence(c: float) -> float:
        """Each difference is the arm's deviate minus the baseline's, over sqrt 2."""
        inside = stats.norm.cdf(z + math.sqrt(2) * c * spread) - stats.norm.cdf(z - math.sqrt(2) * c * spread)
        return float((inside**k @ weight).mean() / weight.sum())

    return float(optimize.brentq(lambda c: confidence(c) - level, 0.5, 50, xtol=1e-6))
