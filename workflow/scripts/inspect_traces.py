"""What each published trace of a teacher and shard shows: its faults, the signs that it was cut off, and its verdict.

Reads the published traces (PUBLISHED), every attempt with its verdict (COLLECTED) and the shard's queries (QUERIES); writes one
slim row per trace (INSPECTED), in the order of the traces. Text is read some rows at a time; the answer and the reference go
along where our verdict and the publisher's score disagree, cut.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from whichteacher.inspection import find_faults, find_signs
from whichteacher.queries import normalise
from whichteacher.responses import END_THINK, split_response
from whichteacher.rule import Progress
from whichteacher.schemas import COLLECTED, INSPECTED, PUBLISHED, QUERIES
from whichteacher.tables import read_parts, read_table, write_batches
from whichteacher.traces import repeated_share

_READ = [name for name in PUBLISHED.names if name != "prompt_tokens"]
#: Characters that are shown of an answer, a reference, a system message.
_SHOWN = 300


def ending(text: str) -> str:
    """The end of ``text``, where the result stands, on one line."""
    line = " ".join(text[-4 * _SHOWN :].split())
    return line if len(line) <= _SHOWN else f"…{line[-_SHOWN:]}"


def system_of(prompt: str) -> str:
    """The system message of a dialogue (JSON), "" where it has none; of a long one the start, and a digest of the whole."""
    first = json.loads(prompt)[0]
    if first["role"] != "system":
        return ""
    text = first["content"]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({xxhash.xxh3_64_hexdigest(text)[:8]})"


def disagree(verdict: str, score: float | None, threshold: float) -> bool:
    """Whether the publisher's score and our verdict say opposite things."""
    return score is not None and verdict in ("pass", "fail") and (score >= threshold) != (verdict == "pass")


def inspect(
    row: Mapping[str, Any], judged: Mapping[str, Any], query: Mapping[str, Any], threshold: float
) -> dict[str, Any]:
    """A row of INSPECTED for a published trace, its verdict and its query; passing scores are at least ``threshold``."""
    shown = disagree(judged["verdict"], row["published_score"], threshold)
    answer = split_response(row["text"]).answer or row["text"].rpartition(END_THINK)[2]
    faults = find_faults(query["turns"], row["text"], row["conversion"])
    signs = find_signs(row["text"], row["conversion"], row["finish_reason"], row["finish_stated"])
    reference = query["reference"] or query["tests"] or query["constraints"]
    return {
        **{name: judged[name] for name in ("attempt_id", "verdict", "reason")},
        **{name: row[name] for name in INSPECTED.names if name in row},
        "category": query["category"],
        "faults": " ".join([*faults, *row["oddities"].split()]),
        "signs": " ".join(signs),
        "repeated_share": repeated_share(row["text"]),
        "response": xxhash.xxh3_64_intdigest(normalise(row["text"]).encode()),
        "system": system_of(row["prompt"]),
        "reference": ending(reference) if shown and reference else None,
        "answer": ending(answer) if shown else None,
    }


def main(traces: str, attempts: str, shard: str, thresholds: Mapping[str, float], output: str) -> None:
    """Inspect the traces of one teacher and shard; ``thresholds`` holds the passing score of every category."""
    # Published traces are there once per query and attempt, so these name them.
    judged = read_table(attempts, COLLECTED, ["query_id", "attempt", "attempt_id", "verdict", "reason"])
    verdicts = {(row["query_id"], row["attempt"]): row for row in judged.to_pylist()}
    wanted = ["query_id", "category", "turns", "reference", "tests", "constraints"]
    queries = {row["query_id"]: row for row in read_table(shard, QUERIES, wanted).to_pylist()}
    with Progress("inspect_traces", pq.read_metadata(traces).num_rows, "traces") as progress:

        def inspected() -> Iterator[pa.Table]:
            for part in read_parts(traces, PUBLISHED, _READ):
                rows = []
                for row in part.to_pylist():
                    query = queries[row["query_id"]]
                    found = verdicts[row["query_id"], row["attempt"]]
                    rows.append(inspect(row, found, query, thresholds[query["category"]]))
                yield pa.Table.from_pylist(rows, schema=INSPECTED)
                progress.advance(part.num_rows)

        write_batches(output, inspected(), INSPECTED, {"thresholds": dict(thresholds)})


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.traces,  # noqa: F821
            snakemake.input.attempts,  # noqa: F821
            snakemake.input.shard,  # noqa: F821
            snakemake.params.thresholds,  # noqa: F821
            snakemake.output.table,  # noqa: F821
        )
