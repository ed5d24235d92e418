"""Texts as words, for comparing what they say rather than how they are set.

There is one definition of a word, the pattern below in the syntax of Rust's crate `regex`, which polars runs over many
texts at a time: comparisons of millions of texts and of two see the same words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

# Chinese and Japanese write no spaces, so each of their characters is a word.
_IDEOGRAPH = r"\u{3040}-\u{30FF}\u{3400}-\u{9FFF}\u{F900}-\u{FAFF}\u{20000}-\u{3FFFF}"
# Numbers are words, and so are mathematical operators: "347 + 285" and "347 - 285" are different texts.
_TOKEN = (
    r"\d+(?:\.\d+)?"
    rf"|[{_IDEOGRAPH}]|[[\p{{L}}\p{{M}}\p{{Nl}}\p{{No}}]--[{_IDEOGRAPH}]]+"
    r"|[-+*/=<>^%±≤≥≠√∑∫]"
    r"|[.!?:;#\n。！？]"
)
#: Where a sentence may end.
SENTENCE_ENDS = frozenset(".!?:;#\n。！？")
#: Words that ask, point or join: in two wordings of one question these are what differs.
_SILENT = """
a an and answer are as at be been by can compute calculate choose correct determine do does each evaluate explain false
find first following for from get give given had has have he her him his how i if in is it its let many me more much my
next now number of on option options or out over please question select she show so solve statement statements tell that
the their them then there these they this those to total true us value was we were what when where which who will with
work would write you your
"""
SILENT_WORDS = frozenset(_SILENT.split())
_SIGNS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/"})
#: Thousands separators: of "12,345", and of no list of longer or shorter numbers.
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d)")
_MAY_BE_GROUPED = r"\d,\d{3}"
#: English words that are numbers. "One" is left out: it mostly is no number.
NUMBER_WORDS = {
    word: str(number)
    for words, numbers in (
        (
            "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
            "eighteen nineteen",
            range(2, 20),
        ),
        ("twenty thirty forty fifty sixty seventy eighty ninety", range(20, 100, 10)),
    )
    for word, number in zip(words.split(), numbers, strict=True)
}


class Words(NamedTuple):
    """The words of a text, and the positions among them where a sentence may begin or end (0 and the last included)."""

    words: list[str]
    edges: list[int]

    def numbers(self) -> list[str]:
        """The words that are numbers, in order; English words from "two" to "ninety" as digits."""
        return [NUMBER_WORDS.get(word, word) for word in self.words if word[0].isdigit() or word in NUMBER_WORDS]


def tokenise(texts: pl.Series) -> pl.Series:
    """The words of every text and the :data:`SENTENCE_ENDS` between them, as lists.

    Words are case-folded and in compatibility form (NFKC), without punctuation and LaTeX's signs; numbers have no thousands
    separators.
    """
    # Most texts need only what polars does fast; the words of a text do not depend on those beside it.
    special = (texts.str.len_bytes() != texts.str.len_chars()) | texts.str.contains(_MAY_BE_GROUPED)
    rows = np.flatnonzero(special.to_numpy())
    if len(rows):
        texts = texts.scatter(rows, pl.Series(map(_plain, texts.gather(rows)), dtype=pl.String))
    return texts.str.to_lowercase().str.extract_all(_TOKEN)


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).translate(_SIGNS).casefold()
    return _GROUPED.sub(lambda number: number.group().replace(",", ""), folded)


def split_words(text: str) -> Words:
    """The words of one text. For many, :func:`split_texts` is a hundred times faster."""
    return split_texts([text])[0]


def split_texts(texts: Sequence[str]) -> list[Words]:
    """The words of every text."""
    return [gather_words(tokens) for tokens in tokenise(pl.Series(texts, dtype=pl.String)).to_list()]


def gather_words(tokens: list[str]) -> Words:
    """The tokens of one text (see :func:`tokenise`) as words and edges."""
    words: list[str] = []
    edges = [0]
    for token in tokens:
        if token not in SENTENCE_ENDS:
            words.append(token)
        elif edges[-1] != len(words):
            edges.append(len(words))
    if edges[-1] != len(words):
        edges.append(len(words))
    return Words(words, edges)
