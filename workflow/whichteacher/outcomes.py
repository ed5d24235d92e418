"""What became of each query at each teacher: the ground of every summary and comparison of teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from whichteacher.schemas import COLLECTED, QUERIES, TRACE_MEASURES, TRACES
from whichteacher.tables import read_frame

#: The name that stands for all categories, or all benchmarks, together.
ALL = "all"
#: The thirds of :func:`difficulty_thirds`.
DIFFICULTIES = ("easy", "medium", "hard")
READ = (
    *("query_id", "attempt", "verdict", "finish_reason", "prompt_tokens", "output_tokens", "seconds", "devices"),
    "accepted",
)


def by_teacher(teachers: Sequence[str], files: Sequence[str]) -> dict[str, list[str]]:
    """The files of each teacher, from a list that holds equally many per teacher, one teacher after the other."""
    share = len(files) // len(teachers)
    return {teacher: list(files[i * share : (i + 1) * share]) for i, teacher in enumerate(teachers)}


def query_outcomes(collected: Sequence[str], queries: Sequence[str]) -> pd.DataFrame:
    """One row per query of one teacher, indexed by ``query_id`` in its order.

    ``collected`` (COLLECTED) and ``queries`` (QUERIES) are the files of the same shards in the same order; one shard's attempts
    are in memory at a time.

    Columns: ``category``; ``solved`` (an attempt was accepted); ``first_pass`` (the first attempt passed);
    ``attempts_to_pass`` (attempts up to the accepted one, NaN where none was); ``attempts`` drawn, ``prompt_tokens``,
    ``output_tokens``, ``seconds`` and ``device_hours`` (seconds times the GPUs that worked; NaN where those of any attempt are not
    known) spent on all of them; ``accepted_tokens`` (tokens of the accepted one, NaN where none was); ``truncated`` and
    ``unknown`` attempts.
    """
    shards = [_shard_outcomes(*files) for files in zip(collected, queries, strict=True)]
    outcomes = pd.concat(shards).sort_index()
    return outcomes.assign(category=outcomes["category"].astype("category"))


def _shard_outcomes(collected: str, queries: str) -> pd.DataFrame:
    """:func:`query_outcomes` of one shard, in no order."""
    rows = read_frame(collected, COLLECTED, list(READ))
    rows["first_pass"] = (rows["attempt"] == 0) & (rows["verdict"] == "pass")
    rows["truncated"] = rows["finish_reason"] == "length"
    rows["unknown"] = rows["verdict"] == "unknown"
    rows["attempts_to_pass"] = (rows["attempt"] + 1).where(rows["accepted"])
    rows["accepted_tokens"] = rows["output_tokens"].where(rows["accepted"])
    rows["device_hours"] = rows["seconds"] * rows["devices"].astype(float) / 3600
    rows["hours_unknown"] = rows["device_hours"].isna()
    outcomes = rows.groupby("query_id").agg(
        solved=("accepted", "any"),
        first_pass=("first_pass", "any"),
        attempts_to_pass=("attempts_to_pass", "min"),
        attempts=("attempt", "size"),
        prompt_tokens=("prompt_tokens", "sum"),
        output_tokens=("output_tokens", "sum"),
        seconds=("seconds", "sum"),
        device_hours=("device_hours", "sum"),
        hours_unknown=("hours_unknown", "any"),
        accepted_tokens=("accepted_tokens", "min"),
        truncated=("truncated", "sum"),
        unknown=("unknown", "sum"),
    )
    outcomes["device_hours"] = outcomes["device_hours"].mask(outcomes.pop("hours_unknown"))
    categories = read_frame(queries, QUERIES, ["query_id", "category"]).set_index("query_id")
    return outcomes.join(categories, how="inner")


def query_prices(outcomes: pd.DataFrame, price: Mapping[str, float | None]) -> pd.Series:
    """What each query of :func:`query_outcomes` cost, in the unit of the configuration's ``price``; NaN without one, or where it is
    one of device hours and those are not known."""
    if price["price_per_million_tokens"] is not None:
        return outcomes["output_tokens"] / 1e6 * price["price_per_million_tokens"]
    if price["price_per_device_hour"] is not None:
        return outcomes["device_hours"] * price["price_per_device_hour"]
    return pd.Series(np.nan, index=outcomes.index)


def difficulty_thirds(outcomes: Mapping[str, pd.DataFrame]) -> pd.Series:
    """Of each query its third, ``easy``, ``medium`` or ``hard``, by how hard it was for all of these teachers together.

    ``outcomes`` are frames of :func:`query_outcomes` by teacher. Queries are ordered by the mean over the teachers of the attempts
    that were not accepted, those alike by the mean logarithm of the tokens spent on them (most queries are solved at once by
    everyone, so attempts alone leave most of them alike), and each category is cut into thirds of equal size: so no third is
    a category in disguise. No teacher counts more than another, so under the hypothesis that two of them are alike the
    thirds are the same when they change places, as a permutation test asks for.
    """
    failed = pd.DataFrame({name: rows["attempts"] - rows["solved"] for name, rows in outcomes.items()}).mean(axis=1)
    spent = pd.DataFrame({name: np.log1p(rows["output_tokens"]) for name, rows in outcomes.items()}).mean(axis=1)
    # Where columns of categories differ, pandas would join them as text.
    category = pd.concat([rows["category"].astype(str) for rows in outcomes.values()])
    category = category[~category.index.duplicated()].reindex(failed.index)
    order = pd.DataFrame({"failed": failed, "spent": spent, "category": category}).sort_values(
        ["failed", "spent"], kind="stable"
    )
    in_category = order.groupby("category")["failed"]
    place = in_category.cumcount() * len(DIFFICULTIES) // in_category.transform("size")
    thirds = pd.Categorical.from_codes(place, categories=DIFFICULTIES, ordered=True)
    return pd.Series(thirds, index=order.index, name="difficulty").reindex(failed.index)


def measures_of_dataset(measures: str, dataset: str, columns: Sequence[str]) -> pd.DataFrame:
    """``columns`` of one teacher's TRACE_MEASURES for the traces of one of its datasets (TRACES)."""
    chosen = read_frame(dataset, TRACES, ["query_id"])["query_id"]
    frame = read_frame(measures, TRACE_MEASURES, ["query_id", *columns])
    return frame[frame["query_id"].isin(chosen)].reset_index(drop=True)
