"""What makes a query: its identity, its shard."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import xxhash

# The rewrite of `\s+` -> " " that leaves single spaces alone: the same text, several times faster on ordinary prose.
_SPACES = re.compile(r"[^\S ]\s*| \s+")


def normalise(text: str) -> str:
    """``text`` in NFC, every run of white space one space, ends stripped: the form two equal queries share."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip()


def query_id(turns: Sequence[dict[str, str]]) -> str:
    """Identity of a query: xxh3-128 (32 hex digits) of its normalised turns, independent of source, order and file."""
    digest = xxhash.xxh3_128()
    for turn in turns:
        for part in (turn["role"], normalise(turn["content"])):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
    return digest.hexdigest()


def shard_of(identifier: str, shards: int) -> int:
    """The shard of a ``query_id``: equal ranges of its first 64 bits, so other queries never move it."""
    return int(identifier[:16], 16) * shards >> 64
