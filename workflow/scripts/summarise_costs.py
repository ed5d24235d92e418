"""What each teacher's verified traces cost, per category and over all.

Reads every attempt (COLLECTED) and the queries (QUERIES), shard by shard; writes a CSV with one row per teacher and
category. Columns:

attempts, verified (accepted attempts); prompt_tokens, output_tokens and seconds of all attempts, the failed ones included;
unaccepted_tokens (share of the output tokens that went into attempts nobody accepted); device_hours (seconds times the GPUs
that worked, in hours; empty where that is not known: endpoints, published traces); price (in the unit of the
configuration's price, empty without one); tokens, seconds, device hours and price per verified trace; and the bounds of
tokens and price per verified trace, tokens_low, tokens_high, price_low and price_high, from a bootstrap over queries
(:func:`whichteacher.ratios.bootstrap_ratio`).

``seconds`` is the engine's time from its first request to its last, shared out by output tokens: neither starting the
engine nor an engine killed before it could store anything is in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.outcomes import ALL, by_teacher, query_outcomes, query_prices
from whichteacher.ratios import Sums, bootstrap_ratio
from whichteacher.resampling import generator
from whichteacher.tables import write_text


def cost_row(
    outcomes: pd.DataFrame, prices: pd.Series, resamples: int, confidence: float, seed: int, *names: str
) -> dict[str, Any]:
    """The columns of one teacher and category, from :func:`whichteacher.outcomes.query_outcomes` and what each query cost."""
    verified, tokens = int(outcomes["solved"].sum()), int(outcomes["output_tokens"].sum())
    hours, paid = (column.sum(skipna=False) for column in (outcomes["device_hours"], prices))
    seconds = outcomes["seconds"].sum()
    per_trace = 1 / verified if verified else np.nan
    bounds = {}
    for name, spent in (("tokens", outcomes["output_tokens"]), ("price", prices)):
        sums = Sums(spent.to_numpy(dtype=float), outcomes["solved"].to_numpy(dtype=float))
        found = bootstrap_ratio(sums, resamples, confidence, generator(seed, *names, name))
        bounds |= {f"{name}_low": found.low, f"{name}_high": found.high}
    return {
        "attempts": int(outcomes["attempts"].sum()),
        "verified": verified,
        "prompt_tokens": int(outcomes["prompt_tokens"].sum()),
        "output_tokens": tokens,
        "unaccepted_tokens": 1 - outcomes["accepted_tokens"].sum() / tokens if tokens else np.nan,
        "seconds": seconds,
        "device_hours": hours,
        "price": paid,
        "tokens_per_verified": tokens * per_trace,
        "seconds_per_verified": seconds * per_trace,
        "device_hours_per_verified": hours * per_trace,
        "price_per_verified": paid * per_trace,
        **bounds,
    }


def main(
    collected: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    output: str,
    categories: Sequence[str],
    prices: Mapping[str, Mapping[str, float | None]],
    resamples: int,
    confidence: float,
    seed: int,
) -> None:
    """Add up the attempts of ``collected`` (files per teacher, in the order of ``queries``) and write ``output``."""
    rows = []
    for teacher, files in collected.items():
        outcomes = query_outcomes(files, queries)
        paid = query_prices(outcomes, prices[teacher])
        for category in (ALL, *categories):
            chosen = np.ones(len(outcomes), dtype=bool) if category == ALL else outcomes["category"] == category
            if category == ALL or chosen.any():
                found = cost_row(outcomes[chosen], paid[chosen], resamples, confidence, seed, teacher, category)
                rows.append({"teacher": teacher, "category": category, **found})
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
            **snakemake.params.statistics,  # noqa: F821
        )
