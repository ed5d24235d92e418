"""Texts that differ in a few words: found by MinHash, confirmed by the exact share of common word n-grams.

What is compared are the sets of a text's word n-grams ("shingles"), by their Jaccard similarity: common shingles over all
shingles of the two. R-MinHash (the library rensa) turns each set into a signature; texts whose signatures agree in one of
several bands are candidates; of every candidate pair the similarity is then counted. So a pair that is found is always
right, and one that is similar enough is missed with the probability :data:`_MISSED` at the threshold, less above it.

A text is dropped if it is similar enough to a text that stays, going through the texts in the order in which they are
wanted. No chain of small differences removes a text that is far from all that stay, as removing whole connected components
would, and no two texts that were found similar both stay.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from rensa import RMinHash

from whichteacher.words import SENTENCE_ENDS, tokenise

#: Values of a signature. More would find no more: bands are made for the threshold.
_VALUES = 64
#: The largest chance to miss a pair that is just similar enough.
_MISSED = 0.02
_SEED = 1
#: Signatures leave rensa as Python integers; few at a time stay in the processor's cache. As of rensa 0.5.0 there is no other
#: way out: its matrix has no buffer.
_SIGNED_ROWS = 500
#: So much text is cut into words at a time: what that takes stays in the cache as well.
_SHINGLED_BYTES = 1_000_000
#: In a band that very many texts share, each is compared with so many others beside the first.
_NEIGHBOURS = 16
#: How many candidate pairs wait to be sorted before they are confirmed, and how many are confirmed at a time. The latter
#: fill the upper bits of a number that holds a shingle in the others.
_WAITING_PAIRS = 4_000_000
_PAIR_BITS = 12
_CONFIRMED_SHINGLES = 500_000

#: Words that are numbers, in the languages the corpus has most of. "One" is missing: it rarely counts, and where it stands
#: for another of these, the other one tells.
_NUMERALS = [
    *("zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty", "fifty"),
    *("sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million", "billion"),
    *("half", "quarter", "twice", "thrice", "double", "triple"),
    *"零二三四五六七八九十百千万亿两半",
]
_SIGNS = list("+=<>^%±≤≥≠√∑∫")
# Missing are "-", "*" and "/". In prose these are hyphens, markup and "and/or"; beside a figure or a single letter they
# calculate.

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SECOND = 0xFFFFFFFF
#: Kinds of tokens; a token of the last two is one character.
_LETTER, _DIGIT, _SIGN, _END = 1, 2, 3, 4
#: What keeps the first bytes, by their number, of eight.
_MASKS = np.array([(1 << 8 * kept) - 1 for kept in range(9)], np.uint64)
_FOREIGN_ENDS = sorted(end for end in SENTENCE_ENDS if not end.isascii())
_MAY_BE_GROUPED = r"\d,\d{3}"
_SHINGLE_BITS = np.uint64(64 - _PAIR_BITS)


class Shingles(NamedTuple):
    """The shingles of some texts: ``hashes`` (uint64), text after text; those of text i are ``starts[i]:starts[i + 1]``.

    ``figures`` (uint64) is equal for texts with the same numbers and operators in the same order.
    """

    hashes: np.ndarray
    starts: np.ndarray
    figures: np.ndarray


class NearDuplicates(NamedTuple):
    """The rows to drop (``dropped``, ascending), each with a row ``kept``, which stays, and their ``similarity``.

    ``crowded`` rows looked like so many others that each was compared with some of them only.
    """

    dropped: np.ndarray
    kept: np.ndarray
    similarity: np.ndarray
    crowded: int


def bands_for(similarity: float) -> tuple[int, int]:
    """How many bands of how many signature values each find pairs of this similarity: the fewest false candidates (most
    values per band) such that a pair is missed with a probability of at most :data:`_MISSED`."""
    fitting = [rows for rows in range(1, _VALUES + 1) if (1 - similarity**rows) ** (_VALUES // rows) <= _MISSED]
    rows = max(fitting, default=1)
    return _VALUES // rows, rows


def make_shingles(texts: pl.Series, ngram: int) -> Shingles:
    """The shingles of ``texts``: hashes of ``ngram`` words in a row, with repetitions.

    A text of fewer words is one shingle; one without words has none.
    """
    tokens = _tokenise(texts)
    said = tokens.kinds != _END
    hashes, starts = _combine(tokens.hashes[said], np.concatenate([[0], np.cumsum(said)])[tokens.bounds], ngram)
    return Shingles(hashes, starts, _figures(tokens))


class _Tokens(NamedTuple):
    """What :func:`whichteacher.words.tokenise` finds in some texts, without the texts: per token the ``hashes`` of its bytes,
    its ``kinds``, its first byte and its length. Those of text i are ``bounds[i]:bounds[i + 1]``."""

    hashes: np.ndarray
    kinds: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    bounds: np.ndarray


@functools.cache
def _byte_kinds() -> bytes:
    """The kind of token that each byte is part of, or 0. Bytes beyond ASCII are letters."""
    kinds = bytearray([_LETTER] * 256)
    for code, found in enumerate(tokenise(pl.Series(map(chr, range(128)), dtype=pl.String)).to_list()):
        character = chr(code)
        if not found:
            kinds[code] = 0
        elif not character.isalpha():
            kinds[code] = _DIGIT if character.isdigit() else _END if character in SENTENCE_ENDS else _SIGN
    return bytes(kinds)


def _tokenise(texts: pl.Series) -> _Tokens:
    """Tokens of all texts at a time, from their bytes: several times faster than as strings.

    They are those of :func:`whichteacher.words.tokenise`, except that "1.2.3" is one number here.
    """
    arrow = _plain(texts).to_arrow().cast(pa.large_string())
    _, offsets, buffer = arrow.buffers()
    edges = np.frombuffer(offsets, np.int64)[arrow.offset : arrow.offset + len(arrow) + 1]
    text = bytes(memoryview(buffer or b"")[edges[0] : edges[-1]]).lower()
    edges = edges - edges[0]
    kind = np.frombuffer(bytearray(text.translate(_byte_kinds())), np.uint8)
    data = np.frombuffer(text + bytes(8), np.uint8)
    changes = np.zeros(len(kind) + 1, bool)
    changes[edges] = True
    points = np.flatnonzero(data[1 : len(kind) - 1] == ord(".")) + 1
    within = (kind[points - 1] == _DIGIT) & (kind[points + 1] == _DIGIT) & ~changes[points] & ~changes[points + 1]
    kind[points[within]] = _DIGIT
    changes[:-1] |= kind >= _SIGN
    changes[1:-1] |= kind[1:] != kind[:-1]
    edge = np.flatnonzero(changes)
    kinds = kind[edge[:-1]]
    pieces = np.flatnonzero(kinds)
    begins, ends = edge[pieces], edge[pieces + 1]
    return _Tokens(
        _hash_bytes(data, begins, ends),
        kinds[pieces],
        data[begins],
        ends - begins,
        np.searchsorted(begins, edges),
    )


def _plain(texts: pl.Series) -> pl.Series:
    """``texts`` such that runs of bytes of a kind are their tokens: in those with other characters than ASCII or thousands
    separators the tokens stand apart already."""
    special = (texts.str.len_bytes() != texts.str.len_chars()) | texts.str.contains(_MAY_BE_GROUPED)
    rows = np.flatnonzero(special.to_numpy())
    if not len(rows):
        return texts
    some = texts.gather(rows)
    foreign = np.flatnonzero(some.str.contains(r"[\d--0-9]").to_numpy())
    digits = [re.sub(r"\d", lambda digit: str(int(digit[0])), text) for text in some.gather(foreign)]
    some = some.scatter(foreign, pl.Series(digits, dtype=pl.String))
    apart = tokenise(some).list.join("\0").str.replace_many(_FOREIGN_ENDS, ["."])
    return texts.scatter(rows, apart)


def _hash_bytes(data: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A hash (uint64) of each piece of ``data``, which holds no zero but eight at its end."""
    eight = np.ndarray(len(data) - 7, np.dtype("<u8"), data, strides=(1,))
    lengths = ends - begins
    hashes = _mix(eight[begins] & _MASKS[np.minimum(lengths, 8)])
    longer = np.flatnonzero(lengths > 8)
    step = 8
    while len(longer):
        more = eight[begins[longer] + step] & _MASKS[np.minimum(lengths[longer] - step, 8)]
        hashes[longer] = _mix(hashes[longer] * _FACTOR + more)
        step += 8
        longer = longer[lengths[longer] > step]
    return hashes


def _combine(hashed: np.ndarray, bounds: np.ndarray, ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of n-grams that stay within their text, and where each text's begin."""
    begins, ends = bounds[:-1], bounds[1:]
    combined = hashed.copy()
    for step in range(1, ngram):
        combined *= _FACTOR
        combined[: max(len(hashed) - step, 0)] += hashed[step:]
    inside = np.ones(len(hashed), bool)
    for step in range(1, ngram):
        last = ends - step
        inside[last[last > begins]] = False
    lengths = ends - begins
    short = np.flatnonzero((lengths > 0) & (lengths < ngram))
    whole = np.zeros(len(short), np.uint64)
    for step in range(ngram):
        within = step < lengths[short]
        whole = np.where(within, whole * _FACTOR + hashed[begins[short] + np.where(within, step, 0)], whole)
    combined[begins[short]] = whole
    counts = np.where(lengths > 0, np.maximum(lengths - ngram + 1, 1), 0)
    return combined[inside], np.concatenate([[0], np.cumsum(counts)])


@functools.cache
def _special_hashes() -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the tokens that are figures without being digits, sorted, and which upper 16 bits they have."""
    words = [word.encode() for word in _NUMERALS + _SIGNS]
    ends = np.cumsum([len(word) for word in words])
    data = np.frombuffer(b"".join(words) + bytes(8), np.uint8)
    hashes = np.sort(_hash_bytes(data, ends - [len(word) for word in words], ends))
    upper = np.zeros(2**16, bool)
    upper[hashes >> np.uint64(48)] = True
    return hashes, upper


def _figures(tokens: _Tokens) -> np.ndarray:
    """Per text a hash of its numbers, numerals and operators in order."""
    special, upper = _special_hashes()
    kept = tokens.kinds == _DIGIT
    maybe = np.flatnonzero(upper[tokens.hashes >> np.uint64(48)])
    kept[maybe[np.isin(tokens.hashes[maybe], special)]] = True
    # The other signs come after: "*" beside "*" is markup.
    signs = np.flatnonzero((tokens.kinds == _SIGN) & ~kept)
    text = np.repeat(np.arange(len(tokens.bounds) - 1), np.diff(tokens.bounds))
    calculates = np.zeros(len(signs), bool)
    for step in (-1, 1):
        beside = np.clip(signs + step, 0, len(kept) - 1)
        letter = (tokens.kinds[beside] == _LETTER) & (tokens.lengths[beside] <= 1 + (tokens.first[beside] >= 0x80))
        # What the text before ends with, or the next one begins with, is not beside it.
        same_text = text[beside] == text[signs]
        calculates |= same_text & (kept[beside] | letter)
    kept[signs[calculates]] = True
    places = np.flatnonzero(kept)
    bounds = np.searchsorted(places, tokens.bounds)
    order = np.arange(len(places)) - np.repeat(bounds[:-1], np.diff(bounds))
    parts = _mix(tokens.hashes[places] + order.astype(np.uint64) * _FACTOR)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(parts, dtype=np.uint64)])
    return sums[bounds[1:]] - sums[bounds[:-1]]


def _mix(values: np.ndarray) -> np.ndarray:
    """Every bit of each value spread over all others; different values stay different."""
    values = (values ^ (values >> np.uint64(32))) * _FACTOR
    values = (values ^ (values >> np.uint64(29))) * _FACTOR
    return values ^ (values >> np.uint64(32))


def sign(shingles: Shingles) -> np.ndarray:
    """The signature of each text: :data:`_VALUES` values (uint32) a row."""
    starts = shingles.starts
    signatures = np.empty((len(starts) - 1, _VALUES), np.uint32)
    for begin in range(0, len(signatures), _SIGNED_ROWS):
        part = starts[begin : begin + _SIGNED_ROWS + 1]
        signed = RMinHash.digest_matrix_from_flat_token_hashes(
            shingles.hashes[part[0] : part[-1]], (part - part[0]).astype(np.uint64), _VALUES, _SEED
        )
        signatures[begin : begin + _SIGNED_ROWS] = signed.to_rows()
    return signatures


def band_keys(signatures: np.ndarray, guards: np.ndarray, similarity: float) -> np.ndarray:
    """Per band and text a key (uint32): equal where the band's values and the ``guards`` are, and rarely otherwise.

    The last band is the whole signature, so that texts with the same shingles meet whatever else looks like them.
    """
    bands, rows = bands_for(similarity)
    parts = [signatures[:, band * rows : (band + 1) * rows] for band in range(bands)]
    keys = np.empty((bands + 1, len(signatures)), np.uint32)
    for key, part in zip(keys, [*parts, signatures], strict=True):
        mixed = guards.copy()
        for value in part.T:
            mixed *= _FACTOR
            mixed += value
        key[:] = _mix(mixed) >> np.uint64(32)
    return keys


def pair_candidates(keys: np.ndarray, crowded: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of texts that share a key, as numbers ``first << 32 | second`` with first < second; some come several times.

    ``keys`` holds a row per band and a column per text. Texts that share a key with more than :data:`_NEIGHBOURS` others are
    marked in ``crowded``: each is paired with so many of them, and with the first of those that share this key or this key
    and the next band's.
    """
    for band, key in enumerate(keys):
        text = np.argsort(key)
        same = key[text[1:]] == key[text[:-1]]
        shares = np.zeros(len(text), bool)
        shares[1:] |= same
        shares[:-1] |= same
        text = text[shares]
        # Texts that share the next band too become neighbours, so that a crowd's likeliest pairs are compared.
        next_key = keys[(band + 1) % len(keys)][text]
        sorting = np.lexsort((text, next_key, key[text]))
        text, next_key = text[sorting], next_key[sorting]
        key = key[text]
        for step in range(1, min(_NEIGHBOURS + 1, len(text))):
            same = key[step:] == key[:-step]
            if not same.any():
                break
            yield _pack(text[:-step][same], text[step:][same])
        begins = _changes(key)
        sizes = np.diff(np.append(np.flatnonzero(begins), len(key)))
        crowd = np.repeat(sizes > _NEIGHBOURS + 1, sizes)
        if crowd.any():
            crowded[text[crowd]] = True
            for heads in (begins, begins | _changes(next_key)):
                places = np.flatnonzero(heads)
                first = np.repeat(np.minimum.reduceat(text, places), np.diff(np.append(places, len(text))))
                others = crowd & (first != text)
                yield _pack(first[others], text[others])


def _changes(values: np.ndarray) -> np.ndarray:
    """Where a run of equal ``values`` begins."""
    begins = np.ones(len(values), bool)
    begins[1:] = values[1:] != values[:-1]
    return begins


def _unique(values: np.ndarray) -> np.ndarray:
    """numpy's own takes minutes for numbers that differ in their upper bits (2.3: its hash table)."""
    values = np.sort(values)
    return values[_changes(values)]


def _pack(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (np.minimum(one, other) << 32) | np.maximum(one, other)


def _distinct(pairs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """``pairs`` in larger arrays with most of the repetitions gone."""
    waiting: list[np.ndarray] = []
    for some in pairs:
        waiting.append(some)
        if sum(map(len, waiting)) >= _WAITING_PAIRS:
            waiting = [_unique(np.concatenate(waiting))]
            if len(waiting[0]) >= _WAITING_PAIRS // 2:
                yield waiting.pop()
    if waiting:
        yield _unique(np.concatenate(waiting))


def jaccard(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
    """The Jaccard similarity of each pair of ``one`` and ``other``, at most ``2**_PAIR_BITS`` arrays of shingles each."""
    sets = []
    for side in (one, other):
        pair = np.repeat(np.arange(len(side), dtype=np.uint64), [len(hashes) for hashes in side])
        sets.append(_unique((pair << _SHINGLE_BITS) | (np.concatenate(side) >> np.uint64(_PAIR_BITS))))
    both = np.sort(np.concatenate(sets))
    common = both[1:][both[1:] == both[:-1]]
    shared, *sizes = (
        np.bincount((keys >> _SHINGLE_BITS).astype(np.int64), minlength=len(one)) for keys in (common, *sets)
    )
    return shared / (sizes[0] + sizes[1] - shared)


def choose_dropped(pairs: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which texts fall, for the first text before each that stays, and how similar they are.

    ``pairs`` (packed, see :func:`pair_candidates`) are similar; texts are numbered from the most wanted to the least.
    """
    fallen: dict[int, tuple[int, float]] = {}
    sorting = np.lexsort((pairs >> 32, pairs & _SECOND))
    pairs = pairs[sorting]
    listed = zip((pairs >> 32).tolist(), (pairs & _SECOND).tolist(), similarity[sorting].tolist(), strict=True)
    # What becomes of the first text is known by then: all its pairs with texts before it have gone by.
    for first, second, share in listed:
        if second not in fallen and first not in fallen:
            fallen[second] = (first, share)
    survivors = [first for first, _ in fallen.values()]
    shares = [share for _, share in fallen.values()]
    return np.array(list(fallen), np.int64), np.array(survivors, np.int64), np.array(shares, np.float64)


class _Texts:
    """What is kept of all texts: their keys and guards in memory, their shingles on disk."""

    def __init__(self, file: BinaryIO, rows: int, similarity: float) -> None:
        self._file, self._similarity = file, similarity
        self.keys = np.empty((bands_for(similarity)[0] + 1, rows), np.uint32)
        self.guards = np.empty(rows, np.uint64)
        self.answers = np.empty(rows, np.uint64)
        self.starts = np.zeros(rows + 1, np.int64)
        self.rows = 0

    def add(self, shingles: Shingles, guards: np.ndarray, answers: np.ndarray) -> None:
        """Take in the next texts: ``guards`` must be equal, and so must ``answers`` unless one is 0."""
        rows = slice(self.rows, self.rows + len(guards))
        self.guards[rows], self.answers[rows] = guards, answers
        self.keys[:, rows] = band_keys(sign(shingles), guards, self._similarity)
        self.starts[rows.start + 1 : rows.stop + 1] = self.starts[rows.start] + shingles.starts[1:]
        self._file.write(shingles.hashes.tobytes())
        self.rows = rows.stop

    def confirm(self, pairs: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of ``pairs`` (packed, of places in ``rows``) that are similar enough, and their similarity."""
        one, other = rows[pairs >> 32], rows[pairs & _SECOND]
        answers = self.answers[one], self.answers[other]
        fits = (answers[0] == answers[1]) | (answers[0] == 0) | (answers[1] == 0)
        fits &= self.guards[one] == self.guards[other]
        pairs, one, other = pairs[fits], one[fits], other[fits]
        lengths = self.starts[one + 1] - self.starts[one] + self.starts[other + 1] - self.starts[other]
        portion = np.maximum(np.arange(len(pairs)) >> _PAIR_BITS, np.cumsum(lengths) // _CONFIRMED_SHINGLES)
        shares = [np.zeros(0)]
        for part in np.split(np.arange(len(pairs)), np.flatnonzero(np.diff(portion)) + 1):
            if len(part):
                shares.append(jaccard(self._read(one[part]), self._read(other[part])))
        share = np.concatenate(shares)
        enough = share >= self._similarity
        return pairs[enough], share[enough]

    def _read(self, rows: np.ndarray) -> list[np.ndarray]:
        handle = self._file.fileno()
        begins, ends = (8 * self.starts[rows]).tolist(), (8 * self.starts[rows + 1]).tolist()
        return [
            np.frombuffer(os.pread(handle, end - begin, begin), np.uint64)
            for begin, end in zip(begins, ends, strict=True)
        ]


def _portions(batch: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """``batch`` in parts of some :data:`_SHINGLED_BYTES` of text."""
    portion = np.cumsum(batch["text"].str.len_bytes().to_numpy(), dtype=np.int64) // _SHINGLED_BYTES
    edges = [0, *(np.flatnonzero(np.diff(portion)) + 1).tolist(), len(batch)]
    for begin, end in itertools.pairwise(edges):
        yield batch[begin:end]


def find_near_duplicates(
    batches: Iterable[pl.DataFrame],
    order: np.ndarray,
    similarity: float,
    ngram: int,
    same_numbers: bool,
    folder: str | os.PathLike[str] | None = None,
) -> NearDuplicates:
    """The near duplicates among all rows of ``batches``, which are numbered through.

    A batch has the texts to compare in ``text``. Rows with unequal ``context`` are different, and so are rows that both have
    an ``answer``, and another one. ``order`` lists all rows from the most wanted to the least; the result does not depend on
    how they are ordered in the batches. Two texts are near duplicates if the Jaccard similarity of their word ``ngram``s
    is at least ``similarity`` and, with ``same_numbers``, their numbers and operators are the same in the same order.

    Memory holds 4 bytes per row and band (see :func:`bands_for`), some 60 more per row, and what a portion of text needs; a
    file in ``folder`` (none: the system's folder for temporary files) holds 8 bytes per word until the end.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        texts = _Texts(file, len(order), similarity)
        for portion in itertools.chain.from_iterable(map(_portions, batches)):
            shingles = make_shingles(portion["text"], ngram)
            guards = portion["context"].hash(_SEED).to_numpy()
            answers = np.where(portion["answer"].is_null(), 0, portion["answer"].hash(_SEED))
            texts.add(shingles, _mix(guards + shingles.figures) if same_numbers else guards, answers)
        if texts.rows != len(order):
            raise ValueError(f"{texts.rows} rows came, {len(order)} are ordered")
        file.flush()
        rows = order[np.diff(texts.starts)[order] > 0]
        for band in texts.keys:
            band[: len(rows)] = band[rows]
        crowded = np.zeros(len(rows), bool)
        confirmed = [(np.zeros(0, np.int64), np.zeros(0))]
        for pairs in _distinct(pair_candidates(texts.keys[:, : len(rows)], crowded)):
            confirmed.append(texts.confirm(pairs, rows))
    pairs, first = np.unique(np.concatenate([pairs for pairs, _ in confirmed]), return_index=True)
    dropped, kept, shares = choose_dropped(pairs, np.concatenate([shares for _, shares in confirmed])[first])
    sorting = np.argsort(rows[dropped])
    return NearDuplicates(rows[dropped][sorting], rows[kept][sorting], shares[sorting], int(crowded.sum()))
