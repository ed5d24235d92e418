"""Tests of code queries: from the layouts that data sets have to the one that is verified.

The one form is JSON text: ``{"call_type": "assert", "assert_case": [code, ...]}``, Python statements that run after the
program, or ``{"call_type": "std", "inputs": [...], "outputs": [...]}``, standard input and the output wanted. A ``language``
stands in it where it is not Python, a ``checker`` where outputs other than the wanted one may be right, and a ``caveat`` (of
:func:`caveat_of`) where they may be and nothing tells them from wrong ones.
"""

from __future__ import annotations

import ast
import json
import keyword
import math
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from whichteacher.rows import Fault, canonical, kind_of

#: The languages of tests, by the names found for them.
LANGUAGES = {"python": "python", "python3": "python", "py": "python", "cpp": "cpp", "c++": "cpp"}
_INPUTS, _OUTPUTS = ("inputs", "input", "stdin"), ("outputs", "output", "stdout")
_STANDARD = ("stdin_stdout", "stdin")
#: Words by which a problem says that it has more than one right answer, or that it talks back.
_SEVERAL_ANSWERS = re.compile(
    r"""
    \b(?:multiple|several|many|more\ than\ one)\b[^.]{0,100}[.,;]?[^.]{0,40}\bany\ (?:one\ )?of\ (?:them|these|those)\b
    | \b(?:multiple|several|many|more\ than\ one)\ (?:\w+\ ){0,3}(?:answer|solution|output)s?\b[^.]{0,60}\bany\ (?:one|answer|solution)\b
    | \b(?:print|output|return|find|report|give)(?:ing)?\ any\ (?:one\ )?(?:of\ (?:them|these|those)|valid|possible|correct|such|suitable)\b
    | \bany\ (?:valid|correct|possible|optimal)\ (?:answer|solution|output)s?\b
    | \b(?:print|output|return)\b[^.]{0,120}\bin\ any\ order\b
    | \bany\ of\ (?:them|these|those)\ (?:is|are|will\ be)\ (?:considered\ )?(?:accepted|correct)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_INTERACTIVE = re.compile(
    r"\binteractive (?:problem|task)\b|\bproblem is interactive\b|\bflush (?:the |your )?(?:standard )?(?:output|stdout)\b",
    re.IGNORECASE,
)
_CALLS = ("function_call", "functional")

#: A call as a case. A program may give its function as a method of ``Solution``; JSON has no tuples.
_CALL = """\
_call = Solution().{name} if "Solution" in globals() and hasattr(Solution, {name!r}) else {name}
_given = _call(*{arguments!r})
_given = list(_given) if isinstance(_given, tuple) else _given
assert _given == {wanted!r}{unwrapped}
"""
#: What a file of test functions imports: the program, by the name that data sets give it, and the one thing of pytest that
#: most of them use. The sandbox has the standard library alone.
_SOLUTION = """\
import sys, types
sys.modules["solution"] = types.ModuleType("solution")
sys.modules["solution"].__dict__.update(globals())
"""
_PYTEST = """\
import contextlib, re, sys, types
@contextlib.contextmanager
def _raises(kind, match=None):
    info = types.SimpleNamespace(value=None, type=None)
    try:
        yield info
    except kind as error:
        info.value, info.type = error, type(error)
        assert match is None or re.search(match, str(error))
    else:
        raise AssertionError("nothing was raised")
sys.modules["pytest"] = types.ModuleType("pytest")
sys.modules["pytest"].raises = _raises
"""


def caveat_of(problem: str) -> str | None:
    """Why an output that differs from the wanted one may be right all the same: ``interactive`` or ``several_answers``.

    None where ``problem``, the text of a code query, says neither. Words alone are looked at, so problems that say it in
    other ways are missed (LiveCodeBench lists such ones in its errata).
    """
    if _INTERACTIVE.search(problem):
        return "interactive"
    return "several_answers" if _SEVERAL_ANSWERS.search(" ".join(problem.split())) else None


def code_tests_of(value: Any, language: Any = None, checker: Any = None, problem: str = "") -> str | None:
    """Tests of a code query in the one form; None where there are none. Raises :class:`Fault`.

    ``value`` is text, JSON or as Python prints it, or what it says:

    - an object of the one form; ``input`` and ``stdin`` are other names of ``inputs``, ``output`` and ``stdout`` of
      ``outputs``, and ``call_type`` may be left out;
    - a list of objects with an input and an output each, by any of those names, and a ``type`` or ``testtype``, which may be
      left out;
    - either of them with ``fn_name``: calls of that function. A list holds a call's arguments; text holds one of them as JSON
      in each line. An output that is a list of one thing means the list or the thing, as the data sets' own runners have it;
    - a list of texts: assert statements;
    - Python text that defines functions named ``test...``: one case, which calls them all.

    Lines of a standard input or output that come as a list are joined. ``language`` (of :data:`LANGUAGES`; none is Python) is
    what the tests are written for, unless they name one. Tests in another language than Python are of standard input and
    output.

    ``checker`` (or ``checker`` in the object) is Python text that defines ``check(given, printed, wanted)``, in the order of
    testlib's checkers: whether what a program printed for an input is right, where the wanted output is one of several. It is
    for tests of standard input and output. Without one, ``problem``, the text of the query, tells of a caveat.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = _read(value)
    if isinstance(value, Mapping):
        tests, named = _of_object(value), value.get("language")
        checker = value.get("checker") if checker is None else checker
    elif isinstance(value, list):
        tests, named = _of_list(value), None
    else:
        raise Fault("wrong_tests", f"tests are {kind_of(value)}, neither an object nor a list")
    spoken = language_of(named if named is not None else language)
    if spoken != "python":
        if tests["call_type"] != "std":
            raise Fault("wrong_tests", f"{spoken} tests that are no standard input and output")
        tests["language"] = spoken
    if checker:
        tests["checker"] = _checker(checker, tests)
    elif caveat := caveat_of(problem):
        tests["caveat"] = caveat
    return canonical(tests, "tests")


def _checker(text: Any, tests: Mapping[str, Any]) -> str:
    """The text of a checker. Raises :class:`Fault` where it is none, or the tests are not of standard input and output."""
    if not isinstance(text, str):
        raise Fault("wrong_tests", f"checker is {kind_of(text)}, not text")
    if tests["call_type"] != "std":
        raise Fault("wrong_tests", "a checker for tests that are not of standard input and output")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Fault("wrong_tests", f"checker that cannot be read: {error}") from None
    if not any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in body):
        raise Fault("wrong_tests", "checker without a function check(given, printed, wanted)")
    return text


def language_of(value: Any) -> str:
    """One of the values of :data:`LANGUAGES`; Python where ``value`` is None. Raises :class:`Fault`."""
    if value is None:
        return "python"
    if not isinstance(value, str) or value.strip().lower() not in LANGUAGES:
        raise Fault("wrong_tests", f"language {value!r} is none of {', '.join(LANGUAGES)}")
    return LANGUAGES[value.strip().lower()]


def _read(text: str) -> Any:
    """What the text of tests says: JSON, a Python object as it is printed, or test functions. Raises :class:`Fault`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if "def test" in text:
            return {"call_type": "assert", "assert_case": [functions_case(text)]}
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            raise Fault("wrong_tests", f"tests are neither JSON ({error}) nor Python test functions") from None


def _of_object(tests: Mapping[str, Any]) -> dict[str, Any]:
    name = _text_or_none(tests, "fn_name")
    inputs, outputs = (_first(tests, names) for names in (_INPUTS, _OUTPUTS))
    call_type = tests.get("call_type", "std" if inputs is not None else None)
    if call_type == "assert":
        cases = tests.get("assert_case")
        if not isinstance(cases, list) or not cases or not all(isinstance(case, str) for case in cases):
            raise Fault("wrong_tests", "assert_case is no list of texts, at least one long")
        return {"call_type": "assert", "assert_case": cases} | ({"fn_name": name} if name else {})
    if call_type != "std":
        raise Fault("wrong_tests", f"call_type is {call_type!r}, neither 'assert' nor 'std'")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs or len(inputs) != len(outputs):
        raise Fault("wrong_tests", "inputs and outputs are not two lists of the same length, at least one long")
    # Who says standard input and gives text means it, whatever the function is called.
    said = "call_type" in tests and all(isinstance(given, str) for given in inputs)
    return _cases(inputs, outputs, None if said else name)


def _of_list(tests: list[Any]) -> dict[str, Any]:
    if tests and all(isinstance(test, str) for test in tests):
        if not all("assert" in test for test in tests):
            raise Fault("wrong_tests", "a list of texts, and not all are assert statements")
        return {"call_type": "assert", "assert_case": tests}
    if not tests or not all(isinstance(test, Mapping) for test in tests):
        raise Fault("wrong_tests", "a list of tests holds neither texts nor objects alone, at least one")
    inputs, outputs = ([_first(test, names) for test in tests] for names in (_INPUTS, _OUTPUTS))
    if None in inputs or None in outputs:
        raise Fault("wrong_tests", "a test without input or output")
    kinds = {_text_or_none(test, "type") or _text_or_none(test, "testtype") for test in tests}
    names = {_text_or_none(test, "fn_name") for test in tests}
    if len(kinds) > 1 or len(names) > 1 or not kinds <= {None, *_STANDARD, *_CALLS}:
        raise Fault(
            "wrong_tests", f"tests of type {', '.join(map(str, kinds))} of function {', '.join(map(str, names))}"
        )
    (kind,), (name,) = kinds, names
    if kind in _CALLS and not name:
        raise Fault("wrong_tests", "the tests call a function and do not name it in fn_name")
    return _cases(inputs, outputs, None if kind in _STANDARD else name)


def _first(tests: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value under the first of ``names`` that ``tests`` has; None where it has none."""
    return next((tests[name] for name in names if name in tests), None)


def _text_or_none(tests: Mapping[str, Any], key: str) -> str | None:
    """A text of ``tests``; None where there is none, or an empty one. Raises :class:`Fault`."""
    value = tests.get(key)
    if value is not None and not isinstance(value, str):
        raise Fault("wrong_tests", f"{key} is {kind_of(value)}, not text")
    return value or None


def _cases(inputs: list[Any], outputs: list[Any], name: str | None) -> dict[str, Any]:
    """Calls of the function ``name``, or standard inputs where there is none, with what each gives."""
    if not name:
        return {"call_type": "std", "inputs": _lines(inputs, "input"), "outputs": _lines(outputs, "output")}
    if not name.isidentifier() or keyword.iskeyword(name):
        raise Fault("wrong_tests", f"fn_name {name!r} is no name of a function")
    cases = [call_case(name, given, wanted) for given, wanted in zip(inputs, outputs, strict=True)]
    return {"call_type": "assert", "assert_case": cases, "fn_name": name}


def _lines(values: list[Any], name: str) -> list[str]:
    texts = [
        "\n".join(value) if isinstance(value, list) and all(isinstance(line, str) for line in value) else value
        for value in values
    ]
    if not all(isinstance(text, str) for text in texts):
        raise Fault("wrong_tests", f"an {name} is neither text nor lines of text")
    return texts


def call_case(name: str, given: Any, wanted: Any) -> str:
    """The assert statement that ``name`` returns ``wanted`` for ``given``, as :func:`code_tests_of` reads the two."""
    try:
        if isinstance(given, str):
            arguments = [json.loads(line) for line in given.splitlines() if line.strip()]
            wanted = json.loads(wanted) if isinstance(wanted, str) else wanted
        elif isinstance(given, list):
            arguments = given
        else:
            raise Fault("wrong_tests", f"arguments are {kind_of(given)}, neither a list nor text")
        if not _finite(arguments) or not _finite(wanted):
            raise Fault("wrong_tests", "a number that Python cannot write down")
        one = isinstance(wanted, list) and len(wanted) == 1
        unwrapped = f" or _given == {wanted[0]!r}" if one else ""
        return _CALL.format(name=name, arguments=arguments, wanted=wanted, unwrapped=unwrapped)
    except RecursionError:
        raise Fault("wrong_tests", "arguments nested too deeply") from None
    except ValueError as error:
        if isinstance(error, Fault):
            raise
        raise Fault("wrong_tests", f"arguments that are no JSON: {error}") from None


def _finite(value: Any) -> bool:
    """Whether all numbers in ``value`` are finite: the others have no literal."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True


def functions_case(text: str) -> str:
    """One case that runs the test functions of ``text``, the source of a Python test file.

    The program stands for a module ``solution``. Raises :class:`Fault` for what the sandbox cannot run: modules beyond the
    standard library, fixtures, and anything of pytest but ``raises``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Fault("wrong_tests", f"Python that cannot be read: {error}") from None
    imported, of_pytest = _needs(tree)
    foreign = sorted(imported - sys.stdlib_module_names - {"solution", "pytest"} | imported & {"__future__"})
    foreign += sorted(f"pytest.{name}" for name in of_pytest - {"raises"})
    if foreign:
        raise Fault("wrong_tests", f"tests use {foreign[0]}, which the sandbox cannot give them")
    functions = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    ]
    for function in functions:
        given = function.args
        needed = len(given.posonlyargs) + len(given.args) - len(given.defaults) or None in given.kw_defaults
        if needed or isinstance(function, ast.AsyncFunctionDef):
            raise Fault("wrong_tests", f"{function.name} is asynchronous or needs arguments")
    if not functions:
        raise Fault("wrong_tests", "no test function at the level of the module")
    parts = [
        _SOLUTION if "solution" in imported else "",
        _PYTEST if "pytest" in imported else "",
        text.rstrip() + "\n",
        *(f"{name}()\n" for name in dict.fromkeys(function.name for function in functions)),
    ]
    return "".join(parts)


def _needs(tree: ast.AST) -> tuple[set[str], set[str]]:
    """The packages that ``tree`` imports, and what it uses of pytest."""
    imported: set[str] = set()
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
            used.update(f"as {alias.asname}" for alias in node.names if alias.name == "pytest" and alias.asname)
        elif isinstance(node, ast.ImportFrom):
            imported.add("." if node.level else (node.module or "").split(".")[0])
            used.update(alias.name for alias in node.names if node.module == "pytest")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pytest":
            used.add(node.attr)
    return imported, used
