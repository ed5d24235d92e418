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


def mathematics(rng: random.Random) -> Problem:
    """Sums and differences from one to three digits, as expressions and as stories."""
    make = arithmetic if rng.random() < 0.6 else word_problem
    return make(rng, rng.choice((1, 2, 2, 3, 3, 3)), rng.choice((2, 2, 3)))


# --- code ------------------------------------------------------------------------------------------------------------

#: What a step of a program is called, and how it changes an expression.
OPERATIONS: dict[str, Callable[[str, int], str]] = {
    "add": lambda inner, k: f"{inner} + {k}",
    "subtract": lambda inner, k: f"{inner} - {k}",
    "multiply by": lambda inner, k: f"({inner}) * {k}" if " " in inner else f"{inner} * {k}",
}


def program(steps: list[tuple[str, int]], variable: str) -> str:
    """The expression that applies ``steps`` to ``variable``, one after the other."""
    inner = variable
    for operation, k in steps:
        inner = OPERATIONS[operation](inner, k)
    return inner


def _apply(steps: list[tuple[str, int]], value: int) -> int:
    for operation, k in steps:
        value = {"add": value + k, "subtract": value - k, "multiply by": value * k}[operation]
    return value


def code(rng: random.Random, count: int | None = None) -> Problem:
    """A program of ``count`` arithmetic steps: a function checked by asserts, or a script checked by its output."""
    count = count or rng.choice((1, 2, 2, 3))
    steps = [(rng.choice(tuple(OPERATIONS)), rng.randint(2, 9)) for _ in range(count)]
    said = ", then ".join(f"{operation} {k}" for operation, k in steps)
    values = rng.sample(range(-20, 100), 4)
    if rng.random() < 0.7:
        name = rng.choice(("f", "g", "solve", "change"))
        text = f"Write a Python function {name}(x): {said}, and return the result."
        cases = [f"assert {name}({value}) == {_apply(steps, value)}" for value in values]
        tests = {"call_type": "assert", "fn_name": name, "assert_case": cases}
        return Problem("code", "function", _user(text), {"steps": steps, "name": name}, tests=tests, difficulty=count)
    text = f"Write a Python program that reads an integer n: {said}, and print the result."
    tests = {
        "call_type": "std",
        "inputs": [f"{value}\n" for value in values],
        "outputs": [f"{_apply(steps, value)}\n" for value in values],
    }
    return Problem("code", "script", _user(text), {"steps": steps}, tests=tests, difficulty=count)


# --- science ---------------------------------------------------------------------------------------------------------

#: law, question, unit; the answer is the product of two small whole numbers.
_LAWS = (
    ("distance = speed * time", "{name} walks at {a} m/s for {b} s. How far does {name} get, in metres?"),
    ("force = mass * acceleration", "A body of {a} kg is accelerated at {b} m/s2. What force acts on it, in newtons?"),
    ("charge = current * time", "A current of {a} A flows for {b} s. What charge passes, in coulombs?"),
    ("mass = density * volume", "A liquid of density {a} kg/l fills {b} l. What is its mass, in kilograms?"),
    ("work = force * distance", "A force of {a} N moves a box by {b} m. What work is done, in joules?"),
)
_KINDS = {
    "mammal": ("whale", "bat", "horse", "otter", "mouse"),
    "bird": ("crow", "owl", "duck", "hawk", "swan"),
    "fish": ("shark", "trout", "eel", "carp", "tuna"),
    "metal": ("iron", "copper", "zinc", "silver", "tin"),
    "gas": ("oxygen", "helium", "argon", "neon", "methane"),
    "planet": ("Mars", "Venus", "Saturn", "Neptune", "Mercury"),
}


def science(rng: random.Random) -> Problem:
    """A law of two factors (numeric reference), or a question of kind with three options (choice reference)."""
    if rng.random() < 0.6:
        law, text = rng.choice(_LAWS)
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        turns = _user(text.format(a=a, b=b, name=rng.choice(NAMES)))
        return Problem("science", "law", turns, {"law": law, "a": a, "b": b}, str(a * b), "number")
    kinds = rng.sample(tuple(_KINDS), 3)
    options = [rng.choice(_KINDS[kind]) for kind in kinds]
    right = rng.randrange(3)
    listed = " ".join(f"({letter}) {option}" for letter, option in zip("ABC", options, strict=True))
    text = f"Which of these is a {kinds[right]}? {listed}"
    facts = {"options": options, "kinds": kinds, "right": right}
    return Problem("science", "kind", _user(text), facts, "ABC"[right], "choice")


# --- instruction following -------------------------------------------------------------------------------------------

TOPICS = (
    "rivers",
    "winter",
    "bread",
    "music",
    "stars",
    "gardens",
    "trains",
    "cats",
    "maps",
    "tea",
    "forests",
    "bridges",
)
QUALITIES = ("quiet", "bright", "old", "useful", "warm", "simple", "rare", "strong")


def instruction(rng: random.Random) -> Problem:
    """A short text about a topic under one constraint of IFEval's list."""
    topic, quality, other = rng.choice(TOPICS), rng.choice(QUALITIES), rng.choice(QUALITIES)
    count = rng.randint(2, 4)
    request, identifier, arguments = rng.choice(
        (
            ("Use only lowercase letters.", "change_case:english_lowercase", {}),
            ("Use only capital letters.", "change_case:english_capital", {}),
            ("Do not use any commas.", "punctuation:no_comma", {}),
            (f"Use the word {quality}.", "keywords:existence", {"keywords": [quality]}),
            (f"Do not use the word {quality}.", "keywords:forbidden_words", {"forbidden_words": [quality]}),
            ("End with the words That is all.", "startend:end_checker", {"end_phrase": "That is all."}),
            (
                f"Write exactly {count} bullet points, each starting with a star.",
                "detectable_format:number_bullet_lists",
                {"num_bullets": count},
            ),
            ("Put the whole text in double quotation marks.", "startend:quotation", {}),
        )
    )
    stem = rng.choice(("Write a line about {}.", "Say something about {}.", "Tell me about {}."))
    facts = {"topic": topic, "quality": quality, "other": other, "instruction": identifier, "count": count}
    constraints = {"instruction_id_list": [identifier], "kwargs": [arguments]}
    return Problem(
        "instruction_following",
        "constraint",
        _user(f"{stem.format(topic)} {request}"),
        facts,
        constraints=constraints,
    )


# --- dialogue and general --------------------------------------------------------------------------------------------


def dialogue(rng: random.Random) -> Problem:
    """Two turns: the number of the first is needed in the second."""
    terms, items = _terms(rng, 2, 2), rng.choice(ITEMS)
    change = f"I get {terms[1]} more." if terms[1] >= 0 else f"I give away {-terms[1]}."
    turns = (
        ("user", f"I have {terms[0]} {items}. Please remember that."),
        ("assistant", f"You have {terms[0]} {items}."),
        ("user", f"{change} How many {items} do I have now?"),
    )
    return Problem("multi_turn", "memory", turns, {"terms": terms}, str(sum(terms)), "number", difficulty=2)


_OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("early", "late"),
    ("open", "closed"),
    ("fast", "slow"),
    ("full", "empty"),
    ("high", "low"),
    ("light", "dark"),
    ("wet", "dry"),
    ("loud", "quiet"),
)


def general(rng: random.Random) -> Problem:
    """An opposite, a parity, or the largest of three numbers."""
    kind = rng.choice(("opposite", "parity", "parity", "largest", "largest"))
    if kind == "opposite":
        word, other = rng.choice(_OPPOSITES)[:: rng.choice((1, -1))]
        stem = rng.choice(
            ("What is the opposite of {}?", "Name the opposite of {}.", "Which word means the opposite of {}?")
        )
        return Problem("general", kind, _user(stem.format(word)), {"word": word, "other": other}, other, "text")
    if kind == "parity":
        value = rng.randint(10, 999)
        stem = rng.choice(("Is {} even or odd?", "Is the number {} odd or even?"))
        answer = "odd" if value % 2 else "even"
        return Problem("general", kind, _user(stem.format(value)), {"value": value, "answer": answer}, answer, "text")
    values = rng.sample(range(10, 100), 3)
    text = f"Which is the largest of {values[0]}, {values[1]} and {values[2]}?"
    return Problem("general", kind, _user(text), {"values": values}, str(max(values)), "number")


_DRAW: dict[str, Callable[[random.Random], Problem]] = {
    "math": mathematics,
    "code": code,
    "science": science,
    "instruction_following": instruction,
    "multi_turn": dialogue,
    "general": general,
}


def draw_problem(category: str, rng: random.Random) -> Problem:
    """One problem of ``category`` for a corpus or a practice set."""
    return _DRAW[category](rng)


def draw_benchmark(benchmark: str, rng: random.Random) -> Problem:
    """One problem of the miniature's benchmarks: ``easy_math``, ``hard_math`` or ``code_tasks``."""
    if benchmark == "code_tasks":
        return code(rng, rng.choice((2, 3)))
    make = arithmetic if rng.random() < 0.6 else word_problem
    return make(rng, 2, 2) if benchmark == "easy_math" else make(rng, 3, 2)
