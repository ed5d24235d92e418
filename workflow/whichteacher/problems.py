"""A benchmark's choice of problems: whether it is the one expected, and what tells it from another."""

from __future__ import annotations

import hashlib
from typing import Any

from whichteacher.rule import InputError


def digest_of(problems: list[dict[str, Any]]) -> str:
    """What tells one choice of problems from another: sha256 of their ids, sorted, one per line."""
    ids = sorted(problem["problem_id"] for problem in problems)
    return hashlib.sha256("".join(f"{one}\n" for one in ids).encode()).hexdigest()


def check_selection(problems: list[dict[str, Any]], key: str, place: str, expected: int | None) -> None:
    """Check the problems chosen from ``place`` by the settings at config key ``key``.

    Raises :class:`InputError` where an id repeats, none was chosen, or not as many as ``expected``.
    """
    seen: set[str] = set()
    for problem in problems:
        if problem["problem_id"] in seen:
            raise InputError(f"{place}: id {problem['problem_id']!r} repeats: map a unique column in {key}.columns.id")
        seen.add(problem["problem_id"])
    if not problems:
        raise InputError(f"{place}: no problem selected: check the file and the date window of {key}")
    if expected is not None and len(problems) != expected:
        raise InputError(
            f"{place}: {len(problems)} problems selected, {key}.expected_problems says {expected}: "
            "correct the date window, the revision or the number"
        )
