"""Token n-grams that are frequent over more text than fits into memory, counted exactly.

Most n-grams of a corpus occur once, and a table of them all is many times larger than the text. So they are counted in two
passes over the shards. The first adds every window of ``size`` tokens to the sketch of its shard, an array of small counters
that a hash of the window chooses among: hashes may collide, so a sum over all shards is never too low. The second counts, by
their tokens, the windows alone whose counter says more than ``max_count``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numba
import numpy as np
import pyarrow as pa

from whichteacher.schemas import COLLECTED, NGRAM_SKETCH, NGRAM_TALLIES
from whichteacher.tables import read_parts

if TYPE_CHECKING:
    from whichteacher.tokens import Tokenizer

#: What a window's hash multiplies by from token to token, and in the end, so that its first bits depend on all others: odd
#: numbers with bits all over. Which ones does not matter to the result.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIXER = np.uint64(0xD6E8FEB86659FD93)
#: Counters of a sketch per ``max_count`` windows. At five windows a counter, one in ten million of the windows that occur
#: once shares its counter with twenty others.
_COUNTERS = 4
#: Highest count that a sketch tells from higher ones, so that one more still fits into a byte.
_HIGHEST = 254
#: Counters that are written together, as a power of two: a row of NGRAM_SKETCH.
_BLOCK_BITS = 20
#: Counters that are in memory at once, as a power of two: 1 GiB.
_TABLE_BITS = 30
#: Marks for the counters that are candidates, as a power of two: 128 MiB.
_MARK_BITS = 30
_FIRST_ENTRIES = 2**12
_ROWS = 2**16
#: Responses that are tokenized together.
_RESPONSES = 256


class TokenBatch:
    """The tokens of several responses, one after the other: response ``i`` is ``tokens[bounds[i]:bounds[i + 1]]``."""

    def __init__(self, tokens: np.ndarray, bounds: np.ndarray) -> None:
        self.tokens, self.bounds = tokens, bounds

    @classmethod
    def of(cls, responses: Sequence[np.ndarray]) -> TokenBatch:
        """The tokens of ``responses``, int32 each."""
        bounds = np.cumsum([0, *map(len, responses)], dtype=np.int64)
        return cls(np.concatenate(responses) if responses else np.empty(0, np.int32), bounds)

    def windows(self, size: int) -> int:
        """How many windows of ``size`` tokens there are."""
        return int(np.maximum(np.diff(self.bounds) - size + 1, 0).sum())


def accepted_tokens(attempts: str, tokenizer: Tokenizer) -> Iterator[TokenBatch]:
    """The tokens of the accepted responses of a COLLECTED table, some hundred at a time."""
    for rows in read_parts(attempts, COLLECTED, ["text", "accepted"], _RESPONSES):
        yield TokenBatch.of(tokenizer.encode(rows.filter(rows["accepted"])["text"].to_pylist()))


def sketch_bits(windows: int, shards: int, max_count: int) -> int:
    """Counters of a sketch, as a power of two, for a shard of ``windows`` windows among ``shards`` of its size."""
    counters = windows * shards * _COUNTERS // min(max_count, _HIGHEST)
    return max(counters.bit_length(), _BLOCK_BITS)


def sketch_planes(max_count: int) -> int:
    """Binary digits of a counter: enough to tell ``max_count`` from more."""
    return (min(max_count, _HIGHEST) + 1).bit_length()


def sketch_blocks(batch: TokenBatch, size: int, max_count: int, bits: int) -> Iterator[pa.Table]:
    """The sketch of a shard's windows as NGRAM_SKETCH rows: 2**``bits`` counters, some in memory at a time."""
    planes = sketch_planes(max_count)
    table = np.zeros(2 ** min(bits, _TABLE_BITS), dtype=np.uint8)
    for first in range(0, 2**bits, len(table)):
        table[:] = 0
        _count(batch.tokens, batch.bounds, size, _MULTIPLIER, np.uint64(64 - bits), np.uint64(first), table)
        for block in table.reshape(-1, 2**_BLOCK_BITS):
            yield pa.table({"counters": [_slice_bits(block, planes)]}, schema=NGRAM_SKETCH)


def candidate_counters(
    sketches: Sequence[tuple[int, Iterator[bytes]]], max_count: int
) -> tuple[int, Iterator[np.ndarray]]:
    """The counters that say more than ``max_count`` in the sum of the sketches of all shards.

    ``sketches`` holds each sketch's ``bits`` and its blocks in order. Returns the bits of the finest, and its counters'
    numbers, ascending, block by block. A coarser sketch counts for all counters that its own are the parents of.
    """
    finest = max(bits for bits, _ in sketches)
    limit, planes = min(max_count, _HIGHEST), sketch_planes(max_count)

    def search() -> Iterator[np.ndarray]:
        refined = [_refine(blocks, finest - bits, planes) for bits, blocks in sketches]
        for number, shares in enumerate(zip(*refined, strict=True)):
            total = np.zeros((planes, 2**_BLOCK_BITS // 64), dtype=np.uint64)
            for share in shares:
                _add_sliced(total, share)
            above = np.unpackbits(_above(total, limit).view(np.uint8), bitorder="little")
            yield np.flatnonzero(above) + number * 2**_BLOCK_BITS

    return finest, search()


class WindowTable:
    """Windows of ``size`` tokens and how often each was seen, by their tokens: no two share an entry.

    Only windows whose hash is marked are counted: ``marks`` has a bit for each value of its first ``bits`` bits.
    """

    def __init__(self, size: int, marks: np.ndarray, bits: int) -> None:
        self.size, self._marks, self._shift = size, marks, np.uint64(64 - bits)
        self._entries = 0
        self._windows = np.empty((_FIRST_ENTRIES, size), dtype=np.int32)
        self._hashes = np.empty(_FIRST_ENTRIES, dtype=np.uint64)
        self._counts = np.zeros(_FIRST_ENTRIES, dtype=np.int64)
        self._places = np.full(2 * _FIRST_ENTRIES, -1, dtype=np.int64)

    @classmethod
    def of_candidates(cls, size: int, counters: Iterable[np.ndarray], bits: int) -> WindowTable:
        """An empty table for the windows that the given ones of 2**``bits`` counters stand for."""
        marked = min(bits, _MARK_BITS)
        marks = np.zeros(2**marked // 8, dtype=np.uint8)
        for numbers in counters:
            _mark(marks, numbers >> (bits - marked))
        return cls(size, marks, marked)

    @classmethod
    def of_windows(cls, windows: np.ndarray) -> WindowTable:
        """A table that holds the rows of ``windows`` (int32) and finds them, no others."""
        rows, size = windows.shape
        table = cls(size, np.full(2**_BLOCK_BITS // 8, 255, dtype=np.uint8), _BLOCK_BITS)
        table.count(TokenBatch(windows.reshape(-1), np.arange(rows + 1, dtype=np.int64) * size))
        bits = max((16 * rows).bit_length(), 10)
        table._marks, table._shift = np.zeros(2**bits // 8, dtype=np.uint8), np.uint64(64 - bits)
        _mark(table._marks, (table._hashes[: table._entries] >> table._shift).astype(np.int64))
        return table

    @property
    def marked(self) -> bool:
        """Whether any window can be counted."""
        return bool(self._marks.any())

    def count(self, batch: TokenBatch) -> None:
        """Count the marked windows of ``batch``."""
        response, position = 0, batch.bounds[0]
        while True:
            response, position, self._entries = _tally(
                batch.tokens,
                batch.bounds,
                response,
                position,
                self.size,
                _MULTIPLIER,
                self._marks,
                self._shift,
                self._places,
                self._windows,
                self._hashes,
                self._counts,
                self._entries,
            )
            if response == len(batch.bounds) - 1:
                return
            self._grow()

    def starts(self, tokens: np.ndarray) -> np.ndarray:
        """Where in ``tokens`` (int32) a window of the table begins, ascending."""
        found = np.zeros(max(len(tokens) - self.size + 1, 0), dtype=np.bool_)
        _find(
            tokens, self.size, _MULTIPLIER, self._marks, self._shift, self._places, self._windows, self._hashes, found
        )
        return np.flatnonzero(found)

    def tallies(self) -> Iterator[pa.Table]:
        """The windows and their counts as NGRAM_TALLIES rows, in the order of their tokens."""
        # Big-endian, the bytes are in the order of the tokens.
        words = self._windows[: self._entries].astype(">u4")
        order = np.argsort(words.view(f"S{4 * self.size}").reshape(-1))
        for start in range(0, self._entries, _ROWS):
            chosen = order[start : start + _ROWS]
            fixed = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(4 * self.size), len(chosen), [None, pa.py_buffer(words[chosen].tobytes())]
            )
            yield pa.table({"ngram": fixed.cast(pa.binary()), "count": self._counts[chosen]}, schema=NGRAM_TALLIES)

    def _grow(self) -> None:
        self._windows = np.concatenate([self._windows, np.empty_like(self._windows)])
        self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._places = np.full(2 * len(self._places), -1, dtype=np.int64)
        _place(self._hashes, self._entries, self._places)


class FrequentNgrams:
    """A teacher's frequent n-grams of ``size`` tokens, from the ``ngram`` column of NGRAM_COUNTS."""

    def __init__(self, ngrams: pa.ChunkedArray, size: int) -> None:
        parts = [
            np.fromstring(" ".join(ngrams[start : start + _ROWS].to_pylist()), dtype=np.int32, sep=" ")
            for start in range(0, len(ngrams), _ROWS)
        ]
        self._size = size
        self._table = WindowTable.of_windows(np.concatenate([np.empty(0, np.int32), *parts]).reshape(-1, size))

    def first(self, tokens: np.ndarray) -> np.ndarray | None:
        """The first frequent n-gram of a response (its ids), None where it has none."""
        starts = self._table.starts(tokens)
        return tokens[starts[0] : starts[0] + self._size] if len(starts) else None

    def cut(self, text: str, tokenizer: Tokenizer) -> str:
        """``text`` without its frequent n-grams: the characters of all their tokens are cut, and what that brings together
        is searched again, until none is left."""
        while True:
            tokens, spans = tokenizer.locate_tokens(text)
            starts = self._table.starts(tokens)
            if not len(starts):
                return text
            kept, end = [], 0
            for first, last in zip(spans[starts, 0].tolist(), spans[starts + self._size - 1, 1].tolist(), strict=True):
                kept.append(text[end : max(first, end)])
                end = max(last, end)
            text = "".join([*kept, text[end:]])


def _mark(marks: np.ndarray, numbers: np.ndarray) -> None:
    """Set the bits of ``numbers``."""
    np.bitwise_or.at(marks, numbers >> 3, (1 << (numbers & 7)).astype(np.uint8))


def _slice_bits(block: np.ndarray, planes: int) -> bytes:
    """Counters as ``planes`` bit fields, that of the lowest digits first; a counter that is too high is cut to the highest.

    Nearly all higher digits are zero and compress to nothing.
    """
    cut = np.minimum(block, 2**planes - 1)
    used = int(cut.max()).bit_length()
    fields = [np.packbits(cut & (1 << plane), bitorder="little").tobytes() for plane in range(used)]
    return b"".join([*fields, bytes((planes - used) * len(block) // 8)])


def _refine(blocks: Iterator[bytes], steps: int, planes: int) -> Iterator[np.ndarray]:
    """A sketch's blocks as words of bit fields, every counter repeated for the 2**``steps`` that it is the parent of."""
    for data in blocks:
        fields = np.frombuffer(data, dtype=np.uint8).reshape(planes, -1)
        if not steps:
            yield fields.view(np.uint64)
            continue
        digits = np.unpackbits(fields, axis=1, bitorder="little")
        for part in range(2**steps):
            # One parent may be that of more counters than a block holds.
            first, parents = part * 2**_BLOCK_BITS >> steps, 2 ** max(_BLOCK_BITS - steps, 0)
            share = np.repeat(digits[:, first : first + parents], 2**_BLOCK_BITS // parents, axis=1)
            yield np.packbits(share, axis=1, bitorder="little").view(np.uint64)


def _add_sliced(total: np.ndarray, share: np.ndarray) -> None:
    """Add counters in bit fields to others; a sum that is too high becomes the highest."""
    carry = np.zeros_like(total[0])
    for plane, added in zip(total, share, strict=True):
        either = plane ^ added
        both = plane & added
        np.bitwise_xor(either, carry, out=plane)
        carry &= either
        carry |= both
    total |= carry


def _above(total: np.ndarray, limit: int) -> np.ndarray:
    """A bit for every counter that is above ``limit``."""
    above, equal = np.zeros_like(total[0]), np.full_like(total[0], 2**64 - 1)
    for digit in range(len(total) - 1, -1, -1):
        if limit >> digit & 1:
            equal &= total[digit]
        else:
            above |= equal & total[digit]
            equal &= ~total[digit]
    return above


# --- compiled: hash(tokens) = sum of token * multiplier ** place, modulo 2 ** 64, then mixed ------------------------------


@numba.njit(inline="always")
def _mix(value: np.uint64) -> np.uint64:
    return (value ^ (value >> np.uint64(32))) * _MIXER


@numba.njit(cache=True)
def _power(multiplier: np.uint64, size: int) -> np.uint64:
    power = np.uint64(1)
    for _ in range(size):
        power *= multiplier
    return power


@numba.njit(cache=True)
def _begin(tokens: np.ndarray, start: int, size: int, multiplier: np.uint64) -> np.uint64:
    """The hash of the window at ``start``, before it is mixed."""
    value = np.uint64(0)
    for place in range(start, start + size):
        value = value * multiplier + np.uint64(tokens[place])
    return value


@numba.njit(cache=True)
def _count(
    tokens: np.ndarray,
    bounds: np.ndarray,
    size: int,
    multiplier: np.uint64,
    shift: np.uint64,
    first: np.uint64,
    table: np.ndarray,
) -> None:
    """Add every window to its counter, if ``table`` holds it: it holds those from ``first`` on."""
    power, counters = _power(multiplier, size), np.uint64(len(table))
    for response in range(len(bounds) - 1):
        start, end = bounds[response], bounds[response + 1]
        if end - start < size:
            continue
        value = _begin(tokens, start, size, multiplier)
        last = start + size
        while True:
            counter = (_mix(value) >> shift) - first
            if counter < counters and table[counter] < 255:
                table[counter] += 1
            if last == end:
                break
            value = value * multiplier + np.uint64(tokens[last]) - np.uint64(tokens[last - size]) * power
            last += 1


@numba.njit(cache=True)
def _tally(
    tokens: np.ndarray,
    bounds: np.ndarray,
    response: int,
    position: int,
    size: int,
    multiplier: np.uint64,
    marks: np.ndarray,
    shift: np.uint64,
    places: np.ndarray,
    windows: np.ndarray,
    hashes: np.ndarray,
    counts: np.ndarray,
    entries: int,
) -> tuple[int, int, int]:
    """Count the marked windows from the one of ``response`` at ``position`` on, until all are or an entry has no room.

    Returns the response and the position to go on at, and the number of entries.
    """
    power, mask = _power(multiplier, size), len(places) - 1
    while response < len(bounds) - 1:
        end = bounds[response + 1]
        if end - position >= size:
            value = _begin(tokens, position, size, multiplier)
            while True:
                mixed = _mix(value)
                mark = mixed >> shift
                if marks[mark >> np.uint64(3)] & (np.uint8(1) << np.uint8(mark & np.uint64(7))):
                    place = np.int64(mixed >> np.uint64(1)) & mask
                    while places[place] >= 0 and not (
                        hashes[places[place]] == mixed and _same(tokens, position, size, windows[places[place]])
                    ):
                        place = (place + 1) & mask
                    if places[place] < 0:
                        if entries == len(counts):
                            return response, position, entries
                        places[place] = entries
                        windows[entries] = tokens[position : position + size]
                        hashes[entries] = mixed
                        entries += 1
                    counts[places[place]] += 1
                if position + size == end:
                    break
                value = value * multiplier + np.uint64(tokens[position + size]) - np.uint64(tokens[position]) * power
                position += 1
        response += 1
        position = end
    return response, position, entries


@numba.njit(cache=True)
def _find(
    tokens: np.ndarray,
    size: int,
    multiplier: np.uint64,
    marks: np.ndarray,
    shift: np.uint64,
    places: np.ndarray,
    windows: np.ndarray,
    hashes: np.ndarray,
    found: np.ndarray,
) -> None:
    """Set ``found`` where a window stands that has an entry."""
    if not len(found):
        return
    power, mask = _power(multiplier, size), len(places) - 1
    value = _begin(tokens, 0, size, multiplier)
    for position in range(len(found)):
        mixed = _mix(value)
        mark = mixed >> shift
        if marks[mark >> np.uint64(3)] & (np.uint8(1) << np.uint8(mark & np.uint64(7))):
            place = np.int64(mixed >> np.uint64(1)) & mask
            while places[place] >= 0:
                if hashes[places[place]] == mixed and _same(tokens, position, size, windows[places[place]]):
                    found[position] = True
                    break
                place = (place + 1) & mask
        if position + 1 < len(found):
            value = value * multiplier + np.uint64(tokens[position + size]) - np.uint64(tokens[position]) * power


@numba.njit(inline="always")
def _same(tokens: np.ndarray, position: int, size: int, window: np.ndarray) -> bool:
    same = True
    for place in range(size):
        if tokens[position + place] != window[place]:
            same = False
            break
    return same


@numba.njit(cache=True)
def _place(hashes: np.ndarray, entries: int, places: np.ndarray) -> None:
    """Give every entry its place."""
    mask = len(places) - 1
    for entry in range(entries):
        place = np.int64(hashes[entry] >> np.uint64(1)) & mask
        while places[place] >= 0:
            place = (place + 1) & mask
        places[place] = entry
