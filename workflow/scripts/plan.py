"""Say what a study has paid for, what it would still generate, and what that would take.

Reads the shards (QUERIES), the store, the verdicts (VERDICTS) of whatever rounds are done, and the pilot: attempts (ATTEMPTS) and
verdicts of every teacher at a random sample of the queries, through its whole schedule. Prints a table and writes it as CSV,
one row per teacher that generates:

queries; solved (known to have an accepted attempt); stored (responses to them in the store); due (responses that the next
rounds will generate for certain); responses, tokens, hours and device_hours expected in all from here on, each with the
bounds of its interval (``_low``, ``_high``); price, where the configuration names one.

The estimate: a pilot query that reaches round r costs what it cost there, one that was solved before costs nothing. The
share of pilot queries that reach a round, and their tokens in it, stand for the corpus; the interval is a percentile
bootstrap over the pilot's queries. Time is tokens times the seconds per token of everything this model has in the store under
these settings; a small pilot fills an engine less than a full round does, so its time is rather too long.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from whichteacher.engines.respond import shelf_of
from whichteacher.engines.specs import Spec
from whichteacher.rounds import spec_of, wanted_responses
from whichteacher.rule import tell
from whichteacher.schemas import ATTEMPTS, QUERIES, VERDICTS
from whichteacher.store import Store
from whichteacher.tables import read_frame, read_table, write_text

_RESAMPLES = 2000
_CONFIDENCE = 0.95
_SEED = 0


class Pilot(NamedTuple):
    """What the pilot's queries took, round by round (queries x rounds): whether they reached it, and their tokens there."""

    reached: np.ndarray
    tokens: np.ndarray


class Need(NamedTuple):
    """What a query still needs. ``round``: the first one that is not wholly stored; ``share`` of its attempts that are
    missing; ``open``: whether the query is known to be unsolved there (else it is known to have been before the last
    stored round alone)."""

    round: np.ndarray
    share: np.ndarray
    open: np.ndarray


def read_pilot(attempts: Sequence[str], verdicts: Sequence[str], queries: Sequence[str]) -> Pilot:
    """The pilot of one teacher from its rounds' tables, for ``queries`` (ids)."""
    reached = np.zeros((len(queries), len(attempts)), dtype=bool)
    tokens = np.zeros((len(queries), len(attempts)))
    open_ = pd.Series(True, index=pd.Index(queries))
    for number, (drawn, decided) in enumerate(zip(attempts, verdicts, strict=True)):
        reached[:, number] = open_
        spent = read_frame(drawn, ATTEMPTS, ["query_id", "output_tokens"]).groupby("query_id")["output_tokens"].sum()
        tokens[:, number] = spent.reindex(open_.index, fill_value=0)
        judged = read_frame(decided, VERDICTS, ["query_id", "verdict"])
        open_ &= ~open_.index.isin(judged.loc[judged["verdict"] == "pass", "query_id"])
    return Pilot(reached, tokens)


def read_needs(stored: np.ndarray, schedule: Sequence[int], solved_in: np.ndarray, judged: int) -> Need:
    """What unsolved queries need. ``stored`` (queries x attempts) says which attempts are in the store, ``solved_in`` is the
    round that solved a query (-1: none did), ``judged`` the number of rounds with verdicts. Solved queries are left out."""
    stored = stored[solved_in < 0]
    bounds = np.cumsum([0, *schedule])
    complete = np.stack([stored[:, low:high].all(axis=1) for low, high in itertools.pairwise(bounds)], axis=1)
    first = np.where(complete.all(axis=1), len(schedule), complete.argmin(axis=1))
    first = np.maximum(first, judged)
    share = np.zeros(len(first))
    for number, (low, high) in enumerate(itertools.pairwise(bounds)):
        here = first == number
        share[here] = 1 - stored[here, low:high].mean(axis=1)
    return Need(first, share, first <= judged)


def expected(pilot: Pilot, need: Need, schedule: Sequence[int], weights: np.ndarray) -> np.ndarray:
    """Responses and tokens still to be generated, for each row of ``weights`` (how often each pilot query counts)."""
    reach = weights @ pilot.reached
    spent = weights @ (pilot.tokens * pilot.reached)
    counts = np.array(schedule)
    drawn = reach * counts
    # A round that no pilot query reached costs what attempts cost on the whole.
    mean = spent.sum(axis=1, keepdims=True) / drawn.sum(axis=1, keepdims=True)
    cost = np.where(reach > 0, spent / np.where(reach > 0, reach, 1), mean * counts)
    total = np.zeros((len(weights), 2))
    states = pd.DataFrame({"round": need.round, "open": need.open, "share": need.share})
    for (first, is_open), group in states[states["round"] < len(schedule)].groupby(["round", "open"]):
        base = reach[:, first if is_open else first - 1]
        for number in range(first, len(schedule)):
            odds = np.where(base > 0, reach[:, number] / np.where(base > 0, base, 1), float(number == first))
            amount = group["share"].sum() if number == first else len(group)
            total += (odds * amount)[:, None] * np.stack(
                [np.full(len(weights), counts[number]), cost[:, number]], axis=1
            )
    return total


def estimate(pilot: Pilot, need: Need, schedule: Sequence[int]) -> dict[str, float]:
    """Expected responses and tokens with the bounds of their intervals."""
    queries = len(pilot.reached)
    point = expected(pilot, need, schedule, np.ones((1, queries)))[0]
    rng = np.random.default_rng(_SEED)
    weights = rng.multinomial(queries, np.full(queries, 1 / queries), size=_RESAMPLES).astype(float)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(expected(pilot, need, schedule, weights), [tail, 1 - tail], axis=0)
    return {
        name + suffix: float(bound[place])
        for place, name in enumerate(("responses", "tokens"))
        for suffix, bound in (("", point), ("_low", low), ("_high", high))
    }


def look_up(
    shards: Sequence[str], verdicts: Sequence[Sequence[str]], teacher: Mapping[str, Any], spec: Spec, shelf: Store
) -> tuple[dict[str, int], list[Need]]:
    """Counts over all queries (``queries``, ``solved``, ``stored``, ``due``) and what the unsolved ones need, by shard.

    ``verdicts`` holds the paths of every round's verdicts by shard; those that do not exist are rounds to come.
    """
    schedule = teacher["attempts"]
    counts, needs = dict.fromkeys(("queries", "solved", "stored", "due"), 0), []
    for shard, paths in zip(shards, verdicts, strict=True):
        queries = read_table(shard, QUERIES).sort_by("query_id")
        wanted = wanted_responses(queries, teacher, range(sum(schedule)), shelf, spec)
        stored = shelf.find(pa.array(wanted.keys, pa.string())).segment.reshape(len(queries), -1) >= 0
        solved_in = np.full(len(queries), -1)
        judged = 0
        for path in paths:
            if not Path(path).exists():
                break
            rows = read_frame(path, VERDICTS, ["query_id", "verdict"])
            passed = np.isin(wanted.query_ids, rows.loc[rows["verdict"] == "pass", "query_id"])
            solved_in[passed & (solved_in < 0)] = judged
            judged += 1
        need = read_needs(stored, schedule, solved_in, judged)
        counts["queries"] += len(queries)
        counts["solved"] += int((solved_in >= 0).sum())
        counts["stored"] += int(stored.sum())
        certain = need.open & (need.round < len(schedule))
        counts["due"] += round(float(np.sum(need.share[certain] * np.array(schedule)[need.round[certain]])))
        needs.append(need)
    return counts, needs


def seconds_per_token(shelf: Store, settings: str) -> float:
    """Of everything the model has in the store under ``settings`` (JSON): seconds per output token. NaN where there is nothing."""
    seconds = tokens = 0.0
    for table in shelf.tables(["settings", "seconds", "output_tokens"]):
        rows = table.filter(pc.equal(table["settings"], settings))
        seconds += sum(rows["seconds"].to_pylist())
        tokens += sum(rows["output_tokens"].to_pylist())
    return seconds / tokens if tokens else np.nan


def plan_teacher(
    name: str,
    teacher: Mapping[str, Any],
    running: Mapping[str, Any],
    price: Mapping[str, float | None],
    shards: Sequence[str],
    verdicts: Sequence[Sequence[str]],
    pilot: Pilot,
    store: str,
) -> dict[str, Any]:
    """The row of one teacher; see the module's docstring."""
    spec = spec_of(teacher, running)
    shelf = shelf_of(spec, store)
    counts, needs = look_up(shards, verdicts, teacher, spec, shelf)
    need = Need(*(np.concatenate(parts) for parts in zip(*needs, strict=True)))
    row: dict[str, Any] = {"teacher": name, **counts, **estimate(pilot, need, teacher["attempts"])}
    pace = seconds_per_token(shelf, json.dumps(spec.settings(), sort_keys=True)) / 3600
    parallel = running["tensor_parallel"] * running["pipeline_parallel"] * running["data_parallel"]
    devices = parallel if teacher["engine"] == "vllm" else np.nan
    for suffix in ("", "_low", "_high"):
        hours = row[f"tokens{suffix}"] * pace
        row |= {f"hours{suffix}": hours, f"device_hours{suffix}": hours * devices}
        if price["price_per_million_tokens"] is not None:
            row[f"price{suffix}"] = row[f"tokens{suffix}"] / 1e6 * price["price_per_million_tokens"]
        elif price["price_per_device_hour"] is not None:
            row[f"price{suffix}"] = row[f"device_hours{suffix}"] * price["price_per_device_hour"]
    return row


def as_text(rows: Sequence[Mapping[str, Any]], published: Sequence[str], pilot: int) -> str:
    """The table as people read it: one line per number, one column per teacher."""

    def interval(row: Mapping[str, Any], name: str, digits: int) -> str:
        if name not in row or np.isnan(row[name]):
            return "unknown"
        return f"{row[name]:,.{digits}f} [{row[f'{name}_low']:,.{digits}f}, {row[f'{name}_high']:,.{digits}f}]"

    lines = [["", *(row["teacher"] for row in rows)]]
    for key, label in (
        ("queries", "queries"),
        ("solved", "solved so far"),
        ("stored", "responses in the store"),
        ("due", "to generate for certain"),
    ):
        lines.append([label, *(f"{row[key]:,}" for row in rows)])
    for key, label, digits in (
        ("responses", "to generate, expected", 0),
        ("tokens", "output tokens", 0),
        ("hours", "hours of one engine", 2),
        ("device_hours", "GPU-hours (engines on CPUs)", 2),
        ("price", "price", 2),
    ):
        if any(key in row for row in rows):
            lines.append([label, *(interval(row, key, digits) for row in rows)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    about = f"In brackets: {_CONFIDENCE:.0%} intervals from a pilot of {pilot} queries."
    given = [f"{name}: published traces, nothing to generate." for name in published]
    return "\n".join([*(table if rows else []), *([about] if rows else []), *given])


def main(
    shards: Sequence[str],
    queries: str,
    pilots: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    verdicts: Mapping[str, Sequence[Sequence[str]]],
    teachers: Mapping[str, Mapping[str, Any]],
    running: Mapping[str, Mapping[str, Any]],
    prices: Mapping[str, Mapping[str, float | None]],
    store: str,
    output: str,
) -> None:
    """Print the plan of ``teachers`` and write it to ``output``; see the module's docstring."""
    ids = read_table(queries, QUERIES, ["query_id"])["query_id"].to_pylist()
    rows = [
        plan_teacher(
            name,
            teacher,
            running[name],
            prices[name],
            shards,
            verdicts[name],
            read_pilot(*pilots[name], ids),
            store,
        )
        for name, teacher in teachers.items()
        if teacher["engine"] != "dataset"
    ]
    write_text(output, pd.DataFrame(rows).to_csv(index=False))
    tell(as_text(rows, [name for name in teachers if teachers[name]["engine"] == "dataset"], len(ids)))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.shards,  # noqa: F821
            snakemake.input.queries,  # noqa: F821
            snakemake.params.pilots,  # noqa: F821
            snakemake.params.verdicts,  # noqa: F821
            snakemake.params.teachers,  # noqa: F821
            snakemake.config["running"],  # noqa: F821
            snakemake.params.prices,  # noqa: F821
            snakemake.params.store,  # noqa: F821
            snakemake.params.output,  # noqa: F821
        )
