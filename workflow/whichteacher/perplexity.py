"""From what a scorer read to perplexities, and from thresholds to the number above which a trace is dropped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from whichteacher.schemas import PERPLEXITIES, PERPLEXITY_LIMITS
from whichteacher.tables import read_table

#: What is known of a row, in the column ``state`` of PERPLEXITIES. Those with a perplexity first.
SCORED = "scored"
CUT = "cut"  # scored on its first tokens
OVERLONG = "overlong"  # left unscored
NOTHING = "no_tokens"  # an empty response, or a query that leaves no room for one
NOT_FINITE = "not_finite"  # the scorer gave no number
NOT_RENDERED = "not_rendered"  # the scorer's chat template fails at the query


def perplexity(nll: float, tokens: int) -> float | None:
    """exp of the mean negative log-likelihood; None where there is no token or no finite number."""
    if not tokens or not math.isfinite(nll):
        return None
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return None


def perplexity_columns(score: Mapping[str, Any] | None, scope: str, max_length: int, overlong: str) -> dict[str, Any]:
    """The columns length, tokens, nll, perplexity and state of PERPLEXITIES of a row of the store (schema SCORES), None for a
    query that could not be rendered.

    ``scope`` is ``response`` (its tokens count) or ``query_and_response`` (all count but the very first).
    """
    if score is None:
        return {"length": 0, "tokens": 0, "nll": 0.0, "perplexity": None, "state": NOT_RENDERED}
    tokens, nll = score["response_tokens"], score["response_nll"]
    if scope == "query_and_response":
        tokens, nll = tokens + score["query_tokens"], nll + score["query_nll"]
    value = perplexity(nll, tokens)
    longer = score["length"] > max_length
    if value is not None:
        state = CUT if longer else SCORED
    elif longer and overlong == "unscored":
        state = OVERLONG
    else:
        state = NOT_FINITE if tokens else NOTHING
    return {"length": score["length"], "tokens": tokens, "nll": nll, "perplexity": value, "state": state}


def quantile(values: np.ndarray, share: float) -> float:
    """The smallest of ``values`` that at least ``share`` of them do not exceed: one of them, never a mean of two.

    Raises :class:`ValueError` where there are none.
    """
    if not len(values):
        raise ValueError("no values: a quantile needs some")
    # In whole numbers: the product of 0.07 and 100 lies above 7.
    place = max(math.ceil(Fraction(str(share)) * len(values)), 1) - 1
    return float(np.partition(values, place)[place])


def limit_of(threshold: float | Mapping[str, float] | None, values: np.ndarray) -> float | None:
    """The perplexity above which traces are dropped. ``threshold`` is the configuration's: a number, {"quantile": share}, or
    None. None without a threshold, and for a quantile of nothing."""
    if threshold is None or not isinstance(threshold, Mapping):
        return threshold
    return quantile(values, threshold["quantile"]) if len(values) else None


def read_values(paths: Sequence[str]) -> np.ndarray:
    """The perplexities of all tables of ``paths`` that have one: 8 bytes a row in memory."""
    parts = [read_table(path, PERPLEXITIES, ["perplexity"])["perplexity"].drop_null().to_numpy() for path in paths]
    return np.concatenate([np.empty(0), *parts])


def limits_row(
    teacher: str, scorer: str, threshold: float | Mapping[str, float] | None, paths: Sequence[str]
) -> dict[str, Any]:
    """The row of PERPLEXITY_LIMITS of a teacher, from its PERPLEXITIES of all shards."""
    values = read_values(paths)
    limit = limit_of(threshold, values)
    return {
        "teacher": teacher,
        "scorer": scorer,
        "threshold": None if threshold is None else json.dumps(threshold),
        "limit": limit,
        "rows": sum(pq.read_metadata(path).num_rows for path in paths),
        "scored": len(values),
        "above": 0 if limit is None else int((values > limit).sum()),
    }


def read_limit(paths: Sequence[str]) -> float | None:
    """The limit in the table that ``set_perplexity_limits`` wrote; None where there is no table or no limit."""
    limits = read_table(paths, PERPLEXITY_LIMITS, ["limit"])["limit"].to_pylist()
    return limits[0] if limits else None


def read_perplexities(paths: Sequence[str]) -> dict[str, float | None]:
    """Perplexity by attempt."""
    table: pa.Table = read_table(paths, PERPLEXITIES, ["attempt_id", "perplexity"])
    return dict(zip(table["attempt_id"].to_pylist(), table["perplexity"].to_pylist(), strict=True))


def files_by_scorer(
    paths: Sequence[str], teachers: Sequence[str], scorers: Sequence[str]
) -> dict[tuple[str, str], list[str]]:
    """The files ``.../{teacher}/{shard}/{scorer}.perplexities.parquet`` of each teacher and scorer."""
    found: dict[tuple[str, str], list[str]] = {(teacher, scorer): [] for teacher in teachers for scorer in scorers}
    for path in map(Path, paths):
        found[path.parts[-3], path.name.split(".")[0]].append(str(path))
    return found
