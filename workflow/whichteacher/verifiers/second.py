"""Second opinions: other ways to grade the same answers, for the audit alone; no verdict rests on them.

=====================  ==================  ========================================================================
category               name                what it does
=====================  ==================  ========================================================================
math                   plain_math_verify   math-verify on the whole answer part, as its users call it
code                   all_tests           every test of the query, not the first ones alone
science and dialogue   same_text           equal to the reference but for case, spacing and wrappers
instruction_following  whole_response      the constraints on the whole response, its reasoning included
=====================  ==================  ========================================================================
"""

from __future__ import annotations

from whichteacher.verifiers.math import as_text, last_boxed
from whichteacher.verifiers.outcome import Outcome, right, undecided, wrong

NAMES = {
    "math": "plain_math_verify",
    "code": "all_tests",
    "science": "same_text",
    "multi_turn": "same_text",
    "general": "same_text",
    "instruction_following": "whole_response",
}


def plain_math_verify(answer: str, reference: str | None) -> Outcome:
    """math-verify without anything of ours around it but the deadline."""
    if not reference:
        return undecided("no_reference")
    import math_verify  # 0.7 s, so only where it is used

    gold = math_verify.parse(f"${reference}$", parsing_timeout=None)
    same = math_verify.verify(gold, math_verify.parse(answer, parsing_timeout=None), timeout_seconds=None)
    return right("same_value") if same else wrong("other_value")


def same_text(answer: str, reference: str | None) -> Outcome:
    """The box, or the answer part without one, as text."""
    if not reference:
        return undecided("no_reference")
    given = last_boxed(answer) or answer
    return right("same_text") if as_text(given) == as_text(reference) else wrong("other_text")
