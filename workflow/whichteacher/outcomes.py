"""What became of each query at each teacher: the ground of every summary and comparison of teachers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from whichteacher.schemas import COLLECTED, QUERIES, TRACE_MEASURES, TRACES
from whichteacher.tables import read_frame

#: The name that stands for all categories, or all benchmarks, together.
ALL = "all"


def by_teacher(teachers: Sequence[str], files: Sequence[str]) -> dict[str, list[str]]:
    """The files of each teacher, from a list that holds equally many per teacher, one teacher after the other."""
    share = len(files) // len(teachers)
    return {teacher: list(files[i * share : (i + 1) * share]) for i, teacher in enumerate(teachers)}


def query_outcomes(collected: Sequence[str], queries: Sequence[str]) -> pd.DataFrame:
    """One row per query of one teacher, indexed by ``query_id`` in its order.

    Columns: ``category``; ``solved`` (an attempt was accepted); ``first_pass`` (the first attempt passed);
    ``attempts_to_pass`` (attempts up to the accepted one, NaN where none was); ``attempts`` drawn, ``output_tokens`` and
    ``seconds`` spent on all of them; ``accepted_tokens`` (tokens of the accepted one, NaN where none was); ``truncated``
    and ``unknown`` attempts.
    """
    rows = read_frame(
        collected,
        COLLECTED,
        ["query_id", "attempt", "verdict", "finish_reason", "output_tokens", "seconds", "accepted"],
    )
    rows["first_pass"] = (rows["attempt"] == 0) & (rows["verdict"] == "pass")
    rows["truncated"] = rows["finish_reason"] == "length"
    rows["unknown"] = rows["verdict"] == "unknown"
    rows["attempts_to_pass"] = (rows["attempt"] + 1).where(rows["accepted"])
    rows["accepted_tokens"] = rows["output_tokens"].where(rows["accepted"])
    outcomes = rows.groupby("query_id").agg(
        solved=("accepted", "any"),
        first_pass=("first_pass", "any"),
        attempts_to_pass=("attempts_to_pass", "min"),
        attempts=("attempt", "size"),
        output_tokens=("output_tokens", "sum"),
        seconds=("seconds", "sum"),
        accepted_tokens=("accepted_tokens", "min"),
        truncated=("truncated", "sum"),
        unknown=("unknown", "sum"),
    )
    categories = read_frame(queries, QUERIES, ["query_id", "category"]).set_index("query_id")
    return outcomes.join(categories, how="inner").sort_index()


def measures_of_dataset(measures: str, dataset: str, columns: Sequence[str]) -> pd.DataFrame:
    """``columns`` of one teacher's TRACE_MEASURES for the traces of one of its datasets (TRACES)."""
    chosen = read_frame(dataset, TRACES, ["query_id"])["query_id"]
    frame = read_frame(measures, TRACE_MEASURES, ["query_id", *columns])
    return frame[frame["query_id"].isin(chosen)].reset_index(drop=True)
