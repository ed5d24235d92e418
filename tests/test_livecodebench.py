"""LiveCodeBench's layout: packed hidden tests, functions named in the metadata, contest dates, starter code."""

import base64
import json
import os
import pickle
import zlib

import pytest
from import_benchmark import columns_of, select_problems

from whichteacher import livecodebench
from whichteacher.problems import digest_of
from whichteacher.rows import Fault, read_rows
from whichteacher.rule import InputError

SCRIPT = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
CALLS = [{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]


def packed(tests):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def row(name, date, tests, function=None, hidden=None, **more):
    return {
        **{"question_title": name, "question_content": f"Solve {name}.", "platform": "made up", "question_id": name},
        **{"contest_date": f"{date}T00:00:00", "difficulty": "hard", "public_test_cases": json.dumps(tests)},
        "starter_code": "class Solution:\n    def total(self, a, b):\n" if function else "",
        "private_test_cases": packed(tests) if hidden is None else hidden,
        "metadata": json.dumps({"func_name": function} if function else {}),
        **more,
    }


def select(path, **more):
    settings = {
        **{"path": str(path), "category": "code", "role": "LiveCodeBench", "layout": "livecodebench", "columns": None},
        **more,
    }
    return select_problems(read_rows({**settings, "columns": columns_of(settings)}), "lcb", settings)


def write(path, *rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def test_problems_of_both_kinds_in_the_window(tmp_path):
    path = write(
        tmp_path / "test5.jsonl",
        row("old", "2024-09-30", SCRIPT, hidden="never unpacked"),
        row("sum", "2024-10-01", SCRIPT),
        row("total", "2025-02-28", CALLS, "total", difficulty="easy"),
        row("new", "2025-03-01", SCRIPT),
    )
    script, call = select(path, date_from="2024-10-01", date_to="2025-02-28", expected_problems=2)
    assert json.loads(script["tests"]) == {"call_type": "std", "inputs": ["1 2\n"] * 2, "outputs": ["3\n"] * 2}
    assert script["starter_code"] is None and script["difficulty"] == 3
    tests = json.loads(call["tests"])
    assert tests["call_type"] == "assert" and len(tests["assert_case"]) == 2 and "total(*_" not in call["tests"]
    assert call["starter_code"].startswith("class Solution") and call["difficulty"] == 1
    assert digest_of([script, call]) == digest_of([call, script]) != digest_of([script])


def test_hidden_tests_may_be_plain_json():
    assert livecodebench.hidden_tests(json.dumps(SCRIPT)) == livecodebench.hidden_tests(packed(SCRIPT)) == SCRIPT


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    "text",
    [
        "?",
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(b"no pickle")).decode(),
        base64.b64encode(zlib.compress(pickle.dumps("no JSON"))).decode(),
        base64.b64encode(zlib.compress(pickle.dumps(7))).decode(),
        base64.b64encode(zlib.compress(pickle.dumps(Harmful()))).decode(),
        json.dumps({"input": "1"}),
        json.dumps(["1"]),
    ],
)
def test_hidden_tests_that_are_none(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Fault) as fault:
        livecodebench.hidden_tests(text)
    assert fault.value.reason == "wrong_tests"
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"difficulty": "extreme"}, "difficulty 'extreme' is none of easy, medium, hard"),
        ({"metadata": "{"}, "metadata is no JSON"),
        ({"public_test_cases": "7"}, "public_test_cases is no list of objects"),
        ({"contest_date": None}, "contest date None is no YYYY-MM-DD"),
        ({"question_content": None}, "no question_content, which LiveCodeBench's layout has"),
    ],
)
def test_a_row_that_is_not_in_the_layout_is_named(tmp_path, change, told):
    path = write(tmp_path / "test5.jsonl", row("sum", "2024-10-01", SCRIPT) | change)
    with pytest.raises(InputError, match=rf"test5.jsonl:1: {told}"):
        select(path)


def test_a_file_of_another_layout_names_the_column(tmp_path):
    path = write(tmp_path / "other.jsonl", {"prompt": "?", "tests": "[]"})
    with pytest.raises(InputError, match=r"other\.jsonl: no column 'question_id'"):
        select(path)
