"""Tests of code queries: every layout that data sets have comes to the one form, and right programs pass it."""

import json
import shutil

import pytest

from whichteacher.code_tests import call_case, code_tests_of, language_of
from whichteacher.rows import Fault
from whichteacher.sandbox import open_sandbox
from whichteacher.verifiers import code

STD = {"call_type": "std", "inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
PAIRS = [{"input": "1 2\n", "output": "3\n"}, {"input": "3 4\n", "output": "7\n"}]
ADDS = "print(sum(map(int, input().split())))"
FUNCTION = "def add(a, b):\n    return a + b"
METHOD = "class Solution:\n    def add(self, a, b):\n        return a + b"
TEST_FILE = """\
import math
import pytest
from solution import add

LIMIT = 10

def test_small():
    assert add(1, 2) == 3

def test_limit(limit=LIMIT):
    assert add(limit, 1) == 11
    assert math.isclose(add(0.1, 0.2), 0.3)

def test_kinds():
    with pytest.raises(TypeError, match="unsupported") as caught:
        add(1, "2")
    assert "str" in str(caught.value)
"""


def stored(value, language=None):
    return json.loads(code_tests_of(value, language))


def fenced(program, label="python"):
    return f"```{label}\n{program}\n```"


@pytest.fixture(scope="module")
def run():
    return open_sandbox(cpu_seconds=5, memory_mb=512, accept_risk=True).run


@pytest.mark.parametrize(
    "layout",
    [
        STD,
        json.dumps(STD, indent=2),
        {"inputs": STD["inputs"], "outputs": STD["outputs"]},
        {"inputs": STD["inputs"], "outputs": STD["outputs"], "fn_name": None},
        {"input": STD["inputs"], "output": STD["outputs"]},
        {**STD, "fn_name": "main"},
        PAIRS,
        json.dumps(PAIRS),
        [{**pair, "type": "stdin_stdout", "fn_name": None} for pair in PAIRS],
        [{**pair, "testtype": "stdin"} for pair in PAIRS],
        [{"stdin": pair["input"], "stdout": pair["output"]} for pair in PAIRS],
        str({"stdin": STD["inputs"], "stdout": STD["outputs"]}),
    ],
)
def test_standard_input(layout):
    assert stored(layout) == STD


def test_lines_are_joined():
    assert stored([{"input": ["2", "1 2"], "output": ["3"]}]) == {
        "call_type": "std",
        "inputs": ["2\n1 2"],
        "outputs": ["3"],
    }


CALLS = [
    {"fn_name": "add", "inputs": [[1, 2], [[1], [2]]], "outputs": [3, [1, 2]]},
    {"fn_name": "add", "inputs": [[1, 2], [[1], [2]]], "outputs": [[3], [[1, 2]]]},
    {"call_type": "std", "fn_name": "add", "inputs": [[1, 2]], "outputs": [3]},
    [{"fn_name": "add", "input": [1, 2], "output": 3, "type": "function_call"}],
    [{"fn_name": "add", "input": '"a"\n"b"', "output": '"ab"', "testtype": "functional"}],
]


@pytest.mark.parametrize("layout", CALLS)
def test_calls(layout, run):
    tests = code_tests_of(layout)
    assert json.loads(tests)["call_type"] == "assert" and json.loads(tests)["fn_name"] == "add"
    for program, score in ((FUNCTION, 1), (METHOD, 1), (FUNCTION.replace("a + b", "a"), 0), ("x = 1", 0)):
        assert code.check(fenced(program), tests, 10, 0.9, run).score == score, program


def test_tuples_are_lists_to_tests(run):
    tests = code_tests_of({"fn_name": "pair", "inputs": [[1]], "outputs": [[1, 1]]})
    assert code.check(fenced("def pair(x):\n    return x, x"), tests, 10, 0.9, run).score == 1


def test_asserts(run):
    asserts = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
    wanted = {"call_type": "assert", "assert_case": asserts}
    assert stored(asserts) == stored(json.dumps(asserts)) == stored(wanted) == wanted
    assert stored({**wanted, "fn_name": "add", "other": 1}) == {**wanted, "fn_name": "add"}
    assert code.check(fenced(FUNCTION), code_tests_of(asserts), 10, 0.9, run).score == 1


def test_test_functions(run):
    tests = code_tests_of(TEST_FILE)
    assert len(json.loads(tests)["assert_case"]) == 1
    assert code.check(fenced(FUNCTION), tests, 10, 0.9, run).score == 1
    assert code.check(fenced(FUNCTION.replace("a + b", "a - b")), tests, 10, 0.9, run).score == 0
    whole = "import solution\ndef test_all():\n    assert solution.add(1, 2) == 3\n"
    assert code.check(fenced(FUNCTION), code_tests_of(whole), 10, 0.9, run).score == 1
    assert code.check(fenced("def plus(a, b): return a + b"), code_tests_of(whole), 10, 0.9, run).score == 0
    silent = "import pytest\nfrom solution import add\ndef test_raises():\n    with pytest.raises(ValueError):\n        add(1, 2)"
    assert code.check(fenced(FUNCTION), code_tests_of(silent), 10, 0.9, run).score == 0


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({}, "call_type is None"),
        ([], "neither texts nor objects"),
        (["print(1)"], "assert statements"),
        (["assert True", 1], "neither texts nor objects"),
        (5, "neither an object nor a list"),
        ("def f(:", "neither JSON"),
        ("def test_(:", "cannot be read"),
        ("def test_x():\n    assert '\0'", "cannot be read"),
        ("def test_a(client):\n    assert client", "needs arguments"),
        ("def test_a(*, client):\n    assert client", "needs arguments"),
        ("async def test_a():\n    assert 1", "asynchronous"),
        ("class TestA:\n    def test_a(self):\n        assert 1", "no test function at the level"),
        ("import numpy as np\ndef test_a():\n    assert np", "use numpy"),
        ("from .helpers import x\ndef test_a():\n    assert x", "use ."),
        ("import pytest\n@pytest.mark.parametrize('x', [1])\ndef test_a(x):\n    assert x", "pytest.mark"),
        ("from pytest import approx\ndef test_a():\n    assert approx", "pytest.approx"),
        ("import pytest as pt\ndef test_a():\n    assert pt", "pytest.as pt"),
        ({"call_type": "assert", "assert_case": []}, "assert_case"),
        ({"call_type": "assert", "assert_case": [1]}, "assert_case"),
        ({"call_type": "other"}, "'other'"),
        ({**STD, "outputs": []}, "same length"),
        ({**STD, "inputs": [], "outputs": []}, "at least one"),
        ({**STD, "inputs": [1, 2]}, "neither text nor lines"),
        ({**STD, "fn_name": 3}, "fn_name is a int"),
        ([{"input": "1"}], "without input or output"),
        ([{**PAIRS[0], "type": "interactive"}], "interactive"),
        ([{**PAIRS[0], "type": ["stdin"]}], "type is a list"),
        ([{**PAIRS[0], "type": "function_call"}], "do not name it"),
        ([{**PAIRS[0], "fn_name": "f"}, {**PAIRS[1], "fn_name": "g"}], "of function"),
        ({"fn_name": "f(", "inputs": [[1]], "outputs": [1]}, "no name of a function"),
        ({"fn_name": "f", "inputs": [1], "outputs": [1]}, "neither a list nor text"),
        ({"fn_name": "f", "inputs": ["x"], "outputs": ["1"]}, "no JSON"),
        ({"fn_name": "f", "inputs": [[float("inf")]], "outputs": ["1"]}, "cannot write down"),
        ({**STD, "language": "rust"}, "language 'rust'"),
        ({**STD, "language": 3}, "language 3"),
    ],
)
def test_tests_that_cannot_be_used(bad, said):
    with pytest.raises(Fault) as fault:
        code_tests_of(bad)
    assert fault.value.reason == "wrong_tests" and said in fault.value.detail


def test_no_depth_of_nesting_is_a_crash():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Fault):
        call_case("f", [deep], 1)
    with pytest.raises(Fault):
        code_tests_of("[" * 100_000)
    with pytest.raises(Fault):
        code_tests_of("def test_a():\n    assert " + "(" * 100_000)


# --- languages -------------------------------------------------------------------------------------------------------

CPP = '#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << "\\n"; }'


def test_languages():
    assert [language_of(name) for name in (None, "Python3", "C++", " cpp ")] == ["python", "python", "cpp", "cpp"]
    assert stored(STD, "python") == STD
    assert stored(STD, "c++") == stored({**STD, "language": "cpp"}) == {**STD, "language": "cpp"}
    assert stored({**STD, "language": "cpp"}, "python")["language"] == "cpp"
    with pytest.raises(Fault, match="cpp tests"):
        code_tests_of(["assert f(1) == 2"], "cpp")


@pytest.mark.skipif(shutil.which("g++", path="/usr/bin") is None, reason="no C++ compiler")
def test_a_cpp_query_takes_cpp_programs(run):
    tests = code_tests_of(STD, "cpp")
    for label in ("cpp", "c++", ""):
        assert code.check(fenced(CPP, label), tests, 10, 0.9, run).score == 1
    assert code.check(fenced("int main( {", ""), tests, 10, 0.9, run).score == 0


def test_other_languages_are_not_decided(run):
    outcome = code.check(fenced(ADDS), code_tests_of(STD, "cpp"), 10, 0.9, run)
    assert (outcome.score, outcome.reason) == (None, "other_language")
    assert code.check(fenced(ADDS), code_tests_of(STD), 10, 0.9, run).score == 1


def test_without_a_compiler_nothing_is_decided():
    sandbox = open_sandbox(cpu_seconds=5, memory_mb=512, accept_risk=True)
    sandbox.compiler = None
    outcome = code.check(fenced(CPP, "cpp"), code_tests_of(STD, "cpp"), 10, 0.9, sandbox.run)
    assert (outcome.score, outcome.reason) == (None, "sandbox_failed") and "g++" in outcome.evidence["error"]


# --- more than one right output --------------------------------------------------------------------------------------

#: Any divisor of the input but one is right.
DIVISOR = """\
def check(given, printed, wanted):
    divisor = int(printed)
    return divisor > 1 and int(given) % divisor == 0
"""
DIVISORS = {"call_type": "std", "inputs": ["12", "15"], "outputs": ["2", "3"]}


@pytest.mark.parametrize(
    ("problem", "caveat"),
    [
        ("If there are multiple solutions, you may print any of them.", "several_answers"),
        ("If multiple solutions exist, any of them will be accepted.\nYes", "several_answers"),
        ("If there are several such arrays, output any one of them.", "several_answers"),
        ("Print any valid permutation.", "several_answers"),
        ("Return an array of the peaks in the given array in any order.", "several_answers"),
        ("There may be more than one answer; any correct answer will do.", "several_answers"),
        ("This is an interactive problem. Flush the output after each query.", "interactive"),
        ("Perform the two types of operations any number of times in any order. Print the least number.", None),
        ("If the colour is none of D_1, ..., it is worth P_0. Print the total of any plates.", None),
        ("There are multiple test cases. Print the sum of each.", None),
        ("Any of yes, YES and yEs will be accepted.", None),
    ],
)
def test_words_of_problems_without_one_answer(problem, caveat):
    assert json.loads(code_tests_of(STD, problem=problem)).get("caveat") == caveat


def test_a_checker_takes_the_place_of_the_caveat():
    told = stored({**DIVISORS, "checker": DIVISOR})
    assert told["checker"] == DIVISOR
    assert json.loads(code_tests_of(DIVISORS, checker=DIVISOR, problem="Print any valid divisor.")) == told


@pytest.mark.parametrize(
    ("checker", "fault"),
    [(7, "not text"), ("def check(", "cannot be read"), ("def verify(a, b, c): pass", "without a function check")],
)
def test_checkers_that_cannot_be(checker, fault):
    with pytest.raises(Fault, match=fault):
        code_tests_of(DIVISORS, checker=checker)
    with pytest.raises(Fault, match="not of standard input"):
        code_tests_of(["assert f(1) == 2"], checker=DIVISOR)


@pytest.mark.parametrize(
    ("program", "verdict", "reason"),
    [
        ("print(int(input()) // (3 if input.__name__ else 1))", "pass", "tests_passed"),  # 4 and 5
        ("print(3)", "pass", "tests_passed"),
        ("print(2)", "fail", "tests_failed"),
        ("print('two')", "unknown", "checker_failed"),
        ("raise ValueError", "fail", "tests_failed"),
    ],
)
def test_a_checker_decides_what_is_right(run, program, verdict, reason):
    outcome = code.check(fenced(program), code_tests_of(DIVISORS, checker=DIVISOR), 10, 0.9, run)
    assert (outcome.decided(0.9)["verdict"], outcome.reason) == (verdict, reason)


def test_a_program_sees_neither_checker_nor_wanted_output(run):
    spy = "import gc\nfound = [o for o in gc.get_objects() if isinstance(o, str) and 'divisor > 1' in o]\nprint(2 if found else 1)"
    assert code.check(fenced(spy), code_tests_of(DIVISORS, checker=DIVISOR), 10, 0.9, run).score == 0


@pytest.mark.parametrize(
    ("program", "verdict", "reason"),
    [
        ("print(2 if int(input()) == 12 else 3)", "pass", "tests_passed"),
        ("print(4)", "unknown", "several_answers"),
        ("raise ValueError", "fail", "tests_failed"),
    ],
)
def test_another_output_proves_nothing_where_several_are_right(run, program, verdict, reason):
    tests = code_tests_of(DIVISORS, problem="If there are several divisors, print any of them.")
    outcome = code.check(fenced(program), tests, 10, 0.9, run)
    assert (outcome.decided(0.9)["verdict"], outcome.reason) == (verdict, reason)
