"""Compare every pair of teachers on the same queries.

Reads every attempt (COLLECTED), the queries (QUERIES) and the measures of the curated traces (TRACE_MEASURES); writes
a CSV with one row per pair, category (``all`` first) and measure: teacher_a, teacher_b, category, measure, queries,
mean_a, mean_b, difference (a - b), low, high (bootstrap over queries), p (sign-flip permutation), p_holm (Holm over
the whole table).

A measure of the query (acceptance, first_pass, attempts, spent_tokens) is compared on all queries; a measure of the
trace (the others) on those for which both teachers have one.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from whichteacher.outcomes import ALL, by_teacher, query_outcomes
from whichteacher.resampling import bootstrap_mean, generator, holm, sign_flip_p
from whichteacher.rule import Progress
from whichteacher.schemas import TRACE_MEASURES
from whichteacher.tables import read_frame, write_text

#: Measure -> column of the outcomes.
OF_QUERY = {
    "acceptance": "solved",
    "first_pass": "first_pass",
    "attempts": "attempts",
    "spent_tokens": "output_tokens",
    "attempts_to_pass": "attempts_to_pass",
    "length": "accepted_tokens",
}
#: Columns of TRACE_MEASURES compared under their own names.
OF_TRACE = (
    "perplexity",
    "thinking_answer_ratio",
    "answer_position",
    "repeated_share",
    "self_corrections",
    "foreign_share",
    "loop_characters",
)
COLUMNS = ("teacher_a", "teacher_b", "category", "measure", "queries", "mean_a", "mean_b", "difference", "low", "high")


def measured(outcomes: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """One teacher's queries as rows, the compared measures and ``category`` as columns."""
    frame = outcomes[list(OF_QUERY.values())].set_axis(list(OF_QUERY), axis=1).astype(float)
    frame = frame.join(measures.set_index("query_id")[list(OF_TRACE)].astype(float))
    return frame.assign(category=outcomes["category"])


def compare_pair(
    first: pd.DataFrame, second: pd.DataFrame, measure: str, resamples: int, confidence: float, seed: int, *names: str
) -> dict[str, Any]:
    """The paired difference of one measure between two frames of :func:`measured` with the same rows."""
    both = pd.DataFrame({"a": first[measure], "b": second[measure]}).dropna()
    difference = (both["a"] - both["b"]).to_numpy()
    rng = generator(seed, *names)
    value, low, high = bootstrap_mean(difference, resamples, confidence, rng)
    return {
        "measure": measure,
        "queries": len(both),
        "mean_a": both["a"].mean(),
        "mean_b": both["b"].mean(),
        "difference": value,
        "low": low,
        "high": high,
        "p": sign_flip_p(difference, resamples, rng),
    }


def compare_teachers(
    teachers: Mapping[str, pd.DataFrame], categories: Sequence[str], resamples: int, confidence: float, seed: int
) -> pd.DataFrame:
    """All rows of the comparison; ``teachers`` are frames of :func:`measured`."""
    rows = []
    pairs = list(combinations(teachers, 2))
    with Progress("compare_teachers", len(pairs) * (1 + len(categories)), "pairs x categories") as progress:
        for first, second in pairs:
            a, b = teachers[first].align(teachers[second], join="inner", axis=0)
            for category in (ALL, *categories):
                chosen = slice(None) if category == ALL else a["category"] == category
                for measure in (*OF_QUERY, *OF_TRACE):
                    names = (first, second, category, measure)
                    row = compare_pair(a.loc[chosen], b.loc[chosen], measure, resamples, confidence, seed, *names)
                    if row["queries"]:
                        rows.append({"teacher_a": first, "teacher_b": second, "category": category, **row})
                progress.advance()
    frame = pd.DataFrame(rows, columns=[*COLUMNS, "p"])
    return frame.assign(p_holm=holm(frame["p"].to_list()))


def main(
    collected: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    measures: Mapping[str, str],
    output: str,
    categories: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
) -> None:
    """Compare the teachers of ``collected`` (files per teacher) and write ``output``."""
    teachers = {
        teacher: measured(
            query_outcomes(files, queries), read_frame(measures[teacher], TRACE_MEASURES, ["query_id", *OF_TRACE])
        )
        for teacher, files in collected.items()
    }
    write_text(output, compare_teachers(teachers, categories, resamples, confidence, seed).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.config import CATEGORIES
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        names = snakemake.params.teachers  # noqa: F821
        main(
            by_teacher(names, snakemake.input.collected),  # noqa: F821
            snakemake.input.queries,  # noqa: F821
            dict(zip(names, snakemake.input.measures, strict=True)),  # noqa: F821
            snakemake.output[0],  # noqa: F821
            CATEGORIES,
            **snakemake.params.statistics,  # noqa: F821
        )
