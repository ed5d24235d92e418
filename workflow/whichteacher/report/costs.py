"""What generation took."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from whichteacher.report.formatting import bounded, duration, number, percent
from whichteacher.report.table import Table, table


def generation_costs(costs: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """What each teacher's traces cost, over all categories and in each."""
    rows = [
        (
            teachers[row["teacher"]],
            row["category"],
            number(row["attempts"]),
            number(row["output_tokens"]),
            percent(row["unaccepted_tokens"]),
            duration(row["seconds"]),
            number(row["verified"]),
            bounded(row, "tokens_per_verified", "tokens_low", "tokens_high"),
            number(row["seconds_per_verified"], 3, "s"),
            number(1000 * row["device_hours_per_verified"], 3),
            number(1000 * row["price_per_verified"], 2),
        )
        for row in costs.to_dict("records")
    ]
    heads = ("Teacher", "Category", "Attempts", "Tokens", "In vain", "Engine time", "Verified", "Tokens per verified")
    more = ("Time per verified", "Device-hours per 1,000", "Price per 1,000")
    caption = (
        "Generation: all attempts, those that failed included. In vain: the share of the tokens that went into attempts "
        "nobody accepted. A device is a GPU, or an engine on CPUs; prices only where the configuration names one."
    )
    return table(caption, (*heads, *more), rows, text=(0, 1))
