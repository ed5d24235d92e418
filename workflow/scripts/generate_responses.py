"""One round of one teacher on one shard: responses to every query that has no accepted attempt yet.

Reads the shard (QUERIES) and the verdicts of the earlier rounds; writes ATTEMPTS, ordered by query and attempt. What is
generated lands in the store first, and the table is a compaction of it, so a killed job loses at most the store's last
flush, and a job that finds everything there starts no engine. A teacher of engine ``dataset`` has published traces
(PUBLISHED, from ``import_traces``) in place of a store.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from whichteacher.chat import messages
from whichteacher.engines.respond import complete, shelf_of
from whichteacher.engines.specs import OpenaiSpec, Spec, VllmSpec, request_keys
from whichteacher.places import locate
from whichteacher.responses import convert_response, split_response
from whichteacher.rule import InputError
from whichteacher.schemas import ATTEMPTS, PUBLISHED, QUERIES, VERDICTS
from whichteacher.store import Store, StoreError, digest
from whichteacher.tables import read_table, write_batches

#: Rows that are compacted at a time: real traces of 13 kB take some 0.3 GB of memory, with their parts and copies.
_BATCH_ROWS = 8192
#: A segment found damaged while it is compacted has its rows generated again, so often.
_PASSES = 3


class Wanted(NamedTuple):
    """The responses of a round: per query its id and rendered prompt, and per response its key, by query and attempt."""

    query_ids: list[str]
    prompts: list[str]
    attempts: range
    keys: list[str]


def open_queries(queries: pa.Table, verdicts: pa.Table) -> pa.Table:
    """The ``queries`` that no verdict of an earlier round accepts, in the order of ``query_id``."""
    solved = verdicts.filter(pc.equal(verdicts["verdict"], "pass"))["query_id"].combine_chunks()
    return queries.filter(pc.invert(pc.is_in(queries["query_id"], value_set=solved))).sort_by("query_id")


def attempt_numbers(schedule: Sequence[int], round_: int) -> range:
    """The attempts drawn in ``round_`` of a schedule: ``[1, 1, 2]`` draws attempts 2 and 3 in round 2."""
    first = sum(schedule[:round_])
    return range(first, first + schedule[round_])


def spec_of(teacher: Mapping[str, Any], running: Mapping[str, Any]) -> Spec:
    """The engine's spec of a teacher. ``teacher`` is its configuration block as plain JSON types without the keys of
    ``running``, which say how it is served and not what it says (:data:`whichteacher.config.RUNNING`)."""
    sampling = teacher["sampling"]
    if teacher["engine"] == "vllm":
        return VllmSpec(
            model=teacher["model"],
            revision=teacher["revision"],
            dtype=teacher["dtype"],
            max_model_len=teacher["max_model_len"],
            sampling=sampling,
            quantization=teacher["quantization"],
            tensor_parallel=running["tensor_parallel"],
            pipeline_parallel=running["pipeline_parallel"],
            data_parallel=running["data_parallel"],
            arguments=running["vllm_arguments"],
        )
    endpoint = {**teacher["endpoint"], **running["endpoint"]}
    endpoint["served_model"] = endpoint["served_model"] or teacher["model"]
    return OpenaiSpec(model=teacher["model"], revision=teacher["revision"], sampling=sampling, **endpoint)


def render_prompts(queries: pa.Table, teacher: Mapping[str, Any]) -> list[str]:
    """The prompt of each query, rendered by the chat template of the teacher's tokenizer; for an endpoint that takes
    messages, their JSON.

    Raises :class:`InputError` where the tokenizer cannot be loaded or has no template, and :class:`ValueError` naming the
    query that the template cannot render.
    """
    chats = (
        (query_id, messages(turns, teacher["system_prompt"], teacher["suffixes"].get(category, "")))
        for batch in queries.select(["query_id", "category", "turns"]).to_batches(_BATCH_ROWS)
        for query_id, category, turns in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
    if teacher["engine"] == "openai" and teacher["endpoint"]["api"] == "chat":
        return [json.dumps(chat, ensure_ascii=False) for _, chat in chats]
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(locate(teacher["model"]), revision=teacher["revision"])
    except (OSError, ValueError) as error:
        raise InputError(f"{teacher['model']}: no usable tokenizer: {error}") from error
    if tokenizer.chat_template is None:
        raise InputError(f"{teacher['model']}: the tokenizer has no chat template: give the teacher one that has")
    prompts = []
    for query_id, chat in chats:
        try:
            prompts.append(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        except Exception as error:
            raise ValueError(f"query {query_id}: the chat template of {teacher['model']} fails: {error}") from error
    return prompts


def wanted_responses(
    queries: pa.Table, teacher: Mapping[str, Any], attempts: range, shelf: Store, spec: Spec
) -> Wanted:
    """What a round wants of the engine: every attempt of ``attempts`` at every query."""
    prompts = render_prompts(queries, teacher)
    key_of = request_keys(shelf.owner, spec.settings())
    keys = [key_of(prompt, attempt) for prompt in prompts for attempt in attempts]
    return Wanted(queries["query_id"].to_pylist(), prompts, attempts, keys)


def missing_responses(wanted: Wanted, shelf: Store) -> dict[str, str]:
    """Rendered prompts of the wanted responses that are not stored, by key."""
    absent = (shelf.find(pa.array(wanted.keys, pa.string())).segment < 0).nonzero()[0]
    each = len(wanted.attempts)
    return {wanted.keys[place]: wanted.prompts[place // each] for place in absent.tolist()}


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
        "thinking": thinking,
        "answer": answers,
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


def published_rows(queries: pa.Table, published: pa.Table, teacher: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of ATTEMPTS of the published traces (PUBLISHED) that answer ``queries``; a query without one gets no row."""
    wanted = queries["query_id"].combine_chunks()
    rows = published.filter(pc.is_in(published["query_id"], value_set=wanted))
    rows = rows.sort_by([("query_id", "ascending"), ("attempt", "ascending")])
    parts = [split_response(text, "tags") for text in rows["text"].to_pylist()]
    origin = {"traces": teacher["traces"], "revision": teacher["traces_revision"]}
    count = rows.num_rows
    made = {
        "attempt_id": [
            digest({**origin, "query": query, "attempt": attempt})
            for query, attempt in zip(rows["query_id"].to_pylist(), rows["attempt"].to_pylist(), strict=True)
        ],
        "thinking": [part.thinking for part in parts],
        "answer": [part.answer for part in parts],
        "seconds": [0.0] * count,
        "devices": [None] * count,
        "model": [teacher["model"]] * count,
        "model_digest": [digest({"published": teacher["model"], **origin})] * count,
        "engine": ["dataset"] * count,
        "engine_version": ["published"] * count,
        "hardware": ["unknown"] * count,
        "settings": [json.dumps({"location": location}) for location in rows["location"].to_pylist()],
    }
    return {name: made.get(name, rows[name] if name in rows.column_names else None) for name in ATTEMPTS.names}


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
        batches: Iterable[dict[str, Any]] = [published_rows(open_, read_table(traces, PUBLISHED), teacher)]
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
            snakemake.input.get("traces"),  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.wildcards.teacher,  # noqa: F821
            snakemake.params.teacher,  # noqa: F821
            snakemake.config["running"][snakemake.wildcards.teacher],  # noqa: F821
            int(snakemake.wildcards.get("shard", 0)),  # noqa: F821
            int(snakemake.wildcards.round),  # noqa: F821
            snakemake.params.store,  # noqa: F821
        )
