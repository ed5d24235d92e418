"""Score the students and compare those of every pair of teachers on the same problems.

Reads every student's scored samples (SCORED_SAMPLES) and writes two CSV files.

``scores``: one row per control, teacher, seed (and ``all`` seeds together) and benchmark: problems, samples per problem;
pass_at_1 (mean over problems of the share of samples that passed); se_samples (its standard error over samples, the
problems given), se_problems (over problems), se_seeds (over training seeds, ``all`` only); mean_tokens; truncated,
no_answer and unknown (shares of the samples); lighteval_metric and lighteval (LightEval's own mean).

``comparison``: one row per control, pair and benchmark (``all``: the problems of all, each counted once): problems,
seeds, samples; score_a, score_b, difference, low and high in points of pass@1 (nested bootstrap over problems, training
seeds and samples); p (sign-flip permutation over problems) and p_holm (Holm over the whole table); problems_needed (to
tell a difference of this size); conclusion (one sentence, never stronger than the interval).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.outcomes import ALL
from whichteacher.resampling import (
    Interval,
    PairedScores,
    generator,
    holm,
    nested_bootstrap,
    problem_differences,
    problems_needed,
    sign_flip_p,
)
from whichteacher.rule import InputError, Progress
from whichteacher.scores import read_samples, score, shares
from whichteacher.tables import write_text

COLUMNS = ("control", "teacher_a", "teacher_b", "benchmark", "problems", "seeds", "samples", "score_a", "score_b")


def score_students(samples: pd.DataFrame, controls: Sequence[str], teachers: Sequence[str]) -> pd.DataFrame:
    """One row per control, teacher, benchmark and seed, the row of ``all`` seeds last."""
    groups = dict(list(samples.groupby(["control", "teacher", "benchmark"], sort=False)))
    rows = []
    for control in controls:
        for teacher in teachers:
            for benchmark in samples["benchmark"].unique():
                students = groups[control, teacher, benchmark]
                for seed, student in [*students.groupby("seed"), (ALL, students)]:
                    names = {"control": control, "teacher": teacher, "seed": seed, "benchmark": benchmark}
                    rows.append(names | score(student))
    return pd.DataFrame(rows)


def pair_scores(first: pd.DataFrame, second: pd.DataFrame) -> PairedScores:
    """Two teachers' samples of one benchmark, paired by problem."""
    (a, samples), (b, _) = shares(first), shares(second)
    if set(a.columns) != set(b.columns):
        problem = sorted(set(a.columns) ^ set(b.columns))[0]
        row = first.iloc[0]
        raise InputError(
            f"benchmark {row['benchmark']}: problem {problem} was not put to the students of both {row['teacher']} and "
            f"{second.iloc[0]['teacher']}: remove their samples tables and evaluate again"
        )
    return PairedScores(a.to_numpy(), b[a.columns].to_numpy(), samples)


def compare_pair(
    pairs: Sequence[PairedScores], resamples: int, confidence: float, rng: np.random.Generator
) -> dict[str, Any]:
    """The comparison of two teachers on some benchmarks, in points."""
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


def conclude(row: Mapping[str, Any], labels: Mapping[str, str], confidence: float, comparisons: int) -> str:
    """One sentence on one row of the comparison, by these rules.

    A difference is claimed only where the interval excludes zero, and called settled only where Holm's p is also below
    1 - confidence; a single training seed is named as such; without a claim the sentence says what it would take.
    """
    interval = Interval(row["difference"], row["low"], row["high"])
    a, b, where = (labels[row[name]] for name in ("teacher_a", "teacher_b", "benchmark"))
    sign = np.sign(interval.value) or 1
    ahead, behind = (a, b) if sign > 0 else (b, a)
    if np.isnan(interval.low):
        return f"On {where}, too few problems were scored to compare students of {a} and {b}."
    low, high = sorted((sign * interval.low, sign * interval.high))
    bounds = f"{confidence * 100:g} % interval {low:.1f} to {high:.1f}"
    seeds = (
        "one training seed each, so other seeds may differ" if row["seeds"] == 1 else f"{row['seeds']} training seeds"
    )
    if not interval.excludes_zero:
        needed = row["problems_needed"]
        remedy = f"; to tell a difference of this size takes about {needed:,.0f} problems" if needed else ""
        return (
            f"On {where}, no difference between students of {ahead} and of {behind} is shown: "
            f"{abs(interval.value):.1f} points for {ahead} ({bounds}; {row['problems']} problems, {seeds}){remedy}."
        )
    doubt = ""
    if not row["p_holm"] < 1 - confidence:
        doubt = f", but not after correction for {comparisons} comparisons (p = {row['p_holm']:.2g})"
    return (
        f"On {where}, students of {ahead} score {abs(interval.value):.1f} points above students of {behind} "
        f"({bounds}; {row['problems']} problems, {seeds}){doubt}."
    )


def compare_students(
    samples: pd.DataFrame,
    controls: Sequence[str],
    teachers: Mapping[str, str],
    benchmarks: Mapping[str, str],
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """All rows of the comparison. ``teachers`` and ``benchmarks`` map names to labels, in order."""
    groups = dict(list(samples.groupby(["control", "teacher", "benchmark"], sort=False)))
    wanted = [(control, *pair) for control in controls for pair in combinations(teachers, 2)]
    rows = []
    with Progress("compare_students", len(wanted), "pairs") as progress:
        for control, a, b in wanted:
            paired = {name: pair_scores(groups[control, a, name], groups[control, b, name]) for name in benchmarks}
            choices = {name: [pair] for name, pair in paired.items()} | {ALL: list(paired.values())}
            for benchmark, pairs in choices.items():
                names = {"control": control, "teacher_a": a, "teacher_b": b, "benchmark": benchmark}
                rng = generator(seed, *names.values())
                rows.append(names | compare_pair(pairs, resamples, confidence, rng))
            progress.advance()
    frame = pd.DataFrame(rows, columns=[*COLUMNS, "difference", "low", "high", "p", "problems_needed"])
    frame["p_holm"] = holm(frame["p"].to_list())
    labels = {**teachers, **benchmarks, ALL: "all benchmarks together"}
    frame["conclusion"] = [conclude(row, labels, confidence, len(frame)) for row in frame.to_dict("records")]
    return frame


def main(
    scored: Sequence[str],
    scores: str,
    comparison: str,
    controls: Sequence[str],
    teachers: Mapping[str, str],
    benchmarks: Mapping[str, str],
    statistics: Mapping[str, Any],
) -> None:
    """Read ``scored``, write ``scores`` and ``comparison``."""
    samples = read_samples(scored)
    write_text(scores, score_students(samples, controls, list(teachers)).to_csv(index=False))
    compared = compare_students(samples, controls, teachers, benchmarks, **statistics)
    write_text(comparison, compared.to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.scored,  # noqa: F821
            snakemake.output.scores,  # noqa: F821
            snakemake.output.comparison,  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
