"""Science, dialogue and general questions: what rules can decide of a short reference; the rest is left to a judge.

Numbers agree when they agree to the precision at which the coarser of the two is written: 3.1416 is right for 3.14, and 3.14 for
3.1416 because three significant figures are a fair answer; 143 is not right for 144. Differences below one in a million count
as none, whatever the precision. An answer of fewer figures that is right as far as it goes is left to the judge.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from whichteacher.verifiers import math
from whichteacher.verifiers.math import (
    MAX_CHARS,
    as_text,
    compare_choice,
    last_boxed,
    plain,
    same_words,
    ungrouped,
)
from whichteacher.verifiers.outcome import Outcome, right, undecided, wrong
from whichteacher.verifiers.versions import rules_version

#: Significant figures an answer needs before it may be coarser than its reference.
_FIGURES = 3
_RELATIVE = Decimal("1e-6")
_POWER = re.compile(r"(?:\\times|\\cdot|[x*])\s*10\s*\^?\s*(?:\{\s*([+-]?\d+)\s*\}|([+-]?\d+))")
_ABOUT = re.compile(r"(?:\\approx(?![a-zA-Z])|≈|\\sim(?![a-zA-Z])|~)\s*|[A-Za-z](?:_\w)?\s*=\s*")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))\s*|\\degree(?![a-zA-Z])\s*")
_SUBSCRIPT = re.compile(r"[_{}\s]")
#: Possessive throughout: a long run of letters is read once.
_UNIT = r"(?:[A-Za-zµΩ°%]++(?:\^?\{?-?\d\}?)?+[\s/·.]*+)*+"
_QUANTITY = re.compile(rf"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{{1,4}})?)\s*({_UNIT})")


def version() -> str:
    """Version of these rules and of those for mathematics, to which formulas are left."""
    return f"{rules_version((__name__,))}+{math.version()}"


def read_quantity(text: str) -> tuple[Decimal, str] | None:
    """Number and unit of ``12 N``, ``3.0e8 m/s``, ``3 \\times 10^{8}`` or ``t = 5 s``; None for anything else."""
    text = _DEGREE.sub("°", _ABOUT.sub("", ungrouped(plain(text)).replace(r"\%", "%"), count=1))
    scientific = _POWER.sub(lambda match: f"e{match[1] or match[2]}", ungrouped(text))
    match = _QUANTITY.fullmatch(re.sub(r"\s+e(?=[+-]?\d)|\s*(?=\^)", lambda found: found[0].strip(), scientific))
    return (Decimal(match[1]), match[2].strip(" .")) if match else None


def _half_unit(value: Decimal) -> Decimal:
    """Half a unit of the last written place."""
    return Decimal(5).scaleb(int(value.as_tuple().exponent) - 1)


def _figures(value: Decimal) -> int:
    return len(value.as_tuple().digits)


def numbers_agree(answer: Decimal, reference: Decimal) -> bool:
    """Whether ``answer`` is ``reference`` at the precision of the coarser of the two."""
    distance = abs(answer - reference)
    if distance <= _RELATIVE * abs(reference) or distance <= _half_unit(reference):
        return True
    return _figures(answer) >= _FIGURES and distance <= _half_unit(answer)


def _compare_quantities(answer: str, reference: str, compared: dict[str, Any]) -> Outcome | None:
    """Two numbers with or without units; None where one is none, or a percentage meets a share."""
    wanted, found = read_quantity(reference), read_quantity(answer)
    if wanted is None or found is None:
        return None
    changed = math.MULTIPLIER.match(wanted[1]) or math.MULTIPLIER.match(found[1])
    if wanted[1] != found[1] and ((wanted[1] and found[1]) or changed):
        return undecided("no_judge", **compared)
    distance = abs(found[0] - wanted[0])
    compared = {**compared, "distance": str(distance)}
    if numbers_agree(found[0], wanted[0]):
        return right("same_number", **compared)
    # 0.5 is right for 50 %, and 50 % for 0.5: that is for the formulas to tell.
    if (wanted[1] == "%") != (found[1] == "%"):
        return None
    if distance <= _half_unit(found[0]) and _figures(found[0]) < _FIGURES and found[0]:
        return undecided("too_coarse", **compared)
    return wrong("other_number", **compared)


def quick(answer: str, reference: str | None, kind: str | None) -> Outcome | None:
    """What :func:`check` says, where that takes microseconds whatever the answer; None where it needs math-verify."""
    if not reference:
        return undecided("no_judge")
    boxed = last_boxed(answer)
    given = answer if boxed is None else boxed
    compared = {"answer": given[:MAX_CHARS], "reference": reference, "boxed": boxed is not None}
    if len(given) > MAX_CHARS:
        return undecided("no_judge", **compared)
    if kind == "choice":
        return compare_choice(given, reference)
    if kind == "number" and (decided := _compare_quantities(given, reference, compared)):
        return decided
    # CO2 is right for \text{CO}_2.
    if same_words(given, reference) or _SUBSCRIPT.sub("", as_text(given)) == _SUBSCRIPT.sub("", as_text(reference)):
        return right("same_text", **compared)
    if kind != "text" and boxed is not None:
        return math.quick(answer, reference, kind)
    return undecided("no_judge", **compared)


def check(answer: str, reference: str | None, kind: str | None) -> Outcome:
    """The boxed answer, or the whole answer part where it is short enough to be one, against ``reference``."""
    return quick(answer, reference, kind) or math.check(answer, reference, kind)


def check_reference(reference: str, kind: str | None) -> Outcome:
    """Whether rules can compare with ``reference``: see :func:`whichteacher.verifiers.math.check_reference`."""
    itself = check(rf"\boxed{{{reference}}}", reference, kind)
    if itself.score != 1 or kind in ("choice", "text") or read_quantity(reference):
        return itself
    return math.check_reference(reference, kind)
