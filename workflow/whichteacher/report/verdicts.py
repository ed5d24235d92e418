"""Whether the verdicts can be trusted: the tables of summarise_verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from whichteacher.report.formatting import number, percent
from whichteacher.report.source import Source
from whichteacher.report.table import Table, table
from whichteacher.traces import shorten

#: Contested references shown.
_SHOWN_CONTESTED = 50
#: Pairs of graders, by what the statistics call them: the first and the second.
_PAIRS = {
    "under_load": "once, and again under load",
    "plain_math_verify": "our rules, and math-verify alone",
    "all_tests": "the first tests, and all tests",
    "same_text": "our rules, and equal text",
    "whole_response": "the answer part, and the whole response",
}


def _share(row: Mapping[str, Any], name: str) -> str:
    """An error rate with its interval and what it is of."""
    if not row[f"{name}_of"]:
        return "–"
    low, high = (number(100 * row[f"{name}_{bound}"], 1) for bound in ("low", "high"))
    return (
        f"{number(row[name])} of {number(row[f'{name}_of'])}: {number(100 * row[f'{name}_rate'], 1)} % [{low}, {high}]"
    )


def pair_name(pair: str) -> str:
    """Two graders, in words."""
    kind, _, name = pair.partition("_")
    told = {
        "judge": f"the rules, and the judge {name}",
        "swapped": f"the judge {name}, and again with the answer before the reference",
        "second": f"the judge, and the judge {name}",
    }
    return _PAIRS.get(pair) or told[kind]


def error_rates(rates: pd.DataFrame) -> Table:
    """How often the verifiers were wrong on answers of known truth."""
    rows = [
        (
            row["category"].replace("_", " "),
            number(row["cases"]),
            _share(row, "false_pass"),
            _share(row, "false_fail"),
            number(row["unknown"]),
        )
        for row in rates.to_dict("records")
    ]
    heads = ("Kind", "Cases", "Wrong ones passed", "Right ones failed", "Undecided")
    return table("Labelled answers whose truth is known", heads, rows)


def agreement(pairs: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """Where two graders of the same attempts agree; bold where they do not everywhere."""
    rows = [
        (
            pair_name(row["pair"]),
            row["category"].replace("_", " "),
            teachers[row["teacher"]],
            *(number(row[name]) for name in ("attempts", "both_pass", "first_only", "second_only", "neither")),
            "–" if pd.isna(row["kappa"]) else number(row["kappa"], 2),
            row["first_only"] + row["second_only"] > 0,
        )
        for row in pairs.to_dict("records")
    ]
    heads = ("Graders", "Category", "Teacher", "Attempts", "Both pass", "First only", "Second only", "Neither", "Kappa")
    return table("Two ways to grade the same attempts", heads, rows, text=(0, 1, 2))


def unfit_references(unfit: pd.DataFrame) -> Table:
    """References that their own verifier does not pass, by reason."""
    rows = [(row["category"], row["reason"], number(row["references"])) for row in unfit.to_dict("records")]
    return table("References that fail against themselves", ("Category", "Reason", "References"), rows, text=(0, 1))


def contested_references(contested: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """The first queries on which teachers give one answer, and it is not the reference."""
    rows = [
        (
            row["query_id"],
            row["category"],
            shorten(str(row["reference"])),
            shorten(str(row["answer"])),
            ", ".join(teachers[name] for name in row["teachers"].split()),
            number(row["passed"]),
        )
        for row in contested.head(_SHOWN_CONTESTED).to_dict("records")
    ]
    heads = ("Query", "Category", "Reference", "Their answer", "Teachers", "Teachers that passed")
    return table("Queries on which teachers agree against the reference", heads, rows, text=(0, 1, 2, 3, 4))


def score_quantiles(quantiles: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """How the scores of decided attempts are spread."""
    rows = [
        (
            row["category"].replace("_", " "),
            teachers[row["teacher"]],
            number(row["attempts"]),
            *(number(row[name], 2) for name in ("mean", "q10", "q25", "q50", "q75", "q90")),
        )
        for row in quantiles.sort_values(["category", "teacher"]).to_dict("records")
    ]
    heads = ("Category", "Teacher", "Attempts", "Mean", "10 %", "25 %", "Median", "75 %", "90 %")
    return table("Scores of decided attempts", heads, rows, text=(0, 1))


def reasons(verdicts: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """Every verdict of each teacher's attempts, by verifier and reason."""
    rows = [
        (
            teachers[row["teacher"]],
            row["category"].replace("_", " "),
            row["verifier"],
            row["verdict"],
            row["reason"],
            number(row["attempts"]),
            percent(row["share"]),
        )
        for row in verdicts.to_dict("records")
    ]
    heads = ("Teacher", "Category", "Verifier", "Verdict", "Reason", "Attempts", "Share")
    return table("Verdicts and their reasons", heads, rows, text=(0, 1, 2, 3, 4))


def build_verdicts(sources: Mapping[str, Source], teachers: Mapping[str, str]) -> dict[str, Any]:
    """The section about the verdicts; ``sources`` are the tables of summarise_verdicts by name."""
    pairs, references = sources["agreement"].content, sources["references"].content
    under_load = pairs["pair"] == "under_load"
    unfit = ~references["fit"].astype(bool)
    return {
        "rates": sources["error_rates"].table(error_rates),
        "loaded": {
            "attempts": number(pairs.loc[under_load, "attempts"].sum()),
            "changed": int(pairs.loc[under_load, "changed"].sum()),
        },
        "agreement": sources["agreement"].part(~under_load).table(agreement, teachers),
        "disagreements": [
            {
                "pair": pair_name(row["pair"]),
                "teacher": teachers[row["teacher"]],
                "query_id": row["query_id"],
                "told": f"{row['first']} ({row['first_reason']}), then {row['second']} ({row['second_reason']})",
                "reference": shorten(str(row["reference"])),
                "answer": str(row["answer"]),
            }
            for row in sources["disagreements"].content.fillna("–").to_dict("records")
        ],
        "checked": number(references["references"].sum()),
        "unfit": int(references.loc[unfit, "references"].sum()),
        "references": sources["references"].part(unfit).table(unfit_references),
        "contested_count": len(sources["contested"].content),
        "contested": sources["contested"].table(contested_references, teachers),
        "scores": sources["score_quantiles"].table(score_quantiles, teachers),
        "reasons": sources["verdicts"].table(reasons, teachers),
    }
