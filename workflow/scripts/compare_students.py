"""Score the students and compare those of every pair of teachers on the same problems.

Reads every student's scored samples (SCORED_SAMPLES) and writes three CSV files.

``scores``: one row per control, teacher, seed (and ``all`` seeds together) and benchmark: problems, samples per problem;
pass_at_1 (mean over problems of the share of samples that passed); se_samples (its standard error over samples, the
problems given), se_problems (over problems), se_seeds (over training seeds, ``all`` only); mean_tokens; truncated,
no_answer and unknown (shares of the samples); lighteval_metric and lighteval (LightEval's own mean).

``comparison``: one row per control, pair and benchmark (``all``: the problems of all, each counted once): problems,
seeds, samples; score_a, score_b, difference, low and high in points of pass@1 (nested bootstrap over problems, training
seeds and samples); p (sign-flip permutation over problems) and p_holm (Holm over the whole table); problems_needed (to
tell a difference of this size); conclusion (one sentence, never stronger than the interval).

``failures``: the same comparison of two shares of the samples, in percent and points: measure is truncated or no_answer,
rate_a and rate_b take the place of the scores, and p_holm is Holm's over both measures together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.conclusions import conclude
from whichteacher.outcomes import ALL
from whichteacher.resampling import holm
from whichteacher.scores import read_samples, score
from whichteacher.students import NAMES, by_students, compare_pairs
from whichteacher.tables import write_text

#: Ways to fail that are compared: columns of :func:`whichteacher.scores.read_samples`.
FAILURES = ("truncated", "no_answer")


def score_students(samples: pd.DataFrame, controls: Sequence[str], teachers: Sequence[str]) -> pd.DataFrame:
    """One row per control, teacher, benchmark and seed, the row of ``all`` seeds last."""
    groups = by_students(samples)
    rows = []
    for control in controls:
        for teacher in teachers:
            for benchmark in samples["benchmark"].unique():
                students = groups[control, teacher, benchmark]
                for seed, student in [*students.groupby("seed"), (ALL, students)]:
                    names = {"control": control, "teacher": teacher, "seed": seed, "benchmark": benchmark}
                    rows.append(names | score(student))
    return pd.DataFrame(rows)


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
    frame = compare_pairs(samples, controls, list(teachers), list(benchmarks), resamples, confidence, seed)
    frame["p_holm"] = holm(frame["p"].to_list())
    labels = {**teachers, **benchmarks, ALL: "all benchmarks together"}
    frame["conclusion"] = [conclude(row, labels, confidence, len(frame)) for row in frame.to_dict("records")]
    return frame


def compare_failures(
    samples: pd.DataFrame,
    controls: Sequence[str],
    teachers: Sequence[str],
    benchmarks: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """All rows of the comparison of what was cut off or has no answer."""
    frames = []
    for measure in FAILURES:
        frame = compare_pairs(samples, controls, teachers, benchmarks, resamples, confidence, seed, measure)
        frame.insert(len(NAMES), "measure", measure)
        frames.append(frame.drop(columns="problems_needed"))
    frame = pd.concat(frames, ignore_index=True).rename(columns={"score_a": "rate_a", "score_b": "rate_b"})
    return frame.assign(p_holm=holm(frame["p"].to_list()))


def main(
    scored: Sequence[str],
    scores: str,
    comparison: str,
    failures: str,
    controls: Sequence[str],
    teachers: Mapping[str, str],
    benchmarks: Mapping[str, str],
    statistics: Mapping[str, Any],
) -> None:
    """Read ``scored``, write ``scores``, ``comparison`` and ``failures``."""
    samples = read_samples(scored)
    write_text(scores, score_students(samples, controls, list(teachers)).to_csv(index=False))
    compared = compare_students(samples, controls, teachers, benchmarks, **statistics)
    write_text(comparison, compared.to_csv(index=False))
    failed = compare_failures(samples, controls, list(teachers), list(benchmarks), **statistics)
    write_text(failures, failed.to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.scored,  # noqa: F821
            snakemake.output.scores,  # noqa: F821
            snakemake.output.comparison,  # noqa: F821
            snakemake.output.failures,  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
