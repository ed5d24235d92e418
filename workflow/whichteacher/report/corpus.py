"""Where rows were dropped, and which were close to a benchmark problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.report.formatting import number
from whichteacher.report.source import Source
from whichteacher.report.table import Table, table


def ledger_table(lines: pd.DataFrame) -> Table:
    """The lines of one step of the ledger, scope by scope."""
    rows = []
    for scope, group in lines.groupby("scope", sort=False):
        counts = group.set_index("reason")["rows"]
        reasons = counts.drop(["in", "kept"])
        told = ", ".join(f"{reason} {number(count)}" for reason, count in reasons.items()) or "–"
        rows.append((scope, number(counts["in"]), number(counts["kept"]), number(reasons.sum()), told))
    return table(lines["step"].iloc[0], ("Scope", "In", "Kept", "Dropped", "Reasons"), rows, text=(0, 4))


def ledger_tables(ledger: Source) -> list[Table]:
    """One table per step, in the order of the ledger."""
    steps = ledger.content["step"]
    return [ledger.part(steps == step).table(ledger_table) for step in steps.unique()]


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


def _wanted(row: Mapping[str, Any]) -> int:
    """How many of the planted rows of one kind should be left."""
    return row["planted"] if row["should_stay"] else 0


def planted_table(planted: Sequence[Mapping[str, Any]]) -> Table:
    """Planted rows by kind: what should become of them, and what did."""
    rows = [
        (
            row["kind"].replace("_", " "),
            number(row["planted"]),
            "stay" if _wanted(row) else "go",
            number(row["planted"] - row["kept"]),
            number(row["kept"]),
        )
        for row in planted
    ]
    return table("Planted rows", ("Kind", "Planted", "Should", "Dropped", "Kept"), rows, text=(0, 2))


def planted_faults(planted: Source) -> dict[str, Any]:
    """What became of the planted rows."""
    rows = planted.content
    return {
        "right": sum(row["planted"] - abs(row["kept"] - _wanted(row)) for row in rows),
        "total": sum(row["planted"] for row in rows),
        "table": planted.table(planted_table),
    }
