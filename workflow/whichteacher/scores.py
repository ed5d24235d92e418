"""Scores of whatever was evaluated, from its scored samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.rule import InputError
from whichteacher.schemas import SCORED_SAMPLES
from whichteacher.tables import read_frame

_READ = (
    "student",
    "benchmark",
    "problem_id",
    "difficulty",
    "finish_reason",
    "answer",
    "output_tokens",
    "lighteval_metric",
    "lighteval_score",
    "verdict",
)


def read_samples(paths: Sequence[str]) -> pd.DataFrame:
    """All samples, without their texts: control, teacher, seed, benchmark, problem_id, passed, and what summaries need.

    ``passed``, ``truncated``, ``no_answer`` and ``unknown`` are 1.0 or 0.0.
    """
    rows = read_frame(paths, SCORED_SAMPLES, _READ)
    rows[["control", "teacher", "seed"]] = rows.pop("student").str.split("/", expand=True)
    return rows.assign(
        passed=(rows["verdict"] == "pass").astype(float),
        truncated=(rows["finish_reason"] == "length").astype(float),
        no_answer=rows.pop("answer").isna().astype(float),
        unknown=(rows["verdict"] == "unknown").astype(float),
    )


def shares(samples: pd.DataFrame, measure: str = "passed") -> tuple[pd.DataFrame, int]:
    """Share of samples that passed (or another ``measure`` of :func:`read_samples`), seeds as rows and problems as columns,
    both in order; and the samples behind each share.

    Raises :class:`InputError` where some problem has more samples than another: no pair would be compared fairly.
    """
    counts = samples.pivot_table(index="seed", columns="problem_id", values=measure, aggfunc="size", fill_value=0)
    if counts.to_numpy().min() != counts.to_numpy().max():
        seed, problem = counts.stack().idxmin()
        first = samples.iloc[0]
        raise InputError(
            f"student {first['control']}/{first['teacher']}/{seed}, benchmark {first['benchmark']}: problem {problem} has "
            f"{counts.loc[seed, problem]} samples, others {counts.to_numpy().max()}: remove its samples table and evaluate again"
        )
    table = samples.pivot_table(index="seed", columns="problem_id", values=measure, aggfunc="mean").sort_index()
    return table, int(counts.iloc[0, 0])


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean; NaN for fewer than two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def score(samples: pd.DataFrame) -> dict[str, Any]:
    """The numbers of one teacher's students (one seed or several), or of one model, on one benchmark.

    Columns: problems, samples per problem; pass_at_1 (mean over problems of the share of samples that passed); se_samples (its
    standard error over samples, the problems given), se_problems (over problems), se_seeds (over training seeds); mean_tokens;
    truncated, no_answer and unknown (shares of the samples); lighteval_metric and lighteval (LightEval's own mean).
    """
    table, per_problem = shares(samples)
    cells = table.to_numpy()
    within = cells * (1 - cells) / (per_problem - 1) if per_problem > 1 else np.full(cells.shape, np.nan)
    return {
        "problems": cells.shape[1],
        "samples": per_problem,
        "pass_at_1": cells.mean(),
        "se_samples": np.sqrt(within.sum()) / cells.size,
        "se_problems": standard_error(cells.mean(axis=0)),
        "se_seeds": standard_error(cells.mean(axis=1)),
        "mean_tokens": samples["output_tokens"].mean(),
        "truncated": samples["truncated"].mean(),
        "no_answer": samples["no_answer"].mean(),
        "unknown": samples["unknown"].mean(),
        "lighteval_metric": samples["lighteval_metric"].iloc[0],
        "lighteval": samples["lighteval_score"].mean(),
    }
