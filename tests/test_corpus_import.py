"""Importing sources and benchmarks: every format, every fault, and errors of the user."""

import csv
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from import_benchmark import in_window, is_aime_answer, select_problems
from import_source import import_rows, main

from whichteacher.ledger import Ledger
from whichteacher.queries import query_id
from whichteacher.rows import Fault, constraints_of, read_rows, turns_of
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
    return load_settings(source(path, columns, **more))


def load_settings(settings):
    ledger = Ledger("import_source", "mine", 0)
    table = pa.concat_tables(import_rows(read_rows(settings), "mine", settings, ledger))
    ledger.rows()
    return table, ledger


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


def test_excluded_rows_are_in_the_ledger(tmp_path):
    table, ledger = load(write_lines(tmp_path / "rows.jsonl", *ROWS), exclude=["7", "nowhere"])
    assert "7" not in table["source_row"].to_pylist() and table.num_rows == 2
    assert [(row["reason"], row["detail"]) for row in ledger.dropped] == [("excluded", "rows.jsonl:1: id 7")]


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
        b'{"q": "raw half \xed\xa0\xbd"}',
        b'{"q": "latin \xe9"}',
        b'{"q": "raw nul \0"}',
        {"q": "fine", "a": "half \ud83d"},
        b'{"a":' * 100_000,
        b'{"q": "cut',
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
        "invalid_text",
        "invalid_text",
        "invalid_json",
        "invalid_text",
        "invalid_json",
        "invalid_json",
    ]
    assert [row["detail"].split(": ")[0] for row in ledger.dropped] == [f"rows.jsonl:{line}" for line in range(2, 20)]
    assert "the file ends here" in ledger.dropped[-1]["detail"]


def test_ragged_and_undecodable_csv_rows(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b'q,a\n"two\nlines",1\nlonely\n\xff,3\nlast,\n')
    table, ledger = load(tmp_path / "rows.csv", {"prompt": "q", "answer": "a"})
    assert table["reference"].to_pylist() == ["1", None]
    assert reasons(ledger) == ["wrong_columns", "invalid_text"]
    assert ledger.dropped[0]["detail"].startswith("rows.csv:4: ")


def test_where_selects_rows(tmp_path):
    rows = [{"q": f"Query {i}", "kind": {"name": "code" if i % 3 else "math"}, "level": i % 2} for i in range(12)]
    path = write_lines(tmp_path / "rows.jsonl", b"{", *rows)
    table, ledger = load(path, {"prompt": "q"}, where={"kind.name": "code"})
    assert ledger.kept == 8 and ledger.reasons == {"invalid_json": 1, "not_selected": 4}
    assert ledger.dropped[1]["detail"] == "rows.jsonl:2"
    assert load(path, {"prompt": "q"}, where={"kind.name": ["code", "math"], "level": [1, 2]})[1].kept == 6
    table, ledger = load(path, {"prompt": "q"}, where={"kind.name": "code", "level": 1}, limit=3)
    assert table["source_row"].to_pylist() == ["3", "7"] and ledger.rows_in == 7
    with pytest.raises(InputError, match=r"not one row to use of 13; the first fault: rows\.jsonl:1"):
        load(path, {"prompt": "q"}, where={"level": 2})
    with pytest.raises(
        InputError, match=r"no column 'ability'; the columns are: q, kind, level; .*sources\.mine\.where"
    ):
        load(path, {"prompt": "q"}, where={"ability": "code"})
    with pytest.raises(InputError, match=r"no column 'p'; .*sources\.mine\.columns\.prompt"):
        load(path, {"prompt": "p"}, where={"level": 1})
    (tmp_path / "rows.csv").write_text("q,level\none,1\ntwo,2\n")
    assert load(tmp_path / "rows.csv", {"prompt": "q"}, where={"level": 2})[1].kept == 1
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert load(tmp_path / "rows.parquet", {"prompt": "q"}, where={"kind.name": "code"})[1].kept == 8


def test_types_are_inferred_where_no_column_says(tmp_path):
    rows = [{"q": "One", "a": "12"}, {"q": "Two", "a": "[1, 2)"}, {"q": "Three", "a": "12", "k": "text"}, {"q": "Four"}]
    table, _ = load(write_lines(tmp_path / "rows.jsonl", *rows), {"prompt": "q", "answer": "a", "answer_type": "k"})
    assert table["reference_type"].to_pylist() == ["number", "interval", "text", None]


def test_rows_come_in_parts(tmp_path, monkeypatch):
    """By number and by size: each part is a row group, and none but the first makes the others wait in memory."""
    monkeypatch.setattr("import_source._CHUNK_ROWS", 10)
    monkeypatch.setattr("import_source._CHUNK_CHARACTERS", 500)
    rows = [{"q": f"Query {i}"} for i in range(25)] + [{"q": "x" * 600}, {"q": "last"}, {"q": 5}]
    path = write_lines(tmp_path / "rows.jsonl", *rows)
    out = {name: str(tmp_path / f"{name}.parquet") for name in ("table", "ledger", "dropped")}
    main("mine", source(path, {"prompt": "q"}), **out)
    groups = pq.ParquetFile(out["table"]).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [10, 10, 6, 1]
    turns = read_table(out["table"], QUERIES)["turns"].to_pylist()
    assert [turn["content"] for (turn,) in turns] == [row["q"] for row in rows[:-1]]
    ids = read_table(out["table"], QUERIES)["query_id"].to_pylist()
    assert ids == [query_id(row) for row in turns]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dropped.parquet",
        "ledger.parquet",
        "rows.jsonl",
        "table.parquet",
    ]


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
        ("rows.jsonl", b"", "not one row to use of 0"),
        ("rows.jsonl.zst", b"", "not one row to use of 0"),
        ("rows.csv", b"", "not one row to use of 0"),
        ("rows.parquet", b"", "cannot be read"),
        ("rows.jsonl", '{"q": "Hi there"}\n'.encode("utf-16"), r"rows\.jsonl:1: the file is UTF-16: convert it"),
        ("rows.csv", "q\nHi there\n".encode("utf-16"), r"rows\.csv:1: the file is UTF-16: convert it"),
        ("rows.csv", b'q\nfine\n"never closed\nmore\n' + b"x\n" * 5000, r"rows\.csv:3: unexpected end of data"),
        ("rows.csv", b'q\nfine\n"closed" too early\n', r"rows\.csv:3: .*expected after"),
        ("rows.jsonl", b"{]\n{]\n", r"not one row to use of 2; the first fault: rows\.jsonl:1"),
    ],
)
def test_files_the_user_must_mend(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        load(tmp_path / name, {"prompt": "q"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A JSONL.zst of 20,000 rows."""
    path = tmp_path_factory.mktemp("zst") / "whole.jsonl.zst"
    with pa.output_stream(path, compression="zstd") as file:
        for number in range(20_000):
            file.write(json.dumps({"q": f"What is {number} times {number * 7919 % 104729}?"}).encode() + b"\n")
    assert load(path, {"prompt": "q"})[0].num_rows == 20_000
    return path


@pytest.mark.parametrize("left", [0.001, 0.5, 0.99, -1, -4])
def test_zst_cut_short_is_an_error(tmp_path, whole, left):
    content = whole.read_bytes()
    (tmp_path / "cut.jsonl.zst").write_bytes(content[: int(len(content) * left) if left > 0 else left])
    with pytest.raises(InputError, match=r"cut\.jsonl\.zst: cannot be read to its end"):
        load(tmp_path / "cut.jsonl.zst", {"prompt": "q"})


@pytest.mark.parametrize("after", [b"garbage", b"\n", b"\0" * 20, b"\x28\xb5"])
def test_zst_with_something_after_its_end_is_an_error(tmp_path, whole, after):
    (tmp_path / "more.jsonl.zst").write_bytes(whole.read_bytes() + after)
    with pytest.raises(InputError, match="cannot be read to its end"):
        load(tmp_path / "more.jsonl.zst", {"prompt": "q"})


def test_zst_in_several_parts_is_read_whole(tmp_path, whole):
    (tmp_path / "two.jsonl.zst").write_bytes(whole.read_bytes() * 2)
    assert load(tmp_path / "two.jsonl.zst", {"prompt": "q"})[0].num_rows == 40_000
    (tmp_path / "cut.jsonl.zst").write_bytes(whole.read_bytes() + whole.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read to its end"):
        load(tmp_path / "cut.jsonl.zst", {"prompt": "q"})


def test_nothing_is_written_of_a_file_that_breaks_off(tmp_path, whole, monkeypatch):
    monkeypatch.setattr("import_source._CHUNK_ROWS", 1000)
    (tmp_path / "cut.jsonl.zst").write_bytes(whole.read_bytes()[:-4])
    out = {name: str(tmp_path / "out" / f"{name}.parquet") for name in ("table", "ledger", "dropped")}
    with pytest.raises(InputError):
        main("mine", source(tmp_path / "cut.jsonl.zst", {"prompt": "q"}), **out)
    assert not list((tmp_path / "out").iterdir())


def test_parquet_cut_short_or_damaged_is_an_error(tmp_path):
    path = tmp_path / "rows.parquet"
    texts = [f"What is {number} times {number * 7919 % 104729}?" for number in range(20_000)]
    pq.write_table(pa.table({"q": texts}), path, row_group_size=2000, compression="zstd")
    content = path.read_bytes()
    assert load(path, {"prompt": "q"})[0].num_rows == 20_000
    for cut in (len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"rows\.parquet: cannot be read"):
            load(path, {"prompt": "q"})
    path.write_bytes(content[:40_000] + bytes(1000) + content[41_000:])
    with pytest.raises(InputError, match=r"rows\.parquet: cannot be read"):
        load(path, {"prompt": "q"})


def test_parquet_rows_that_are_no_text(tmp_path):
    path = tmp_path / "rows.parquet"
    texts = pa.array([b"fine", b"\xff", None, b"also fine"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"q": texts, "n": pa.array([b"x", b"y", b"z", b"w"])}), path)
    table, ledger = load(path, {"prompt": "q"})
    assert table.num_rows == 2
    assert [(row["reason"], row["detail"].split(": ")[0]) for row in ledger.dropped] == [
        ("invalid_text", "rows.parquet:2"),
        ("missing_column", "rows.parquet:3"),
    ]
    with pytest.raises(
        InputError, match=r"not one row to use of 4; the first fault: rows\.parquet:1: prompt is a bytes"
    ):
        load(path, {"prompt": "n"})


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path / "rows.jsonl", {"prompt": "q"})


def test_long_lines(tmp_path, monkeypatch):
    """Ten megabytes are a row like any other; what no memory can be promised for is skipped, wherever it ends."""
    long = "x" * 10_000_000
    path = write_lines(tmp_path / "rows.jsonl", {"q": "first"}, {"q": long}, {"q": "second"})
    table, ledger = load(path, {"prompt": "q"})
    assert table["turns"].to_pylist()[1] == [{"role": "user", "content": long}] and ledger.kept == 3
    monkeypatch.setattr("whichteacher.rows.MAX_LINE", 1 << 20)
    table, ledger = load(path, {"prompt": "q"})
    assert table["source_row"].to_pylist() == ["1", "3"]
    assert [(row["reason"], row["detail"].split(": ")[0]) for row in ledger.dropped] == [("too_large", "rows.jsonl:2")]
    path = write_lines(tmp_path / "rows.jsonl", {"q": "first"}, {"q": long})
    assert reasons(load(path, {"prompt": "q"})[1]) == ["too_large"]


def test_csv_cells_beyond_the_limit_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("whichteacher.rows.MAX_LINE", 1000)
    (tmp_path / "rows.csv").write_bytes(b"q\nfine\n" + b"x" * 2000 + b"\nfine\n")
    with pytest.raises(InputError, match=r"rows\.csv:3: field larger"):
        load(tmp_path / "rows.csv", {"prompt": "q"})


def test_details_are_short_and_can_be_written(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", {"q": "Hi", "k": "\ud83d\0" + "x" * 10_000}, {"q": "Hi", "k": "text"})
    _, ledger = load(path, {"prompt": "q", "answer_type": "k"})
    (row,) = ledger.dropped
    assert len(row["detail"]) < 400 and r"\ud83d" in row["detail"]
    pa.array([row["detail"]], pa.string())


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255), st.booleans()), max_size=12),
)
def test_damaged_lines_never_take_others_with_them(tmp_path_factory, lengths, damages):
    """Bytes changed or taken away anywhere: the ledger balances, and every line that was not touched arrives."""
    lines = [json.dumps({"q": f"Query {i} é {'x' * n}"}, ensure_ascii=False).encode() for i, n in enumerate(lengths)]
    spare = b'{"q": "untouched"}\n'
    content = bytearray(b"\n".join(lines) + b"\n")
    owners = [i for i, line in enumerate(lines) for _ in range(len(line) + 1)]
    touched = set()
    for place, byte, remove in damages:
        place %= len(content)
        # The end of a line belongs to the next one, too.
        touched |= {owners[place], owners[place] + (content[place : place + 1] == b"\n")}
        if remove:
            del content[place], owners[place]
        else:
            content[place] = byte
        if not content:
            break
    path = tmp_path_factory.mktemp("damaged") / "rows.jsonl"
    path.write_bytes(bytes(content).rstrip(b"\n") + b"\n" + spare)
    table, ledger = load(path, {"prompt": "q"})
    arrived = {turns[0]["content"] for turns in table["turns"].to_pylist()}
    wanted = {json.loads(line)["q"] for i, line in enumerate(lines) if i not in touched} | {"untouched"}
    assert wanted <= arrived
    assert ledger.rows_in == ledger.kept + len(ledger.dropped) and ledger.kept == table.num_rows


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


def test_constraints():
    given = {"instruction_id_list": ["a:b", "c:d"], "kwargs": [{"n": 1, "unused": None}, {}]}
    assert json.loads(constraints_of(json.dumps(given)))["kwargs"] == [{"n": 1}, {}]
    assert constraints_of({"instruction_id_list": ["a"], "instruction_kwargs": [{}]}) == constraints_of(
        {"instruction_id_list": ["a"], "kwargs": [{}]}
    )
    assert constraints_of(["a", "b"], '[{"n": 1}, {}]') == constraints_of(
        {"instruction_id_list": ["a", "b"], "kwargs": [{"n": 1}, {}]}
    )
    with pytest.raises(Fault, match="no constraint_arguments"):
        constraints_of(["a"])
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
    table, _ = load_settings(settings)
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


def test_a_benchmark_needs_no_place_in_the_papers_tables(tmp_path):
    path = write_lines(tmp_path / "exam.jsonl", *PROBLEMS, {"id": "p5", "problem": "What is 1 / 2?", "answer": "0.5"})
    assert len(select(path, role=None)) == 5
    with pytest.raises(InputError, match="no integer from 0 to 999"):
        select(path)


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
    left = select(path, **window, expected_problems=1, exclude=["p2", "p4"])
    assert [row["problem_id"] for row in left] == ["p3"]
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


# --- real files ------------------------------------------------------------------------------------------------------

DATA = Path(__file__).parents[2] / "shared" / "data"
#: Columns, category, rows, and how many of them are dropped.
FILES = {
    "benchmarks/aime2024": ({"id": "id", "prompt": "problem", "answer": "answer"}, "math", 30, 0),
    "benchmarks/amc23": ({"id": "id", "prompt": "problem", "answer": "answer"}, "math", 40, 0),
    "benchmarks/gsm8k_test": ({"id": "id", "prompt": "question", "answer": "answer"}, "math", 1319, 0),
    "benchmarks/math500": ({"id": "unique_id", "prompt": "problem", "answer": "answer"}, "math", 500, 0),
    "benchmarks/mmlu_stem": ({"id": "id", "prompt": "question", "answer": "answer"}, "science", 889, 0),
    "benchmarks/mt_bench": ({"id": "id", "prompt": "turns.0"}, "multi_turn", 80, 0),
    "benchmarks/scibench": ({"id": "id", "prompt": "problem", "answer": "answer_latex"}, "science", 228, 0),
    "code/code_contests_sample": ({"id": "id", "prompt": "problem", "tests": "tests"}, "code", 5, 0),
    "code/mbpp": ({"id": "id", "prompt": "text", "tests": "test_list"}, "code", 264, 0),
    "ifeval/ifeval_prompts": (
        {"id": "key", "prompt": "prompt", "constraints": "instruction_id_list", "constraint_arguments": "kwargs"},
        "instruction_following",
        541,
        0,
    ),
    "outputs/reasoning_gym_problems": (
        {"id": "problem_id", "prompt": "question", "answer": "expected_answer"},
        "general",
        2450,
        0,
    ),
}


@pytest.mark.parametrize("file", FILES)
def test_real_files(file):
    columns, category, rows, dropped = FILES[file]
    path = DATA / f"{file}.jsonl"
    if not path.is_file():
        pytest.skip("the shared data is not there")
    table, ledger = load(path, columns, category=category)
    assert (ledger.rows_in, len(ledger.dropped)) == (rows, dropped), ledger.dropped[:3]
    assert table["reference_type"].null_count == table["reference"].null_count
    assert not (category == "code" and table["tests"].null_count)


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared test data")
def test_two_copies_of_aime_2024_have_the_same_answers(tmp_path):
    """One from a repository of benchmarks, one beside the answers of models, which holds some of the problems."""
    columns = {"prompt": "problem", "answer": "answer"}
    whole = select(DATA / "benchmarks" / "aime2024.jsonl", columns=columns, expected_problems=30)
    lines = (DATA / "outputs" / "qwen3b_before_after_rlvr.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["problem"]: row for row in map(json.loads, lines) if row["benchmark"].startswith("aime")}
    path = write_lines(tmp_path / "beside.jsonl", *rows.values())
    beside = select(path, columns={"prompt": "problem", "answer": "gold"})

    def by_text(problems):
        return {re.sub(r"\W+", "", row["prompt"])[:100]: int(row["reference"]) for row in problems}

    copy, other = by_text(whole), by_text(beside)
    assert len(copy) == 30 and len(other) >= 8
    assert {text: copy.get(text) for text in other} == other
