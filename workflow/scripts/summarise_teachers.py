"""Summarise each teacher, per category and over all.

Reads every attempt (COLLECTED), the queries (QUERIES) and the measures of the curated traces (TRACE_MEASURES); writes
a CSV with one row per teacher and category. Columns:

queries, solved, gave_up; acceptance (solved / queries); first_pass (share of queries solved by the first attempt);
attempts, attempts_to_pass (mean over solved queries; the given-up ones are counted in gave_up alone); truncated and
unknown (shares of the attempts); length_mean and length_median (tokens of verified traces);
length_by_difficulty (Spearman correlation of that length with the number of teachers whose first attempt failed);
curated (traces that passed the quality filters) and perplexity_mean over them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from whichteacher.outcomes import ALL, by_teacher, query_outcomes
from whichteacher.schemas import TRACE_MEASURES
from whichteacher.tables import read_frame, write_text


def difficulty(outcomes: Mapping[str, pd.DataFrame]) -> pd.Series:
    """Of each query, the share of teachers whose first attempt failed: a difficulty that no single teacher sets."""
    return 1 - pd.DataFrame({teacher: rows["first_pass"].astype(float) for teacher, rows in outcomes.items()}).mean(
        axis=1
    )


def rank_correlation(first: pd.Series, second: pd.Series) -> float:
    """Spearman's correlation; NaN where either side is constant."""
    if len(first) < 3 or first.nunique() < 2 or second.nunique() < 2:
        return np.nan
    return float(stats.spearmanr(first, second).statistic)


def summarise(outcomes: pd.DataFrame, measures: pd.DataFrame, hard: pd.Series) -> dict[str, Any]:
    """The numbers of one teacher on one set of queries."""
    queries, solved = len(outcomes), int(outcomes["solved"].sum())
    lengths = outcomes["accepted_tokens"].dropna()
    attempts = outcomes["attempts"].sum()
    return {
        "queries": queries,
        "solved": solved,
        "gave_up": queries - solved,
        "acceptance": solved / queries,
        "first_pass": outcomes["first_pass"].mean(),
        "attempts": attempts,
        "attempts_to_pass": outcomes["attempts_to_pass"].mean(),
        "truncated": outcomes["truncated"].sum() / attempts,
        "unknown": outcomes["unknown"].sum() / attempts,
        "length_mean": lengths.mean(),
        "length_median": lengths.median(),
        "length_by_difficulty": rank_correlation(lengths, hard.loc[lengths.index]),
        "curated": len(measures),
        "perplexity_mean": measures["perplexity"].mean(),
    }


def summarise_teachers(
    outcomes: Mapping[str, pd.DataFrame],
    measures: Mapping[str, pd.DataFrame],
    categories: Sequence[str],
) -> pd.DataFrame:
    """One row per teacher and category that has queries, ``all`` first."""
    hard = difficulty(outcomes)
    rows = []
    for teacher, all_queries in outcomes.items():
        for category in (ALL, *categories):
            chosen, traces = all_queries, measures[teacher]
            if category != ALL:
                chosen = chosen[chosen["category"] == category]
                traces = traces[traces["category"] == category]
            if len(chosen):
                row = summarise(chosen, traces, hard)
                rows.append({"teacher": teacher, "category": category, **row})
    return pd.DataFrame(rows)


def main(
    collected: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    measures: Mapping[str, str],
    output: str,
    categories: Sequence[str],
) -> None:
    """Summarise the teachers of ``collected`` (files per teacher) and write ``output``."""
    outcomes = {teacher: query_outcomes(files, queries) for teacher, files in collected.items()}
    traces = {
        teacher: read_frame(path, TRACE_MEASURES, ["category", "perplexity"]) for teacher, path in measures.items()
    }
    write_text(output, summarise_teachers(outcomes, traces, categories).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.config import CATEGORIES
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        teachers = list(snakemake.params.teachers)  # noqa: F821
        main(
            by_teacher(teachers, snakemake.input.collected),  # noqa: F821
            snakemake.input.queries,  # noqa: F821
            dict(zip(teachers, snakemake.input.measures, strict=True)),  # noqa: F821
            snakemake.output[0],  # noqa: F821
            CATEGORIES,
        )
