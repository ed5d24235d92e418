"""The rules for mathematics: every trap has a case, here or in resources/verifier_cases/math.jsonl."""

import json
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whichteacher.references import infer_type
from whichteacher.verifiers import math
from whichteacher.verifiers.versions import rules_version, source_digest

DATA = Path(__file__).parents[2] / "shared" / "data"


def verdict(outcome):
    return None if outcome.score is None else outcome.score == 1.0


def boxed(reference, answer, kind="expression"):
    return math.check(f"The answer is \\boxed{{{answer}}}.", reference, kind)


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        (r"\boxed{5}", "5"),
        (r"\boxed{5} or rather \boxed{6}", "6"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{5} so \boxed{6", "5"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed {8}", "8"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{6", None),
        (r"\boxed{5, no: \boxed{6}", "6"),
        (r"\fbox{6}", "6"),
        (r"\boxed{x = \boxed{7}}", r"x = \boxed{7}"),
        (r"\boxed{\boxed{7} + \boxed{8}}", r"\boxed{7} + \boxed{8}"),
        ("the answer is 6", None),
    ],
)
def test_last_closed_box(text, contents):
    assert math.last_boxed(text) == contents


@pytest.mark.parametrize(
    ("reference", "answer", "kind", "expected"),
    [
        ("42", "42", "number", True),
        ("25", "025", "number", True),
        ("1000", "1,000", "number", True),
        ("1000", "1 000", "number", True),
        ("12", "$12.$", "number", True),
        ("1/3", "0.333", "number", False),
        ("1/3", "0.333333", "number", True),
        ("0.5", r"\dfrac{1}{2}", "number", True),
        # A reference outside a formula loses its symbols.
        (r"2\sqrt{3}", "2", "expression", False),
        (r"2\sqrt{3}", r"\sqrt{12}", "expression", True),
        (r"3\pi", "3", "expression", False),
        ("10^{5}", "10", "expression", False),
        ("x^2+1", "1+x^2", "expression", True),
        # A part of what was asked for.
        ("1331 and 1728", "1728", "set", False),
        (r"\{1331, 1728\}", "1728, 1331", "set", True),
        ("1, 2", "1, 2, 3", "set", False),
        ("2, -2", r"\pm 2", "set", True),
        ("0, 1, -1", r"0, \pm 1", "set", True),
        ("x = 1 or x = 2", "1, 2", "set", True),
        # Brackets mean something.
        (r"\{1, 2\}", "(1, 2)", "set", False),
        ("(1, 2)", r"\{1, 2\}", "expression", False),
        ("(1, 2)", "(2, 1)", "expression", False),
        (r"(-\infty, 2]", "(-∞, 2]", "interval", True),
        (r"(-\infty, 2]", r"(-\infty, 2)", "interval", False),
        (r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", "expression", True),
        # Units and bases.
        (r"10\text{ cm}", r"10\text{ m}", "expression", None),
        ("10", r"10\text{ cm}", "number", True),
        ("101_2", "101_3", "expression", False),
        ("101_2", "5_{10}", "expression", True),
        ("101_2", "101", "number", None),
        ("101_2", "77", "number", False),
        (r"12\text{ cm}^2", r"12\text{ cm}^3", "expression", False),
        ("2ab", "2", "expression", False),
        ("2m", "3n", "expression", False),
        (r"3 \text{ million}", "3", "number", None),
        (r"3 \text{ million}", "3000000", "number", None),
        (r"3 \text{ million}", r"3 \text{ million}", "number", True),
        (r"\sqrt{3} \text{ squared}", r"\sqrt{3}", "expression", None),
        # What looks like a unit to math-verify is a variable.
        ("3t", "3", "expression", False),
        ("3t", "3h", "expression", False),
        (r"\frac{41}{5}m", r"\frac{41}{5}", "expression", False),
        (r"2\sqrt{3}\text{ cm}", r"2\sqrt{3}", "expression", True),
        (r"2\sqrt{3}", r"\sqrt{12} \mathrm{~cm}", "expression", True),
        (r"2\sqrt{3}\text{ cm}", r"2\sqrt{3}\text{ m}", "expression", None),
        (r"2\pi \text{ cm}^2", r"2\pi \text{ cm}^3", "expression", False),
        (r"1 + \mathrm{e}", "1", "expression", False),
        (r"35\%", "0.35", "number", True),
        ("0.35", "35", "number", False),
        # Subscripts.
        ("E_{1}, E_{2}", "E_1, E_2", "expression", True),
        ("E_{1}, E_{2}", "E_1, E_3", "expression", False),
        (r"5M_{\odot}", r"5 \cdot M_{\odot}", "expression", True),
        (r"5M_{\odot}", r"6 \cdot M_{\odot}", "expression", False),
        # Powers of ten.
        ("1e-5", "0.00001", "number", True),
        ("3e8", r"3 \times 10^{8}", "number", True),
        ("3e8", r"3 \times 10^{7}", "number", False),
        # A calculation and its result, an equation and its side.
        ("2+3=5", "5", "expression", True),
        ("9 = 4b+d", "4b+d", "expression", False),
        # Decimals agree to six places, and to a thousandth of the reference.
        ("0.0000001", "0.0000004", "number", False),
        (r"\frac{1}{7000000}", "0", "number", False),
        (r"\sqrt{2}/10^7", "0.0000001", "expression", False),
        ("2.5", "2,5", "number", None),
        # math-verify reads an inequality for an interval one way round only.
        ("(-1, 4)", "-1 < x < 4", "interval", True),
        (r"-1 < x < 4", "(-1, 4)", "expression", True),
        # Points and column vectors.
        ("(3, 8)", r"\begin{pmatrix} 3 \\ 8 \end{pmatrix}", "expression", True),
        ("(3, 8)", r"\begin{pmatrix} 8 \\ 3 \end{pmatrix}", "expression", False),
        # Equal wherever one looks, and not simplified by math-verify.
        (r"\frac{1}{4b}(\exp{b*s}-\exp{-b*s})", r"\frac{\sinh(bs)}{2b}", "expression", None),
        (r"\sqrt{x^2}", "x", "expression", False),
        # Equations, without solving them.
        (r"\dot{y} + 3y = f(t)", r"\dot{y} - 3y = f(t)", "expression", False),
        ("x^2 + y^2 = 4", "y^2 + x^2 = 4", "expression", True),
        ("xy = 1", "y = 1/x", "expression", True),
        ("xy = 1", "y = 2/x", "expression", False),
        # Words are no products of their letters.
        ("Tuesday", "Tuesday", "expression", True),
        (r"\text{listen}", "silent", "expression", False),
        (r"\text{Tuesday}", "tuesday.", "text", True),
        ("cold", "hot", "text", False),
        ("B", r"\text{(B)}", "choice", True),
        ("B", "B. copper", "choice", True),
        ("B", "C", "choice", False),
        ("B", "copper", "choice", None),
        ("(B) copper", "copper", "choice", True),
        ("(B) copper", "(B) zinc", "choice", None),
        ("(B) copper", "(C) copper", "choice", None),
        ("(D) c", "c", "choice", None),
        ("(D) 4", "4", "choice", True),
    ],
)
def test_comparison(reference, answer, kind, expected):
    assert verdict(boxed(reference, answer, kind)) is expected


def test_letters_come_from_the_box_only():
    assert verdict(math.check(r"Consider A triangle: \boxed{C}", "A", "choice")) is False


def test_values_in_boxes_of_their_own_are_left_to_a_judge():
    assert math.check(r"\boxed{3} and \boxed{8}", "3, 8", "set").reason == "several_boxes"
    assert math.check(r"\boxed{k = 3}, \boxed{n = 8}", "k = 3, n = 8", "expression").reason == "several_boxes"
    assert math.check(r"\boxed{3, 8}", "3", "set").reason == "other_cardinality"
    assert math.check(r"\boxed{1}, so \boxed{(3, 9)}", "(3, 8)", "expression").score == 0


def test_what_was_extracted_is_not_extracted_from_again():
    assert math.check(math.last_boxed(r"\boxed{9}"), "9", "number").reason == "no_box"
    assert verdict(boxed("10", r"\text{The final answer is } $10$. \boxed{9}", "number")) is not True


def test_no_alarm_is_set_in_threads():
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda root: boxed(root, r"\sqrt{12}"), [r"2\sqrt{3}", r"3\sqrt{2}"]))
    assert [verdict(outcome) for outcome in outcomes] == [True, False]


def test_what_is_too_large_to_calculate_is_undecided():
    assert boxed("3^{3^{3^{3}}}", "3^{3^{27}}").reason == "out_of_reach"
    assert verdict(boxed(r"\infty", "5")) is False


def test_the_distance_of_numbers_is_evidence():
    assert boxed("42", "45", "number").evidence["distance"] == 3
    assert boxed("1/3", "0.333", "number").evidence["distance"] == pytest.approx(1 / 3 - 0.333)
    assert boxed(r"\sqrt{2}", "1.41").evidence["distance"] == pytest.approx(0.00421356)


def test_no_closed_box_is_wrong():
    assert math.check("The answer is 42.", "42", "number").reason == "no_box"
    assert math.check(r"\boxed{42", "42", "number").reason == "no_box"
    assert math.check(r"\boxed{}", "42", "number").reason == "empty_box"


def test_what_cannot_be_read_is_undecided():
    assert boxed(None, "42").reason == "no_reference"
    assert boxed(r"\frac{", "42").score is None
    assert boxed("42", "1+" * 2000 + "1").reason == "answer_too_long"
    assert boxed("42", "(" * 40 + "42" + ")" * 40).reason == "answer_too_nested"
    assert boxed("x", r"x^{\frac{").reason == "no_box"


@given(st.integers(), st.integers())
def test_integers_are_equal_or_not(reference, answer):
    assert verdict(boxed(str(reference), str(answer), "number")) is (reference == answer)
    assert verdict(boxed(str(reference), f"{reference:,}", "number")) is True


@given(st.text(alphabet="ab \\,1", max_size=20), st.text(alphabet="ab{} \\,1", max_size=30))
def test_the_last_closed_box_is_found_behind_anything(inside, before):
    inside = inside.rstrip("\\")
    assert math.last_boxed(f"{before.rstrip(chr(92))} so \\boxed{{{inside}}}") == inside.strip()


def test_a_hundred_thousand_open_boxes_cost_nothing():
    assert math.last_boxed(r"\boxed{" * 100_000 + "1") is None
    assert math.quick(r"\boxed{" + r"\text{" * 20_000 + "}" * 20_001, "7", "number").reason == "answer_too_long"


@settings(max_examples=25, deadline=None)
@given(st.integers(-50, 50), st.integers(1, 30), st.integers(2, 9))
def test_equal_fractions_are_equal_both_ways(numerator, denominator, factor):
    one, other = f"\\frac{{{numerator}}}{{{denominator}}}", f"{numerator * factor}/{denominator * factor}"
    assert verdict(boxed(one, other)) is True
    assert verdict(boxed(other, one)) is True
    assert verdict(boxed(one, f"{numerator * factor + 1}/{denominator * factor}")) is False


def _written(number: Fraction, form: int) -> str:
    """A number in one of several notations, or the nearest that has one."""
    if form == 0:
        return f"{number.numerator}/{number.denominator}"
    if form == 1:
        return rf"\frac{{{number.numerator}}}{{{number.denominator}}}"
    return f"{float(number):.{form}f}"


@settings(max_examples=40)
@given(
    st.fractions(-9, 9, max_denominator=12),
    st.fractions(-9, 9, max_denominator=12),
    st.integers(0, 7),
    st.integers(0, 7),
)
def test_numbers_are_compared_as_math_verify_does(one, other, form, other_form):
    """What is told from the way numbers are written is what math-verify says of them."""
    from math_verify import parse, verify

    for reference, answer in ((one, other), (one, one)):
        wanted, given = _written(reference, form), _written(answer, other_form)
        outcome = math.quick(rf"\boxed{{{given}}}", wanted, "number")
        assert outcome.score == float(verify(parse(f"${wanted}$"), parse(f"${given}$"))), (wanted, given)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-3/4", Fraction(-3, 4)),
        (r"2\frac{1}{3}", Fraction(7, 3)),
        (r"-2\frac13", Fraction(-7, 3)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        ("1.5e-3", Fraction(3, 2000)),
        (r"-2.5 \times 10^{3}", Fraction(-2500)),
        (r"25\%", Fraction(25)),
        (r"90^\circ", Fraction(90)),
        ("3/0", None),
        ("1.2.3", None),
        (".", None),
        ("x", None),
        ("", None),
    ],
)
def test_literals(text, value):
    literal = math.read_literal(text)
    assert (literal and literal.value) == value


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("42", "same_text"),
        (r"2\sqrt{3}", "same_text"),
        (r"\text{Tuesday}", "same_text"),
        ("101_2", "same_text"),
        (r"10\text{ cm}", "same_text"),
        (r"(-\infty, 2] \cup [5, 9)", "same_text"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "same_text"),
        (r"\frac{3}{", "no_box"),
        ("2ab", "same_text"),
        (r"A \cap B", "reference_unreadable"),
        (r"(x-3)^{0} + 1", "part_ignored"),
    ],
)
def test_a_reference_must_be_right_against_itself_and_read_as_a_whole(reference, reason):
    assert math.check_reference(reference, infer_type(reference, "math")).reason == reason


def test_the_version_changes_with_the_rules():
    sources = [(Path(math.__file__).parent / name).read_bytes() for name in ("math.py", "values.py")]
    assert math.version().startswith(source_digest(sources) + "+math-verify-0.9.0+")
    changed = sources[0].replace(b"_DECIMALS = 6", b"_DECIMALS = 5")
    assert changed != sources[0]
    assert source_digest([changed, sources[1]]) != source_digest(sources)
    assert source_digest([sources[0] + sources[1]]) != source_digest(sources)
    assert rules_version(("whichteacher.verifiers.math",)) != rules_version(("whichteacher.verifiers.science",))


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared test data")
def test_agreement_with_graded_predictions():
    """Real predictions on which two other graders agree: at most one in a hundred is decided otherwise, none passes wrongly."""
    with open(DATA / "verification" / "real_predictions_graded.jsonl", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["label"] is not None]
    right = [row for row in rows if row["label"]]
    sample = right[::2] + [row for row in rows if not row["label"]][::16]
    decided = [(row["label"], verdict(boxed(row["gold"], row["pred"]))) for row in sample]
    assert len(decided) > 80
    assert (False, True) not in decided
    assert sum(label is got for label, got in decided) >= 0.97 * len(decided)


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared test data")
def test_every_reference_is_right_against_itself():
    with open(DATA / "benchmarks" / "math500.jsonl", encoding="utf-8") as file:
        answers = [json.loads(line)["answer"] for line in file]
    assert all(verdict(boxed(answer, answer)) for answer in answers)
