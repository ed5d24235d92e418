"""Which references can be verified against: each must be right against itself.

A reference that no answer can equal burns every attempt, and one that is read in part accepts wrong answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from whichteacher.verifiers.pool import Task, run_rules

#: The rule that checks the references of a category.
_RULES = {
    "math": "math_reference",
    "science": "science_reference",
    "multi_turn": "science_reference",
    "general": "science_reference",
}


class Fit(NamedTuple):
    """Whether the reference of a query is fit for rules, None where it is none of theirs, and why in one word."""

    query_id: str
    fit: bool | None
    reason: str


def references_fit(
    rows: Sequence[Mapping[str, Any]],
    deadline_seconds: float,
    jobs: int = 1,
    done: Callable[[int], None] = lambda count: None,
) -> list[Fit]:
    """One :class:`Fit` per row of ``query_id``, ``category``, ``reference`` and ``reference_type``, in their order.

    None: the category is verified by tests or constraints (``other_verifier``), or there is no reference (``no_reference``). Unfit
    are references that do not pass as their own answer (for the reason of that verdict, among them ``timeout`` beyond
    ``deadline_seconds`` of CPU time) and those of which a part can be changed without a difference (``part_ignored``).
    """
    checked = [row for row in rows if row["category"] in _RULES and row["reference"]]
    tasks = [
        Task(_RULES[row["category"]], (row["reference"], row["reference_type"]), f"query {row['query_id']}")
        for row in checked
    ]
    done(len(rows) - len(checked))
    outcomes = iter(run_rules(tasks, deadline_seconds, jobs, done))
    fits = []
    for row in rows:
        if row["category"] not in _RULES:
            fits.append(Fit(row["query_id"], None, "other_verifier"))
        elif not row["reference"]:
            fits.append(Fit(row["query_id"], None, "no_reference"))
        else:
            outcome = next(outcomes)
            fits.append(Fit(row["query_id"], outcome.score == 1, outcome.reason))
    return fits
