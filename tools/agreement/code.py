"""Programs against LiveCodeBench's own verdicts, and reference programs of other sets, which pass their tests."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agreement import Answered, Graded, Row, read_rows, score, tally
from whichteacher.code_tests import caveat_of
from whichteacher.config import Verification
from whichteacher.responses import join_response
from whichteacher.verifiers.dispatch import verify_many

#: LiveCodeBench runs programs with the names of these modules at hand; they rely on it. The built-in ones come last: ``pow``.
_PREAMBLE = "\n".join(
    f"from {module} import *"
    for module in (
        *("string", "re", "collections", "heapq", "bisect", "copy", "math", "itertools", "functools", "operator"),
        *("typing", "builtins"),
    )
)
_TESTS = 10


def measure(data: Path, jobs: int) -> list[Row]:
    """LiveCodeBench submissions, and the reference programs of HumanEval, MBPP and CRUXEval."""
    folder = data / "code"
    return [
        *_livecodebench(folder, jobs),
        _references("HumanEval, reference programs", map(_humaneval, read_rows(folder / "humaneval.jsonl")), jobs),
        _references("MBPP, reference programs", map(_mbpp, read_rows(folder / "mbpp.jsonl")), jobs),
        _references("CRUXEval, programs on their inputs", map(_cruxeval, read_rows(folder / "cruxeval.jsonl")), jobs),
    ]


def _graded(rows: list[dict[str, Any]], passed: list[bool], jobs: int, step: str) -> list[Graded]:
    verdicts = verify_many(rows, Verification(max_tests=_TESTS), jobs, step)
    return [
        Graded(row["attempt_id"], verdict["verdict"], theirs, f"{verdict['reason']} {_outcomes(verdict['evidence'])}")
        for row, verdict, theirs in zip(rows, verdicts, passed, strict=True)
    ]


def _outcomes(evidence: str) -> str:
    """What came of the tests, each outcome once."""
    return ", ".join(dict.fromkeys(json.loads(evidence).get("outcomes", [])))


def _row(name: str, program: str, tests: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "attempt_id": name,
        "query_id": name,
        "category": "code",
        "text": join_response("I write it.", f"```python\n{program}\n```"),
        "finish_reason": "stop",
        "answer_format": "tags",
        "tests": json.dumps({"language": "python", **tests}),
    }


def _livecodebench(folder: Path, jobs: int) -> list[Row]:
    """A submission meets the known tests of its problem, and the test that failed it: where that one was not told, nothing can be
    compared. The hidden tests are not public."""
    problems = {problem["question_id"]: problem for problem in read_rows(folder / "livecodebench_problems.jsonl")}
    sets: dict[str, tuple[list[Answered], list[bool]]] = {}
    for number, submission in enumerate(read_rows(folder / "livecodebench_submissions.jsonl")):
        problem = problems[submission["question_id"]]
        if not submission["passed"] and not submission["failing_input"]:
            continue
        failing = [(submission["failing_input"], submission["failing_expected"])] if submission["failing_input"] else []
        make = _scripts if problem["kind"] == "stdin" else _functions
        if tests := make(problem, failing):
            tests["caveat"] = caveat_of(problem["statement"])
            kind = {None: "passed", -2: "wrong answer", -3: "out of time", -4: "error"}[submission["error_code"]]
            answers, passed = sets.setdefault(f"LiveCodeBench, {kind}", ([], []))
            row = _row(
                f"{submission['question_id']} {submission['model']} {number}",
                f"{_PREAMBLE}\n{submission['code']}",
                tests,
            )
            answers.append(Answered(row["attempt_id"], "code", row["text"], tests=row["tests"]))
            passed.append(submission["passed"])
    return [tally(name, score(*found, jobs)) for name, found in sorted(sets.items())]


def _scripts(problem: Mapping[str, Any], failing: list[tuple[str, str]]) -> dict[str, Any] | None:
    known = [(test["stdin"], test["stdout"]) for test in problem["public_tests"] if test["validated"] is not False]
    known += [(test["input"], test["expected"]) for test in problem["revealed_tests"]]
    pairs = [*failing, *known][:_TESTS]
    return (
        {"call_type": "std", "inputs": [given for given, _ in pairs], "outputs": [wanted for _, wanted in pairs]}
        if pairs
        else None
    )


def _functions(problem: Mapping[str, Any], failing: list[tuple[str, str]]) -> dict[str, Any] | None:
    known = [(test["args"], test["expected"]) for test in problem["public_tests"] if test["validated"] is not False]
    hidden = [*failing, *((test["input"], test["expected"]) for test in problem["revealed_tests"])]
    pairs = []
    for given, wanted in hidden:
        try:
            pairs.append((ast.literal_eval(_as_python(given)), ast.literal_eval(_as_python(wanted))))
        except (ValueError, SyntaxError):
            continue
    if len(pairs) < len(failing):
        return None  # the test that failed it cannot be read
    name = re.findall(r"def (\w+)\(self", problem["starter_code"])[-1]
    asserts = [f"assert Solution().{name}(*{given!r}) == {wanted!r}" for given, wanted in [*pairs, *known][:_TESTS]]
    return {"call_type": "assert", "assert_case": asserts} if asserts else None


def _as_python(text: str) -> str:
    """A value that was written as JSON or as Python, as Python."""
    return re.sub(r"\b(true|false|null)\b", lambda word: {"true": "True", "false": "False"}.get(word[1], "None"), text)


def _references(set_name: str, rows: Iterable[dict[str, Any]], jobs: int) -> Row:
    rows = list(rows)
    return tally(set_name, _graded(rows, [True] * len(rows), jobs, set_name))


def _humaneval(row: Mapping[str, Any]) -> dict[str, Any]:
    program = f"{row['prompt']}{row['canonical_solution']}\n{row['test']}"
    return _row(row["id"], program, {"call_type": "assert", "assert_case": [f"check({row['entry_point']})"]})


def _mbpp(row: Mapping[str, Any]) -> dict[str, Any]:
    return _row(
        row["id"], f"{row['test_setup_code']}\n{row['code']}", {"call_type": "assert", "assert_case": row["test_list"]}
    )


def _cruxeval(row: Mapping[str, Any]) -> dict[str, Any]:
    asserts = [f"assert f({row['input']}) == {row['output']}"]
    return _row(row["id"], row["code"], {"call_type": "assert", "assert_case": asserts})
