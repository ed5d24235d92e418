"""What is in published traces: the tables of summarise_audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from whichteacher.outcomes import ALL
from whichteacher.report.formatting import number, percent
from whichteacher.report.source import Source
from whichteacher.report.table import Table, table

#: The tables of an audit: caption, then per column of the CSV its head and how it is shown ("text", "number" or "percent").
_AUDIT_TABLES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "releases": (
        "What was read",
        {
            "release": ("Release", "text"),
            "files": ("Files", "number"),
            "rows": ("Rows", "number"),
            "unreadable": ("Not usable", "number"),
            "repeated": ("Repeated answers", "number"),
            "traces": ("Traces", "number"),
            "queries": ("Different queries", "number"),
            "tokens": ("Tokens", "number"),
        },
    ),
    "layouts": (
        "Layout of each file, and why it was taken for that",
        {
            "release": ("Release", "text"),
            "file": ("File", "text"),
            "layout": ("Layout", "text"),
            "rows": ("Rows", "number"),
            "unreadable": ("Unreadable", "number"),
            "why": ("Why", "text"),
        },
    ),
    "unchecked": (
        "What could not be checked here, and why",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "what": ("Not checked", "text"),
            "why": ("Why", "text"),
            "rows": ("Rows", "number"),
        },
    ),
    "verification": (
        "The publisher’s verdict (rows) against ours (columns); not whole: cut off, or without both parts, so no look was taken "
        "at the answer; agreement: of the answers that both decided",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "published": ("Published", "text"),
            "pass": ("We pass", "number"),
            "fail": ("We fail", "number"),
            "malformed": ("Not whole", "number"),
            "unknown": ("Undecided", "number"),
            "agreement": ("Agreement", "percent"),
        },
    ),
    "faults": (
        "Faults of the text and its fields",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "fault": ("Fault", "text"),
            "meaning": ("That is", "text"),
            "rows": ("Traces", "number"),
            "share": ("Share", "percent"),
            "example": ("For example", "text"),
        },
    ),
    "systems": (
        "System messages: how many different ones, and the most frequent",
        {
            "release": ("Release", "text"),
            "different": ("Different", "number"),
            "system": ("Message", "text"),
            "rows": ("Traces", "number"),
            "share": ("Share", "percent"),
        },
    ),
    "truncation": (
        "Responses that were cut off, or are suspected to be",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "sign": ("Sign", "text"),
            "meaning": ("That is", "text"),
            "rows": ("Traces", "number"),
            "share": ("Share", "percent"),
            "example": ("For example", "text"),
        },
    ),
    "lengths": (
        "Tokens per response",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "traces": ("Traces", "number"),
            "mean": ("Mean", "number"),
            "p1": ("1 %", "number"),
            "p5": ("5 %", "number"),
            "p25": ("25 %", "number"),
            "p50": ("Median", "number"),
            "p75": ("75 %", "number"),
            "p95": ("95 %", "number"),
            "p99": ("99 %", "number"),
            "max": ("Longest", "number"),
        },
    ),
    "repetition": (
        "Repetition: share of a response’s word 8-grams that stood before in it",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "traces": ("Traces", "number"),
            "median": ("Median", "percent"),
            "above_0.3": ("Above 30 %", "number"),
            "above_0.5": ("Above 50 %", "number"),
            "above_0.8": ("Above 80 %", "number"),
            "worst": ("Most", "percent"),
            "example": ("There", "text"),
        },
    ),
    "duplicates": (
        "Duplicates",
        {
            "release": ("Release", "text"),
            "kind": ("Kind", "text"),
            "rows": ("Count", "number"),
            "example": ("For example", "text"),
        },
    ),
    "duplicate_pairs": (
        "Nearly equal queries, the least alike first",
        {"similarity": ("Similarity", "percent"), "query": ("Query of", "text"), "like": ("is like that of", "text")},
    ),
    "contamination": (
        "Benchmark problems in queries and responses",
        {
            "release": ("Release", "text"),
            "benchmark": ("Benchmark", "text"),
            "kind": ("What", "text"),
            "rows": ("Count", "number"),
        },
    ),
    "shared": (
        "Two releases on the queries that both answer; decided: by rule for both",
        {
            "first": ("First", "text"),
            "second": ("Second", "text"),
            "queries": ("Shared queries", "number"),
            "decided": ("Decided", "number"),
            "both_pass": ("Both right", "number"),
            "first_only": ("First alone", "number"),
            "second_only": ("Second alone", "number"),
            "neither": ("Neither", "number"),
            "tokens_first": ("Median tokens, first", "number"),
            "tokens_second": ("Second", "number"),
        },
    ),
    "licences": (
        "Licences, as the configuration names them; a query of several releases counts once",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "licence": ("Licence", "text"),
            "queries": ("Queries", "number"),
        },
    ),
}
#: Columns that name a release, and show its label.
_OF_RELEASE = ("release", "first", "second")


def audit_table(rows: pd.DataFrame, name: str, teachers: Mapping[str, str]) -> Table:
    """The table ``name`` of the audit for the template."""
    caption, columns = _AUDIT_TABLES[name]

    def cell(column: str, kind: str, value: Any) -> str:
        if column in _OF_RELEASE:
            return teachers[value]
        if kind == "text":
            return "–" if pd.isna(value) else str(value).replace("_", " ") if column == "category" else str(value)
        return percent(value) if kind == "percent" else number(value)

    told = [
        tuple(cell(column, kind, row[column]) for column, (_, kind) in columns.items())
        for row in rows.to_dict("records")
    ]
    text = [place for place, (_, kind) in enumerate(columns.values()) if kind == "text"]
    return table(caption, [head for head, _ in columns.values()], told, text=text)


def build_audit(sources: Mapping[str, Source], teachers: Mapping[str, str]) -> dict[str, Any]:
    """The section about published traces; ``sources`` are the tables of summarise_audit by name."""
    verified, quoted = sources["verification"].content, sources["quotations"].content
    disagreements = sources["disagreements"].content.fillna({"reference": "–", "answer": "–"})
    whole = verified[verified["category"] == ALL] if (verified["category"] == ALL).any() else verified
    decided = whole[whole["published"] != "no score"]
    return {
        "tables": {name: sources[name].table(audit_table, name, teachers) for name in _AUDIT_TABLES},
        "traces": number(sources["releases"].content["traces"].sum()),
        "checked": number(verified.loc[verified["category"] != ALL, ["pass", "fail"]].to_numpy().sum()),
        "against": number(_off_diagonal(verified)),
        "scored": bool(len(decided)),
        "quoted": len(quoted),
        "disagreements": [
            {
                "release": teachers[row["release"]],
                "kind": row["kind"],
                "place": row["location"],
                "told": f"published score {row['published_score']:g}, our reason: {row['reason']}",
                "reference": row["reference"],
                "answer": row["answer"],
            }
            for row in disagreements.to_dict("records")
        ],
        "quotations": [
            {
                "release": teachers[row["release"]],
                "place": f"{row['benchmark']}, {row['problem_id']}",
                "location": row["location"],
                "share": percent(row["share"]),
                "query_share": percent(row["query_share"]),
                "quotation": row["quotation"],
                "problem": row["problem"],
            }
            for row in quoted.fillna({"quotation": "–"}).to_dict("records")
        ],
    }


def _off_diagonal(verified: pd.DataFrame) -> int:
    """Traces on which the publisher and we say opposite things."""
    apart = verified[verified["category"] != ALL]
    passed, failed = apart[apart["published"] == "pass"], apart[apart["published"] == "fail"]
    return int(passed["fail"].sum() + failed["pass"].sum())
