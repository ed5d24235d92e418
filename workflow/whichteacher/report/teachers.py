"""Teachers compared, and one query with the trace of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.report.formatting import bounded, excludes_zero, interval, number, p_value, pair, percent
from whichteacher.report.table import Table, table


def teacher_summary(summary: pd.DataFrame, teachers: Mapping[str, str], caption: str) -> Table:
    """Rows of the summary of teachers."""
    rows = [
        (
            teachers[row["teacher"]],
            row["category"].replace("_", " "),
            number(row["queries"]),
            percent(row["acceptance"]),
            percent(row["first_pass"]),
            number(row["attempts_to_pass"], 2),
            number(row["gave_up"]),
            number(row["length_mean"], 1),
            number(row["length_median"], 1),
            number(row["length_by_difficulty"], 2),
            number(row["perplexity_mean"], 2),
        )
        for row in summary.to_dict("records")
    ]
    heads = ("Teacher", "Category", "Queries", "Solved", "At first attempt", "Attempts to pass", "Given up")
    lengths = ("Mean length", "Median", "Length by difficulty", "Perplexity")
    return table(caption, (*heads, *lengths), rows, text=(0, 1))


_MEASURES = {
    "acceptance": "Solved (share)",
    "first_pass": "Solved at the first attempt (share)",
    "attempts": "Attempts drawn",
    "spent_tokens": "Tokens spent",
    "restricted_attempts": "Attempts, given-up ones censored",
    "tokens_per_verified": "Tokens per verified trace",
    "price_per_verified": "Price per verified trace",
    "attempts_to_pass": "Attempts to pass",
    "length": "Length of the trace (tokens)",
    "perplexity": "Perplexity",
    "thinking_answer_ratio": "Thinking per answer (characters)",
    "answer_position": "First right answer (share of thinking)",
    "tail_characters": "Thinking after that (characters)",
    "repeated_share": "Repeated 8-grams (share)",
    "self_corrections": "Words of self-correction",
    "restarts": "Restarts (sentences)",
    "formula_share": "Formulas (share of thinking)",
    "code_share": "Code (share of thinking)",
    "foreign_share": "Letters of other scripts (share)",
    "loop_characters": "Loop at the end (characters)",
}


def perplexity_table(summary: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """Rows of the perplexities of accepted responses, scorer by scorer."""
    ordered = summary.sort_values("scorer", key=lambda names: names.map(list(names.unique()).index), kind="stable")
    rows = [
        (
            row["scorer"],
            teachers[row["teacher"]],
            number(row["scored"]),
            number(row["cut"]),
            number(row["overlong"] + row["other_unscored"]),
            *(number(row[name], 2) for name in ("mean", "q1", "median", "q3", "q99", "pooled")),
            number(row["limit"], 2),
            number(row["above"]),
        )
        for row in ordered.to_dict("records")
    ]
    heads = (
        "Scorer",
        "Teacher",
        "Scored",
        "Of these cut",
        "Not scored",
        "Mean",
        "Quartile",
        "Median",
        "Quartile",
        "99%",
    )
    caption = (
        "Perplexity of the accepted responses, before any filter. The first scorer filters and is that of the figure and the export. A "
        "scorer favours its own family: an order of the teachers that holds under one scorer alone says little about them."
    )
    return table(caption, (*heads, "Over all tokens", "Limit", "Above it"), rows, text=(0, 1))


def measure_label(measure: str) -> str:
    """What a measure of the comparison is called; ``perplexity_<scorer>`` comes and goes with the scorers."""
    return _MEASURES.get(measure) or f"Perplexity ({measure.removeprefix('perplexity_')})"


def teacher_comparison(comparison: pd.DataFrame, teachers: Mapping[str, str], caption: str, alpha: float) -> Table:
    """Rows of the comparison of teachers, measure by measure; ``alpha`` is 1 - confidence."""
    known = list(_MEASURES)
    place = {name: known.index(name if name in _MEASURES else "perplexity") for name in comparison["measure"].unique()}
    ordered = comparison.sort_values("measure", key=lambda names: names.map(place), kind="stable")
    rows = [
        (
            measure_label(row["measure"]),
            pair(row, teachers),
            row["category"].replace("_", " "),
            row["difficulty"],
            number(row["queries"]),
            number(row["mean_a"], 2),
            number(row["mean_b"], 2),
            interval(row, 2),
            p_value(row["p_holm"]),
            excludes_zero(row) and row["p_holm"] < alpha,
        )
        for row in ordered.to_dict("records")
    ]
    heads = ("Measure", "Teachers", "Category", "Difficulty", "Queries", "First", "Second", "Difference", "p, Holm")
    return table(caption, heads, rows, text=(0, 1, 2, 3))


def attempts_summary(summary: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """Attempts per query up to the horizon, given-up queries as censored."""
    rows = [
        (
            teachers[row["teacher"]],
            row["category"].replace("_", " "),
            number(row["queries"]),
            number(row["passed"]),
            number(row["given_up"]),
            number(row["horizon"]),
            bounded(row, "restricted_mean", "low", "high", 2),
        )
        for row in summary.to_dict("records")
    ]
    heads = ("Teacher", "Category", "Queries", "Passed", "Given up", "Horizon", "Attempts per query")
    caption = "Attempts per query if none gets more than the horizon, up to which the curves of all teachers are known."
    return table(caption, heads, rows, text=(0, 1))


#: Measures of equal responses: what is counted, and of what the share is.
_EQUAL = {
    "equal_responses": ("traces equal to one of another query", "traces"),
    "repeated_responses": ("attempts with the response of an earlier one", "attempts after the first"),
    "repeated_answers": ("attempts with the answer of an earlier one", "attempts after the first"),
    "shared_responses": ("equal traces of both", "queries that both solved"),
}


def equal_responses(duplicates: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """How much of each teacher's data is there more than once; rows of summarise_duplicates."""
    rows = []
    for row in duplicates.to_dict("records"):
        what, of = _EQUAL[row["measure"]]
        names = " and ".join(teachers[name] for name in (row["teacher"], row["other"]) if not pd.isna(name))
        rows.append((names, what, of, number(row["of"]), number(row["found"]), percent(row["share"])))
    heads = ("Teacher", "What is equal", "Of", "Number of these", "Equal", "Share")
    caption = (
        "Equal responses: the same text but for white space and tags. Kept unless curation.drop_duplicates is set, which "
        "drops all but one of equal traces of different queries."
    )
    return table(caption, heads, rows, text=(0, 1, 2))


def engines(rows: Sequence[Mapping[str, str]], teachers: Mapping[str, str]) -> Table:
    """Which model, engine and verifiers made each teacher's attempts."""
    shown = [
        (teachers[row["teacher"]], row["model"], row["model_digest"][:12], row["engine"], row["verifiers"])
        for row in rows
    ]
    heads = ("Teacher", "Model", "Digest", "Engine", "Verifiers")
    return table("What made and judged the attempts", heads, shown, text=range(len(heads)))


def example(
    found: Mapping[str, Any] | None, teachers: Mapping[str, str], colours: Mapping[str, str]
) -> dict[str, Any] | None:
    """The example of choose_examples as the page shows it: the first right answer stands apart."""
    if found is None:
        return None
    shown = []
    for trace in found["traces"]:
        thinking, start, end = trace["thinking"], trace["start"], trace["end"]
        facts = [f"{trace['output_tokens']:,} tokens", f"accepted at attempt {trace['attempts']}"]
        if end is not None:
            facts.append(f"right answer after {end / len(thinking):.0%} of the thinking")
        shown.append(
            {
                "label": teachers[trace["teacher"]],
                "colour": colours[trace["teacher"]],
                "facts": ", ".join(facts),
                "before": thinking[:start],
                "found": thinking[start:end] if end is not None else "",
                "after": thinking[end:] if end is not None else "",
                "answer": trace["answer"],
            }
        )
    return {"turns": found["turns"], "reference": found["reference"] or "none", "traces": shown}
