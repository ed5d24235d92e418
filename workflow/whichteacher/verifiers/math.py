"""Mathematics: the last closed ``\\boxed{}`` of the answer part against a typed reference.

Cheap exact comparisons come first, math-verify last. math-verify's own time limits are alarms that report a slow comparison
as a wrong answer; they are off here, and :mod:`whichteacher.verifiers.pool` limits the CPU time of the process instead.
"""

from __future__ import annotations

import logging
import re
import signal
from functools import cache, lru_cache
from importlib import metadata
from types import ModuleType
from typing import Any

from whichteacher.verifiers.outcome import Outcome, right, undecided, wrong

#: Longer or deeper answers cost more to parse than any real answer needs.
MAX_CHARS = 2000
MAX_DEPTH = 30
#: math-verify's own default: decimals agree when they agree rounded to six places.
_DECIMALS = 6

_BOX = re.compile(r"\\f?boxed\s*\{")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}")
_SIZED = re.compile(r"\\(?:left|right)(?![a-zA-Z])")
_SPACING = re.compile(r"(?<!\\)\\[,;:!> ]|\\q?quad\b|~|[\u00a0\u2009\u202f]")
_SIGNS = str.maketrans({"−": "-", "–": "-", "∞": r"\infty ", "π": r"\pi ", "×": r"\times ", "·": r"\cdot "})
_INTEGER = re.compile(r"[+-]?\d+")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_GROUP_SPACE = re.compile(r"(?<=\d) (?=\d{3}\b)")
_BASED = re.compile(r"([0-9][0-9A-Za-z]*)_\{?(\d+)\}?")
_MEASURED = re.compile(r"[+-]?[\d.,]+(?:\s*/\s*\d+)?\s*([a-zA-Z][a-zA-Z0-9/^{}]*)")
_WORDS = re.compile(r"[A-Za-z]{2}[A-Za-z ]{2,}")
_MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![a-zA-Z])\s*")
_CONJUNCTION = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_LETTER = re.compile(r"\(?([A-Za-z])\)?(?:[.):]?|[.):]\s*\S.*|\)\s*\S.*)", re.DOTALL)


def version() -> str:
    """Version of the rules and of math-verify."""
    return f"1+math-verify-{metadata.version('math-verify')}"


def _closing(text: str, start: int) -> int | None:
    """Index of the brace that closes the one opened just before ``start``."""
    depth, index = 1, start
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return index
        index += 1
    return None


def last_boxed(text: str) -> str | None:
    r"""Contents of the last ``\boxed{}`` whose braces close; a box inside a box belongs to the outer one."""
    found, position = None, 0
    while match := _BOX.search(text, position):
        end = _closing(text, match.end())
        if end is None:
            position = match.end()
        else:
            found, position = text[match.end() : end].strip(), end
    return found


def tidy(text: str) -> str:
    """Light normalisation of a formula: dollar signs, spacing commands, unicode signs and final full stops go."""
    text = _SPACING.sub(" ", text.translate(_SIGNS)).replace(r"\$", "").replace("$", "")
    text = _SIZED.sub("", text).replace("dfrac", "frac").replace("tfrac", "frac")
    return " ".join(text.split()).rstrip(".").strip()


def plain(text: str) -> str:
    """:func:`tidy` without text wrappers: ``10\\text{ cm}`` is ``10 cm``."""
    text, previous = tidy(text), None
    while previous != text:
        previous, text = text, _WRAPPER.sub(r" \1 ", text)
    return tidy(text)


def as_text(text: str) -> str:
    """The form two equal short texts share: plain, case folded, without quotes and outer punctuation."""
    return plain(text).replace("\\", "").strip(" \"'`*.,:;!?").casefold()


def letter(text: str) -> str | None:
    """The option letter an answer such as ``B``, ``(b)`` or ``B. copper`` names; None where it names none."""
    match = _LETTER.fullmatch(plain(text).strip("* "))
    return match[1].upper() if match else None


def _depth(text: str) -> int:
    deepest = level = 0
    for character in text:
        level += (character in "{([") - (character in "})]")
        deepest = max(deepest, level)
    return deepest


def _brackets(text: str) -> str:
    """``{}`` where ``text`` is a set in braces, ``()`` where it is in round or square brackets, else nothing."""
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return "{}"
    return "()" if text[:1] in "([" and text[-1:] in ")]" else ""


def _closing_bracket(text: str) -> int | None:
    """Index of the bracket that closes the one ``text`` begins with."""
    level = 0
    for index, character in enumerate(text):
        level += (character in "{([") - (character in "})]")
        if not level:
            return index
    return None


def elements(text: str) -> int:
    """How many things a list such as ``3, 5`` or ``\\{1, 2\\}`` or ``x = 1 or x = 2`` names, by its outer commas."""
    text = _MEMBER.sub("", text.replace(r"\{", "{").replace(r"\}", "}").strip())
    text = _CONJUNCTION.sub(",", text)
    # A list in round brackets is still one; pairs next to each other are not in brackets together.
    if text[:1] + text[-1:] in ("{}", "()") and _closing_bracket(text) == len(text) - 1:
        text = text[1:-1]
    parts, level = [""], 0
    for character in text:
        level += (character in "{([") - (character in "})]")
        if character == "," and level == 0:
            parts.append("")
        else:
            parts[-1] += character
    # "\pm 2" names two things.
    return sum(2 if r"\pm" in part else 1 for part in parts if part.strip())


def ungrouped(text: str) -> str:
    """``text`` without separators between groups of three digits."""
    text = _GROUP_SPACE.sub("", text)
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text


def _in_base(match: re.Match[str]) -> int | str:
    """The value of ``101_2``, or the text itself where its digits do not fit its base."""
    base = int(match[2])
    try:
        return int(match[1], base) if base > 1 else match[0]
    except ValueError:
        return match[0]


@cache
def _library() -> ModuleType:
    """math-verify, imported when first needed (0.7 s) and not at the cost of the comparison's own CPU time."""
    left = signal.setitimer(signal.ITIMER_PROF, 0)
    import math_verify

    # It warns once per process that its time limits are off, which is meant.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    signal.setitimer(signal.ITIMER_PROF, *left)
    return math_verify


@lru_cache(maxsize=4096)
def _parse(text: str) -> list[Any]:
    """math-verify's reading of a LaTeX formula, empty where there is none."""
    library = _library()
    return library.parse(f"${text}$", [library.LatexExtractionConfig()], parsing_timeout=None)


def same_value(reference: str, answer: str) -> bool | None:
    """math-verify's comparison of two tidied formulas; None where the reference cannot be read."""
    verify = _library().verify
    gold = _parse(reference)
    # A reference that is not equal to itself was not understood.
    if not gold or not verify(gold, gold, float_rounding=_DECIMALS, timeout_seconds=None):
        return None
    return verify(gold, _parse(answer), float_rounding=_DECIMALS, timeout_seconds=None)


def compare_choice(answer: str, reference: str) -> Outcome:
    """Two option letters."""
    wanted, given = letter(reference), letter(answer)
    if wanted is None:
        return undecided("reference_unreadable", reference=reference)
    if given is None:
        return undecided("no_letter", answer=answer[:MAX_CHARS], reference=wanted)
    compared = {"answer": given, "reference": wanted}
    return right("same_letter", **compared) if given == wanted else wrong("other_letter", **compared)


def compare_formula(answer: str, reference: str, kind: str) -> Outcome:
    """A number, expression, set or interval (``kind``) against its reference."""
    compared: dict[str, Any] = {"answer": answer[:MAX_CHARS], "reference": reference}
    if len(answer) > MAX_CHARS:
        return undecided("answer_too_long", **compared)
    if _depth(answer) > MAX_DEPTH:
        return undecided("answer_too_nested", **compared)
    given, wanted = plain(answer), plain(reference)
    if not wanted or wanted.count("{") != wanted.count("}"):
        return undecided("reference_unreadable", **compared)
    if kind != "set":
        given, wanted = ungrouped(given), ungrouped(wanted)
    if given == wanted:
        return right("same_text", **compared)
    if _INTEGER.fullmatch(given) and _INTEGER.fullmatch(wanted):
        return right("same_integer", **compared) if int(given) == int(wanted) else wrong("other_integer", **compared)
    # math-verify multiplies the letters of words, reads neither bases nor units, and takes a pair for an interval or a set.
    if _WORDS.fullmatch(wanted):
        return right("same_text", **compared) if as_text(given) == as_text(wanted) else wrong("other_text", **compared)
    based = _BASED.fullmatch(given), _BASED.fullmatch(wanted)
    if based[0] and based[1]:
        values = _in_base(based[0]), _in_base(based[1])
        return right("same_value", **compared) if values[0] == values[1] else wrong("other_value", **compared)
    measured = _MEASURED.fullmatch(given), _MEASURED.fullmatch(wanted)
    if measured[0] and measured[1] and measured[0][1] != measured[1][1]:
        return undecided("other_unit", **compared)
    if {_brackets(given), _brackets(wanted)} == {"{}", "()"}:
        return wrong("other_brackets", **compared)
    if kind == "set" and elements(given) != elements(wanted):
        return wrong("other_cardinality", **compared, elements=[elements(given), elements(wanted)])
    # The wrappers stay for math-verify, which knows what to do with them.
    formulas = [tidy(text) if kind == "set" else ungrouped(tidy(text)) for text in (reference, answer)]
    same = same_value(*formulas)
    if same is None:
        return undecided("reference_unreadable", **compared)
    return right("same_value", **compared) if same else wrong("other_value", **compared)


def check(answer: str, reference: str | None, kind: str | None) -> Outcome:
    """The boxed answer against ``reference`` of type ``kind`` (none: an expression)."""
    if not reference:
        return undecided("no_reference")
    boxed = last_boxed(answer)
    if boxed is None:
        return wrong("no_box")
    if not boxed:
        return wrong("empty_box")
    if kind == "choice":
        return compare_choice(boxed, reference)
    if kind == "text":
        compared = {"answer": boxed[:MAX_CHARS], "reference": reference}
        return (
            right("same_text", **compared) if as_text(boxed) == as_text(reference) else wrong("other_text", **compared)
        )
    return compare_formula(boxed, reference, kind or "expression")
