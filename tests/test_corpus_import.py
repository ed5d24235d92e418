"""Importing sources and benchmarks: every format, every fault, and errors of the user."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from import_benchmark import in_window, is_aime_answer, select_problems
from import_source import import_rows, main

from whichteacher.queries import query_id
from whichteacher.rows import Fault, code_tests_of, constraints_of, read_rows, turns_of
from whichteacher.rule import InputError
from whichteacher.schemas import DROPPED, LEDGER, QUERIES
from whichteacher.tables import read_frame, read_table

ROWS = [
    {"uid": 7, "q": {"text": "What is 1 + 1?"}, "a": 2, "kind": "number"},
    {"uid": "b", "q": {"text": "求 √2 的平方。"}, "a": "2", "kind": "number"},
    {"uid": "c", "q": {"text": "Say hello."}, "a": None, "kind": None},
]
COLUMNS = {"id": "uid", "prompt": "q.text", "answer": "a", "answer_type": "kind"}


def source(path, columns=COLUMNS, **more):
    return {"path": str(path), "category": "math", "licence": "MIT", "columns": columns, **more}


def load(path, columns=COLUMNS, **more):
    settings = source(path, columns, **more)
    return import_rows(read_rows(settings), "mine", settings)


def write_lines(path, *lines):
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


def reasons(ledger):
    return [row["reason"] for row in ledger.dropped]


def test_jsonl_and_parquet_give_the_same_table(tmp_path):
    lines = write_lines(tmp_path / "rows.jsonl", *ROWS)
    zstd = tmp_path / "rows.jsonl.zst"
    with pa.output_stream(zstd, compression="zstd") as file:
        file.write(lines.read_bytes())
    texts = [{**row, "uid": str(row["uid"]), "a": row["a"] and str(row["a"])} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(texts), tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "q.text", "a", "kind"])
        writer.writerows([row["uid"], row["q"]["text"], row["a"], row["kind"]] for row in ROWS)
    table, ledger = load(lines)
    assert ledger.rows_in == ledger.kept == 3
    for name in ("rows.jsonl.zst", "rows.parquet", "rows.csv"):
        assert load(tmp_path / name)[0].equals(table), name
    first = table.to_pylist()[0]
    assert first["query_id"] == query_id([{"role": "user", "content": "What is 1 + 1?"}])
    assert (first["source"], first["source_row"], first["reference"]) == ("mine", "7", "2")
    assert table["reference"].to_pylist() == ["2", "2", None]


def test_limit_and_line_numbers(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", ROWS[0], b"", ROWS[1], ROWS[2])
    table, ledger = load(path, {"prompt": "q.text"}, limit=2)
    assert table["source_row"].to_pylist() == ["1", "3"] and ledger.rows_in == 2


def test_bad_rows_are_dropped_with_reason_and_place(tmp_path):
    good = {"q": "Fine?", "a": "1"}
    path = write_lines(
        tmp_path / "rows.jsonl",
        b"\xef\xbb\xbf" + json.dumps(good).encode(),
        b'{"q": "cut',
        b"[1, 2]",
        b'{"q": "\xff"}',
        {"a": "no query"},
        {"q": 5},
        {"q": "half \ud83d"},
        {"q": "nul \0"},
        {"q": "answer", "a": {"x": 1}},
        {"q": "answer", "a": True},
        {"q": "answer", "a": float("nan")},
        b"[" * 100_000,
        b'{"q": "x", "a": ' + b"9" * 5000 + b"}",
    )
    table, ledger = load(path, {"prompt": "q", "answer": "a"})
    assert table.num_rows == 1
    assert reasons(ledger) == [
        "invalid_json",
        "wrong_type",
        "invalid_text",
        "missing_column",
        "wrong_type",
        "invalid_text",
        "invalid_text",
        "wrong_type",
        "wrong_type",
        "wrong_type",
        "invalid_json",
        "invalid_json",
    ]
    assert [row["detail"].split(": ")[0] for row in ledger.dropped] == [f"rows.jsonl:{line}" for line in range(2, 14)]
    ledger.rows()


def test_ragged_and_undecodable_csv_rows(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b'q,a\n"two\nlines",1\nlonely\n\xff,3\nlast,\n')
    table, ledger = load(tmp_path / "rows.csv", {"prompt": "q", "answer": "a"})
    assert table["reference"].to_pylist() == ["1", None]
    assert reasons(ledger) == ["wrong_columns", "invalid_text"]
    assert ledger.dropped[0]["detail"].startswith("rows.csv:4: ")


def test_missing_column_names_file_column_and_key(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", {"question": "Hi there", "id": 1})
    with pytest.raises(InputError) as error:
        load(path, {"prompt": "q.text"})
    message = str(error.value)
    for part in (str(path), "'q.text'", "question, id", "corpus.sources.mine.columns.prompt"):
        assert part in message
    assert "\n" not in message
    pq.write_table(pa.table({"question": ["Hi"], "other": [1]}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="columns are: question, other"):
        load(tmp_path / "rows.parquet", {"prompt": "question", "answer": "answer"})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.jsonl", None, "no such file"),
        ("rows.xlsx", b"x", "unknown kind of file"),
        ("rows.parquet", b"PAR1 not really", "cannot be read"),
        ("rows.jsonl.zst", b"not zstd", "cannot be read"),
        ("rows.jsonl", b"", "not one row to use"),
        ("rows.jsonl", b"{]\n{]\n", "not one row to use; the first of 2: rows.jsonl:1"),
    ],
)
def test_files_the_user_must_mend(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        load(tmp_path / name, {"prompt": "q"})


def test_zst_cut_short_is_an_error(tmp_path):
    whole = tmp_path / "whole.jsonl.zst"
    with pa.output_stream(whole, compression="zstd") as file:
        for number in range(20_000):
            file.write(json.dumps({"q": f"What is {number} times {number * 7919 % 104729}?"}).encode() + b"\n")
    (tmp_path / "cut.jsonl.zst").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert load(whole, {"prompt": "q"})[0].num_rows == 20_000
    with pytest.raises(InputError, match="cannot be read to its end"):
        load(tmp_path / "cut.jsonl.zst", {"prompt": "q"})


def said(*turns, keys=("role", "content")):
    return {"turns": [dict(zip(keys, turn, strict=True)) for turn in turns]}


def test_dialogues():
    turns = [("user", "One"), ("assistant", "Two"), ("user", "Three")]
    wanted = [{"role": role, "content": text} for role, text in turns]
    assert turns_of(said(*turns)) == wanted
    assert turns_of(said(*turns, ("assistant", "the response"))) == wanted
    speakers = {"user": "human", "assistant": "gpt"}
    renamed = [(speakers[role], text) for role, text in turns]
    assert turns_of(said(*renamed, keys=("from", "value"))) == wanted
    assert turns_of({"turns": json.dumps(said(*turns)["turns"])}) == wanted
    assert turns_of(said(("system", "Be brief."), *turns))[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("taken", "reason"),
    [
        (said(), "wrong_turns"),
        (said(("assistant", "x")), "wrong_turns"),
        (said(("user", "x"), ("user", "y")), "wrong_turns"),
        (said(("user", "x"), ("system", "y"), ("user", "z")), "wrong_turns"),
        (said(("tool", "x")), "wrong_turns"),
        (said(("user", None)), "missing_column"),
        (said(("user", 3)), "wrong_type"),
        ({"turns": ["x"]}, "wrong_type"),
        ({"turns": {"role": "user"}}, "wrong_type"),
        ({"turns": None}, "missing_column"),
        ({"turns": "[{"}, "invalid_json"),
        ({"prompt": None}, "missing_column"),
    ],
)
def test_dialogues_that_are_none(taken, reason):
    with pytest.raises(Fault) as fault:
        turns_of(taken)
    assert fault.value.reason == reason


def test_code_tests():
    asserts = {"fn_name": "f", "call_type": "assert", "assert_case": ["assert f(1) == 2"], "extra": 1}
    assert json.loads(code_tests_of(asserts)) == {key: asserts[key] for key in ("call_type", "assert_case", "fn_name")}
    std = {"call_type": "std", "inputs": ["1\n"], "outputs": ["2\n"]}
    assert code_tests_of(json.dumps(std, indent=3)) == code_tests_of(std)
    assert code_tests_of({**std, "fn_name": "f", "inputs": [[1]], "outputs": [2]})
    assert code_tests_of(None) is None
    for bad in (
        {},
        [],
        {"call_type": "assert", "assert_case": []},
        {"call_type": "assert", "assert_case": [1]},
        {**std, "outputs": []},
        {**std, "inputs": [], "outputs": []},
        {**std, "inputs": [1]},
        {**std, "fn_name": 3},
    ):
        with pytest.raises(Fault) as fault:
            code_tests_of(bad)
        assert fault.value.reason == "wrong_tests"


def test_constraints():
    given = {"instruction_id_list": ["a:b", "c:d"], "kwargs": [{"n": 1, "unused": None}, {}]}
    assert json.loads(constraints_of(json.dumps(given)))["kwargs"] == [{"n": 1}, {}]
    for bad in ({"instruction_id_list": []}, {**given, "kwargs": [{}]}, {**given, "kwargs": [1, 2]}, 5):
        with pytest.raises(Fault) as fault:
            constraints_of(bad)
        assert fault.value.reason == "wrong_constraints"


def test_main_writes_table_ledger_and_dropped(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", *ROWS, b"{")
    out = {name: str(tmp_path / f"{name}.parquet") for name in ("table", "ledger", "dropped")}
    main("mine", source(path), **out)
    assert read_table(out["table"], QUERIES).num_rows == 3
    assert read_frame(out["ledger"], LEDGER)["rows"].tolist() == [4, 3, 1]
    assert read_frame(out["dropped"], DROPPED)["scope"].tolist() == ["mine"]


def test_hub_data_set_from_a_local_folder(tmp_path):
    """The same client reads folders and the hub; no test may depend on the hub."""
    write_lines(tmp_path / "train.jsonl", {"q": "First?"}, {"q": "Second?"})
    settings = {**source("", {"prompt": "q"}), "path": None, "hub": str(tmp_path), "revision": "0" * 40}
    settings |= {"subset": None, "split": "train", "limit": 1}
    table, _ = import_rows(read_rows(settings), "mine", settings)
    assert table["turns"].to_pylist() == [[{"role": "user", "content": "First?"}]]
    with pytest.raises(InputError, match="split"):
        list(read_rows({**settings, "split": "nope"}))


def test_hub_files_need_the_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = {"hub": "org/data", "revision": "0" * 40, "file": "math.jsonl", "columns": {"prompt": "q"}}
    with pytest.raises(InputError, match=r"org/data at 0{40}, file math\.jsonl"):
        list(read_rows(settings))


def test_released_traces_as_queries(tmp_path):
    """The schema of the published data: metadata hangs on the turns, responses are part of the dialogue."""
    info = {"ground_truth": "144", "test_case": None}
    row = {
        "system": "Think first.",
        "conversations": [
            {"from": "human", "value": "What is 12 * 12?", "info": info},
            {"from": "assistant", "value": "<think>12 * 12</think><answer>144</answer>", "info": info},
        ],
    }
    columns = {"turns": "conversations", "answer": "conversations.0.info.ground_truth"}
    columns["tests"] = "conversations.0.info.test_case"
    table, _ = load(write_lines(tmp_path / "math.jsonl", row), columns)
    (query,) = table.to_pylist()
    assert query["turns"] == [{"role": "user", "content": "What is 12 * 12?"}]
    assert (query["reference"], query["tests"]) == ("144", None)
    with pytest.raises(InputError, match=r"no column 'conversations\.7\.info'"):
        load(tmp_path / "math.jsonl", {**columns, "answer": "conversations.7.info"})


PROBLEMS = [
    {"id": "p1", "problem": "What is 100 + 1?", "answer": "101", "date": "2024-09-30", "level": 1},
    {"id": "p2", "problem": "What is 100 + 2?", "answer": "102", "date": "2024-10-01T12:00:00", "level": "5"},
    {"id": "p3", "problem": "What is 100 + 3?", "answer": 103, "date": "2025-02-01", "level": None},
    {"id": "p4", "problem": "What is 100 + 4?", "answer": "104", "date": "2025-02-02", "level": 2},
]


def benchmark(path, **more):
    columns = {"id": "id", "prompt": "problem", "answer": "answer", "difficulty": "level"}
    return {"path": str(path), "category": "math", "role": "AIME2024", "columns": columns, **more}


def select(path, **more):
    settings = benchmark(path, **more)
    return select_problems(read_rows(settings), "exam", settings)


def test_benchmark_window_and_count(tmp_path):
    path = write_lines(tmp_path / "exam.jsonl", *PROBLEMS)
    assert [row["difficulty"] for row in select(path)] == [1, 5, None, 2]
    window = {"date_column": "date", "date_from": "2024-10-01", "date_to": "2025-02-01"}
    chosen = select(path, **window, expected_problems=2)
    assert [row["problem_id"] for row in chosen] == ["p2", "p3"]
    assert chosen[1]["reference"] == "103"
    with pytest.raises(
        InputError, match=r"2 problems selected, evaluation\.benchmarks\.exam\.expected_problems says 3"
    ):
        select(path, **window, expected_problems=3)
    with pytest.raises(InputError, match="no problem selected"):
        select(path, date_column="date", date_from="2030-01-01")
    with pytest.raises(InputError, match=r"'day'.*evaluation\.benchmarks\.exam\.columns\.date"):
        select(path, date_column="day")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"answer": "1000"}, "exam.jsonl:1: answer '1000' is no integer from 0 to 999"),
        ({"answer": "1/2"}, "no integer"),
        ({"answer": "-3"}, "no integer"),
        ({"answer": None}, "no answer"),
        ({"problem": None}, "no prompt"),
        ({"level": "easy"}, "whole number"),
        ({"id": "p2"}, "id 'p2' repeats"),
    ],
)
def test_benchmarks_are_taken_whole_or_not_at_all(tmp_path, row, said):
    path = write_lines(tmp_path / "exam.jsonl", {**PROBLEMS[0], **row}, PROBLEMS[1])
    with pytest.raises(InputError, match=said):
        select(path)


def test_other_roles_take_any_answer(tmp_path):
    path = write_lines(tmp_path / "exam.jsonl", {**PROBLEMS[0], "answer": "\\frac{1}{2}"})
    assert select(path, role="MATH500")[0]["reference"] == "\\frac{1}{2}"


def test_code_benchmarks_need_tests(tmp_path):
    path = write_lines(tmp_path / "exam.jsonl", PROBLEMS[0])
    with pytest.raises(InputError, match="no tests"):
        select(path, category="code", role="LiveCodeBench")


def test_aime_answers_and_dates():
    assert all(map(is_aime_answer, ("0", "000", "073", "999")))
    assert not any(map(is_aime_answer, ("", "1000", "7.0", "٣", "²", " 7")))
    assert in_window("2024-01-05", None, "2024-01-05") and not in_window("2024-01-06", None, "2024-01-05")
    with pytest.raises(Fault):
        in_window("May 5", None, None)
