r"""What kind of thing a reference answer is, where no column of the source says so.

Verification treats alike what it compares by value (numbers, expressions, intervals); a type matters where the comparison is
another one: a choice is a letter, a set has no order, a text is compared as it is written. In doubt a reference is an
expression in mathematics and a text elsewhere.
"""

from __future__ import annotations

import re

_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_SIZED = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\\$|\$")
_SPACING = re.compile(r"\\!|(?<!\\)\\[,;: ]|\\q?quad\b|~|\s+")

_OPTION = re.compile(r"\(?[A-J]\)(?:\s+\S.*)?|[A-J][:)]?", re.DOTALL)
#: Letters that stand bare, in mathematics: later ones are variables more often than options.
_MATH_OPTION = re.compile(r"[A-E]")

_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\}|, )\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_POWER = r"(?:\s*(?:\\times|\\cdot|×|·|[x*])\s*10\s*\^\s*(?:\{\s*[+-]?\d+\s*\}|[+-]?\d+)|[eE][+-]?\d+)"
_PART = r"\s*(?:\{\s*[+-]?\d+\s*\}|\d)"
_NUMBER = re.compile(
    rf"[+-]?\s*(?:{_DECIMAL}{_POWER}?"  # 1,250.5 and 3.0 \times 10^{{8}}
    rf"|{_DIGITS}\s*/\s*{_DIGITS}|\d+\s+\d+\s*/\s*\d+"  # 3/4 and 2 3/4
    rf"|(?:\d+\s*)?\\[dt]?frac{_PART}{_PART}"  # \frac{{3}}{{4}} and 2\frac34
    r"|[0-9][0-9A-Z]*_\{?\d+\}?)"  # 101_2
    r"\s*(?:\\?%|°|\^\s*\{?\s*\\circ\s*\}?|\\degree)?"
)
#: What a unit is written in: letters that begin after a space.
_UNIT = re.compile(r"\s+(?!(?:and|or)\b)[A-Za-zµΩ°][A-Za-z0-9µΩ°^{}/·. -]*$")
_MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![a-zA-Z])\s*")
_UNION = re.compile(r"\\cup(?![a-zA-Z])|∪")
_INFINITY = re.compile(r"\\infty|∞")
_LETTERS = re.compile(r"[^\W\d_]+(?: [^\W\d_]+)*")
_LONG_WORD = 4
#: Shorter words, which a product of variables does not look like.
_SHORT_WORDS = frozenset(("yes", "no", "odd", "all", "any"))
_SIGNS = re.compile(r"\\[a-zA-Z]+|[=^+*<>≤≥√π∞±]")
_WORD = re.compile(r"(?<!\\)\b[^\W\d_]{3,}\b")
_LETTERS_TOGETHER = re.compile(r"[^\W\d_]{2}")
_SENTENCE_WORDS = 4


def infer_type(reference: str | None, category: str) -> str | None:
    r"""``number``, ``expression``, ``set``, ``interval``, ``choice`` or ``text``; None where there is no reference.

    The first that fits:

    - choice: ``(B)``, ``\text{B}``, ``B)`` or ``(B) copper``, for A to J; a bare letter too, in mathematics A to E alone.
    - number: a number as text or LaTeX has it: in groups of three digits, as a fraction, mixed, in powers of ten, in another
      base, with a currency sign, in percent or degrees, with a unit that a space or a wrapper sets apart.
    - set: what stands in braces, or is the empty one; in mathematics also several values between commas, each a value of its
      own: no equation, no pair.
    - interval: two ends in brackets of which one is square or that reach to infinity; and unions of such, and of round ones.
      A lone ``(1, 2)`` is a point as well as an interval, so it is an expression: those compare as both.
    - text: in mathematics words alone; elsewhere what has a word and no sign of a formula, or is a sentence.
    - expression: the rest.
    """
    if reference is None or not reference.strip():
        return None
    if _NUMBER.fullmatch(reference):  # most are; the others need a closer look
        return "number"
    math = category == "math"
    text = _tidy(reference)
    bare = _WRAPPER.sub(r" \1 ", text).strip()
    if _OPTION.fullmatch(bare) and (not math or bare != text or len(bare) > 1 or _MATH_OPTION.fullmatch(bare)):
        return "choice"
    if _NUMBER.fullmatch(_UNIT.sub("", bare)):
        return "number"
    if _is_set(text) or (math and _is_list(text)):
        return "set"
    if _is_interval(text):
        return "interval"
    if math:
        return "text" if _is_words(text, bare) else "expression"
    formula = _SIGNS.search(bare) or not _LETTERS_TOGETHER.search(bare)
    return "expression" if formula and len(_WORD.findall(bare)) < _SENTENCE_WORDS else "text"


def _tidy(text: str) -> str:
    """``text`` without dollar signs, sizes and spacing of LaTeX, and the final full stop."""
    text = _SIZED.sub("", text.replace("−", "-").replace("–", "-"))
    return _SPACING.sub(lambda match: "" if match[0] == r"\!" else " ", text).strip().rstrip(".").strip()


def _parts(text: str) -> list[str] | None:
    """What stands between the commas outside brackets; None where the brackets do not match."""
    parts, level, start = [], 0, 0
    for place, character in enumerate(text):
        if character in "{([":
            level += 1
        elif character in "})]":
            level -= 1
            if level < 0:
                return None
        elif character == "," and level == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return None if level else [*parts, text[start:].strip()]


def _is_set(text: str) -> bool:
    if text in (r"\emptyset", r"\varnothing", "∅"):
        return True
    inner = text.replace(r"\{", "{").replace(r"\}", "}")
    return inner[:1] == "{" and inner[-1:] == "}" and _parts(inner[1:-1]) is not None


def _is_list(text: str) -> bool:
    parts = _parts(text)
    return (
        parts is not None
        and len(parts) > 1
        and all(part and part[0] not in "([" and "=" not in part and len(_WORD.findall(part)) == 0 for part in parts)
    )


def _is_interval(text: str) -> bool:
    pieces = [piece.strip() for piece in _UNION.split(_MEMBER.sub("", text, count=1))]
    for piece in pieces:
        if len(piece) < 2 or piece[0] not in "([" or piece[-1] not in ")]":
            return False
        ends = _parts(piece[1:-1])
        if ends is None or len(ends) != 2 or not all(ends):
            return False
    return len(pieces) > 1 or pieces[0][0] == "[" or pieces[0][-1] == "]" or bool(_INFINITY.search(text))


def _is_words(text: str, bare: str) -> bool:
    if not _LETTERS.fullmatch(bare):
        return False
    return len(bare) >= _LONG_WORD or bare.casefold() in _SHORT_WORDS or bare != text
