"""Students of two teachers, compared on the same problems: what every comparison of students shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.outcomes import ALL
from whichteacher.resampling import (
    PairedScores,
    generator,
    nested_bootstrap,
    problem_differences,
    problems_needed,
    sign_flip_p,
)
from whichteacher.rule import InputError, Progress
from whichteacher.scores import shares

#: What names a row of a comparison.
NAMES = ("control", "teacher_a", "teacher_b", "benchmark")
#: What :func:`compare_pair` finds.
FOUND = ("problems", "seeds", "samples", "score_a", "score_b", "difference", "low", "high", "p", "problems_needed")

#: Samples by control, teacher and benchmark.
Groups = Mapping[tuple[str, str, str], pd.DataFrame]


def by_students(samples: pd.DataFrame) -> Groups:
    """The samples of each teacher's students under each control on each benchmark, all training seeds together."""
    return dict(list(samples.groupby(["control", "teacher", "benchmark"], sort=False)))


def pair_scores(first: pd.DataFrame, second: pd.DataFrame, measure: str = "passed") -> PairedScores:
    """Samples of two groups of students on one benchmark, paired by problem; problems are in the order of their ids.

    Raises :class:`InputError` where a problem was not put to both.
    """
    (a, samples), (b, _) = shares(first, measure), shares(second, measure)
    if set(a.columns) != set(b.columns):
        problem = sorted(set(a.columns) ^ set(b.columns))[0]
        one, other = (f"{rows.iloc[0]['control']}/{rows.iloc[0]['teacher']}" for rows in (first, second))
        raise InputError(
            f"benchmark {first.iloc[0]['benchmark']}: problem {problem} was not put to the students of both {one} and "
            f"{other}: remove their samples tables and evaluate again"
        )
    return PairedScores(a.to_numpy(), b.to_numpy(), samples)


def compare_pair(
    pairs: Sequence[PairedScores], resamples: int, confidence: float, rng: np.random.Generator
) -> dict[str, Any]:
    """The comparison of two teachers on some benchmarks, in points. Without a benchmark all but the counts is NaN."""
    if not pairs:
        return dict.fromkeys(FOUND, np.nan) | {"problems": 0, "seeds": 0, "samples": 0}
    differences = problem_differences(pairs)
    interval = nested_bootstrap(pairs, resamples, confidence, rng)
    return {
        "problems": len(differences),
        "seeds": min(pairs[0].first.shape[0], pairs[0].second.shape[0]),
        "samples": min(pair.samples for pair in pairs),
        "score_a": 100 * np.concatenate([pair.first.mean(axis=0) for pair in pairs]).mean(),
        "score_b": 100 * np.concatenate([pair.second.mean(axis=0) for pair in pairs]).mean(),
        "difference": 100 * interval.value,
        "low": 100 * interval.low,
        "high": 100 * interval.high,
        "p": sign_flip_p(differences, resamples, rng),
        "problems_needed": problems_needed(interval, len(differences)),
    }


def compare_pairs(
    samples: pd.DataFrame,
    controls: Sequence[str],
    teachers: Sequence[str],
    benchmarks: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
    measure: str = "passed",
) -> pd.DataFrame:
    """One row (NAMES and FOUND) per control, pair of teachers and benchmark, then ``all`` benchmarks together.

    A benchmark without samples counts no problem.
    """
    groups = by_students(samples)
    wanted = [(control, *pair) for control in controls for pair in combinations(teachers, 2)]
    rows = []
    with Progress(f"compare {measure}", len(wanted), "pairs") as progress:
        for control, a, b in wanted:
            paired = {
                name: [pair_scores(groups[control, a, name], groups[control, b, name], measure)]
                for name in benchmarks
                if (control, a, name) in groups and (control, b, name) in groups
            }
            every = [pair for pairs in paired.values() for pair in pairs]
            for benchmark in (*benchmarks, ALL):
                names = dict(zip(NAMES, (control, a, b, benchmark), strict=True))
                pairs = every if benchmark == ALL else paired.get(benchmark, [])
                rows.append(names | compare_pair(pairs, resamples, confidence, generator(seed, *names.values())))
            progress.advance()
    return pd.DataFrame(rows, columns=[*NAMES, *FOUND])
