"""What the statistics and the report both look for in a trace."""

from __future__ import annotations

import re

#: Words per n-gram of the repetition measure.
NGRAM = 8

#: Fences as CommonMark has them: three marks or more begin a line, and an open one holds to the end.
_CODE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*(?:\n.*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)|\Z)", re.DOTALL | re.MULTILINE)
#: Longest formula between marks that is looked for. It holds no second opening mark, so a mark that nobody closed costs no
#: second pass over the text.
_FORMULA = 4000
_ENVIRONMENTS = "equation|align|alignat|gather|multline|eqnarray|math|displaymath"
_OPERATORS = "+=<>^\u00b1\u00d7\u00f7\u00b7\u2212\u2248\u2260\u2264\u2265\u221a\u2211\u220f\u222b\u221e"
#: The first character stands in a class of its own, by which the search leaps over prose.
_FORMULAS = re.compile(
    rf"[\d$\\{_OPERATORS}](?:"
    r"(?<=\d)[\d]*(?:[.,]\d+)*(?:[ ]?[-*/][ ]?\d+(?:[.,]\d+)*)*"
    rf"|(?<=[{_OPERATORS}])[{_OPERATORS}]*"
    # Dollars as Pandoc has them, so that "from $5 to $10" is no formula: no blank inside a single one's marks, no digit
    # behind the closing one.
    rf"|(?<=\$)(?<!\\\$)(?:\$(?:[^$\\]|\\.){{1,{_FORMULA}}}+\$\$"
    rf"|(?=[^\s$])(?:[^$\n\\]|\\[^\n]){{1,{_FORMULA}}}+(?<=\S)\$(?!\d))"
    rf"|(?<=\\)(?:\[(?:[^\\]|\\[^\[\]]){{1,{_FORMULA}}}+\\\]|\((?:[^\\]|\\[^()]){{1,{_FORMULA}}}+\\\)"
    rf"|begin\{{(?P<kind>(?:{_ENVIRONMENTS})\*?)\}}"
    rf"(?:[^\\]|\\(?!(?:begin|end)\{{(?P=kind)\}})){{0,{_FORMULA}}}+\\end\{{(?P=kind)\}}))",
    re.DOTALL,
)


def find_answer(thinking: str, reference: str | None, reference_type: str | None) -> int | None:
    """Where the reference first stands in the thinking, as the number of characters up to its end; None if nowhere.

    It must stand free: 12 is not found in 312, 12.5 or 12,500. A choice letter is never looked for, as letters stand
    everywhere. A short number may stand there by chance, or as part of the question: compare teachers on the same
    queries, where chance is the same for all.
    """
    if not reference or reference_type == "choice":
        return None
    found = re.search(rf"(?<![\w.,]){re.escape(reference)}(?!\w|[.,]\d)", thinking)
    return found.end() if found else None


def repeated_share(text: str) -> float | None:
    """Share of the word n-grams of ``text`` that stood before in it; None for a text shorter than one n-gram."""
    words = text.split()
    count = len(words) - NGRAM + 1
    if count < 1:
        return None
    return 1 - len(set(zip(*(words[start:] for start in range(NGRAM)), strict=False))) / count


def shorten(text: str, characters: int = 2000) -> str:
    """``text`` as pages show it: without its end where it is long."""
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text):,} characters)"


def anatomy(text: str) -> tuple[float | None, float | None]:
    """Shares of the characters of ``text`` that are formulas and that are code; None for an empty text.

    Code is what stands in fenced blocks, fences included. A formula is, outside of them, what stands between LaTeX's marks
    (``$``, ``$$``, ``\\(``, ``\\[``, environments of display formulas), marks included, and elsewhere every number and operator: one
    rule for texts with and without LaTeX, where a variable alone is no formula and prose between two numbers none either.
    """
    if not text:
        return None, None
    prose, blocks = _CODE.subn("\n", text) if "```" in text or "~~~" in text else (text, 0)
    formula = sum(found.end() - found.start() for found in _FORMULAS.finditer(prose))
    return formula / len(text), (len(text) - len(prose) + blocks) / len(text)
