"""Ratios of sums over queries, such as tokens per verified trace: their intervals, and how those of two teachers compare.

A ratio of sums is no mean of ratios: a query that was given up has cost tokens and has no trace to divide them by. Queries are
the unit that is drawn, with everything spent on them (a cluster bootstrap), and two teachers are paired on them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from whichteacher.resampling import LARGE, Interval, resample_rows, sign_flip_p


class Sums(NamedTuple):
    """What is divided by what, a value per query: what a teacher spent on it, and whether a trace came of it."""

    numerator: np.ndarray
    denominator: np.ndarray

    def ratio(self) -> float:
        """The ratio of the sums, NaN where the denominator is nought."""
        below = self.denominator.sum()
        return float(self.numerator.sum() / below) if below else np.nan

    def residuals(self) -> np.ndarray:
        """How much each query pulls at the ratio: their mean is nought, and the ratio's standard error is theirs (the delta
        method; Cochran 1977, "Sampling Techniques", section 6.4)."""
        return (self.numerator - self.ratio() * self.denominator) / self.denominator.mean()


class RatioComparison(NamedTuple):
    """Two teachers' ratios: the first less the second, the first by the second, and the p that they are alike."""

    difference: Interval
    ratio: Interval
    p: float


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / below


def _interval(value: float, drawn: np.ndarray, confidence: float) -> Interval:
    """The percentile interval of ``drawn``; a bound that is not finite is none."""
    # A resample without any trace has no ratio: as far from the others as can be, on the dear side.
    ordered = np.sort(np.where(np.isnan(drawn), np.inf, drawn))
    tail = (1 - confidence) / 2
    bounds = [ordered[int(np.floor(tail * (len(ordered) - 1)))], ordered[int(np.ceil((1 - tail) * (len(ordered) - 1)))]]
    return Interval(value, *(float(bound) if np.isfinite(bound) else np.nan for bound in bounds))


def _normal(value: float, error: float, confidence: float) -> Interval:
    margin = stats.norm.ppf((1 + confidence) / 2) * error
    return Interval(value, value - margin, value + margin)


def bootstrap_ratio(sums: Sums, resamples: int, confidence: float, rng: np.random.Generator) -> Interval:
    """The ratio with its percentile bootstrap interval over queries; its normal limit above :data:`LARGE` queries.

    NaN where no trace was verified; no bounds for a single query, and no upper one where many resamples hold no trace.
    """
    value = sums.ratio()
    if len(sums.numerator) < 2 or np.isnan(value):
        return Interval(value, np.nan, np.nan)
    if len(sums.numerator) > LARGE:
        return _normal(value, float(stats.sem(sums.residuals())), confidence)
    drawn = resample_rows(np.column_stack(sums), resamples, rng)
    return _interval(value, _divide(*drawn.T), confidence)


def compare_ratios(
    first: Sums, second: Sums, resamples: int, confidence: float, rng: np.random.Generator
) -> RatioComparison:
    """How two ratios over the same queries compare.

    The p is that of a paired permutation test: under the null hypothesis the teachers may change places at any query, with what
    they spent and what came of it. The ratio of both teachers together stays what it is when they do, so how far one spends
    more than that ratio and the other less is a sum over queries whose signs flip, and :func:`sign_flip_p` tests it. NaN where
    one of them verified no trace.
    """
    a, b, count = first.ratio(), second.ratio(), len(first.numerator)
    quotient = a / b if b else np.nan
    if count < 2 or np.isnan(a) or np.isnan(b):
        return RatioComparison(Interval(a - b, np.nan, np.nan), Interval(quotient, np.nan, np.nan), np.nan)
    together = (first.numerator.sum() + second.numerator.sum()) / (first.denominator.sum() + second.denominator.sum())
    excess = [sums.numerator - together * sums.denominator for sums in (first, second)]
    p = sign_flip_p(excess[0] - excess[1], resamples, rng)
    if count > LARGE:
        moved = first.residuals(), second.residuals()
        error = float(stats.sem(moved[0] - moved[1]))
        by = Interval(quotient, np.nan, np.nan)
        if a and b:
            found = _normal(np.log(quotient), float(stats.sem(moved[0] / a - moved[1] / b)), confidence)
            by = Interval(quotient, *np.exp(found[1:]).tolist())
        return RatioComparison(_normal(a - b, error, confidence), by, p)
    above_a, below_a, above_b, below_b = resample_rows(np.column_stack([*first, *second]), resamples, rng).T
    drawn_a, drawn_b = _divide(above_a, below_a), _divide(above_b, below_b)
    with np.errstate(invalid="ignore"):
        difference = _interval(a - b, drawn_a - drawn_b, confidence)
    ratio = _interval(quotient, _divide(drawn_a, drawn_b), confidence) if b else Interval(np.nan, np.nan, np.nan)
    return RatioComparison(difference, ratio, p)
