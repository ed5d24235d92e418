"""What makes a query: its identity, its shard."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash

# The rewrite of `\s+` -> " " that leaves single spaces alone: the same text, several times faster on ordinary prose.
_SPACES = re.compile(r"[^\S ]\s*| \s+")
#: The same for polars, whose `\s` lacks four control characters that Python's has.
_SPACES_POLARS = r"[[\s\x1C-\x1F]--\x20][\s\x1C-\x1F]*|\x20[\s\x1C-\x1F]+"
_SCANNED_BYTES = 2**18


def normalise(text: str) -> str:
    """``text`` in NFC, every run of white space one space, ends stripped: the form two equal queries share."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip()


def texts_with(texts: pa.Array, wanted: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Which of an array of strings without nulls hold a byte that is ``wanted`` (a function from bytes to a mask)."""
    _, offsets_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)
    mask = np.zeros(len(texts), dtype=bool)
    # In pieces that stay in the processor's cache.
    for start in range(offsets[0], offsets[-1], _SCANNED_BYTES):
        found = np.flatnonzero(wanted(data[start : min(start + _SCANNED_BYTES, offsets[-1])])) + start
        mask[np.searchsorted(offsets, found, side="right") - 1] = True
    return mask


def normalise_many(texts: pl.Series) -> pl.Series:
    """:func:`normalise` of every text."""
    beyond_ascii = (texts.str.len_bytes() != texts.str.len_chars()).to_numpy()
    if beyond_ascii.any():
        # Python's own NFC takes its time only where something changes.
        rows = np.flatnonzero(beyond_ascii)
        composed = pl.Series([unicodedata.normalize("NFC", text) for text in texts.gather(rows)], dtype=pl.String)
        texts = texts.scatter(rows, composed)
    return texts.str.replace_all(_SPACES_POLARS, " ").str.strip_chars(" ")


def _unlike_normal(texts: pa.Array) -> np.ndarray:
    """Which texts may differ from their normal form: all but printable ASCII with single spaces, none at the ends."""
    odd = texts_with(texts, lambda data: (data < 0x20) | (data >= 0x80))
    series = pl.from_arrow(texts)
    spaced = series.str.contains("  ", literal=True) | series.str.starts_with(" ") | series.str.ends_with(" ")
    return odd | spaced.to_numpy()


def query_id(turns: Sequence[dict[str, str]]) -> str:
    """Identity of a query: xxh3-128 (32 hex digits) of its normalised turns, independent of source, order and file."""
    digest = xxhash.xxh3_128()
    for turn in turns:
        for part in (turn["role"], normalise(turn["content"])):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
    return digest.hexdigest()


def query_ids(turns: pa.Array) -> pa.Array:
    """:func:`query_id` of every row of ``turns`` (TURNS, no nulls), as strings."""
    spoken = turns.flatten()
    roles = spoken.field("role").dictionary_encode()
    frames = [len(role.encode()).to_bytes(8, "little") + role.encode() for role in roles.dictionary.to_pylist()]
    speakers = roles.indices.to_pylist()
    contents = spoken.field("content").to_pylist()
    changed = np.flatnonzero(_unlike_normal(spoken.field("content")))
    rewritten = normalise_many(pl.from_arrow(spoken.field("content").take(pa.array(changed))))
    for turn, text in zip(changed.tolist(), rewritten.to_list(), strict=True):
        contents[turn] = text
    digest, digests, turn = xxhash.xxh3_128_digest, [], 0
    for end in np.cumsum(turns.value_lengths().to_numpy(zero_copy_only=False)).tolist():
        parts: list[bytes] = []
        for speaker, text in zip(speakers[turn:end], contents[turn:end], strict=True):
            encoded = text.encode()
            parts += (frames[speaker], len(encoded).to_bytes(8, "little"), encoded)
        digests.append(digest(b"".join(parts)))
        turn = end
    width = np.arange(len(digests) + 1, dtype=np.int32) * 32
    return pa.Array.from_buffers(
        pa.string(), len(digests), [None, pa.py_buffer(width), pa.py_buffer(b"".join(digests).hex().encode())]
    )


def id_numbers(identifiers: pa.ChunkedArray) -> np.ndarray:
    """``query_id`` as numbers: an array of shape (rows, 2), the first and the last 64 bits of each."""
    digits = b"".join(
        bytes(chunk.cast(pa.string()).buffers()[2] or b"")[32 * chunk.offset : 32 * (chunk.offset + len(chunk))]
        for chunk in identifiers.chunks
    )
    return np.frombuffer(bytes.fromhex(digits.decode()), dtype=">u8").astype(np.uint64).reshape(-1, 2)


def shard_of(identifier: str, shards: int) -> int:
    """The shard of a ``query_id``: equal ranges of its first 64 bits, so other queries never move it."""
    return int(identifier[:16], 16) * shards >> 64
