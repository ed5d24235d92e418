"""Rounds of generation: which queries are still open, which responses a round wants, and under which keys they are stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from whichteacher.chat import messages
from whichteacher.engines.specs import OpenaiSpec, RewardSpec, Spec, VllmSpec, request_keys
from whichteacher.rule import InputError
from whichteacher.store import Store
from whichteacher.tokenizer import open_tokenizer

_RENDERED_ROWS = 8192


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
    """The engine's spec of a teacher or a judge. ``teacher`` is its configuration block as plain JSON types without the keys of
    ``running``, which say how it is served and not what it says (:data:`whichteacher.config.RUNNING`)."""
    if teacher["engine"] == "reward":
        shared = ("model", "revision", "dtype", "max_model_len", "trust_remote_code")
        return RewardSpec(**{name: teacher[name] for name in shared})
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
    render = renderer(teacher)
    prompts: list[str] = []
    for batch in queries.select(["query_id", "category", "turns"]).to_batches(_RENDERED_ROWS):
        ids, categories, dialogues = (column.to_pylist() for column in batch.columns)
        chats = [
            messages(turns, teacher["system_prompt"], teacher["suffixes"].get(category, ""))
            for turns, category in zip(dialogues, categories, strict=True)
        ]
        try:
            prompts += render(chats)
        except Exception:
            for query_id, chat in zip(ids, chats, strict=True):
                try:
                    render([chat])
                except Exception as error:
                    raise ValueError(
                        f"query {query_id}: the chat template of {teacher['model']} fails: {error}"
                    ) from error
            raise
    return prompts


def renderer(model: Mapping[str, Any]) -> Callable[[list[list[dict[str, str]]]], list[str]]:
    """How the engine of ``model`` (a teacher or a judge) takes dialogues: a function from these to prompts.

    Raises :class:`InputError` where the tokenizer that it needs cannot be loaded or has no template.
    """
    chat = model["engine"] == "openai" and model["endpoint"]["api"] == "chat"
    return _as_json if chat or model["engine"] == "reward" else template(model)


def _as_json(chats: list[list[dict[str, str]]]) -> list[str]:
    return [json.dumps(chat, ensure_ascii=False) for chat in chats]


def template(model: Mapping[str, Any]) -> Callable[[list[list[dict[str, str]]]], list[str]]:
    """The chat template of a model's tokenizer, as a function from dialogues to prompts. ``model`` has ``model`` and ``revision``.

    Raises :class:`InputError` where the tokenizer cannot be loaded or has no template.
    """
    from transformers.utils import chat_template_utils

    tokenizer = open_tokenizer(model)
    if tokenizer.chat_template is None:
        raise InputError(f"{model['model']}: the tokenizer has no chat template: take a model that has one")
    # Jinja copies a template's globals for every prompt, and these are a chain of mappings: two thirds of the time.
    if compiled := getattr(chat_template_utils, "_compile_jinja_template", None):
        template = compiled(tokenizer.chat_template)
        template.globals = dict(template.globals)
    return lambda chats: tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)


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
