"""Texts as words, for comparing what they say rather than how they are set."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

# Numbers are words (with their thousands separators gone), and so are mathematical operators: "347 + 285" and
# "347 - 285" are different texts. Chinese and Japanese write no spaces, so each of their characters is a word.
_TOKEN = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"|(?P<word>[぀-ヿ㐀-鿿豈-﫿]|[^\W\d_぀-ヿ㐀-鿿豈-﫿]+|[-+*/=<>^%±≤≥≠√∑∫])"
    r"|(?P<end>[.!?:;\n。！？])"
)
_OPERATORS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/"})


class Words(NamedTuple):
    """The words of a text, and the positions among them where a sentence may begin or end (0 and the last included)."""

    words: list[str]
    edges: list[int]

    def numbers(self) -> list[str]:
        """The words that are numbers, in order."""
        return [word for word in self.words if word[0].isdigit()]


def split_words(text: str) -> Words:
    """Case-folded words of ``text`` in compatibility form (NFKC), without punctuation and LaTeX's signs."""
    words: list[str] = []
    edges = [0]
    for token in _TOKEN.finditer(unicodedata.normalize("NFKC", text).translate(_OPERATORS)):
        if token.lastgroup == "end":
            if edges[-1] != len(words):
                edges.append(len(words))
        elif token.lastgroup == "number":
            words.append(token.group().replace(",", ""))
        else:
            words.append(token.group().casefold())
    if edges[-1] != len(words):
        edges.append(len(words))
    return Words(words, edges)
