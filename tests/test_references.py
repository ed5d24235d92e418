"""What kind of thing a reference is, and that knowing it turns no right answer wrong."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whichteacher.references import infer_type
from whichteacher.rows import ANSWER_TYPES
from whichteacher.verifiers import math, science

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.parametrize(
    ("kind", "references"),
    [
        ("number", ["7", "-7", "+0.5", ".25", "1,250", r"32,\!348", r"1{,}000.5", "3/4", r"\frac34", r"-\dfrac{3}{4}"]),
        ("number", [r"2\frac{1}{3}", "2 1/3", r"$\$18.90$", r"50\%", "50 %", r"90^\circ", "52_8", "1.5e-3", "−3"]),
        ("number", [r"3.0 \times 10^{8}", r"10\text{ cm}", r"864 \mbox{ inches}^2", "12 N", "7."]),
        ("choice", ["A", "(B)", r"\text{C}", r"\textbf{(D)}", r"\text{(F)}", "(A) the first", "E)"]),
        ("set", [r"\{1, 2\}", r"\{1\pm\sqrt{5},-2\}", r"\emptyset", "1, -2", r"1,\frac{1}{2},\sqrt{3}", "x,y,z"]),
        ("interval", ["[1, 2)", "(3,4]", r"(-\infty, 3)", r"\left[ \frac{\pi^2}{8}, 5 \right]", r"x \in [-2,7]"]),
        ("interval", [r"(0,9) \cup (9,36)", r"(-\infty, 2] \cup [3, \infty)"]),
        ("text", [r"\text{Evelyn}", "ellipse", r"\text{No}", "yes", r"\text{the first day}"]),
        ("expression", ["(1,2)", "(1,2),(3,4)", r"3\sqrt{13}", "x", "K", "2k+2", "ab", "x = 3", "x=1, y=2", "f(x)"]),
        ("expression", [r"[1,2] + [3,4]", r"\sqrt[3]{4}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}", "1 and 2", "(1,2"]),
    ],
)
def test_mathematics(kind, references):
    assert {reference: infer_type(reference, "math") for reference in references} == dict.fromkeys(references, kind)


@pytest.mark.parametrize(
    ("kind", "references"),
    [
        ("number", ["7", "12 N", r"1.7 \times 10^{-5}", r"9.8 \mathrm{~m/s^2}", "1/2"]),
        ("choice", ["A", "J", "(C)", "D) copper"]),
        ("text", ["copper", "E. coli", "CO2", "The rate doubles, as v = k[A] and [A] is twice as large."]),
        ("expression", [r"\frac{1}{2}mv^2", "E = mc^2", "2n", "(1, 2)", "1, 2", "K"]),
        ("set", [r"\{1, 2\}"]),
        ("interval", ["[0, 1]"]),
    ],
)
def test_elsewhere(kind, references):
    assert {reference: infer_type(reference, "science") for reference in references} == dict.fromkeys(references, kind)


def test_no_reference_has_no_type():
    assert infer_type(None, "math") is None and infer_type(" ", "math") is None


@given(st.text(alphabet=st.sampled_from(r"0123456789abcAB ,.()[]{}\$_/+-=%frctexsqi"), max_size=40))
def test_every_reference_has_a_type_that_keeps_it_right(reference):
    """What equals itself without a type does so with one."""
    for category, verifier in (("math", math), ("science", science)):
        kind = infer_type(reference, category)
        assert kind in (*ANSWER_TYPES, None)
        answer = rf"\boxed{{{reference}}}"
        if kind in ("set", "choice", "text") and math.last_boxed(answer) == reference:
            untyped = verifier.check(answer, reference, None)
            assert untyped.score != 1 or verifier.check(answer, reference, kind).score == 1


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("1,2,3", "(1, 2, 3)"),
        ("1,-2", r"x \in \{-2, 1\}"),
        ("4,8", "4 or 8"),
        ("1,2", r"1 \text{ and } 2"),
        (r"\{1\pm\sqrt{5},-2\}", r"-2, 1+\sqrt{5}, 1-\sqrt{5}"),
        (r"\text{(B)}", "B"),
        ("C", r"\text{(C)}"),
        (r"50\%", "50"),
        ("(1,2)", r"\left(1, 2\right)"),
    ],
)
def test_ways_to_write_a_right_answer(reference, answer):
    assert math.check(rf"\boxed{{{answer}}}", reference, infer_type(reference, "math")).score == 1


def test_percent_and_its_share_are_one_number_in_science():
    assert infer_type(r"50\%", "science") == "number"
    assert science.check(r"\boxed{0.5}", r"50\%", "number").score == 1
    assert science.check(r"\boxed{51}", r"50\%", "number").score == 0


FILES = {
    "benchmarks/math500.jsonl": ("answer", "math"),
    "benchmarks/aime2024.jsonl": ("answer", "math"),
    "benchmarks/amc23.jsonl": ("answer", "math"),
    "benchmarks/gsm8k_test.jsonl": ("answer", "math"),
    "benchmarks/scibench.jsonl": ("answer_latex", "science"),
    "benchmarks/mmlu_stem.jsonl": ("answer", "science"),
    "verification/real_predictions_graded.jsonl": ("gold", "math"),
}


@pytest.mark.parametrize("file", FILES)
def test_real_references_stay_right(file):
    """Of each file: what passed against itself without a type passes with it."""
    if not (DATA / file).is_file():
        pytest.skip("the shared data is not there")
    column, category = FILES[file]
    verifier = math if category == "math" else science
    with (DATA / file).open(encoding="utf-8") as lines:
        references = {json.loads(line)[column] for line in lines}
    kinds = Counter()
    for reference in references:
        kind = infer_type(reference, category)
        kinds[kind] += 1
        answer = rf"\boxed{{{reference}}}"
        if verifier.check(answer, reference, None).score == 1:
            assert verifier.check(answer, reference, kind).score == 1, (reference, kind)
    assert set(kinds) <= set(ANSWER_TYPES)
    assert kinds.most_common(1)[0][0] == ("choice" if "mmlu" in file else "number")
