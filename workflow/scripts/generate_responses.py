"""One round of one teacher on one shard: responses to every query that has no accepted attempt yet.

Reads the shard (QUERIES) and the attempts and verdicts of the earlier rounds; writes ATTEMPTS, ordered by query and
attempt. What is generated lands in the store first; the table is a compaction of it, so a killed job loses at most the
store's last flush. Engine ``dataset`` reads published traces instead of generating.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from whichteacher.chat import messages
from whichteacher.engines import EngineSpec, Request, Response, respond, settings_of
from whichteacher.places import locate
from whichteacher.queries import query_id
from whichteacher.responses import split_response
from whichteacher.rule import InputError
from whichteacher.schemas import ATTEMPTS, QUERIES, VERDICTS
from whichteacher.store import digest
from whichteacher.tables import read_table, write_table

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def open_queries(queries: Iterable[dict[str, Any]], verdicts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The queries that no verdict of an earlier round accepts, in the order of ``query_id``."""
    solved = {row["query_id"] for row in verdicts if row["verdict"] == "pass"}
    return sorted((query for query in queries if query["query_id"] not in solved), key=lambda query: query["query_id"])


def attempt_numbers(schedule: list[int], round_: int) -> range:
    """The attempts drawn in ``round_`` of a schedule: ``[1, 1, 2]`` draws attempts 2 and 3 in round 2."""
    first = sum(schedule[:round_])
    return range(first, first + schedule[round_])


def generate(
    queries: list[dict[str, Any]], teacher: dict[str, Any], attempts: range, store: str, step: str
) -> list[tuple[dict[str, Any], int, str, Response]]:
    """(query, attempt, rendered prompt, response) for every query and attempt, through the store."""
    from transformers import AutoTokenizer

    if not queries:
        return []
    tokenizer = AutoTokenizer.from_pretrained(locate(teacher["model"]), revision=teacher["revision"])
    if tokenizer.chat_template is None:
        raise InputError(f"{teacher['model']}: the tokenizer has no chat template: give the teacher one that has")
    wanted = []
    for query in queries:
        suffix = teacher["suffixes"].get(query["category"], "")
        prompt = tokenizer.apply_chat_template(
            messages(query["turns"], teacher["system_prompt"], suffix), tokenize=False, add_generation_prompt=True
        )
        wanted += [(query, attempt, prompt) for attempt in attempts]
    spec = EngineSpec(**{name: teacher[name] for name in EngineSpec.__dataclass_fields__})
    responses = respond([Request(prompt, attempt) for _, attempt, prompt in wanted], spec, store, step)
    return [(*want, response) for want, response in zip(wanted, responses, strict=True)]


def traces_folder(traces: str, revision: str | None) -> str:
    """The folder of published traces, fetched from the hub where ``revision`` says that it lies there."""
    if revision is None:
        return locate(traces)
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(traces, repo_type="dataset", revision=revision, allow_patterns="*.jsonl")
    except Exception as error:
        raise InputError(
            f"hub data set {traces} at {revision}: {type(error).__name__}: {error}: check id and revision, and the way "
            "to the hub; or fetch its files and name their folder"
        ) from error


def published_responses(folder: str) -> dict[str, dict[str, Any]]:
    """The released rows in a folder of JSONL files, by ``query_id`` of their dialogue without the last turn.

    Raises :class:`InputError` naming file and line of a row that is not in the released schema, or an empty folder.
    """
    files = sorted(Path(folder).glob("*.jsonl"))
    if not files:
        raise InputError(f"{folder}: no .jsonl file: point the teacher's `traces` at the folder of the published files")
    found: dict[str, dict[str, Any]] = {}
    for path in files:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    turns = [
                        {"role": _ROLES[turn["from"]], "content": turn["value"]}
                        for turn in json.loads(line)["conversations"]
                    ]
                    *before, last = turns
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{path}:{number}: not a row of the released schema ({error!r})") from error
                found.setdefault(query_id(before), {"text": last["content"], "file": path.name, "line": number})
    return found


def generated_rows(
    responses: list[tuple[dict[str, Any], int, str, Response]], teacher: dict[str, Any], settings: str
) -> list[dict[str, Any]]:
    """ATTEMPTS rows of generated responses, without ``teacher``, ``shard`` and ``round``."""
    rows = []
    for query, attempt, prompt, response in responses:
        parts = split_response(response.text, teacher["answer_format"])
        rows.append(
            {
                "attempt_id": response.key,
                "query_id": query["query_id"],
                "attempt": attempt,
                "prompt": prompt,
                "text": response.text,
                "thinking": parts.thinking,
                "answer": parts.answer,
                "finish_reason": response.finish_reason,
                "prompt_tokens": response.prompt_tokens,
                "output_tokens": response.output_tokens,
                "seconds": response.seconds,
                "model": teacher["model"],
                "model_digest": response.model_digest,
                "engine": response.engine,
                "engine_version": response.engine_version,
                "settings": settings,
            }
        )
    return rows


def published_rows(
    queries: list[dict[str, Any]], teacher: dict[str, Any], tokenizer_folder: dict[str, Any]
) -> list[dict[str, Any]]:
    """ATTEMPTS rows of published traces for the queries they answer; queries without a trace get no row.

    Lengths are counted with the study's tokenizer; time is unknown and 0. A published trace has no finish reason: it
    counts as ``stop``, and verification judges its structure.
    """
    from transformers import AutoTokenizer

    published = published_responses(traces_folder(teacher["traces"], teacher["traces_revision"]))
    tokenizer = AutoTokenizer.from_pretrained(locate(tokenizer_folder["model"]), revision=tokenizer_folder["revision"])
    rows = []
    for query in queries:
        trace = published.get(query["query_id"])
        if trace is None:
            continue
        parts = split_response(trace["text"], teacher["answer_format"])
        prompt = query["turns"][-1]["content"]
        rows.append(
            {
                "attempt_id": digest({"query": query["query_id"], "model": teacher["model"], "text": trace["text"]}),
                "query_id": query["query_id"],
                "attempt": 0,
                "prompt": prompt,
                "text": trace["text"],
                "thinking": parts.thinking,
                "answer": parts.answer,
                "finish_reason": "stop",
                "prompt_tokens": len(tokenizer.encode(prompt)),
                "output_tokens": len(tokenizer.encode(trace["text"])),
                "seconds": 0.0,
                "model": teacher["model"],
                "model_digest": digest({"hub": teacher["model"], "revision": teacher["revision"]}),
                "engine": "dataset",
                "engine_version": "published",
                "settings": json.dumps({"file": trace["file"], "line": trace["line"]}),
            }
        )
    return rows


def main(
    queries: str,
    verdicts: list[str],
    output: str,
    name: str,
    teacher: dict[str, Any],
    shard: int,
    round_: int,
    store: str,
    tokenizer: dict[str, Any],
) -> None:
    """Write the attempts of one round; see the module's docstring."""
    rows_in = read_table(queries, QUERIES).to_pylist()
    earlier = read_table(verdicts, VERDICTS, ["query_id", "verdict"]).to_pylist() if verdicts else []
    todo = open_queries(rows_in, earlier)
    if teacher["engine"] == "dataset":
        rows = published_rows(todo, teacher, tokenizer)
    else:
        spec = EngineSpec(**{field: teacher[field] for field in EngineSpec.__dataclass_fields__})
        settings = json.dumps(settings_of(spec), sort_keys=True)
        step = f"generate_responses {name}, shard {shard}, round {round_}"
        rows = generated_rows(
            generate(todo, teacher, attempt_numbers(teacher["attempts"], round_), store, step), teacher, settings
        )
    for row in rows:
        row |= {"teacher": name, "shard": shard, "round": round_}
    write_table(output, rows, ATTEMPTS, {"teacher": teacher, "shard": shard, "round": round_})


if "snakemake" in globals():
    import os

    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        main(
            snakemake.input.queries,  # noqa: F821
            list(snakemake.input.verdicts),  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.wildcards.teacher,  # noqa: F821
            snakemake.params.teacher,  # noqa: F821
            int(snakemake.wildcards.shard),  # noqa: F821
            int(snakemake.wildcards.round),  # noqa: F821
            snakemake.params.store,  # noqa: F821
            snakemake.params.tokenizer,  # noqa: F821
        )
