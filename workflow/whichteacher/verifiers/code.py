"""Code: the last program of the answer part against the query's tests, in a sandbox.

The score is the share of tests passed. A test that ran out of time is tried once more alone before it counts as undecided, and
a verdict stays undecided only where the tests that did not run could still change it.

Where several outputs are right, the query's checker tells, in a sandbox of its own turn: the program never sees it, nor the
wanted output. Without a checker an output that differs proves nothing, so the answer is undecided.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from whichteacher.sandbox import Job, Result
from whichteacher.verifiers.outcome import Outcome, undecided, wrong
from whichteacher.verifiers.versions import rules_version

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {"python": "python", "python3": "python", "py": "python", "cpp": "cpp", "c++": "cpp"}
#: What verdicts depend on: the comparison, and what programs may do.
_RULES = (__name__, "whichteacher.sandbox", "whichteacher.harness", "whichteacher.confine")
#: A number whose digits alone say what it is: no zeros before it, as in a code of fixed width, and no underscores, which
#: Decimal would read over.
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
#: Statements of a test that do nothing by themselves.
_IDLE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass)
_OUT_OF_TIME = ("cpu_limit", "wall_limit")
#: Outcomes of a test that say no more than that the output is another one.
_OTHER_OUTPUT = ("wrong_output", "error:AssertionError")


def version() -> str:
    """Version of the rules, of what runs the programs, and of the interpreter they run on."""
    return f"{rules_version(_RULES)}+python-{platform.python_version()}"


def last_program(answer: str, unnamed: str = "python") -> tuple[str, str] | None:
    """Language and text of the last fenced block in a language we run; an unnamed block is in the language ``unnamed``."""
    blocks = [(label.lower() or unnamed, text) for label, text in _FENCE.findall(answer)]
    known = [(_LANGUAGES[label], text) for label, text in blocks if label in _LANGUAGES and text.strip()]
    return known[-1] if known else None


def same_output(given: str, wanted: str) -> bool:
    """Equal line by line, white space at the ends apart; words of a line may differ in how an equal number is written."""

    def lines(text: str) -> list[str]:
        return [line.strip() for line in text.strip().splitlines()]

    def same_word(one: str, other: str) -> bool:
        numbers = _NUMBER.fullmatch(one) and _NUMBER.fullmatch(other)
        return one == other or bool(numbers and Decimal(one) == Decimal(other))

    given_lines, wanted_lines = lines(given), lines(wanted)
    if len(given_lines) != len(wanted_lines):
        return False
    for one, other in zip(given_lines, wanted_lines, strict=True):
        if one != other:
            words, others = one.split(), other.split()
            if len(words) != len(others) or not all(map(same_word, words, others)):
                return False
    return True


def _tests_something(case: str) -> bool:
    """Whether an assert case can be read as Python and runs anything that may fail."""
    try:
        body = ast.parse(case).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(
        not isinstance(step, _IDLE) and not (isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant))
        for step in body
    )


class _Tests(NamedTuple):
    """The first tests of a query: ``outputs`` are those wanted on standard output, none for assert cases."""

    language: str
    call_type: str
    cases: list[str]
    outputs: list[str]
    checker: str | None
    caveat: str | None


def _read_tests(tests: str | None, max_tests: int) -> _Tests | None:
    """None where the tests cannot be read, or would pass any program."""
    try:
        payload = json.loads(tests or "")
        wanted, call_type, checker = payload.get("language", "python"), payload["call_type"], payload.get("checker")
        if call_type == "assert":
            cases, outputs = payload["assert_case"], []
        elif call_type == "std":
            cases, outputs = payload["inputs"], payload["outputs"]
        else:
            return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not (isinstance(cases, list) and isinstance(outputs, list) and cases):
        return None
    if not all(isinstance(text, str) for text in [*cases, *outputs]):
        return None
    cases, outputs = cases[:max_tests], outputs[:max_tests]
    if call_type == "assert":
        sound = all(map(_tests_something, cases))
    else:
        # A program that does nothing prints what a blank output wants.
        sound = len(outputs) == len(cases) and (bool(checker) or any(map(str.strip, outputs)))
    return _Tests(wanted, call_type, cases, outputs, checker, payload.get("caveat")) if sound else None


def _outcomes(results: Sequence[Result], tests: _Tests, run: Callable[[Job], list[Result]]) -> list[str]:
    """``passed``, ``wrong_output``, what stopped the test, or ``checker_failed``."""
    outputs = tests.outputs
    checked = _ask_checker(tests, results, run) if tests.checker else {}
    told = []
    for index, result in enumerate(results):
        if result.status != "ran":
            told.append(f"{result.status}:{result.error}" if result.error else result.status)
        elif index in checked:
            told.append(checked[index])
        elif outputs and not same_output(result.output, outputs[index]):
            told.append("wrong_output")
        else:
            told.append("passed")
    return told


def _ask_checker(tests: _Tests, results: Sequence[Result], run: Callable[[Job], list[Result]]) -> dict[int, str]:
    """What the checker says of each test that ran; ``checker_failed`` where it raised anything but an AssertionError."""
    ran = [index for index, result in enumerate(results) if result.status == "ran"]
    cases = [
        f"assert check({tests.cases[index]!r}, {results[index].output!r}, {tests.outputs[index]!r})" for index in ran
    ]
    said = run(Job(tests.checker or "", "assert", cases)) if cases else []
    found = dict.fromkeys(ran, "checker_failed")
    for index, result in zip(ran, said, strict=False):
        if result.status == "ran":
            found[index] = "passed"
        elif result.error == "AssertionError":
            found[index] = "wrong_output"
    return found


def check(
    answer: str, tests: str | None, max_tests: int, threshold: float, run: Callable[[Job], list[Result]]
) -> Outcome:
    """Run the last program of ``answer`` on the first ``max_tests`` tests; ``run`` is the sandbox's."""
    read = _read_tests(tests, max_tests)
    if read is None:
        return undecided("reference_unreadable")
    wanted, call_type, cases, outputs = read[:4]
    found = last_program(answer, wanted)
    if found is None:
        return wrong("no_program")
    language, program = found
    # Tests on standard input and output hold for any language, so a query that asks for another one is not decided.
    if wanted != "python" and language != wanted:
        return undecided("other_language", language=language, wanted=wanted)
    if language == "cpp" and call_type != "std":
        return wrong("other_language")
    job = Job(program, call_type, cases, [len(text.encode("utf-8", "replace")) for text in outputs], language)
    try:
        told = _outcomes(run(job), read, run)
    except OSError as error:
        return undecided("sandbox_failed", error=str(error))
    passed = told.count("passed")
    # Texts of JSON may hold halves of characters, which have no bytes of their own.
    digest = hashlib.sha256(program.encode("utf-8", "surrogatepass")).hexdigest()
    evidence = {
        "tests": len(cases),
        "passed": passed,
        "outcomes": told,
        "language": language,
        "program_sha256": digest,
    }
    open_tests = len(cases) - len(told) + sum(outcome in _OUT_OF_TIME for outcome in told)
    if open_tests and (passed + open_tests) / len(cases) >= threshold:
        return undecided("timeout", **evidence)
    unsure = told.count("checker_failed") + (sum(outcome in _OTHER_OUTPUT for outcome in told) if read.caveat else 0)
    if passed / len(cases) < threshold <= (passed + unsure) / len(cases):
        return undecided(read.caveat or "checker_failed", **evidence)
    return Outcome(passed / len(cases), "tests_passed" if passed == len(cases) else "tests_failed", evidence)
