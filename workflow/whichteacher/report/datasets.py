"""How alike the datasets of each control are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.outcomes import ALL
from whichteacher.report.formatting import number
from whichteacher.report.source import Source
from whichteacher.report.table import Table, table

#: Why the datasets of a control are as they are, by kind.
_KINDS = {
    "parallel": "the queries that every teacher solved",
    "own_passes": "all that each teacher solved",
    "equal_rows": "own passes, cut to the rows of the smallest teacher",
    "equal_tokens": "own passes, cut to the response tokens of the smallest teacher",
    "length_matched": "own passes, as many of each category and bin of length for every teacher",
    "perplexity_matched": "own passes, as many of each category and bin of perplexity for every teacher",
    "length_perplexity_matched": "own passes, as many of each category and bin of length and perplexity for every teacher",
    "score_quantile": "the best-scored of each category of what each teacher solved",
    "format_normalised": "the queries that every teacher solved, with the text in one format; its perplexity is not known",
}


def balance_table(rows: pd.DataFrame, control: str, kind: str, teachers: Mapping[str, str]) -> Table:
    """How alike the datasets of one control are; ``rows`` of its balance."""
    heads = ("Teacher", "Category", "Solved", "In the dataset", "Tokens", "Mean length", "Median", "Perplexity")
    differences = ("Length apart before", "Length apart", "Perplexity apart before", "Perplexity apart")
    caption = (
        f"{control}: {_KINDS[kind]}. Apart: this teacher’s mean less that of the others, in standard deviations, of all that was "
        "solved (before) and in the dataset."
    )
    shown = [
        (
            teachers[row["teacher"]],
            row["category"].replace("_", " "),
            number(row["rows_before"]),
            number(row["rows"]),
            number(row["tokens"]),
            number(row["length_mean"], 1),
            number(row["length_median"], 1),
            number(row["perplexity_mean"], 3),
            *(
                number(row[f"{measure}_difference{suffix}"], 2)
                for measure in ("length", "perplexity")
                for suffix in ("_before", "")
            ),
        )
        for row in rows.to_dict("records")
    ]
    return table(caption, (*heads, *differences), shown, text=(0, 1))


def balances(
    sources: Sequence[Source], controls: Mapping[str, Mapping[str, Any]], teachers: Mapping[str, str]
) -> list[dict[str, Table]]:
    """The balance of every control, over all categories and in each; ``sources`` in the order of ``controls``."""
    found = []
    for source, (name, control) in zip(sources, controls.items(), strict=True):
        whole = source.content["category"] == ALL
        about = (name, control["kind"], teachers)
        found.append(
            {
                "whole": source.part(whole).table(balance_table, *about),
                "by_category": source.part(~whole).table(balance_table, *about),
            }
        )
    return found
