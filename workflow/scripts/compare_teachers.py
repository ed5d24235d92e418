"""Compare every pair of teachers on the same queries.

Reads every attempt (COLLECTED), the queries (QUERIES), the measures of the curated traces (TRACE_MEASURES) and their perplexities
under every scorer but the first (PERPLEXITIES), which become the measures ``perplexity_<scorer>``; writes a CSV with one row per
pair, category (``all`` first), difficulty (``all`` first, see :func:`whichteacher.outcomes.difficulty_thirds`) and measure:
teacher_a, teacher_b, category, difficulty, measure, queries, mean_a, mean_b, difference (a - b), low, high (bootstrap over
queries), p (paired permutation), p_holm (Holm over the whole table); for measures that are ratios of sums also ratio (a / b),
ratio_low and ratio_high.

A measure of the query (acceptance, first_pass, attempts, spent_tokens) is compared on all queries, as are restricted_attempts
(:func:`whichteacher.survival.pseudo_values`) and the ratios, per verified trace (:mod:`whichteacher.ratios`); a measure of the
trace (the others) on those for which both teachers have one.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.outcomes import ALL, DIFFICULTIES, by_teacher, difficulty_thirds, query_outcomes, query_prices
from whichteacher.perplexity import files_by_scorer
from whichteacher.ratios import Sums, compare_ratios
from whichteacher.resampling import bootstrap_means, generator, holm, sign_flip_ps
from whichteacher.rule import Progress
from whichteacher.schemas import PERPLEXITIES, TRACE_MEASURES
from whichteacher.survival import common_horizon, last_attempts, pseudo_values
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
    "tail_characters",
    "repeated_share",
    "self_corrections",
    "restarts",
    "formula_share",
    "code_share",
    "foreign_share",
    "loop_characters",
)
#: Measure -> column of :func:`measured` whose sum is divided by the number of verified traces.
PER_VERIFIED = {"tokens_per_verified": "spent_tokens", "price_per_verified": "price"}
#: Columns of :func:`measured` that are compared as parts of other measures alone.
_PARTS = ["category", "price"]
COLUMNS = (
    *("teacher_a", "teacher_b", "category", "difficulty", "measure", "queries", "mean_a", "mean_b"),
    *("difference", "low", "high", "p"),
)
RATIO_COLUMNS = ("ratio", "ratio_low", "ratio_high")


def measured(
    outcomes: pd.DataFrame,
    measures: pd.DataFrame,
    scorers: Mapping[str, pd.Series] | None = None,
    prices: pd.Series | None = None,
) -> pd.DataFrame:
    """One teacher's queries as rows, the compared measures, ``category`` and ``price`` as columns. ``scorers`` holds perplexities by
    ``query_id``; those of curated traces are taken. ``prices`` are those of the queries."""
    frame = outcomes[list(OF_QUERY.values())].set_axis(list(OF_QUERY), axis=1).astype(float)
    traces = measures.set_index("query_id")[list(OF_TRACE)].astype(float)
    for name, values in (scorers or {}).items():
        traces[f"perplexity_{name}"] = values.reindex(traces.index)
    return frame.join(traces).assign(category=outcomes["category"], price=np.nan if prices is None else prices)


def compare_means(
    a: pd.DataFrame, b: pd.DataFrame, resamples: int, confidence: float, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """A row per measure, with the paired difference of its means; ``a`` and ``b`` have measures as columns and the same queries as
    rows, NaN where there is no value."""
    first, second = a.to_numpy(), b.to_numpy()
    differences = first - second
    both = ~np.isnan(differences)
    intervals = bootstrap_means(differences, resamples, confidence, rng)
    ps = sign_flip_ps(differences, resamples, rng)
    for place, (measure, (value, low, high), p) in enumerate(zip(a.columns, intervals, ps, strict=True)):
        if both[:, place].any():
            yield {
                "measure": measure,
                "queries": int(both[:, place].sum()),
                "mean_a": first[both[:, place], place].mean(),
                "mean_b": second[both[:, place], place].mean(),
                "difference": value,
                "low": low,
                "high": high,
                "p": p,
            }


def compare_costs(a: Sums, b: Sums, resamples: int, confidence: float, rng: np.random.Generator) -> dict[str, Any]:
    """The paired difference, and ratio, of what two teachers spent per verified trace, on the queries where both are known."""
    both = ~(np.isnan(a.numerator) | np.isnan(b.numerator))
    a, b = (Sums(*(values[both] for values in sums)) for sums in (a, b))
    found = compare_ratios(a, b, resamples, confidence, rng)
    return {
        "queries": int(both.sum()),
        "mean_a": a.ratio(),
        "mean_b": b.ratio(),
        **dict(zip(("difference", "low", "high"), found.difference, strict=True)),
        "p": found.p,
        **dict(zip(RATIO_COLUMNS, found.ratio, strict=True)),
    }


def compare_cell(
    a: pd.DataFrame, b: pd.DataFrame, names: Sequence[str], resamples: int, confidence: float, seed: int
) -> Iterator[dict[str, Any]]:
    """The rows of one pair, category and difficulty (``names``); ``a`` and ``b`` are rows of :func:`measured` for the same queries."""
    ends = [last_attempts(side) for side in (a, b)]
    horizon = common_horizon(ends)
    means = [
        side.drop(columns=_PARTS).assign(restricted_attempts=pseudo_values(*end, horizon))
        for side, end in zip((a, b), ends, strict=True)
    ]
    yield from compare_means(*means, resamples, confidence, generator(seed, *names))
    for measure, column in PER_VERIFIED.items():
        sums = [Sums(side[column].to_numpy(), side["acceptance"].to_numpy()) for side in (a, b)]
        yield {"measure": measure, **compare_costs(*sums, resamples, confidence, generator(seed, *names, measure))}


def compare_teachers(
    teachers: Mapping[str, pd.DataFrame],
    difficulty: pd.Series,
    categories: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """All rows of the comparison; ``teachers`` are frames of :func:`measured`, ``difficulty`` the third of each query."""
    rows = []
    pairs = list(combinations(teachers, 2))
    cells = [(category, third) for category in (ALL, *categories) for third in (ALL, *DIFFICULTIES)]
    with Progress("compare_teachers", len(pairs) * len(cells), "pairs x categories x thirds") as progress:
        for first, second in pairs:
            a, b = teachers[first].align(teachers[second], join="inner", axis=0)
            thirds = difficulty.reindex(a.index)
            for category, third in cells:
                chosen = np.ones(len(a), dtype=bool)
                if category != ALL:
                    chosen &= (a["category"] == category).to_numpy()
                if third != ALL:
                    chosen &= (thirds == third).to_numpy()
                if chosen.any():
                    about = {"teacher_a": first, "teacher_b": second, "category": category, "difficulty": third}
                    found = compare_cell(a[chosen], b[chosen], list(about.values()), resamples, confidence, seed)
                    rows += [about | row for row in found if row["queries"]]
                progress.advance()
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *RATIO_COLUMNS])
    frame.insert(len(COLUMNS), "p_holm", holm(frame["p"].to_list()))
    return frame


def main(
    collected: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    measures: Mapping[str, str],
    perplexities: Mapping[tuple[str, str], Sequence[str]],
    output: str,
    categories: Sequence[str],
    prices: Mapping[str, Mapping[str, float | None]],
    resamples: int,
    confidence: float,
    seed: int,
) -> None:
    """Compare the teachers of ``collected`` (files per teacher) and write ``output``; ``perplexities`` are files per teacher and
    scorer, ``prices`` the configuration's two prices per teacher."""
    outcomes = {teacher: query_outcomes(files, queries) for teacher, files in collected.items()}
    difficulty = difficulty_thirds(outcomes)
    teachers = {}
    for teacher in collected:
        scorers = {
            scorer: read_frame(paths, PERPLEXITIES, ["query_id", "perplexity"]).set_index("query_id")["perplexity"]
            for (scored, scorer), paths in perplexities.items()
            if scored == teacher
        }
        traces = read_frame(measures[teacher], TRACE_MEASURES, ["query_id", *OF_TRACE])
        found = outcomes.pop(teacher)
        teachers[teacher] = measured(found, traces, scorers, query_prices(found, prices[teacher]))
    compared = compare_teachers(teachers, difficulty, categories, resamples, confidence, seed)
    write_text(output, compared.to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.config import CATEGORIES
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        names = snakemake.params.teachers  # noqa: F821
        main(
            by_teacher(names, snakemake.input.collected),  # noqa: F821
            snakemake.input.queries,  # noqa: F821
            dict(zip(names, snakemake.input.measures, strict=True)),  # noqa: F821
            files_by_scorer(snakemake.input.perplexities, names, snakemake.params.scorers),  # noqa: F821
            snakemake.output[0],  # noqa: F821
            CATEGORIES,
            snakemake.params.prices,  # noqa: F821
            **snakemake.params.statistics,  # noqa: F821
        )
