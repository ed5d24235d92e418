"""What a check found, and how findings are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

State = Literal["fault", "warning", "ok"]
#: In the order in which findings are shown.
STATES: tuple[State, ...] = ("fault", "warning", "ok")
GIB = 2**30


class Finding(NamedTuple):
    """``found`` says what is there, ``remedy`` what to do (empty where all is well). A ``fault`` makes the study fail; a
    ``warning`` may, or could not be checked."""

    name: str
    state: State
    found: str
    remedy: str = ""


def as_text(findings: Sequence[Finding]) -> str:
    """One line per finding, faults first, and a last line that counts them."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = [
        f"{state:7}  {finding.name:{width}}  {finding.found}{f': {finding.remedy}' if finding.remedy else ''}"
        for state in STATES
        for finding in findings
        if finding.state == state
    ]
    return "\n".join([*lines, count(findings)])


def count(findings: Sequence[Finding]) -> str:
    """How many findings are of which state, in words."""
    faults, warnings, fine = (sum(finding.state == state for finding in findings) for state in STATES)
    parts = [(faults, "fault"), (warnings, "warning")]
    told = [f"{number} {word}{'' if number == 1 else 's'}" for number, word in parts]
    return f"{', '.join(told)}, {fine} ok"


def gib(size: float) -> str:
    """A number of bytes in GiB, for people."""
    if math.isinf(size):
        return "unknown memory"
    return f"{size / GIB:,.1f} GiB" if size < 100 * GIB else f"{size / GIB:,.0f} GiB"
