"""The rules for science and dialogue: every trap has a case, here or in resources/verifier_cases/science.jsonl."""

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whichteacher.verifiers import math, science


def verdict(outcome):
    return None if outcome.score is None else outcome.score == 1.0


@pytest.mark.parametrize(
    ("reference", "answer", "kind", "expected"),
    [
        ("144", r"\boxed{144}", "number", True),
        ("144", r"\boxed{144 N}", "number", True),
        ("144 N", r"\boxed{144\text{ N}}", "number", True),
        ("144", "144", "number", True),
        ("144", r"\boxed{143}", "number", False),
        ("3.14", r"\boxed{3.1416}", "number", True),
        ("3.1416", r"\boxed{3.14}", "number", True),
        ("3.1416", r"\boxed{3.1}", "number", None),
        ("3.1416", r"\boxed{3.2}", "number", False),
        ("3.0e8", r"\boxed{3 \times 10^{8}}", "number", True),
        ("10 cm", r"\boxed{10 m}", "number", None),
        ("3 million", r"\boxed{3}", "number", None),
        ("3 million", r"\boxed{3 million}", "number", True),
        ("300 K", r"\boxed{27 ^\circ C}", "number", None),
        ("0.2", r"\boxed{20\%}", "number", True),
        ("5", r"\boxed{t = 5 \text{ s}}", "number", True),
        ("144", "The force is large.", "number", None),
        ("B", r"\boxed{B}", "choice", True),
        ("B", "(B) copper", "choice", True),
        ("B", r"\boxed{A}", "choice", False),
        ("B", "A metal is copper", "choice", None),
        ("(B) copper", "Copper.", "choice", True),
        ("cold", r"\boxed{Cold}", "text", True),
        ("cold", "cold.", "text", True),
        ("cold", r"\boxed{icy}", "text", None),
        ("copper", r"\boxed{(B) copper}", "text", True),
        ("CO2", r"\boxed{\text{CO}_2}", "text", True),
        (r"\frac{1}{2}mv^2", r"\boxed{\frac{mv^2}{2}}", "expression", True),
        (None, "anything", None, None),
    ],
)
def test_short_references(reference, answer, kind, expected):
    assert verdict(science.check(answer, reference, kind)) is expected


@given(st.decimals(-100, 100, places=4), st.integers(0, 3))
def test_a_number_agrees_with_its_own_rounding_to_the_reference(value, places):
    reference = value.quantize(Decimal(1).scaleb(-places))
    assert science.numbers_agree(value, reference)
    assert not science.numbers_agree(reference + Decimal(2).scaleb(-places) * 2, reference)


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("12 N", "12", "N"),
        (r"3 \times 10^{8} \text{ m/s}", "3e8", "m/s"),
        (r"\approx 4.5", "4.5", ""),
        (r"9.8 \mathrm{~m/s^2}", "9.8", "m/s^2"),
        (r"9.8 \text{ m/s}^2", "9.8", "m/s^2"),
    ],
)
def test_quantities(text, number, unit):
    assert science.read_quantity(text) == (Decimal(number), unit)


def test_a_long_run_of_letters_is_read_once():
    """Backtracking over it would take longer than the world has lasted."""
    began = time.process_time()
    assert science.read_quantity("1 " + "a" * 60 + "!") is None
    assert time.process_time() - began < 10


def test_the_version_holds_that_of_mathematics():
    assert science.version().endswith("+" + math.version())
    assert science.version() != math.version()
