"""Queries the project makes itself: every problem carries what a trace-writing program needs to solve it.

A :class:`Problem` is drawn from a seeded generator, so a corpus, a benchmark or a teacher's practice set is a function
of its seed. References are computed, never written by hand. Everything here is our own text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

CATEGORIES = ("math", "code", "science", "instruction_following", "multi_turn", "general")

NAMES = ("Mia", "Tom", "Ada", "Ben", "Zoe", "Sam", "Eva", "Max", "Lea", "Ian")
ITEMS = ("beads", "cards", "coins", "shells", "stamps", "marbles", "pens", "books")


@dataclass(frozen=True)
class Problem:
    """One generated problem.

    ``kind`` and ``facts`` are what the trace programs of :mod:`whichteacher.miniature.styles` read; ``turns`` are the
    messages shown to a teacher (the last one is the user's); ``reference`` is the answer as text, ``tests`` and
    ``constraints`` the payloads of code and instruction-following problems.
    """

    category: str
    kind: str
    turns: tuple[tuple[str, str], ...]
    facts: dict = field(hash=False)
    reference: str | None = None
    reference_type: str | None = None
    tests: dict | None = field(default=None, hash=False)
    constraints: dict | None = field(default=None, hash=False)
    difficulty: int = 1

    @property
    def prompt(self) -> str:
        """The last user message."""
        return self.turns[-1][1]

    def row(self, identifier: str) -> dict:
        """The problem as one JSON line of a source file, in the columns `config/config.yaml` maps."""
        return {
            "id": identifier,
            "category": self.category,
            "turns": [{"role": role, "content": content} for role, content in self.turns],
            "answer": self.reference,
            "answer_type": self.reference_type,
            "tests": json.dumps(self.tests, sort_keys=True) if self.tests else None,
            "constraints": json.dumps(self.constraints, sort_keys=True) if self.constraints else None,
        }


def _user(text: str) -> tuple[tuple[str, str], ...]:
    return (("user", text),)


# --- mathematics -----------------------------------------------------------------------------------------------------


def _terms(rng: random.Random, digits: int, count: int) -> list[int]:
    """Signed terms whose running total stays in 0..999, so that every answer is an AIME-like integer."""
    low, high = 10 ** (digits - 1), 10**digits - 1
    while True:
        terms = [rng.randint(low, high)]
        for _ in range(count - 1):
            value = rng.randint(low, high)
            terms.append(value if rng.random() < 0.5 else -value)
        totals = [sum(terms[: i + 1]) for i in range(count)]
        if min(totals) >= 0 and max(totals) <= 999:
            return terms


def expression(terms: list[int]) -> str:
    """Signed terms as text: ``[34, -5]`` becomes ``34 - 5``."""
    text = str(terms[0])
    for value in terms[1:]:
        text += f" {'+' if value >= 0 else '-'} {abs(value)}"
    return text


def arithmetic(rng: random.Random, digits: int, count: int) -> Problem:
    """A sum or difference of ``count`` numbers of ``digits`` digits, as a bare expression."""
    terms = _terms(rng, digits, count)
    stem = rng.choice(("Compute {}.", "What is {}?", "Find the value of {}."))
    return Problem(
        "math",
        "arithmetic",
        _user(stem.format(expression(terms))),
        {"terms": terms},
        reference=str(sum(terms)),
        reference_type="number",
        difficulty=count if digits > 1 else 1,
    )


def word_problem(rng: random.Random, digits: int, count: int) -> Problem:
    """The same arithmetic as a short story."""
    terms = _terms(rng, digits, count)
    name, items = rng.choice(NAMES), rng.choice(ITEMS)
    story = [f"{name} has {terms[0]} {items}."]
    for value in terms[1:]:
        verb = rng.choice(("gets", "buys", "finds")) if value >= 0 else rng.choice(("loses", "sells", "gives away"))
        story.append(f"{name} {verb} {abs(value)}{' more' if value >= 0 else ''}.")
    story.append(f"How many {items} does {name} have now?")
    return Problem(
        "math",
        "word_problem",
        _user(" ".join(story)),
        {"terms": terms},
        reference=str(sum(terms)),
        reference_type="number",
        difficulty=count if digits > 1 else 1,
    )
