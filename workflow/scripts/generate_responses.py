"""One round of one teacher on one shard: responses to every query that has no accepted attempt yet.

Reads the shard (QUERIES) and the verdicts of the earlier rounds; writes ATTEMPTS, ordered by query and attempt. What is
generated lands in the store first, and the table is a compaction of it, so a killed job loses at most the store's last
flush, and a job that finds everything there starts no engine. A teacher of engine ``dataset`` has published traces
(PUBLISHED, from ``import_traces``) in place of a store.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from whichteacher.engines.respond import complete, shelf_of
from whichteacher.engines.specs import Spec
from whichteacher.responses import convert_response, split_response
from whichteacher.rounds import Wanted, attempt_numbers, missing_responses, open_queries, spec_of, wanted_responses
from whichteacher.schemas import ATTEMPTS, PUBLISHED, QUERIES, VERDICTS
from whichteacher.store import StoreError, digest
from whichteacher.tables import read_batches, read_table, write_batches

#: Rows that are compacted at a time: real traces of 13 kB take some 0.3 GB of memory, with their parts and copies.
_BATCH_ROWS = 8192
#: A segment found damaged while it is compacted has its rows generated again, so often.
_PASSES = 3


def attempt_rows(stored: pa.Table, wanted: Wanted, start: int, teacher: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of ATTEMPTS for rows of the store: those at the places from ``start`` on of ``wanted.keys``."""
    each = len(wanted.attempts)
    places = range(start, start + stored.num_rows)
    texts, conversions, thinking, answers = [], [], [], []
    for prompt, text, reasoning in zip(
        *(stored[name].to_pylist() for name in ("prompt", "text", "reasoning")), strict=True
    ):
        text, conversion = convert_response(prompt, text, reasoning, teacher["answer_format"])
        parts = split_response(text, teacher["answer_format"])
        texts.append(text)
        conversions.append(conversion)
        thinking.append(parts.thinking)
        answers.append(parts.answer)
    made = {
        "attempt_id": stored["key"],
        "query_id": [wanted.query_ids[place // each] for place in places],
        "attempt": [wanted.attempts[place % each] for place in places],
        "text": texts,
        "thinking": pa.array(thinking, pa.string()),
        "answer": pa.array(answers, pa.string()),
        "conversion": conversions,
    }
    return {name: made.get(name, stored[name] if name in stored.column_names else None) for name in ATTEMPTS.names}


def generate(
    queries: pa.Table,
    teacher: Mapping[str, Any],
    attempts: range,
    spec: Spec,
    store: str,
    scratch: Path,
    step: str,
    note: str = "",
) -> Iterator[dict[str, Any]]:
    """Columns of ATTEMPTS, batch by batch, of every attempt of ``attempts`` at every query: through the store.

    ``scratch`` is a folder that is made and removed; ``note`` ends every progress line. Raises :class:`InputError` where the
    engine cannot start or cannot go on; what had finished is stored.
    """
    shelf = shelf_of(spec, store)
    wanted = wanted_responses(queries, teacher, attempts, shelf, spec)
    for left in reversed(range(_PASSES)):
        missing = missing_responses(wanted, shelf)
        print(f"{step}: {len(wanted.keys) - len(missing)} of {len(wanted.keys)} responses are in the store")
        refused = complete(missing, spec, shelf, step, note) if missing else []
        batches = shelf.ordered(wanted.keys, _BATCH_ROWS, scratch, refused)
        start = 0
        try:
            for stored in batches:
                yield attempt_rows(stored, wanted, start, teacher)
                start += stored.num_rows
            return
        except StoreError as error:  # before the first batch: everything is read by then
            if not left:
                raise
            print(f"{step}: {error}: generating them again")


def published_rows(
    queries: pa.Table, batches: Iterable[pa.Table], teacher: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Columns of ATTEMPTS, batch by batch, of the published traces (PUBLISHED, by query and attempt) that answer ``queries``;
    a query without one gets no row."""
    wanted = queries["query_id"].combine_chunks()
    origin = {"traces": teacher["traces"], "revision": teacher["traces_revision"]}
    for batch in batches:
        rows = batch.filter(pc.is_in(batch["query_id"], value_set=wanted))
        parts = [split_response(text, "tags") for text in rows["text"].to_pylist()]
        count = rows.num_rows
        made = {
            "attempt_id": [
                digest({**origin, "query": query, "attempt": attempt})
                for query, attempt in zip(rows["query_id"].to_pylist(), rows["attempt"].to_pylist(), strict=True)
            ],
            "thinking": pa.array([part.thinking for part in parts], pa.string()),
            "answer": pa.array([part.answer for part in parts], pa.string()),
            "seconds": [0.0] * count,
            "devices": pa.nulls(count, pa.int64()),
            "model": [teacher["model"]] * count,
            "model_digest": [digest({"published": teacher["model"], **origin})] * count,
            "engine": ["dataset"] * count,
            "engine_version": ["published"] * count,
            "hardware": ["unknown"] * count,
            "settings": [json.dumps({"location": location}) for location in rows["location"].to_pylist()],
        }
        yield {name: made.get(name, rows[name] if name in rows.column_names else None) for name in ATTEMPTS.names}


def main(
    queries: str,
    verdicts: Sequence[str],
    traces: str | None,
    output: str,
    name: str,
    teacher: dict[str, Any],
    running: dict[str, Any],
    shard: int,
    round_: int,
    store: str,
) -> None:
    """Write the attempts of one round; see the module's docstring. ``traces`` is the table of a teacher that has some."""
    everything = read_table(queries, QUERIES)
    open_ = open_queries(everything, read_table(verdicts, VERDICTS, ["query_id", "verdict"]))
    if traces is not None:
        batches = published_rows(open_, read_batches(traces, PUBLISHED), teacher)
    else:
        batches = generate(
            open_,
            teacher,
            attempt_numbers(teacher["attempts"], round_),
            spec_of(teacher, running),
            store,
            Path(f"{output}.scratch"),
            f"generate_responses {name}, shard {shard}, round {round_}",
            f"{everything.num_rows - open_.num_rows} of {everything.num_rows} queries solved before",
        )
    place = {"teacher": name, "shard": shard, "round": round_}
    tables = (
        pa.table(batch | {column: [value] * len(batch["query_id"]) for column, value in place.items()})
        for batch in batches
    )
    write_batches(output, tables, ATTEMPTS, {"teacher": teacher, "shard": shard, "round": round_})


if (
    "snakemake" in globals() and __name__ == "__main__"
):  # vLLM and its replicas import this again in processes of their own
    import os

    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        main(
            snakemake.input.queries,  # noqa: F821
            list(snakemake.input.verdicts),  # noqa: F821
            snakemake.input.get("traces") or None,  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.wildcards.teacher,  # noqa: F821
            snakemake.params.teacher,  # noqa: F821
            snakemake.config["running"][snakemake.wildcards.teacher],  # noqa: F821
            int(snakemake.wildcards.get("shard", 0)),  # noqa: F821
            int(snakemake.wildcards.round),  # noqa: F821
            snakemake.params.store,  # noqa: F821
        )
