"""How many attempts each teacher needs for a first pass, with given-up queries as censored.

Reads every attempt (COLLECTED) and the queries (QUERIES), shard by shard; writes two CSVs with rows per teacher and category (``all``
first):

- the curves: teacher, category, attempt, at_risk (queries at which that attempt was drawn), passed (at it), given_up (after it),
  survival (share of queries that no attempt up to it passes), low, high
  (:func:`whichteacher.survival.kaplan_meier`);
- the summary: teacher, category, queries, passed, given_up, horizon (the attempt up to which the curves of all teachers are
  known), restricted_mean (attempts per query if none gets more than that), low, high (bootstrap over queries), median (the
  attempt by which half the queries have passed; empty where fewer do).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.outcomes import ALL, by_teacher, query_outcomes
from whichteacher.resampling import bootstrap_mean, generator
from whichteacher.survival import common_horizon, kaplan_meier, last_attempts, pseudo_values, restricted_mean
from whichteacher.tables import write_text

SUMMARY = (
    *("teacher", "category", "queries", "passed", "given_up", "horizon"),
    *("restricted_mean", "low", "high", "median"),
)
SURVIVAL = (
    *("teacher", "category", "attempt", "at_risk", "passed", "given_up"),
    *("survival", "low", "high"),
)


def summary_row(
    attempts: np.ndarray,
    passed: np.ndarray,
    curve: pd.DataFrame,
    horizon: int,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The numbers of one teacher on one set of queries; ``curve`` is their :func:`kaplan_meier`."""
    _, low, high = bootstrap_mean(pseudo_values(attempts, passed, horizon), resamples, confidence, rng)
    half = curve.loc[curve["survival"] <= 0.5, "attempt"]
    return {
        "queries": len(attempts),
        "passed": int(passed.sum()),
        "given_up": int((~passed).sum()),
        "horizon": horizon,
        "restricted_mean": restricted_mean(attempts, passed, horizon),
        "low": low,
        "high": high,
        "median": half.iloc[0] if len(half) else np.nan,
    }


def summarise_attempts(
    outcomes: Mapping[str, pd.DataFrame], categories: Sequence[str], resamples: int, confidence: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The curves and the summary; ``outcomes`` are frames of :func:`whichteacher.outcomes.query_outcomes` by teacher."""
    curves, rows = [], []
    for category in (ALL, *categories):
        ends = {
            teacher: last_attempts(frame if category == ALL else frame[frame["category"] == category])
            for teacher, frame in outcomes.items()
        }
        # A teacher without queries in a category has no curve, and does not shorten those of the others.
        ends = {teacher: end for teacher, end in ends.items() if len(end[0])}
        for teacher, end in ends.items():
            about = {"teacher": teacher, "category": category}
            curve = kaplan_meier(*end, confidence)
            curves.append(curve.assign(**about))
            rng = generator(seed, teacher, category)
            row = summary_row(*end, curve, common_horizon(ends.values()), resamples, confidence, rng)
            rows.append(about | row)
    survival = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()
    return survival.reindex(columns=list(SURVIVAL)), pd.DataFrame(rows, columns=list(SUMMARY))


def main(
    collected: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    outputs: Mapping[str, str],
    categories: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
) -> None:
    """Summarise the attempts of ``collected`` (files per teacher) and write ``outputs`` (survival, summary)."""
    outcomes = {teacher: query_outcomes(files, queries) for teacher, files in collected.items()}
    survival, summary = summarise_attempts(outcomes, categories, resamples, confidence, seed)
    write_text(outputs["survival"], survival.to_csv(index=False))
    write_text(outputs["summary"], summary.to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.config import CATEGORIES
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            by_teacher(snakemake.params.teachers, snakemake.input.collected),  # noqa: F821
            snakemake.input.queries,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            CATEGORIES,
            **snakemake.params.statistics,  # noqa: F821
        )
