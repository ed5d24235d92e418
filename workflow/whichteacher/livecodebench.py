"""LiveCodeBench's own layout (livecodebench/code_generation_lite): hidden tests in a compressed pickle, the function's name in a
JSON column, starter code apart from the question."""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

from whichteacher.rows import Fault, label_of, text_of

#: The columns that are read.
COLUMNS = (
    "question_id",
    "question_content",
    "starter_code",
    "contest_date",
    "difficulty",
    "public_test_cases",
    "private_test_cases",
    "metadata",
)
#: Its levels as numbers, in the order in which they are harder.
LEVELS = {"easy": 1, "medium": 2, "hard": 3}
#: Unpacked tests of one problem: beyond any, and held in memory without harm.
_MOST_BYTES = 2**30


class _TextAlone(pickle.Unpickler):
    """Reads text and containers. A pickle that names a class could run anything."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def hidden_tests(packed: str) -> list[dict[str, Any]]:
    """The hidden tests of a problem: JSON, or JSON in a pickle, compressed, in base 64. Raises :class:`Fault`."""
    try:
        found = json.loads(packed)
    except ValueError:
        try:
            unpacked = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), _MOST_BYTES)
            found = json.loads(_TextAlone(io.BytesIO(unpacked)).load())
        except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError, TypeError) as error:
            raise Fault(
                "wrong_tests", f"hidden tests that are no JSON and no pickle of it ({error}): fetch the file again"
            ) from None
    return _tests(found, "private_test_cases")


def _tests(found: Any, column: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(test, dict) for test in found):
        raise Fault("wrong_tests", f"{column} is no list of objects")
    return found


def _json(values: Mapping[str, Any], column: str) -> Any:
    value = values.get(column)
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise Fault("wrong_type", f"{column} is no JSON: {error}") from None


def read_problem(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the mapped values of a benchmark: id, prompt, tests (public ones first), difficulty, date and ``starter_code``.

    Raises :class:`Fault` where the row is not in the layout.
    """
    missing = [column for column in COLUMNS if values.get(column) is None and column != "starter_code"]
    if missing:
        raise Fault("missing_column", f"no {missing[0]}, which LiveCodeBench's layout has")
    level = label_of(values["difficulty"], "difficulty").lower()
    if level not in LEVELS:
        raise Fault("wrong_type", f"difficulty {level!r} is none of {', '.join(LEVELS)}")
    about = _json(values, "metadata")
    name = about.get("func_name") if isinstance(about, dict) else None
    public = _tests(_json(values, "public_test_cases"), "public_test_cases")
    tests = [*public, *hidden_tests(text_of(values["private_test_cases"], "private_test_cases"))]
    return {
        "id": values["question_id"],
        "prompt": values["question_content"],
        "tests": [{**test, "fn_name": name} for test in tests],
        "difficulty": LEVELS[level],
        "date": values["contest_date"],
        "starter_code": text_of(values.get("starter_code") or "", "starter_code") or None,
    }
