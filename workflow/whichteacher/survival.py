"""How many attempts a query takes until one passes, where some were given up before: survival analysis.

An attempt plays the part of time and a pass that of the event. A query that was given up after k attempts is censored at k: it is
known to need more than k, and nothing else. To leave such queries out, as the mean attempts of the solved ones does, favours the
teacher that gives up most.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.stats.proportion import proportion_confint


def last_attempts(outcomes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Of each query of :func:`whichteacher.outcomes.query_outcomes` the attempt that passed, or the last one that was drawn; and
    whether it passed."""
    passed = outcomes["attempts_to_pass"].notna().to_numpy()
    return outcomes["attempts_to_pass"].fillna(outcomes["attempts"]).to_numpy(dtype=np.int64), passed


def kaplan_meier(attempts: np.ndarray, passed: np.ndarray, confidence: float) -> pd.DataFrame:
    """The share of queries that no attempt up to each has passed, by Kaplan and Meier's estimator.

    Columns: ``attempt`` (1, 2, ... up to the last drawn), ``at_risk`` (queries at which it was drawn), ``passed`` (at it),
    ``given_up`` (after it), ``survival``, ``low``, ``high``. No rows without queries.

    The bounds are Rothman's (1978, "Estimation of confidence limits for the cumulative probability of survival in life table
    analysis", J Chronic Dis 31:557): Wilson's interval at the number of queries that, all followed to the end, would give
    Greenwood's variance. Nothing given up before, this is the number of queries and Wilson's interval itself; unlike Greenwood's
    own margins, the bounds stay within 0 and 1 and do not shrink to a point where all or none have passed.
    """
    last = int(attempts.max()) if len(attempts) else 0
    places = np.arange(1, last + 1)
    events = np.bincount(attempts[passed], minlength=last + 1)[1:]
    ended = np.bincount(attempts, minlength=last + 1)[1:]
    risk = ended[::-1].cumsum()[::-1]
    if not last:
        fitted = {"survival": [], "low": [], "high": []}
    else:
        curve = SurvfuncRight(attempts, passed)
        survival = _at(curve, curve.surv_prob, places, 1.0)
        variance = _at(curve, curve.surv_prob_se, places, 0.0) ** 2
        # Where all or none have passed there is no variance: the queries count that were not given up before.
        known = ended.sum() - np.r_[0, (ended - events).cumsum()[:-1]]
        inside = (survival > 0) & (survival < 1) & (variance > 0)
        size = np.where(inside, survival * (1 - survival) / np.where(inside, variance, 1), known)
        low, high = proportion_confint(survival * size, size, alpha=1 - confidence, method="wilson")
        fitted = {"survival": survival, "low": low, "high": high}
    return pd.DataFrame({"attempt": places, "at_risk": risk, "passed": events, "given_up": ended - events, **fitted})


def _at(curve: SurvfuncRight, values: np.ndarray, places: np.ndarray, before: float) -> np.ndarray:
    """A step function of a curve at each of ``places``; ``before`` holds up to its first event."""
    return np.r_[before, values][np.searchsorted(curve.surv_times, places, side="right")]


def known_until(attempts: np.ndarray, passed: np.ndarray) -> float:
    """The last attempt that a curve is known at: infinity where the longest tried queries have passed."""
    if not len(attempts):
        return 0.0
    last = attempts.max()
    return np.inf if passed[attempts == last].all() else float(last)


def common_horizon(teachers: Iterable[tuple[np.ndarray, np.ndarray]]) -> int:
    """The attempt up to which the curves of all ``teachers`` (:func:`last_attempts`) are known; 0 where one has no queries."""
    found = list(teachers)
    known = min(known_until(*one) for one in found)
    return int(known if np.isfinite(known) else max(attempts.max() for attempts, _ in found))


def restricted_mean(attempts: np.ndarray, passed: np.ndarray, horizon: int, weights: np.ndarray | None = None) -> float:
    """Mean attempts per query if none got more than ``horizon``: the area under the curve up to it; NaN without queries.

    ``weights`` are the numbers of queries that each value stands for.
    """
    if not len(attempts):
        return np.nan
    curve = SurvfuncRight(attempts, passed, freq_weights=weights)
    return float(_at(curve, curve.surv_prob, np.arange(horizon), 1.0).sum())


def pseudo_values(attempts: np.ndarray, passed: np.ndarray, horizon: int) -> np.ndarray:
    """What each query contributes to the restricted mean: n times the mean less n - 1 times that without the query.

    For a query that passed within ``horizon`` or was not given up before it this is the smaller of its attempts and ``horizon``,
    provided that none was given up before; else the others stand in for what is not known of it (Andersen, Klein and Rosthøj
    2003, "Generalised linear models for correlated pseudo-observations", Biometrika 90:15). So queries can be paired and resampled
    in spite of censoring, as if all had been followed to the end.
    """
    count = len(attempts)
    if count < 2:
        return np.full(count, restricted_mean(attempts, passed, horizon))
    # Queries of the same end contribute alike, and there are few ends.
    ends, kinds, sizes = np.unique(np.stack([attempts, passed]), axis=1, return_inverse=True, return_counts=True)
    times, events = ends[0], ends[1].astype(bool)
    whole = restricted_mean(times, events, horizon, sizes)
    without = np.empty(len(sizes))
    for kind in range(len(sizes)):
        left = sizes - (np.arange(len(sizes)) == kind)
        without[kind] = restricted_mean(times[left > 0], events[left > 0], horizon, left[left > 0])
    return (count * whole - (count - 1) * without)[kinds.ravel()]
