"""What each teacher's verified traces cost, per category and over all.

Reads every attempt (COLLECTED) and the queries (QUERIES), shard by shard; writes a CSV with one row per teacher and
category. Columns:

attempts, verified (accepted attempts); prompt_tokens, output_tokens and seconds of all attempts, the failed ones included;
unaccepted_tokens (share of the output tokens that went into attempts nobody accepted); device_hours (seconds times the GPUs
that worked, in hours; empty where that is not known: endpoints, published traces); price (in the unit of the
configuration's price, empty without one); and tokens, seconds, device hours and price per verified trace.

``seconds`` is the engine's time from its first request to its last, shared out by output tokens: neither starting the
engine nor an engine killed before it could store anything is in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.outcomes import ALL, by_teacher
from whichteacher.schemas import COLLECTED, QUERIES
from whichteacher.tables import read_frame, write_text

_SUMS = ("attempts", "verified", "prompt_tokens", "output_tokens", "accepted_tokens", "seconds", "device_hours")


def spent(attempts: pd.DataFrame, queries: pd.DataFrame) -> pd.DataFrame:
    """What the attempts of one shard took, summed by category (index); device_hours is NaN where that of any is not known.

    ``attempts`` holds query_id, accepted, prompt_tokens, output_tokens, seconds and devices, ``queries`` query_id and category.
    """
    rows = attempts.merge(queries, on="query_id", how="left", validate="many_to_one")
    rows["attempts"] = 1
    rows["verified"] = rows["accepted"].astype(int)
    rows["accepted_tokens"] = rows["output_tokens"].where(rows["accepted"], 0)
    rows["device_hours"] = rows["seconds"] * rows["devices"] / 3600
    return rows.groupby("category")[list(_SUMS)].agg(lambda column: column.sum(skipna=False))


def cost_row(sums: Mapping[str, float], price: Mapping[str, float | None]) -> dict[str, Any]:
    """The columns of one teacher and category from its :func:`spent` sums; ``price`` holds the configuration's two prices."""
    paid = np.nan
    if price["price_per_million_tokens"] is not None:
        paid = sums["output_tokens"] / 1e6 * price["price_per_million_tokens"]
    elif price["price_per_device_hour"] is not None:
        paid = sums["device_hours"] * price["price_per_device_hour"]
    per_trace = 1 / sums["verified"] if sums["verified"] else np.nan
    tokens = sums["output_tokens"]
    return {
        "attempts": int(sums["attempts"]),
        "verified": int(sums["verified"]),
        "prompt_tokens": int(sums["prompt_tokens"]),
        "output_tokens": int(tokens),
        "unaccepted_tokens": 1 - sums["accepted_tokens"] / tokens if tokens else np.nan,
        "seconds": sums["seconds"],
        "device_hours": sums["device_hours"],
        "price": paid,
        "tokens_per_verified": tokens * per_trace,
        "seconds_per_verified": sums["seconds"] * per_trace,
        "device_hours_per_verified": sums["device_hours"] * per_trace,
        "price_per_verified": paid * per_trace,
    }


def main(
    collected: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    output: str,
    categories: Sequence[str],
    prices: Mapping[str, Mapping[str, float | None]],
) -> None:
    """Add up the attempts of ``collected`` (files per teacher, in the order of ``queries``) and write ``output``."""
    columns = ["query_id", "accepted", "prompt_tokens", "output_tokens", "seconds", "devices"]
    rows = []
    for teacher, files in collected.items():
        shards = [
            spent(read_frame(file, COLLECTED, columns), read_frame(shard, QUERIES, ["query_id", "category"]))
            for file, shard in zip(files, queries, strict=True)
        ]
        sums = pd.concat(shards).groupby(level=0).agg(lambda column: column.sum(skipna=False))
        for category in (ALL, *(category for category in categories if category in sums.index)):
            chosen = sums.sum(skipna=False) if category == ALL else sums.loc[category]
            rows.append({"teacher": teacher, "category": category, **cost_row(chosen, prices[teacher])})
    write_text(output, pd.DataFrame(rows).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.config import CATEGORIES
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            by_teacher(list(snakemake.params.prices), snakemake.input.collected),  # noqa: F821
            snakemake.input.queries,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            CATEGORIES,
            snakemake.params.prices,  # noqa: F821
        )
