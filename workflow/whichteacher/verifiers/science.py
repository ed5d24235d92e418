"""Science, dialogue and general questions: what rules can decide of a short reference; the rest is left to a judge.

Numbers agree when they agree to the precision at which the coarser of the two is written: 3.1416 is right for 3.14, and 3.14 for
3.1416 because three significant figures are a fair answer; 143 is not right for 144. Differences below one in a million count
as none, whatever the precision.
"""

from __future__ import annotations

import re
from decimal import Decimal

from whichteacher.verifiers.math import (
    MAX_CHARS,
    as_text,
    compare_choice,
    compare_formula,
    last_boxed,
    letter,
    plain,
    ungrouped,
)
from whichteacher.verifiers.math import version as math_version
from whichteacher.verifiers.outcome import Outcome, right, undecided, wrong

#: Significant figures an answer needs before it may be coarser than its reference.
_FIGURES = 3
_RELATIVE = Decimal("1e-6")
_POWER = re.compile(r"(?:\\times|\\cdot|[x*])\s*10\s*\^?\s*(?:\{\s*([+-]?\d+)\s*\}|([+-]?\d+))")
_UNIT = r"(?:[A-Za-zµΩ°%]+(?:\^?\{?-?\d\}?)?[\s/·.]*)*"
_QUANTITY = re.compile(rf"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*({_UNIT})")


def version() -> str:
    """Version of the rules."""
    return math_version()


def read_quantity(text: str) -> tuple[Decimal, str] | None:
    """Number and unit of ``12 N``, ``3.0e8 m/s`` or ``3 \\times 10^{8}``; None for anything else."""
    scientific = _POWER.sub(lambda match: f"e{match[1] or match[2]}", ungrouped(plain(text)).replace(r"\%", "%"))
    match = _QUANTITY.fullmatch(re.sub(r"\s+e(?=[+-]?\d)", "e", scientific))
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


def check(answer: str, reference: str | None, kind: str | None) -> Outcome:
    """The boxed answer, or the whole answer part where it is short enough to be one, against ``reference``."""
    if not reference:
        return undecided("no_judge")
    boxed = last_boxed(answer)
    given = answer if boxed is None else boxed
    compared = {"answer": given[:MAX_CHARS], "reference": reference, "boxed": boxed is not None}
    if len(given) > MAX_CHARS:
        return undecided("no_judge", **compared)
    if kind == "choice":
        return compare_choice(given, reference) if letter(given) else undecided("no_judge", **compared)
    if kind == "number":
        wanted, found = read_quantity(reference), read_quantity(given)
        if wanted and found:
            if wanted[1] and found[1] and wanted[1] != found[1]:
                return undecided("no_judge", **compared)
            same = numbers_agree(found[0], wanted[0])
            # 0.5 is right for 50 %: that is for the formulas to tell.
            if same or wanted[1] != "%" or found[1]:
                compared["distance"] = str(abs(found[0] - wanted[0]))
                return right("same_number", **compared) if same else wrong("other_number", **compared)
    if kind != "text" and boxed is not None:
        return compare_formula(boxed, reference, kind or "expression")
    if as_text(given) == as_text(reference):
        return right("same_text", **compared)
    return undecided("no_judge", **compared)
