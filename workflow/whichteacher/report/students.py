"""Students compared, their scores, and the models beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.outcomes import ALL
from whichteacher.plotting import PAPER, PAPER_LABELS, THIS_RUN
from whichteacher.report.formatting import bounded, excludes_zero, interval, number, p_value, pair, percent
from whichteacher.report.table import Table, table


def findings(
    comparison: pd.DataFrame, colours: Mapping[str, str], conclusions: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The sentences of some rows of the comparison, the largest difference first, each with what ``conclusions`` (the lines of
    conclusions.md) add of other controls."""
    ordered = comparison.reindex(comparison["difference"].abs().sort_values(ascending=False, kind="stable").index)
    return [
        {
            "sentence": next((line for line in conclusions if line.startswith(row["conclusion"])), row["conclusion"]),
            "sure": excludes_zero(row),
            "colour": colours[row["teacher_a"] if row["difference"] > 0 else row["teacher_b"]],
        }
        for row in ordered.to_dict("records")
    ]


def student_comparison(
    comparison: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str], alpha: float
) -> Table:
    """All rows of the comparison of students; ``alpha`` is 1 - confidence."""
    names = {**benchmarks, ALL: "All"}
    rows = [
        (
            pair(row, teachers),
            row["control"],
            names[row["benchmark"]],
            number(row["problems"]),
            number(row["score_a"], 1),
            number(row["score_b"], 1),
            interval(row, 1),
            p_value(row["p"]),
            p_value(row["p_holm"]),
            number(row["problems_needed"]),
            excludes_zero(row) and row["p_holm"] < alpha,
        )
        for row in comparison.to_dict("records")
    ]
    heads = ("Teachers", "Control", "Benchmark", "Problems", "First", "Second", "Difference", "p", "p, Holm", "Needed")
    caption = (
        "Students compared: pass@1 in percent, difference in points with its interval; needed: problems at which the "
        "half-width would equal the difference. Bold where the interval excludes zero and p after Holm agrees."
    )
    return table(caption, heads, rows, text=(0, 1, 2))


def paper_table(
    cells: pd.DataFrame, title: str, teachers: Mapping[str, str], benchmarks: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Table 1 or 2: this run left, the paper right."""
    rows = []
    for (control, benchmark), group in cells.groupby(["control", "benchmark"], sort=False):
        found = group.set_index(["origin", "teacher"])
        row = [benchmarks[benchmark]["label"], control]
        for origin, name in [*((THIS_RUN, name) for name in teachers), *((PAPER, name) for name in PAPER_LABELS)]:
            if origin == PAPER and name == next(iter(PAPER_LABELS)):
                row.append(benchmarks[benchmark]["role"] or "–")
            if (origin, name) not in found.index:
                row.append("–")
                continue
            cell = found.loc[(origin, name)]
            row.append(number(cell["value"], 1) + ("" if pd.isna(cell["error"]) else f" ± {number(cell['error'], 1)}"))
        rows.append(row)
    heads = (
        "Benchmark",
        "Control",
        *teachers.values(),
        "In place of",
        *(f"{n} (paper)" for n in PAPER_LABELS.values()),
    )
    return table(title, heads, rows, text=(0, 1, 2 + len(teachers)))


def student_scores(scores: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """Every student on every benchmark."""
    rows = [
        (
            teachers[row["teacher"]],
            row["control"],
            str(row["seed"]),
            benchmarks[row["benchmark"]],
            number(100 * row["pass_at_1"], 1),
            number(100 * row["se_samples"], 1),
            number(100 * row["se_problems"], 1),
            number(row["mean_tokens"], 1),
            percent(row["truncated"]),
            percent(row["no_answer"]),
            number(100 * row["lighteval"], 1),
        )
        for row in scores.to_dict("records")
    ]
    heads = ("Teacher", "Control", "Seed", "Benchmark", "Pass@1", "SE, samples", "SE, problems", "Tokens", "Cut off")
    caption = "Students: pass@1 with its standard errors, LightEval’s own metric beside ours, and how responses ended."
    return table(caption, (*heads, "No answer", "LightEval"), rows, text=(0, 1, 2, 3))


def gaps(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """Whether the gap between two teachers' students closes under each control."""
    shown = [
        (
            pair(row, teachers),
            benchmarks.get(row["benchmark"], "All together"),
            row["control"],
            interval(row, 1),
            bounded(row, "change", "change_low", "change_high"),
            percent(row["remaining"]),
            row["verdict"],
        )
        for row in rows.to_dict("records")
    ]
    heads = ("Students of", "Benchmark", "Under", "Difference", "Change", "Remains", "Verdict")
    caption = (
        "Does the gap close where length, format or another property is held equal? Points of pass@1 with intervals; a gap "
        "closes only where the change itself is shown."
    )
    return table(caption, heads, shown, text=(0, 1, 2, 6))


def scores_by_cap(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """Pass@1 if longer responses counted as wrong: a column per cap."""
    caps = rows[["cap_share", "cap_tokens"]].drop_duplicates().sort_values("cap_share").to_dict("records")
    wide = rows.pivot(index=["control", "teacher", "benchmark"], columns="cap_share", values="pass_at_1")
    wide = wide.reindex(rows[["control", "teacher", "benchmark"]].drop_duplicates().itertuples(index=False, name=None))
    shown = [
        (
            teachers[teacher],
            control,
            benchmarks[benchmark],
            *(number(100 * cells[cap["cap_share"]], 1) for cap in caps),
        )
        for (control, teacher, benchmark), cells in wide.iterrows()
    ]
    heads = ("Teacher", "Control", "Benchmark", *(f"{cap['cap_tokens']:,} tokens" for cap in caps))
    return table("Pass@1 if every response longer than the cap counted as wrong.", heads, shown, text=(0, 1, 2))


def adaptivity(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """How much longer students answer harder problems."""
    shown = [
        (
            teachers[row["teacher"]],
            row["control"],
            benchmarks[row["benchmark"]],
            row["difficulty"] if isinstance(row["difficulty"], str) else "–",
            number(row["problems"]),
            bounded(row, "slope", "low", "high", 2),
        )
        for row in rows.to_dict("records")
    ]
    heads = ("Teacher", "Control", "Benchmark", "Difficulty is", "Problems", "Slope")
    caption = (
        "Slope of log output tokens on difficulty: a level of the benchmark’s own (stated), or from solved by all to solved "
        "by none of the other teachers’ students (estimated)."
    )
    return table(caption, heads, shown, text=(0, 1, 2, 3))


def variance(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """What makes the scores uncertain."""
    parts = ("problem", "seed", "problem_seed", "sampling")
    shown = [
        (
            teachers[row["teacher"]],
            row["control"],
            benchmarks[row["benchmark"]],
            *(number(row[part], 2) for part in (*parts, "standard_error")),
        )
        for row in rows.to_dict("records")
    ]
    heads = ("Teacher", "Control", "Benchmark", "Problems", "Seeds", "Problems x seeds", "Sampling", "Standard error")
    caption = (
        "What makes a score uncertain: parts of its variance in points squared, and the root of their sum in points."
    )
    return table(caption, heads, shown, text=(0, 1, 2))


def flagged_apart(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """Scores on the problems that the corpus or a response knew, and on the others."""
    shown = [
        (
            teachers[row["teacher"]],
            row["control"],
            benchmarks[row["benchmark"]],
            number(row["problems_flagged"]),
            *(number(100 * row[f"pass_at_1_{part}"], 1) for part in ("flagged", "unflagged")),
        )
        for row in rows.to_dict("records")
    ]
    heads = ("Teacher", "Control", "Benchmark", "Flagged problems", "Pass@1 on these", "On the others")
    caption = "Problems that a query of the corpus fell for, or that a response holds, apart from the others."
    return table(caption, heads, shown, text=(0, 1, 2))


def model_scores(scores: pd.DataFrame, models: Mapping[str, Mapping[str, Any]], benchmarks: Mapping[str, str]) -> Table:
    """The models evaluated beside the students on every benchmark."""
    rows = [
        (
            models[row["model"]]["label"],
            benchmarks[row["benchmark"]],
            number(100 * row["pass_at_1"], 1),
            number(100 * row["se_samples"], 1),
            number(100 * row["se_problems"], 1),
            "–" if pd.isna(row["low"]) else f"{number(row['low'], 1)} to {number(row['high'], 1)}",
            number(row["mean_tokens"], 1),
            percent(row["truncated"]),
            percent(row["no_answer"]),
            number(100 * row["lighteval"], 1),
        )
        for row in scores.to_dict("records")
    ]
    heads = ("Model", "Benchmark", "Pass@1", "SE, samples", "SE, problems", "Expected", "Tokens", "Cut off")
    caption = "Models evaluated beside the students, on the same problems and with the same sampling."
    return table(caption, (*heads, "No answer", "LightEval"), rows, text=(0, 1))
