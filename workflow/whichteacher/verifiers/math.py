"""Mathematics: the last closed ``\\boxed{}`` of the answer part against a typed reference.

What can be told from how reference and answer are written is told first (:func:`quick`): equal texts, integers, fractions and
decimals, and whatever math-verify is known to misread, such as units, bases, words and brackets. The rest is left to math-verify,
after a look at the values of both: where they differ there is nothing to simplify. math-verify's own time limits are alarms that
report a slow comparison as a wrong answer; they are off here, and :mod:`whichteacher.verifiers.pool` limits the CPU time of the
process instead.

Decimals agree as in math-verify, when they do so rounded to six places; besides, they may not lie further apart than a thousandth
of the reference, without which every number below a millionth would do for every other.
"""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Iterator
from fractions import Fraction
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, NamedTuple

from whichteacher.verifiers.outcome import Outcome, right, undecided, wrong
from whichteacher.verifiers.versions import rules_version

#: Longer or deeper answers are not parsed: the cost doubles with every level, and thousands of real answers had four at most.
MAX_CHARS = 2000
MAX_DEPTH = 12
#: math-verify's own default: decimals agree when they agree rounded to six places.
_DECIMALS = 6
#: The largest distance of decimals that agree, as a share of the reference.
_RELATIVE = Fraction(1, 1000)

_BRACE = re.compile(r"(?P<box>\\+(?:f?boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_NESTED = re.compile(r"\\+(?:f?boxed|fbox)\s*\{(.*)\}", re.DOTALL)
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}")
_SIZED = re.compile(r"\\(?:left|right)(?![a-zA-Z])")
_SPACING = re.compile(r"(?<!\\)\\[,;:!> ]|\\q?quad\b|~|[\u00a0\u2009\u202f]")
_SIGNS = str.maketrans({"−": "-", "–": "-", "∞": r"\infty ", "π": r"\pi ", "×": r"\times ", "·": r"\cdot "})
_COMMAND_BELOW = re.compile(r"_\s*\{\s*\\([a-zA-Z]+)\s*\}")
_SUBSCRIBED_E = re.compile(r"(?<![a-zA-Z\\])E(?=\s*_)")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_INTEGER = re.compile(r"[+-]?\d+")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d+)?")
_GROUP_SPACE = re.compile(r"(?<=\d) (?=\d{3}\b)")
_PART = r"\s*(?:\{\s*([+-]?\d+)\s*\}|(\d))"
_RATIO = re.compile(rf"([+-]?)\s*(\d*)\s*\\frac{_PART}{_PART}|([+-]?\d+)\s*/\s*(\d+)")
_DECIMAL = re.compile(r"([+-]?)(\d*)(?:\.(\d*)(?:\\overline\s*\{(\d+)\})?)?")
_POWER_OF_TEN = re.compile(
    r"(?<=[\d.])(?:[eE]([+-]?\d{1,3})|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*([+-]?\d{1,3})\s*\}|([+-]?\d{1,3})))$"
)
_COMMA = re.compile(r"[+-]?\d+,\d+")
_PERCENT = re.compile(r"\s*(?:\\?%|percent)$")
_DEGREES = re.compile(r"\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°|\\degree|degrees?)$")
_BASED = re.compile(r"([0-9][0-9A-Za-z]*)_\s*\{?\s*(\d+)\s*\}?")
#: Units of two letters may stand right behind their number; other letters there are variables.
_SHORT_UNIT = "Å|Ω|am|pm|cm|mm|km|dm|nm|kg|mg|ml|mL|cl|dl|Hz|Pa|kJ|kW|kN|eV|ft|in|yd|mi|lb|oz|hr"
_MEASURED = re.compile(
    rf"([+-]?[\d.,]*\d(?:\s*/\s*\d+)?)((?:\s*(?:{_SHORT_UNIT})|\s+(?:[a-zA-Z]{{3,}}|[mgshLNJKVWAFCT]))(?![a-zA-Z])"
    r"(?:[a-zA-Z]|\^\{?-?\d+\}?|[/· ](?=[a-zA-Z]))*)"
)
#: What stands behind a formula as its unit: the last wrapper, a word that a space sets apart, or a short unit.
_UNIT_BEHIND = re.compile(
    r"(?:\s*\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s*\{\s*(?![eid]\s*\})([A-Za-zΩÅ°µ /.]+)\}"
    rf"|\s([a-zA-Z]{{3,}})|(?<=[\d}}\s])({_SHORT_UNIT}))(\s*\^\s*\{{?-?\d+\}}?)?$"
)
#: Words behind a number that are no unit but change it.
MULTIPLIER = re.compile(
    r"(?:hundred|thousand|million|billion|trillion|dozen|score|squared|cubed|factorial|half|halves|third|quarter|fifth|tenth)"
)
_POWER = re.compile(r"\^\{?-?\d+\}?")
_WORDS = re.compile(r"[A-Za-z]{2}[A-Za-z ]{2,}")
_ARTICLE = re.compile(r"^(?:an?|the) +(?=\S)")
_MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![a-zA-Z])\s*")
_CONJUNCTION = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_OPTION = re.compile(r"\(?([A-Za-z])(?:\)|[.):](?=\s|$)|$)\s*(.*)", re.DOTALL)
_COLUMN = re.compile(r"\\begin\{([pb]?)matrix\}([^&]*?)(?:\\\\)?\s*\\end\{\1matrix\}")
#: A variable that stands alone, so that changing it changes nothing else.
_VARIABLE = re.compile(r"(?<![a-zA-Z\\{])[a-zA-Z](?![a-zA-Z])")
#: How many parts of a reference are changed in turn.
_PARTS = 10
#: The commands of a calculation with numbers alone.
_ARITHMETIC = re.compile(r"\\(?:frac|cdot|times|div|sqrt)(?![a-zA-Z])")


def version() -> str:
    """Version of the rules, of math-verify and of what it computes with."""
    return rules_version((__name__, "whichteacher.verifiers.values"), ("math-verify", "latex2sympy2-extended", "sympy"))


def boxes(text: str) -> list[str]:
    r"""Contents of every ``\boxed{}`` whose braces close; of boxes in one another the outer one's."""
    found: list[tuple[int, int]] = []
    opened: list[int | None] = []
    for brace in _BRACE.finditer(text):
        if brace["box"]:
            opened.append(brace.end())
        elif brace["open"]:
            opened.append(None)
        elif brace["close"] and opened and (start := opened.pop()) is not None:
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, brace.start()))
    return [text[start:end].strip() for start, end in found]


def last_boxed(text: str) -> str | None:
    r"""Contents of the last ``\boxed{}`` whose braces close, of a box that holds nothing but a box the inner one's."""
    closed = boxes(text)
    if not closed:
        return None
    last = closed[-1]
    while match := _NESTED.fullmatch(last):
        inner = boxes(last)
        if inner != [match[1].strip()]:
            break
        last = inner[0]
    return last


def tidy(text: str) -> str:
    """Light normalisation of a formula: dollar signs, spacing commands, unicode signs and final full stops go."""
    text = _SPACING.sub(" ", text.translate(_SIGNS)).replace(r"\$", "").replace("$", "")
    text = _FRACTION.sub(r"\\frac", _SIZED.sub("", text)).replace(r"\varnothing", r"\emptyset")
    # math-verify reads neither a command in a subscript (M_{\odot}, x_{\max}) nor one below E, which it takes for Euler's number.
    text = _SUBSCRIBED_E.sub(r"\\Xi", _COMMAND_BELOW.sub(r"_{\1}", text))
    return " ".join(text.split()).rstrip(".\\ ")


def plain(text: str) -> str:
    """:func:`tidy` without text wrappers: ``10\\text{ cm}`` is ``10 cm``."""
    text, previous = tidy(text), None
    while previous != text:
        previous, text = text, _WRAPPER.sub(r" \1 ", text)
    return tidy(text)


def as_text(text: str) -> str:
    """The form two equal short texts share: plain, case folded, without quotes, outer punctuation and article."""
    return _ARTICLE.sub("", plain(text).replace("\\", "").strip(" \"'`*.,:;!?").casefold())


def option(text: str) -> tuple[str | None, str]:
    """Letter and text of an option such as ``B``, ``(b)`` or ``B. copper``; no letter where there is none."""
    match = _OPTION.fullmatch(plain(text).strip("* "))
    return (match[1].upper(), as_text(match[2])) if match else (None, as_text(text))


def letter(text: str) -> str | None:
    """The letter of :func:`option`."""
    return option(text)[0]


def same_words(answer: str, reference: str) -> bool:
    """Whether two texts are equal, with or without the letter of an option before the answer's."""
    wanted = as_text(reference)
    return wanted in (as_text(answer), option(answer)[1])


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
    """How many things a list such as ``3, 5`` or ``\\{1, 2\\}`` or ``x = 1 or x = 2`` names, by its outer commas.

    What is named twice in the same words counts once.
    """
    text = _MEMBER.sub("", text.replace(r"\{", "{").replace(r"\}", "}").strip())
    text = _CONJUNCTION.sub(",", text)
    # A list in round brackets is still one; pairs next to each other are not in brackets together.
    if text[:1] + text[-1:] in ("{}", "()") and _closing_bracket(text) == len(text) - 1:
        text = text[1:-1]
    parts, level = [""], 0
    for character in text:
        level += (character in "{([") - (character in "})]")
        if character in ",;" and level == 0:
            parts.append("")
        else:
            parts[-1] += character
    # "\pm 2" names two things.
    return sum(2 if r"\pm" in part else 1 for part in {part.replace(" ", "") for part in parts} if part)


def ungrouped(text: str) -> str:
    """``text`` without separators between groups of three digits."""
    text = _GROUP_SPACE.sub("", text)
    return text.replace("{,}", "").replace(",", "") if _GROUPED.fullmatch(text) else text


def _in_base(match: re.Match[str]) -> int | str:
    """The value of ``101_2``, or the text itself where its digits do not fit its base."""
    base = int(match[2])
    try:
        return int(match[1], base) if base > 1 else match[0]
    except ValueError:
        return match[0]


class Literal(NamedTuple):
    """A number as it is written: its value, whether as a decimal, and whether in percent."""

    value: Fraction
    decimal: bool
    percent: bool


def read_literal(text: str) -> Literal | None:
    r"""The number that ``text`` (plain, without groups of digits) writes, None for anything else.

    Integers, ``3/4``, ``\frac{3}{4}``, ``2\frac{3}{4}``, ``0.75``, ``0.\overline{3}``, ``7.5e-1``, ``7.5 \times 10^{-1}``, each in
    percent or degrees or not.
    """
    bare = _PERCENT.sub("", text)
    percent = bare != text
    bare = _DEGREES.sub("", bare)
    if match := _RATIO.fullmatch(bare):
        sign, whole, *parts, numerator, denominator = match.groups()
        if denominator is None:
            numerator, denominator = parts[0] or parts[1], parts[2] or parts[3]
        if not int(denominator) or (whole and not 0 <= int(numerator) < int(denominator)):
            return None
        value = Fraction(int(numerator), int(denominator)) + int(whole or 0)
        return Literal(-value if sign == "-" else value, False, percent)
    scaled = _POWER_OF_TEN.search(bare)
    match = _DECIMAL.fullmatch(bare[: scaled.start()] if scaled else bare)
    if not match or not (match[2] or match[3] or match[4]):
        return None
    places = match[3] or ""
    value = Fraction(int(match[2] + places or 0), 10 ** len(places))
    if match[4]:
        value += Fraction(int(match[4]), 10 ** len(places) * (10 ** len(match[4]) - 1))
    if scaled:
        value *= Fraction(10) ** int(scaled[1] or scaled[2] or scaled[3])
    return Literal(-value if match[1] == "-" else value, bool(places) and not match[4], percent)


def literals_agree(answer: Literal, reference: Literal) -> bool:
    """Whether two numbers are the same; a percentage may be written as its share or without its sign."""
    if reference.percent == answer.percent:
        return _numbers_agree(answer.value, reference.value, answer.decimal or reference.decimal)
    share = Fraction(1, 100)
    percentage, number = (reference, answer) if reference.percent else (answer, reference)
    return any(
        _numbers_agree(value, number.value, percentage.decimal or number.decimal)
        for value in (percentage.value, percentage.value * share)
    )


def _numbers_agree(answer: Fraction, reference: Fraction, decimal: bool) -> bool:
    if answer == reference or not decimal:
        return answer == reference
    near = abs(answer - reference) <= _RELATIVE * abs(reference)
    return near and round(answer, _DECIMALS) == round(reference, _DECIMALS)


def _result(text: str) -> str:
    """What a calculation such as ``2+3=5`` results in; any other text itself."""
    parts = text.split("=")
    if any(re.search(r"[a-zA-Z\\<>!]", _ARITHMETIC.sub("", part)) or not part.strip() for part in parts):
        return text
    return parts[-1].strip()


def _as_tuple(text: str) -> str:
    """A column vector as the tuple of its entries; any other text itself."""
    match = _COLUMN.fullmatch(text)
    return f"({', '.join(entry.strip() for entry in match[2].split(chr(92) * 2))})" if match else text


@cache
def _library() -> ModuleType:
    """math-verify, imported when first needed (0.7 s) and not at the cost of the comparison's own CPU time."""
    left = signal.setitimer(signal.ITIMER_PROF, 0)
    import math_verify

    # It warns once per process that its time limits are off, which is meant.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    signal.setitimer(signal.ITIMER_PROF, *left)
    return math_verify


@cache
def _extraction() -> Any:
    """math-verify's defaults but for units, where it takes the last letter of ``3t`` or ``\\frac{1}{2}m`` for one and drops it."""
    from latex2sympy2_extended import NormalizationConfig

    config = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    return _library().LatexExtractionConfig(normalization_config=config)


@lru_cache(maxsize=4096)
def _parse(text: str) -> list[Any]:
    """math-verify's reading of a LaTeX formula: a value and a text, the text alone where it has no value, or nothing."""
    return _library().parse(f"${text}$", [_extraction()], parsing_timeout=None)


def _without_unit(formula: str) -> tuple[str, str]:
    """A tidied formula and the unit behind it, if there is one and something before it."""
    match = _UNIT_BEHIND.search(formula)
    before = formula[: match.start()].rstrip() if match else ""
    if not match or not before or before[-1] in "+-*/=<>^_,;(":
        return formula, ""
    return before, re.sub(r"[{} .]", "", "".join(part or "" for part in match.groups()))


def compare_values(reference: str, answer: str, compared: dict[str, Any]) -> Outcome:
    """Two tidied formulas: by their values where these can tell them apart, else by math-verify.

    ``compared`` is the evidence, to which the distance of two numbers is added.
    """
    from whichteacher.verifiers import values

    verify = _library().verify
    gold, given = _parse(reference), _parse(answer)
    # A reference that is not equal to itself was not understood.
    if not gold or not verify(gold, gold, float_rounding=_DECIMALS, timeout_seconds=None):
        return undecided("reference_unreadable", **compared)
    if not given or (isinstance(given[0], str) and not isinstance(gold[0], str)):
        return wrong("answer_unreadable", **compared)
    distance = values.distance_of_numbers(gold[0], given[0])
    if distance is not None:
        compared = {**compared, "distance": distance}
    if values.proven_different(gold[0], given[0]):
        return wrong("other_value", **compared)
    if verify(gold, given, float_rounding=_DECIMALS, allow_set_relation_comp=True, timeout_seconds=None):
        near = distance is None or not values.has_decimal(gold[0], given[0])
        near = near or distance <= float(_RELATIVE) * abs(complex(gold[0].evalf()))
        return right("same_value", **compared) if near else wrong("other_value", **compared)
    # math-verify takes for different what it fails to calculate, or to simplify.
    if values.out_of_reach(gold[0], given[0]):
        return undecided("out_of_reach", **compared)
    if values.likely_same(gold[0], given[0]):
        return undecided("unproven", **compared)
    if isinstance(gold[0], str):
        return undecided("reference_unreadable", **compared)
    return wrong("other_value", **compared)


def compare_choice(answer: str, reference: str) -> Outcome:
    """Two options: by letter, and by text where both have one; the text alone will do for a reference that has both."""
    wanted, wanted_text = option(reference)
    given, given_text = option(answer)
    compared = {"answer": answer[:MAX_CHARS], "reference": reference}
    if wanted is None:
        return undecided("reference_unreadable", **compared)
    if wanted_text and as_text(answer) == wanted_text:
        # An option's text may be a letter itself.
        one_letter = given is not None and not given_text
        return undecided("letter_and_text", **compared) if one_letter else right("same_option", **compared)
    if given is None:
        return undecided("no_letter", **compared)
    if wanted_text and given_text and (wanted == given) != (wanted_text == given_text):
        return undecided("letter_and_text", **compared)
    return right("same_letter", **compared) if given == wanted else wrong("other_letter", **compared)


def _by_form(answer: str, reference: str, kind: str) -> Outcome | None:
    """What the way the two are written tells, None where only their values can."""
    compared: dict[str, Any] = {"answer": answer[:MAX_CHARS], "reference": reference}
    if _depth(answer) > MAX_DEPTH:
        return undecided("answer_too_nested", **compared)
    given, wanted = plain(answer), _result(plain(reference))
    if not wanted or wanted.count("{") != wanted.count("}"):
        return undecided("reference_unreadable", **compared)
    if kind != "set":
        given, wanted = ungrouped(given), ungrouped(wanted)
    if given == wanted:
        return right("same_text", **compared)
    if _INTEGER.fullmatch(given) and _INTEGER.fullmatch(wanted):
        distance = abs(int(given) - int(wanted))
        return wrong("other_integer", **compared, distance=distance) if distance else right("same_integer", **compared)
    numbers = read_literal(_result(given)), read_literal(wanted)
    if numbers[0] and numbers[1]:
        return _by_literal(numbers[0], numbers[1], compared)
    if numbers[1] and _COMMA.fullmatch(given):
        comma = read_literal(given.replace(",", "."))
        if comma and literals_agree(comma, numbers[1]):
            return undecided("decimal_comma", **compared)
    # math-verify multiplies the letters of words, reads neither bases nor units, and takes a pair for an interval or a set.
    if _WORDS.fullmatch(wanted):
        return right("same_text", **compared) if same_words(answer, wanted) else wrong("other_text", **compared)
    return _by_notation(given, wanted, kind, compared)


def _by_literal(answer: Literal, reference: Literal, compared: dict[str, Any]) -> Outcome:
    compared["distance"] = float(abs(answer.value - reference.value))
    if literals_agree(answer, reference):
        return right("same_value", **compared)
    return wrong("other_value", **compared)


def _by_notation(given: str, wanted: str, kind: str, compared: dict[str, Any]) -> Outcome | None:
    """Bases, units, brackets and the number of elements."""
    based = _BASED.fullmatch(given), _BASED.fullmatch(wanted)
    if based[0] and based[1]:
        values = _in_base(based[0]), _in_base(based[1])
        return right("same_value", **compared) if values[0] == values[1] else wrong("other_value", **compared)
    if based[1] and _INTEGER.fullmatch(given):
        likely = given in (based[1][1], str(_in_base(based[1])))
        return undecided("base_missing", **compared) if likely else wrong("other_value", **compared)
    if (decided := _by_unit(given, wanted, compared)) is not None:
        return decided
    if {_brackets(given), _brackets(wanted)} == {"{}", "()"}:
        return wrong("other_brackets", **compared)
    if kind == "set" and elements(given) != elements(wanted):
        return wrong("other_cardinality", **compared, elements=[elements(given), elements(wanted)])
    return None


def _by_unit(given: str, wanted: str, compared: dict[str, Any]) -> Outcome | None:
    """Two quantities, or a quantity and a number; None where neither has a unit."""
    if bool(_DEGREES.search(given)) != bool(_DEGREES.search(wanted)) and r"\pi" in given + wanted:
        return undecided("other_unit", **compared)
    (one, unit), (other, wanted_unit) = _measured(given), _measured(wanted)
    if not unit and not wanted_unit:
        return None
    numbers = read_literal(ungrouped(one)), read_literal(ungrouped(other))
    if not numbers[0] or not numbers[1]:
        return None
    if len(unit + wanted_unit) == 1 and (unit + wanted_unit).isascii():
        return None  # it may be a variable
    if unit != wanted_unit and (MULTIPLIER.match(unit) or MULTIPLIER.match(wanted_unit)):
        return undecided("other_unit", **compared)
    if not unit or not wanted_unit or unit == wanted_unit:
        return _by_literal(numbers[0], numbers[1], compared)
    return _other_unit(unit, wanted_unit, compared)


def _other_unit(given: str, wanted: str, compared: dict[str, Any]) -> Outcome:
    """Lengths, areas and volumes are never equal; centimetres and metres may be."""
    same_letters = _POWER.sub("", given) == _POWER.sub("", wanted)
    return (wrong if same_letters else undecided)("other_unit", **compared)


def _measured(text: str) -> tuple[str, str]:
    """Number and unit; the text itself and nothing where it has no unit."""
    match = _MEASURED.fullmatch(re.sub(r"\s*\^\s*", "^", text))
    if not match or _CONJUNCTION.search(match[2]):
        return text, ""
    return match[1], re.sub(r"[{} ]", "", match[2])


def _by_value(answer: str, reference: str, kind: str) -> Outcome:
    """What the values of the two tell. The wrappers stay for math-verify, which knows what to do with them."""
    compared: dict[str, Any] = {"answer": answer[:MAX_CHARS], "reference": reference}
    formulas = [tidy(reference), tidy(answer)]
    if kind != "set":
        formulas = [_result(ungrouped(formula)) for formula in formulas]
    (wanted, wanted_unit), (given, unit) = map(_without_unit, formulas)
    if unit != wanted_unit and ((unit and wanted_unit) or MULTIPLIER.match(unit + wanted_unit)):
        return _other_unit(unit, wanted_unit, compared)
    formulas = [wanted, given]
    if any(formula.startswith("(") for formula in formulas):
        formulas = [_as_tuple(formula) for formula in formulas]
    return compare_values(*formulas, compared)


def quick(answer: str, reference: str | None, kind: str | None) -> Outcome | None:
    """What :func:`check` says, where that takes microseconds whatever the answer; None where it needs math-verify."""
    if not reference:
        return undecided("no_reference")
    boxed = last_boxed(answer)
    if boxed is None:
        return wrong("no_box")
    if not boxed:
        return wrong("empty_box")
    compared = {"answer": boxed[:MAX_CHARS], "reference": reference}
    if len(boxed) > MAX_CHARS:
        return undecided("answer_too_long", **compared)
    if kind == "choice":
        return compare_choice(boxed, reference)
    if kind == "text":
        return right("same_text", **compared) if same_words(boxed, reference) else wrong("other_text", **compared)
    outcome = _by_form(boxed, reference, kind or "expression")
    return outcome and _unless_spread(outcome, answer, reference)


def _unless_spread(outcome: Outcome, answer: str, reference: str) -> Outcome:
    """``outcome``, undecided where it is wrong and as many boxes hold as many values as the reference asks for.

    Each may stand in a box of its own; which of the boxes are meant, no rule can tell.
    """
    if outcome.score != 0 or _brackets(plain(reference)) == "()":
        return outcome
    closed = len(boxes(answer))
    spread = closed > 1 and closed == elements(plain(reference))
    return undecided("several_boxes", **outcome.evidence) if spread else outcome


def check(answer: str, reference: str | None, kind: str | None) -> Outcome:
    """The boxed answer against ``reference`` of type ``kind`` (none: an expression)."""
    outcome = quick(answer, reference, kind)
    if outcome is None:
        outcome = _by_value(last_boxed(answer) or "", reference or "", kind or "expression")
        outcome = _unless_spread(outcome, answer, reference or "")
    return outcome


def check_reference(reference: str, kind: str | None) -> Outcome:
    """Whether ``reference`` can be compared with at all: right against itself, and not blind to a part of itself.

    A number or variable in it that can be changed without making another value was not read
    (NVIDIA/NeMo-Skills#1092 and EleutherAI/lm-evaluation-harness#2212 tell of references that no answer can equal).
    """
    itself = check(rf"\boxed{{{reference}}}", reference, kind)
    if itself.score != 1:
        return itself
    if kind in ("choice", "text"):
        return itself
    text = plain(reference)
    if read_literal(_result(ungrouped(text))) or _WORDS.fullmatch(text) or _BASED.fullmatch(text) or _measured(text)[1]:
        return itself
    formula, _ = _without_unit(tidy(reference) if kind == "set" else _result(ungrouped(tidy(reference))))
    read = _parse(formula)
    if not read or isinstance(read[0], str):
        return undecided("reference_unreadable", reference=reference)
    for name, changed in _changed(formula):
        if compare_values(formula, changed, {}).score == 1:
            return wrong("part_ignored", reference=reference, part=name)
    return itself


def _changed(formula: str) -> Iterator[tuple[str, str]]:
    """Copies of ``formula`` with one number or all of one variable changed, and what was changed."""
    for number in list(re.finditer(r"\d+", formula))[:_PARTS]:
        other = str(int(number[0]) + 7)
        yield number[0], formula[: number.start()] + other + formula[number.end() :]
    letters = sorted({match[0] for match in _VARIABLE.finditer(_WRAPPER.sub("", formula))} - {"d"})
    spare = next(letter for letter in "wvuqkzyxabc" if letter not in letters) if len(letters) < _PARTS else ""
    for variable in letters if spare else ():
        yield variable, re.sub(rf"(?<![a-zA-Z\\]){variable}(?![a-zA-Z])", spare, formula)
