"""How far our verdicts agree with those of other graders on data that others graded: one module per kind of verifier.

Each module has ``measure(data, jobs)``, which reads its files below the folder ``data`` and returns one :class:`Row` per set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One set of graded answers: ``rows`` in all, of which ``agree`` and the three ways to differ.

    ``unknown`` counts the rows we leave undecided. ``disagreements`` lists those decided otherwise and those left undecided, each
    with ``id``, ``ours``, ``theirs`` and ``reason``.
    """

    set_name: str
    rows: int
    agree: int
    ours_pass_theirs_fail: int
    ours_fail_theirs_pass: int
    unknown: int
    notes: str
    disagreements: list[dict[str, Any]]


class Graded(NamedTuple):
    """One answer: our verdict (``pass``, ``fail`` or ``unknown``) with its reason, and whether the other grader passed it."""

    name: str
    ours: str
    theirs: bool
    reason: str


def tally(set_name: str, graded: Iterable[Graded], notes: str = "") -> Row:
    """The row of a set."""
    graded = list(graded)
    differ = [one for one in graded if one.ours != ("pass" if one.theirs else "fail")]
    return Row(
        set_name,
        len(graded),
        len(graded) - len(differ),
        sum(one.ours == "pass" for one in differ),
        sum(one.ours == "fail" for one in differ),
        sum(one.ours == "unknown" for one in differ),
        notes,
        [
            {
                "id": one.name,
                "ours": one.ours,
                "theirs": "pass" if one.theirs else "fail",
                "reason": one.reason,
            }
            for one in differ
        ],
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
