"""Responses through the store: an engine starts only for what is missing, and what is finished is durable at once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whichteacher.engines.specs import Engine, OpenaiSpec, RewardSpec, Spec, request_keys
from whichteacher.rule import Progress
from whichteacher.store import Store

#: A killed job loses at most this much finished work.
FLUSH_ROWS = 512
FLUSH_SECONDS = 20.0


@dataclass(frozen=True)
class Request:
    """One response wanted: the rendered prompt and which attempt at it this is."""

    prompt: str
    attempt: int


@dataclass(frozen=True)
class Response:
    """One response, as stored. ``seconds`` is the engine's wall time shared out by output tokens (by those read, where a
    model generates none)."""

    key: str
    text: str
    reasoning: str | None
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    engine: str
    engine_version: str
    model_digest: str


class Saver:
    """Makes rows durable while an engine works: a killed job loses at most the last :data:`FLUSH_ROWS` or
    :data:`FLUSH_SECONDS`, and whatever else ends the work early, an error or a signal, what had finished is stored.

    ``work`` says how many tokens a row took; the wall time between two flushes is shared out by them.
    """

    def __init__(self, shelf: Store, work: Callable[[Mapping[str, Any]], int]) -> None:
        self.tokens = 0
        self._shelf, self._work = shelf, work
        self._unstored: list[dict[str, Any]] = []
        self._started = self._flushed = time.monotonic()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._flush(time.monotonic())
        if kind is None:
            self._shelf.consolidate()

    def add(self, *rows: dict[str, Any]) -> None:
        """Take ``rows`` (of the shelf's schema, ``seconds`` to be filled in), and store what is due."""
        self._unstored += rows
        self.tokens += sum(map(self._work, rows))
        now = time.monotonic()
        if len(self._unstored) >= FLUSH_ROWS or now - self._flushed > FLUSH_SECONDS:
            self._flush(now)

    def rate(self) -> str:
        """Tokens per second so far."""
        return f"{self.tokens / max(time.monotonic() - self._started, 1e-9):.0f} tokens/s"

    def _flush(self, now: float) -> None:
        # Out of hand before it is stored: an interruption in between must not store it twice.
        batch, self._unstored = self._unstored, []
        total = sum(map(self._work, batch)) or 1
        for row in batch:
            row["seconds"] = (now - self._flushed) * self._work(row) / total
        self._flushed = now
        self._shelf.append(batch)


def shelf_of(spec: Spec, store: str | os.PathLike[str]) -> Store:
    """The part of the store that holds the responses of the model of ``spec``."""
    return Store(store, "responses", spec.owner())


def respond(requests: Sequence[Request], spec: Spec, store: str | os.PathLike[str], step: str) -> list[Response]:
    """Responses to ``requests``, in their order: from the store where they are there, else generated and stored.

    All of them are held in memory; :func:`complete` and :meth:`whichteacher.store.Store.ordered` are for more than fit.
    Raises :class:`~whichteacher.rule.InputError` where the engine cannot start.
    """
    shelf = shelf_of(spec, store)
    key_of = request_keys(shelf.owner, spec.settings())
    keys = [key_of(request.prompt, request.attempt) for request in requests]
    rows = shelf.lookup(keys)
    missing = {key: request.prompt for key, request in zip(keys, requests, strict=True) if key not in rows}
    print(f"{step}: {len(keys) - len(missing)} of {len(keys)} responses are in the store")
    if missing:
        refused = complete(missing, spec, shelf, step)
        rows |= shelf.lookup(missing) | {row["key"]: row for row in refused}
    names = Response.__dataclass_fields__
    return [Response(**{name: rows[key][name] for name in names}) for key in keys]


def complete(missing: Mapping[str, str], spec: Spec, shelf: Store, step: str, note: str = "") -> list[dict[str, Any]]:
    """Generate the responses to ``missing`` (key: rendered prompt) and store them; ``note`` ends every progress line.

    Returns the rows (schema RESPONSES) of what must not be stored. Whatever ends this early, an error or a signal, what
    had finished is stored. Raises :class:`~whichteacher.rule.InputError` where the engine cannot start or cannot go on.
    """
    began = time.monotonic()
    engine = _start(spec)
    print(f"{step}: the engine started in {time.monotonic() - began:.0f} s")
    settings = json.dumps(spec.settings(), sort_keys=True)
    common = {"model": spec.model, "model_digest": shelf.owner, "settings": settings, **engine.facts}
    refused: list[dict[str, Any]] = []
    with Progress(step, len(missing), "responses") as progress, Saver(shelf, _work) as saver:
        for completion in engine.run(missing):
            row = {**completion._asdict(), "prompt": missing[completion.key], "seconds": 0.0, **common}
            if row.pop("durable"):
                saver.add(row)
            else:
                refused.append(row)
                saver.add()
            progress.advance(1, f"{saver.rate()}, {note}" if note else saver.rate())
    return refused


def _start(spec: Spec) -> Engine:
    if isinstance(spec, OpenaiSpec):
        from whichteacher.engines.openai import OpenaiEngine

        return OpenaiEngine(spec)
    if isinstance(spec, RewardSpec):
        from whichteacher.engines.reward import RewardEngine

        return RewardEngine(spec)
    from whichteacher.engines.vllm import VllmEngine

    return VllmEngine(spec)


def _work(row: Mapping[str, Any]) -> int:
    """The tokens that a response took an engine: those it generated, or read where it generates none."""
    if row["finish_reason"] == "prompt_too_long":
        return 0
    return row["output_tokens"] or row["prompt_tokens"]
