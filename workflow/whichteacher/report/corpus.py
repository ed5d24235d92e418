"""Where rows were dropped, and which were close to a benchmark problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.report.formatting import number
from whichteacher.report.table import Table, table


def ledger_tables(lines: pd.DataFrame) -> list[Table]:
    """One table per step, in the order of the ledger."""
    tables = []
    for step, rows in lines.groupby("step", sort=False):
        shown = []
        for scope, group in rows.groupby("scope", sort=False):
            counts = group.set_index("reason")["rows"]
            reasons = counts.drop(["in", "kept"])
            told = ", ".join(f"{reason} {number(count)}" for reason, count in reasons.items()) or "–"
            shown.append((scope, number(counts["in"]), number(counts["kept"]), number(reasons.sum()), told))
        tables.append(table(step, ("Scope", "In", "Kept", "Dropped", "Reasons"), shown, text=(0, 4)))
    return tables


def contamination_table(flagged: Sequence[Mapping[str, Any]], benchmarks: Mapping[str, str]) -> Table:
    """Flagged queries by benchmark and method."""
    rows = [
        (
            benchmarks.get(row["benchmark"], row["benchmark"]),
            row["method"],
            number(row["flagged"]),
            number(row["dropped"]),
        )
        for row in flagged
    ]
    return table(
        "Queries close to a benchmark problem", ("Benchmark", "Method", "Flagged", "Dropped"), rows, text=(0, 1)
    )


def quoting_table(
    quoted: Sequence[Mapping[str, Any]], teachers: Mapping[str, str], benchmarks: Mapping[str, str]
) -> Table:
    """Responses of each teacher that hold a benchmark problem."""
    rows = [
        (
            teachers[row["teacher"]],
            benchmarks.get(row["benchmark"], row["benchmark"]),
            number(row["query_does_not"]),
            number(row["query_does"]),
        )
        for row in quoted
    ]
    heads = ("Teacher", "Benchmark", "Their query does not", "Their query does")
    return table("Responses that hold a benchmark problem, by whether their query holds one", heads, rows, text=(0, 1))


def contamination_pairs(groups: Sequence[Mapping[str, Any]], benchmarks: Mapping[str, str]) -> list[dict[str, Any]]:
    """The flagged pairs of choose_examples as the page shows them."""
    return [
        {
            "method": group["method"],
            "total": number(group["total"]),
            "pairs": [
                {
                    **pair,
                    "place": f"{benchmarks.get(pair['benchmark'], pair['benchmark'])}, {pair['problem_id']}",
                    "score": number(pair["score"], 3),
                }
                for pair in group["pairs"]
            ],
        }
        for group in groups
    ]


def planted_faults(planted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What became of the planted rows."""
    rows, right = [], 0
    for row in planted:
        wanted = row["planted"] if row["should_stay"] else 0
        right += row["planted"] - abs(row["kept"] - wanted)
        counts = (number(row["planted"] - row["kept"]), number(row["kept"]))
        fate = "stay" if wanted else "go"
        rows.append((row["kind"].replace("_", " "), number(row["planted"]), fate, *counts))
    heads = ("Kind", "Planted", "Should", "Dropped", "Kept")
    total = sum(row["planted"] for row in planted)
    return {"right": right, "total": total, "table": table("Planted rows", heads, rows, text=(0, 2))}
