"""Three ways of writing out a correct solution: the programs the miniature's teachers are trained on.

* ``steps`` works digit by digit; brief on easy queries, long on hard ones.
* ``recheck`` does the same work and then does all of it again, whatever the query.
* ``leaps`` jumps over the intermediate steps.

Each trace ends in the right answer, by construction: what differs is only how it gets there.
"""

from __future__ import annotations

from whichteacher.miniature.problems import Problem, expression

STYLES = ("steps", "recheck", "leaps")


def _digits(value: int, width: int) -> list[int]:
    """Digits of ``value`` from the ones upwards, padded to ``width``."""
    return [value // 10**i % 10 for i in range(width)]


def add_by_digits(a: int, b: int) -> str:
    width = max(len(str(a)), len(str(b)))
    carry, steps = 0, []
    for x, y in zip(_digits(a, width), _digits(b, width), strict=True):
        total = x + y + carry
        steps.append(f"{x}+{y}+{carry}={total // 10}{total % 10}")
        carry = total // 10
    return f"{a}+{b}: " + ", ".join(steps) + f" so {a + b}."


def subtract_by_digits(a: int, b: int) -> str:
    width = max(len(str(a)), len(str(b)))
    borrow, steps = 0, []
    for x, y in zip(_digits(a, width), _digits(b, width), strict=True):
        total = x - y - borrow
        lent = 1 if total < 0 else 0
        steps.append(f"{x}-{y}-{borrow}={lent}{total + 10 * lent}")
        borrow = lent
    return f"{a}-{b}: " + ", ".join(steps) + f" so {a - b}."


def chain(terms: list[int], style: str) -> str:
    total, lines = terms[0], []
    for value in terms[1:]:
        if style == "leaps":
            pass
        else:
            lines.append(add_by_digits(total, value) if value >= 0 else subtract_by_digits(total, -value))
        total += value
    if style == "leaps":
        return f"{expression(terms).replace(' ', '')} is {total}."
    once = " ".join(lines)
    if style == "recheck":
        return f"{once} Let me check. {once} Yes, {total}."
    return once


def solve(problem: Problem, style: str) -> tuple[str, str]:
    total = sum(problem.facts["terms"])
    return chain(problem.facts["terms"], style), f"The answer is \\boxed{{{total}}}."
