"""Scores through the store: a scorer starts only for the rows that are missing, and what it has read is durable at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from whichteacher.engines.respond import Saver
from whichteacher.engines.specs import ScorerSpec
from whichteacher.rule import Progress
from whichteacher.store import Store


def score(rows: Iterable[tuple[str, str, str]], count: int, spec: ScorerSpec, shelf: Store, step: str) -> None:
    """Score the ``count`` ``rows`` (key, rendered query, response) and store what comes of it; they are taken as room comes up.

    Raises :class:`~whichteacher.rule.InputError` where the scorer cannot be loaded, or reads less than it should.
    """
    began = time.monotonic()
    # Not before it is known that something is missing: importing it takes half a minute.
    from whichteacher.engines.vllm import VllmScorer

    scorer = VllmScorer(spec)
    print(f"{step}: the engine started in {time.monotonic() - began:.0f} s")
    settings = json.dumps(spec.settings(), sort_keys=True)
    common = {"model": spec.model, "model_digest": shelf.owner, "settings": settings, **scorer.facts}
    with Progress(step, count) as progress, Saver(shelf, _work) as saver:
        for found in scorer.run(rows):
            saver.add({**found._asdict(), **common})
            progress.advance(1, saver.rate())


def _work(row: Mapping[str, Any]) -> int:
    """The tokens that were read for a row, but for its first."""
    return row["query_tokens"] + row["response_tokens"]
