"""What the report shows of single rows, in one small file: a report can be built without the tables they come from.

Reads the attempts (COLLECTED), the datasets of the control that figures show (TRACES), the flagged queries and responses
(CONTAMINATION, CONTAMINATED_RESPONSES) and, in the miniature, what was planted; writes a JSON object:

``engines``: what made and judged the attempts: teacher, model, model_digest, engine, verifiers.
``example``: one query that every dataset holds, with every teacher's trace; null where there is none.
``flagged``: queries close to a benchmark problem: benchmark, method, flagged, dropped.
``pairs``: per method how many were flagged and, of those with the lowest scores, both texts.
``quoted``: responses that hold a benchmark problem: teacher, benchmark, query_does_not, query_does.
``planted``: what became of the planted rows: kind, planted, kept, should_stay; null where nothing was planted.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from whichteacher.outcomes import by_teacher
from whichteacher.schemas import COLLECTED, CONTAMINATED_RESPONSES, CONTAMINATION, QUERIES, TRACES
from whichteacher.tables import read_frame, read_table, write_json
from whichteacher.traces import find_answer, shorten

#: Queries near the median length among which the example is looked for.
_CANDIDATES = 25
#: Pairs shown per method.
SHOWN_PAIRS = 50
#: Methods of decontamination, the surest first.
METHODS = ("exact", "ngram", "embedding")
#: Planted rows that must stay: near duplicates are no duplicates, and shared boilerplate is no contamination.
KEPT_ON_PURPOSE = ("near_duplicate", "boilerplate")


def engines(collected: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Which model, engine and verifiers made each teacher's attempts."""
    rows = []
    for teacher, files in collected.items():
        columns = ["model", "model_digest", "engine", "engine_version", "verifier", "verifier_version"]
        frame = read_frame(files, COLLECTED, columns).drop_duplicates()
        used = frame[["verifier", "verifier_version"]].drop_duplicates().sort_values("verifier").agg(" ".join, axis=1)
        for row in frame[columns[:4]].drop_duplicates().to_dict("records"):
            engine = f"{row['engine']} {row['engine_version']}"
            made = {"model": row["model"], "model_digest": row["model_digest"], "engine": engine}
            rows.append({"teacher": teacher, **made, "verifiers": ", ".join(used)})
    return rows


def example(datasets: Mapping[str, str]) -> dict[str, Any] | None:
    """One query that every dataset holds, with every teacher's trace.

    Taken near the median of the teachers' lengths together, from mathematics where there is any, and such that the
    reference stands in every thinking where one does. None where no query is shared. Of a trace: teacher, output_tokens,
    attempts, thinking, answer, and ``start`` and ``end`` of the reference in the thinking (null: it is not there).
    """
    frames = []
    for path in datasets.values():
        frames.append(read_frame(path, TRACES, ["query_id", "category", "output_tokens"]).set_index("query_id"))
    lengths = pd.concat([frame["output_tokens"] for frame in frames], axis=1, join="inner").sum(axis=1)
    category = frames[0]["category"].reindex(lengths.index)
    if (category == "math").any():
        lengths = lengths[category == "math"]
    if lengths.empty:
        return None
    near = (lengths - lengths.median()).abs().reset_index(name="distance").sort_values(["distance", "query_id"])
    candidates = near["query_id"].head(_CANDIDATES).tolist()
    found = {
        teacher: {
            row["query_id"]: row for row in pq.read_table(path, filters=[("query_id", "in", candidates)]).to_pylist()
        }
        for teacher, path in datasets.items()
    }

    def places(query: str) -> list[int | None]:
        rows = (traces[query] for traces in found.values())
        return [find_answer(row["thinking"], row["reference"], row["reference_type"]) for row in rows]

    chosen = next((query for query in candidates if None not in places(query)), candidates[0])
    shown = []
    for (teacher, traces), end in zip(found.items(), places(chosen), strict=True):
        row = traces[chosen]
        place = {"start": None if end is None else end - len(row["reference"]), "end": end}
        kept = {name: row[name] for name in ("output_tokens", "attempts", "thinking", "answer")}
        shown.append({"teacher": teacher, **kept, **place})
    any_row = found[next(iter(found))][chosen]
    return {"query_id": chosen, "turns": any_row["turns"], "reference": any_row["reference"], "traces": shown}


def count_flagged(flagged: pd.DataFrame) -> list[dict[str, Any]]:
    """Flagged queries by benchmark and method; ``flagged`` are pairs (columns of CONTAMINATION)."""
    return [
        {
            "benchmark": benchmark,
            "method": method,
            "flagged": group["query_id"].nunique(),
            "dropped": group.loc[group["dropped"], "query_id"].nunique(),
        }
        for (benchmark, method), group in flagged.groupby(["benchmark", "method"])
    ]


def choose_pairs(path: str, flagged: pd.DataFrame) -> list[dict[str, Any]]:
    """Per method the flagged pairs with both texts: :data:`SHOWN_PAIRS` at most, those with the lowest scores, which are the
    likeliest innocents. ``flagged`` are the pairs in the order of the table at ``path``, without the texts."""
    ordered = flagged.sort_values(["method", "score", "query_id", "problem_id"], kind="stable")
    shown = ordered.groupby("method").head(SHOWN_PAIRS)
    texts = read_table(path, CONTAMINATION, ["query", "problem"]).take(pa.array(shown.index)).to_pylist()
    groups: dict[str, dict[str, Any]] = {
        method: {"method": method, "total": count, "pairs": []}
        for method, count in flagged["method"].value_counts().reindex(METHODS).dropna().astype(int).items()
    }
    for row, both in zip(shown.to_dict("records"), texts, strict=True):
        kept = {name: row[name] for name in ("query_id", "source", "benchmark", "problem_id", "score", "dropped")}
        groups[row["method"]]["pairs"].append(
            {**kept, "query": shorten(both["query"]), "problem": shorten(both["problem"])}
        )
    return list(groups.values())


def count_quoted(quoted: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Responses of each teacher that hold a benchmark problem; ``quoted`` are its tables (CONTAMINATED_RESPONSES)."""
    rows = []
    for teacher, files in quoted.items():
        found = read_frame(files, CONTAMINATED_RESPONSES, ["attempt_id", "benchmark", "query_flagged"])
        for benchmark, group in found.groupby("benchmark"):
            known = group.loc[group["query_flagged"], "attempt_id"].nunique()
            told = group["attempt_id"].nunique() - known
            rows.append({"teacher": teacher, "benchmark": benchmark, "query_does_not": told, "query_does": known})
    return rows


def count_planted(planted: Mapping[str, Sequence[Sequence[str]]], queries: Sequence[str]) -> list[dict[str, Any]]:
    """What became of the planted rows; ``planted`` maps kinds to (source, row), ``queries`` are the shards of the corpus."""
    frame = read_frame(queries, QUERIES, ["source", "source_row"])
    left = set(zip(frame["source"], frame["source_row"], strict=True))
    return [
        {
            "kind": kind,
            "planted": len(places),
            "kept": sum(tuple(place) in left for place in places),
            "should_stay": kind in KEPT_ON_PURPOSE,
        }
        for kind, places in planted.items()
    ]


def main(inputs: Mapping[str, Any], output: str, teachers: Sequence[str]) -> None:
    """Write ``output``. ``inputs`` are the rule's inputs by name; lists hold equally many files per teacher."""
    about = [name for name in CONTAMINATION.names if name not in ("query", "problem")]
    flagged = read_frame(inputs["contamination"], CONTAMINATION, about)
    planted = inputs["planted"]
    found = {
        "engines": engines(by_teacher(teachers, inputs["collected"])),
        "example": example(dict(zip(teachers, inputs["datasets"], strict=True))) if inputs["datasets"] else None,
        "flagged": count_flagged(flagged),
        "pairs": choose_pairs(inputs["contamination"], flagged),
        "quoted": count_quoted(by_teacher(teachers, inputs["quoted"])),
        "planted": count_planted(json.loads(Path(planted).read_text("utf-8")), inputs["queries"]) if planted else None,
    }
    write_json(output, found)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(dict(snakemake.input.items()), snakemake.output[0], snakemake.params.teachers)  # noqa: F821
