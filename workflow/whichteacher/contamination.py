"""Which benchmark problems a query repeats, word by word.

A problem's word n-grams are looked up in the query. An n-gram that stands in k problems counts for 1/k, so what many
problems begin or end with ("find the number of positive integers such that") says little, and a problem that stands in
several benchmarks keeps its full share. Two more things must be found for the query to be *the same* problem: its
numbers, in their order, and its telling words. With other numbers, or about other things, it is another problem.

:meth:`ProblemIndex.overlaps` decides about one query, on words. :meth:`ProblemIndex.candidates` finds by hashes, for
millions of texts, those for which it has to be asked; it misses none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import fsum
from typing import NamedTuple

import numpy as np
import polars as pl

from whichteacher.queries import normalise
from whichteacher.words import SENTENCE_ENDS, SILENT_WORDS, Words, split_texts

#: The share of a problem's telling words a query must have to be the same problem: one of five may be another, one of four
#: may not.
_TOLD = 0.8
#: A problem shorter than an n-gram is looked for where it says this many different things: "Which of these is true?" is
#: part of many queries.
_THINGS = 2
#: Bits of the table that sorts out n-grams of no problem: at most 64 MB, one of some 64 entries taken.
_TABLE_BITS = (12, 26)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HASH_SEED = 0


class Overlap(NamedTuple):
    """What a query has of a problem: the weighted share of its n-grams, and whether it is the same problem with that."""

    problem: int
    share: float
    same: bool


class ProblemIndex:
    """The benchmarks' problems, ready for comparison with many queries. ``ngram`` is the length of the n-grams in words."""

    def __init__(self, prompts: Sequence[str], ngram: int) -> None:
        self.ngram = ngram
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._ngrams: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._short: dict[tuple[str, ...], list[int]] = defaultdict(list)
        split = split_texts(prompts)
        grams = [_ngrams(words.words, ngram) for words in split]
        for problem, (prompt, words) in enumerate(zip(prompts, split, strict=True)):
            self._exact[normalise(prompt)].append(problem)
            for gram in grams[problem]:
                self._ngrams[gram].append(problem)
            if not grams[problem] and len(_things(words.words)) >= _THINGS:
                self._short[tuple(words.words)].append(problem)
        self._weights = [fsum(1 / len(self._ngrams[gram]) for gram in found) for found in grams]
        self._numbers = [words.numbers() for words in split]
        telling = [{word for word in _things(words.words) if len(word) > 1 and word.isalpha()} for words in split]
        spread = Counter(word for words in telling for word in words)
        self._telling = [{word: 1 / spread[word] for word in words} for words in telling]
        self._hashed = _HashedGrams(self._ngrams, ngram)
        self._hashed_short = [
            _HashedGrams((words for words in self._short if len(words) == length), length)
            for length in sorted(set(map(len, self._short)))
        ]

    def exact(self, contents: Iterable[str]) -> list[int]:
        """Problems whose normalised text is one of ``contents``, which are normalised."""
        return sorted({problem for content in contents for problem in self._exact.get(content, ())})

    def exact_candidates(self, contents: pl.Series) -> np.ndarray:
        """The places of those texts of ``contents``, all normalised, that are a problem's."""
        return np.flatnonzero(contents.is_in(list(self._exact)).to_numpy())

    @property
    def short(self) -> int:
        """How many problems have fewer words than an n-gram."""
        return sum(not weight for weight in self._weights)

    def quoted(self, text: Words) -> list[Overlap]:
        """The problems that share n-grams with a response, in order: :meth:`overlaps`, without the problems of fewer words
        than an n-gram, which some sentence among thousands repeats by chance."""
        return self._shared([text])

    def quotation(self, problem: int, text: Words) -> tuple[str, ...]:
        """The first n-gram of ``text`` that is the problem's. Raises :class:`StopIteration` where none is."""
        grams = zip(*(text.words[start:] for start in range(self.ngram)), strict=False)
        return next(gram for gram in grams if problem in self._ngrams.get(gram, ()))

    def overlaps(self, turns: Sequence[Words]) -> list[Overlap]:
        """The problems that share n-grams with a query of these turns, in order.

        A problem of fewer words than an n-gram counts as found, with a share of 1, where its whole word sequence stands
        in a turn from one sentence edge to another: "Compute 34 + 5" is not found in "Compute 34 + 5 - 12".
        """
        found = {overlap.problem: overlap for overlap in self._shared(turns)}
        for turn in turns:
            for span in _sentence_spans(turn, self.ngram):
                found.update((problem, Overlap(problem, 1.0, True)) for problem in self._short.get(span, ()))
        return [overlap for _, overlap in sorted(found.items())]

    def _shared(self, turns: Sequence[Words]) -> list[Overlap]:
        hits: dict[int, list[float]] = defaultdict(list)
        for gram in set().union(*(_ngrams(turn.words, self.ngram) for turn in turns)):
            problems = self._ngrams.get(gram, ())
            for problem in problems:
                hits[problem].append(1 / len(problems))
        found = []
        if hits:
            numbers = [number for turn in turns for number in turn.numbers()]
            words = {word for turn in turns for word in turn.words}
            for problem, weights in sorted(hits.items()):
                same = _in_order(self._numbers[problem], numbers) and _told(self._telling[problem], words)
                found.append(Overlap(problem, round(fsum(weights) / self._weights[problem], 6), same))
        return found

    def candidates(self, tokens: pl.Series, short: bool = True) -> np.ndarray:
        """The places of those texts (as lists of tokens, see :func:`whichteacher.words.tokenise`) of which :meth:`overlaps` may
        find something; without ``short``, of which :meth:`quoted` may."""
        ends = np.cumsum(tokens.list.len().to_numpy(), dtype=np.int64)
        hashes = tokens.explode(empty_as_null=False).hash(_HASH_SEED).to_numpy()
        is_end = np.isin(hashes, _SENTENCE_END_HASHES)
        words = np.flatnonzero(~is_end)
        hashes = hashes[words]
        # N-grams that reach into the next text are looked up too: one more text is asked about, none is missed.
        found = words[self._hashed.find(hashes, np.arange(len(hashes)))]
        if short and self._hashed_short:
            begins = np.concatenate(([True], is_end))
            begins[ends] = True
            starts = np.flatnonzero(begins[words])
            found = np.concatenate([found, *(words[short.find(hashes, starts)] for short in self._hashed_short)])
        return np.unique(np.searchsorted(ends, found, side="right"))


class _HashedGrams:
    """Hashes of word sequences of one length; ``find`` looks them up in a sequence of hashed words."""

    def __init__(self, grams: Iterable[tuple[str, ...]], length: int) -> None:
        self.length = length
        words = pl.Series([word for gram in grams for word in gram], dtype=pl.String).hash(_HASH_SEED).to_numpy()
        self._known = np.unique(self._roll(words, np.arange(0, len(words), length)))
        bits = int(np.clip(np.ceil(np.log2(64 * max(len(self._known), 1))), *_TABLE_BITS))
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(2**bits, dtype=bool)
        self._table[self._known >> self._shift] = True

    def find(self, hashes: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Those of ``starts`` at which a known sequence begins."""
        starts = starts[: np.searchsorted(starts, len(hashes) - self.length, side="right")]
        if not len(starts) or not len(self._known):
            return starts[:0]
        rolled = self._roll(hashes, starts)
        near = np.flatnonzero(self._table[rolled >> self._shift])
        rolled = rolled[near]
        place = np.minimum(np.searchsorted(self._known, rolled), len(self._known) - 1)
        return starts[near[self._known[place] == rolled]]

    def _roll(self, hashes: np.ndarray, starts: np.ndarray) -> np.ndarray:
        # Where all places are asked for, slices do without copies.
        dense = len(starts) and len(starts) == starts[-1] + 1
        rolled = np.zeros(len(starts), dtype=np.uint64)
        for place in range(self.length):
            rolled *= _FACTOR
            rolled += hashes[place : place + len(starts)] if dense else hashes[starts + place]
        return rolled * _FACTOR


_SENTENCE_END_HASHES = pl.Series(sorted(SENTENCE_ENDS)).hash(_HASH_SEED).to_numpy()


def _ngrams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def _things(words: Sequence[str]) -> set[str]:
    """Words, numbers and variables that say what a text is about."""
    return {word for word in words if word[0].isalnum() and word not in SILENT_WORDS}


def _told(telling: Mapping[str, float], words: set[str]) -> bool:
    """Whether ``words`` hold enough of a problem's telling words, each with its weight."""
    there = fsum(weight for word, weight in telling.items() if word in words)
    return there >= _TOLD * fsum(telling.values())


def _sentence_spans(turn: Words, longest: int) -> Iterator[tuple[str, ...]]:
    """Runs of fewer than ``longest`` words that begin and end at a sentence's edge."""
    for position, start in enumerate(turn.edges):
        for end in turn.edges[position + 1 :]:
            if end - start >= longest:
                break
            yield tuple(turn.words[start:end])


def _in_order(wanted: Sequence[str], there: Sequence[str]) -> bool:
    """Whether ``wanted`` is a subsequence of ``there``."""
    rest = iter(there)
    return all(number in rest for number in wanted)
