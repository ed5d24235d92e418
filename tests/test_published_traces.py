"""Published traces as attempts: layouts, faults, numbering, and a study of nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import import_traces
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from generate_responses import published_rows
from hypothesis import given
from hypothesis import strategies as st
from import_source import import_rows
from reconcile_ledger import main as reconcile

from whichteacher import ledger as ledger_module
from whichteacher import tokens
from whichteacher.ledger import Ledger
from whichteacher.published import LAYOUTS, read_trace
from whichteacher.queries import query_id, shard_of
from whichteacher.release import released_row
from whichteacher.responses import CONVERSIONS, TAGS, split_response
from whichteacher.rows import Fault, file_rows, read_rows
from whichteacher.rule import InputError
from whichteacher.schemas import DROPPED, LEDGER, PUBLISHED, QUERIES
from whichteacher.tables import append_spool, read_frame, read_spool, read_table, write_table
from whichteacher.tokens import load_tokenizer

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "outputs"
TOKENIZER = {"model": str(ROOT / "resources" / "teachers" / "tokenizer"), "revision": None, "dtype": "auto"}
FORMATTED = "<think>Two and two.</think><answer>\\boxed{4}</answer>"
MARKED = (
    "<|begin_of_thought|>\n\nTwo and two.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\n\\boxed{4}\n\n<|end_of_solution|>"
)
UNTAGGED = "<think>\nTwo and two.\n</think>\n\n\\boxed{4}"


def conversation(question, response, system="", **info):
    """A row of ``am``; ``info`` goes to the response's turn."""
    return {
        "system": system,
        "conversations": [
            {"from": "human", "value": question, "info": {"source": "s"}},
            {"from": "assistant", "value": response, "info": {"source": "s", **info}},
        ],
    }


def chat(question, response, **more):
    """A row of ``messages``; ``more`` goes to the row."""
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": response}]
    return {"messages": said, **more}


def r1(response, **info):
    """A row of ``am_r1``."""
    row = chat("What is 2 + 2?", response)
    row["messages"][1]["info"] = {"source": "s", "test_case": None, **info}
    return row


def turns(*contents, system=None):
    said = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return [*([{"role": "system", "content": system}] if system else []), *said]


def write_lines(path, *rows):
    """A file of JSON lines, of zstd-compressed ones where its name ends so; bytes stand for themselves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    with pa.output_stream(path, compression="zstd" if path.suffix == ".zst" else None) as file:
        file.write(data)
    return path


def write_shards(folder, dialogues, count=1):
    """A corpus of these dialogues, in ``count`` shards."""
    rows = [[] for _ in range(count)]
    for number, dialogue in enumerate(dialogues):
        rows[shard_of(query_id(dialogue), count)].append(
            {
                **{field.name: None for field in QUERIES},
                "query_id": query_id(dialogue),
                "source": "s",
                "source_row": str(number),
                "category": "math",
                "licence": "CC0-1.0",
                "turns": dialogue,
            }
        )
    for number, shard in enumerate(rows):
        write_table(folder / f"{number}.parquet", shard, QUERIES)
    return [str(folder / f"{number}.parquet") for number in range(count)]


def load(tmp_path, shards, layout="am", folder="release", out="out"):
    """Import ``folder``: the tables of all shards, the ledger as {reason: rows}, and the dropped rows."""
    traces = {"traces": str(tmp_path / folder), "traces_revision": None, "traces_files": None, "traces_layout": layout}
    place = tmp_path / out
    tables = [str(place / f"{number}.parquet") for number in range(len(shards))]
    outputs = [str(place / f"t.{kind}.parquet") for kind in ("layouts", "ledger", "dropped")]
    counts, dropped = outputs[1:]
    import_traces.main("t", shards, traces, TOKENIZER, tables, *outputs)
    assert sorted(path.name for path in place.iterdir()) == sorted(Path(p).name for p in [*tables, *outputs])
    found = read_frame(counts, LEDGER)
    assert set(found["step"]) == {"import_traces"} and set(found["scope"]) == {"t"}
    return (
        [read_table(table, PUBLISHED) for table in tables],
        dict(zip(found["reason"], found["rows"], strict=True)),
        read_frame(dropped, DROPPED),
    )


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "row", "conversion"),
    [
        ("am", conversation("What is 2 + 2?", FORMATTED), ""),
        (
            "am",
            conversation("What is 2 + 2?", "4", think_content="Two and two.", answer_content="\\boxed{4}"),
            "markers_replaced",
        ),
        ("am_r1", r1("<think>\nTwo and two.\n</think>\n<answer>\n\\boxed{4}\n</answer>"), ""),
        ("am_r1", r1(UNTAGGED, think_content="Two and two.", answer_content="\\boxed{4}"), "answer_tags_added"),
        ("am_r1", r1("4", think_content="Two and two.", answer_content="\\boxed{4}"), "markers_replaced"),
        ("open_thoughts", conversation("What is 2 + 2?", MARKED), "markers_replaced"),
        ("open_thoughts", conversation("What is 2 + 2?", UNTAGGED), "answer_tags_added"),
        ("messages", chat("What is 2 + 2?", UNTAGGED), "answer_tags_added"),
        ("messages", chat("What is 2 + 2?", FORMATTED), ""),
        (
            "messages",
            chat("What is 2 + 2?", UNTAGGED.removeprefix("<think>\n")),
            "think_prefilled answer_tags_added",
        ),
    ],
)
def test_a_layout_comes_to_the_one_format(layout, row, conversion):
    trace = read_trace(row, layout)
    assert trace.turns == turns("What is 2 + 2?") and trace.finish_reason == "stop"
    parts = split_response(trace.text)
    assert (parts.thinking, parts.answer, parts.fault) == ("Two and two.", "\\boxed{4}", None)
    assert trace.text.lstrip().startswith("<think>")
    assert trace.conversion == conversion and set(conversion.split()) <= set(CONVERSIONS)


@pytest.mark.parametrize(
    ("layout", "response", "text", "fault"),
    [
        ("am", "\\boxed{4}", None, "thinking_not_closed"),
        ("am", UNTAGGED, None, "answer_missing"),
        ("am_r1", "<think>cut", None, "thinking_not_closed"),
        ("open_thoughts", "\\boxed{4}", None, "thinking_not_closed"),
        ("open_thoughts", "<|begin_of_thought|>cut", "<think>cut", "thinking_not_closed"),
        ("open_thoughts", MARKED.removesuffix("<|end_of_solution|>"), ..., "answer_not_closed"),
        ("messages", "<think>cut", None, "thinking_not_closed"),
        ("messages", "<think>all</think>\n", None, "answer_missing"),
        ("messages", "<think>all</think><answer>4", None, "answer_not_closed"),
        ("messages", "<think>all</think>So <answer>4</answer>", None, "text_outside_tags"),
        ("messages", "", None, "thinking_not_closed"),
    ],
)
def test_a_response_out_of_format_stays_for_verification_to_judge(layout, response, text, fault):
    row = conversation("Q?", response) if LAYOUTS[layout].dialogue == "conversations" else chat("Q?", response)
    trace = read_trace(row, layout)
    assert split_response(trace.text).fault == fault
    if text is not ...:
        assert trace.text == (response if text is None else text)


def test_scores_perplexities_and_finish_reasons_come_from_wherever_they_stand():
    here = conversation("Q?", FORMATTED, "Be brief.", verify_score=0.95, ppl="1.5")
    trace = read_trace(here, "am")
    assert (trace.score, trace.perplexity, trace.system) == (0.95, 1.5, "Be brief.")
    asked = conversation("Q?", FORMATTED, verify_score=None)
    asked["conversations"][0]["info"] |= {"verify_score": 1, "ppl": float("nan")}
    assert read_trace(asked, "am")[-2:] == (1.0, None)
    row = chat("Q?", FORMATTED, verify_score="none", ppl=10**400, finish_reason="max_tokens")
    trace = read_trace(row, "messages")
    assert (trace.score, trace.perplexity, trace.finish_reason) == (None, None, "length")
    row["messages"][1]["finish_reason"] = "eos_token"
    assert read_trace(row, "messages").finish_reason == "stop"
    row["messages"][1]["finish_reason"] = "content_filter"
    assert read_trace(row, "messages").finish_reason == "content_filter"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"system": ""}, "missing_column"),
        ({"conversations": None}, "missing_column"),
        ({"conversations": "not JSON"}, "invalid_json"),
        ({"conversations": 3}, "wrong_type"),
        ({"conversations": []}, "wrong_turns"),
        ({"conversations": ["hello"]}, "wrong_type"),
        ({"conversations": [{"from": "human", "value": "Q?"}]}, "no_response"),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "A"}]}, "missing_column"),
        ({"conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": None}]}, "missing_column"),
        ({"conversations": [{"from": "human", "value": 5}, {"from": "gpt", "value": "A"}]}, "wrong_type"),
        ({"conversations": [{"from": "tool", "value": "Q?"}, {"from": "gpt", "value": "A"}]}, "wrong_turns"),
        ({"conversations": [{"from": "gpt", "value": "A"}]}, "wrong_turns"),
        ({"conversations": [{"from": "human", "value": "Q?"}, {"from": "system", "value": "A"}]}, "wrong_turns"),
        (
            {"conversations": [{"from": who, "value": "x"} for who in ("human", "gpt", "gpt")]},
            "wrong_turns",
        ),
        ({"conversations": [{"from": "human", "value": "\ud800"}, {"from": "gpt", "value": "A"}]}, "invalid_text"),
        ({"conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "\udfff"}]}, "invalid_text"),
        ({**conversation("Q?", "A"), "system": ["x"]}, "wrong_type"),
        ({**conversation("Q?", "A"), "system": "\ud800"}, "invalid_text"),
        ({**conversation("Q?", "A"), "finish_reason": ["stop"]}, "wrong_type"),
        (conversation("Q?", "A", think_content=7, answer_content="A"), "wrong_type"),
    ],
)
def test_a_row_that_cannot_be_read_has_a_named_fault(row, reason):
    with pytest.raises(Fault) as found:
        read_trace(row, "am")
    assert found.value.reason == reason


DIALOGUES = [
    turns("What  is\n2 + 2?"),
    turns("é and √2 的平方。"),
    turns("One?", "<think>earlier</think><answer>1</answer>", "Two?"),
    turns("Under a system message?", system="You are terse."),
]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.zst", "parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_trace_answers_the_query_that_a_source_imports_from_the_same_column(tmp_path, layout, suffix):
    column = LAYOUTS[layout].dialogue
    who, what = ("from", "value") if column == "conversations" else ("role", "content")
    rows = [
        {
            "system": "A system prompt of the release.",
            column: [
                {who: turn["role"], what: turn["content"]}
                for turn in [*dialogue, {"role": "assistant", "content": UNTAGGED}]
            ],
        }
        for dialogue in DIALOGUES
    ]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write_lines(path, *rows)
    source = {"path": str(path), "category": "math", "licence": "MIT", "columns": {"turns": column}}
    ledger = Ledger("import_source", "mine", 0)
    imported = pa.concat_tables(import_rows(read_rows(source), "mine", source, ledger))
    read = [read_trace(row.values, layout) for row in file_rows(path, [column], ["system"])]
    assert [query_id(trace.turns) for trace in read] == imported["query_id"].to_pylist()
    assert [trace.turns for trace in read] == DIALOGUES == imported["turns"].to_pylist()
    assert {trace.system for trace in read} == {"A system prompt of the release."}


PLAIN = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")).filter(
    lambda text: text.strip() and not any(tag in text for tag in TAGS)
)


@given(
    thinking=PLAIN,
    answer=PLAIN,
    contents=st.lists(PLAIN, min_size=1, max_size=5).filter(lambda contents: len(contents) % 2),
    system=st.sampled_from(["", "You are a helpful assistant."]),
    perplexity=st.none() | st.floats(1, 100),
)
def test_what_the_project_exports_is_read_back(thinking, answer, contents, system, perplexity):
    trace = {
        "source": "s",
        "category": "multi_turn",
        "reference": "4",
        "tests": None,
        "constraints": None,
        "turns": turns(*contents),
        "system": system,
        "thinking": thinking,
        "answer": answer,
        "verify_score": 1.0,
        "teacher": "t",
        "perplexity": perplexity,
    }
    read = read_trace(json.loads(json.dumps(released_row(trace), ensure_ascii=False)), "am")
    parts = split_response(read.text)
    assert (parts.thinking, parts.answer, parts.fault) == (thinking.strip(), answer.strip(), None)
    assert query_id(read.turns) == query_id(trace["turns"])
    assert (read.system, read.conversion, read.score, read.perplexity) == (system, "", 1.0, perplexity)


# --- import ----------------------------------------------------------------------------------------------------------


def test_every_row_is_kept_or_dropped_for_a_reason_in_its_place(tmp_path):
    known = turns("What is 2 + 2?")
    write_lines(
        tmp_path / "release" / "math.jsonl",
        conversation(known[0]["content"], FORMATTED, "Be brief.", verify_score=0.9, ppl=2.5),
        b'{"conversations": [',
        b"\xff\xfe",
        b"[]",
        b"",
        {"system": "no dialogue"},
        conversation("Somebody else's question?", FORMATTED),
        conversation(known[0]["content"], FORMATTED),
        b'{"conversations": [{"from": "human", "value": "\\ud800"}, {"from": "assistant", "value": "A"}]}',
        b"[" * 100_000,
        {"conversations": [{"from": "human", "value": "Q?"}]},
    )
    (tmp_path / "release" / "README.md").write_text("no traces")
    write_lines(tmp_path / "release" / "other.jsonl")
    (table,), counts, dropped = load(tmp_path, write_shards(tmp_path / "shards", [known]))
    assert counts == {
        "in": 10,
        "kept": 1,
        "invalid_json": 2,
        "invalid_text": 2,
        "wrong_type": 1,
        "missing_column": 1,
        "no_query": 1,
        "duplicate_answer": 1,
        "no_response": 1,
    }
    places = {
        detail.split(": ")[0]: reason for detail, reason in zip(dropped["detail"], dropped["reason"], strict=True)
    }
    assert places == {
        "math.jsonl:2": "invalid_json",
        "math.jsonl:3": "invalid_text",
        "math.jsonl:4": "wrong_type",
        "math.jsonl:6": "missing_column",
        "math.jsonl:7": "no_query",
        "math.jsonl:8": "duplicate_answer",
        "math.jsonl:9": "invalid_text",
        "math.jsonl:10": "invalid_json",
        "math.jsonl:11": "no_response",
    }
    identified = dropped.set_index("reason")["query_id"]
    assert identified["no_query"] == query_id(turns("Somebody else's question?"))
    assert identified["duplicate_answer"] == query_id(known) and identified["missing_column"] == ""
    (row,) = table.to_pylist()
    assert row["query_id"] == query_id(known) and row["location"] == "math.jsonl:1" and row["text"] == FORMATTED
    assert json.loads(row["prompt"]) == turns("What is 2 + 2?", system="Be brief.")
    assert (row["published_score"], row["published_perplexity"], row["finish_reason"]) == (0.9, 2.5, "stop")
    counts = load_tokenizer(TOKENIZER).count(["Be brief.\nWhat is 2 + 2?", FORMATTED])
    assert [row["prompt_tokens"], row["output_tokens"]] == counts


def release(questions, answers):
    """Rows of ``am``: so many different answers to each question, question by question."""
    return [
        conversation(f"What is {question} + {question}?", f"<think>way {answer}</think><answer>{question}</answer>")
        for question in range(questions)
        for answer in range(answers)
    ]


def test_the_answers_to_a_query_are_numbered_by_file_name_and_line(tmp_path):
    rows = release(20, 4)
    shards = write_shards(tmp_path / "shards", [turns(f"What is {number} + {number}?") for number in range(20)], 3)
    # Written first, read last: the order of names holds, not that of the folder.
    write_lines(tmp_path / "release" / "b.jsonl", *[row for row in rows if "way 2" in str(row) or "way 3" in str(row)])
    write_lines(tmp_path / "release" / "a.jsonl.zst", *[row for row in rows if "way 1" in str(row)])
    pq.write_table(
        pa.Table.from_pylist([row for row in rows if "way 0" in str(row)]), tmp_path / "release" / "a.jsonl.parquet"
    )
    tables, counts, _ = load(tmp_path, shards)
    assert counts == {"in": 80, "kept": 80}
    for number, table in enumerate(tables):
        found = table.to_pylist()
        assert [(row["query_id"], row["attempt"]) for row in found] == sorted(
            (row["query_id"], row["attempt"]) for row in found
        )
        assert all(row["text"].startswith(f"<think>way {row['attempt']}<") for row in found)
        assert {shard_of(row["query_id"], 3) for row in found} == {number}
        assert set(read_table(shards[number], QUERIES)["query_id"].to_pylist()) == {row["query_id"] for row in found}
    # Only the order among the answers to one query counts: rows of different queries may stand in any order.
    by_answer = sorted(rows, key=lambda row: row["conversations"][1]["value"])
    for folder, listed in (("grouped", rows), ("mixed", by_answer), ("backwards", rows[::-1])):
        write_lines(tmp_path / folder / "a.jsonl", *listed)
    grouped, mixed, backwards = (
        [table.drop_columns("location") for table in load(tmp_path, shards, folder=folder, out=f"{folder}_out")[0]]
        for folder in ("grouped", "mixed", "backwards")
    )
    assert grouped == mixed == [table.drop_columns("location") for table in tables]
    assert grouped != backwards


def test_the_tables_do_not_depend_on_how_much_waits_in_memory(tmp_path, monkeypatch):
    rows = release(40, 3)
    shards = write_shards(tmp_path / "shards", [turns(f"What is {number} + {number}?") for number in range(30)], 2)
    write_lines(tmp_path / "release" / "a.jsonl", *rows, *rows[:30])
    tables, counts, dropped = load(tmp_path, shards)
    assert counts == {"in": 150, "kept": 90, "no_query": 30, "duplicate_answer": 30}
    for name, value in (("_BUCKET_BYTES", 2000), ("_HELD_CHARACTERS", 500), ("_ROW_GROUP", 4)):
        monkeypatch.setattr(import_traces, name, value)
    monkeypatch.setattr(tokens, "_ENCODED_CHARACTERS", 99)
    monkeypatch.setattr(ledger_module, "_HELD_ROWS", 7)
    again, counted, lost = load(tmp_path, shards, out="again")
    assert again == tables and counted == counts
    pd.testing.assert_frame_equal(lost, dropped)


@pytest.mark.parametrize(
    ("name", "content", "layout", "told"),
    [
        ("a.jsonl", b"", "am", r"none of the 0 rows in a\.jsonl"),
        (
            "a.jsonl",
            json.dumps(chat("Q?", "A")).encode(),
            "am",
            r"0 answer other queries; .*a\.jsonl:1: no conversations",
        ),
        ("a.jsonl", json.dumps(chat("Q?", "A")).encode(), "messages", r"1 answer other queries; check .*traces_layout"),
        ("a.parquet", b"", "am", r"a\.parquet: cannot be read to its end"),
        ("a.parquet", b"PAR1 but no more", "am", r"a\.parquet: cannot be read to its end"),
        ("a.jsonl.zst", b"no zstd at all", "am", r"a\.jsonl\.zst: cannot be read to its end"),
        ("a.csv", b"conversations\n", "am", r"no \.jsonl, \.jsonl\.zst, \.parquet file"),
    ],
)
def test_a_release_that_cannot_be_used_names_its_file(tmp_path, name, content, layout, told):
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        load(tmp_path, write_shards(tmp_path / "shards", [turns("Known?")]), layout)
    assert not list((tmp_path).glob("out/*.scratch"))


def test_a_cut_file_is_never_half_imported(tmp_path):
    rows = release(200, 2)
    whole = write_lines(tmp_path / "release" / "a.jsonl.zst", *rows)
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"a\.jsonl\.zst: cannot be read to its end"):
        load(tmp_path, write_shards(tmp_path / "shards", [turns("What is 1 + 1?")]))
    assert list((tmp_path / "out").iterdir()) == []


def test_parquet_text_that_is_no_utf8_drops_its_row_alone(tmp_path):
    (tmp_path / "release").mkdir()
    good, bad = chat("Known?", FORMATTED), chat("Known?", "broken")
    table = pa.Table.from_pylist([bad, good])
    buffer = bytearray()
    with pa.BufferOutputStream() as sink:
        pq.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False)
        buffer += sink.getvalue()
    at = buffer.index(b"broken")
    buffer[at : at + 6] = b"brok\xff\xff"
    (tmp_path / "release" / "a.parquet").write_bytes(bytes(buffer))
    (table,), counts, dropped = load(tmp_path, write_shards(tmp_path / "shards", [turns("Known?")]), "messages")
    assert counts == {"in": 2, "kept": 1, "invalid_text": 1} and table["location"].to_pylist() == ["a.parquet:2"]
    assert dropped["detail"].item().startswith("a.parquet:1: not UTF-8")


def test_a_hub_release_is_fetched_at_its_commit_with_its_folders(tmp_path, monkeypatch):
    import huggingface_hub

    commit = "a" * 40
    write_lines(tmp_path / "snapshot" / "code" / "one.jsonl", chat("Known?", UNTAGGED))
    write_lines(tmp_path / "snapshot" / "all" / "one.jsonl", chat("Known?", UNTAGGED))
    asked = []

    def fetch(*arguments, **keywords):
        asked.append((arguments, keywords))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    files = import_traces.trace_files("org/traces", commit)
    patterns = ["*.jsonl", "*.jsonl.zst", "*.parquet"]
    assert asked == [(("org/traces",), {"repo_type": "dataset", "revision": commit, "allow_patterns": patterns})]
    known = import_traces.known_queries(write_shards(tmp_path / "shards", [turns("Known?")]))
    ledger, buckets = Ledger("import_traces", "t", 0), import_traces.Buckets(tmp_path, 1)
    import_traces.read_release(files, "messages", known, buckets, ledger, "import")
    assert buckets.take(0)["location"].to_pylist() == ["all/one.jsonl:1", "code/one.jsonl:1"]


def test_a_hub_release_that_cannot_be_had_says_so(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise ConnectionError("no way out")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"hub data set org/traces at b{40}: ConnectionError: no way out: check id"):
        import_traces.trace_files("org/traces", "b" * 40)


def test_a_spool_gives_back_what_it_was_given(tmp_path):
    pieces = [pa.table({"a": [1, 2]}), pa.table({"a": pa.array([], pa.int64())}), pa.table({"a": [3]})]
    for piece in pieces:
        append_spool(tmp_path / "spool", piece)
    assert list(read_spool(tmp_path / "spool")) == pieces
    assert list(read_spool(tmp_path / "nothing")) == []


def test_imported_traces_become_attempts_of_the_queries_that_are_open(tmp_path):
    shards = write_shards(tmp_path / "shards", [turns(f"What is {number} + {number}?") for number in range(3)])
    write_lines(tmp_path / "release" / "a.jsonl", *release(3, 2))
    (table,), _, _ = load(tmp_path, shards)
    teacher = {"model": "org/model", "traces": "./release", "traces_revision": None}
    queries = read_table(shards[0], QUERIES)
    (rows,) = published_rows(queries, [table], teacher)
    assert len(set(rows["attempt_id"])) == 6 and list(rows["attempt"].to_pylist()) == [0, 1] * 3
    assert set(rows["thinking"].to_pylist()) == {"way 0", "way 1"}
    assert set(rows["answer"].to_pylist()) == {"0", "1", "2"}
    assert json.loads(rows["settings"][0])["location"].startswith("a.jsonl:")
    # Row group by row group, as the table is read, and only for the queries that are open.
    first = queries.sort_by("query_id").slice(0, 1)
    halves = published_rows(first, [table.slice(0, 1), table.slice(1)], teacher)
    assert [half["query_id"].to_pylist() for half in halves] == [first["query_id"].to_pylist()] * 2


# --- real traces -----------------------------------------------------------------------------------------------------


def real(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared test data")
def test_real_traces_of_deepseek_r1_and_its_students(tmp_path):
    rows = real("r1_distill_math500_20.jsonl")
    write_lines(tmp_path / "release" / "r1.jsonl.zst", *[chat(row["problem"], row["full_response"]) for row in rows])
    problems = dict.fromkeys(row["problem"] for row in rows)
    tables, counts, _ = load(
        tmp_path, write_shards(tmp_path / "shards", [turns(problem) for problem in problems], 4), "messages"
    )
    assert counts == {"in": len(rows), "kept": len(rows)}
    published = {row["location"]: row for table in tables for row in table.to_pylist()}
    for line, row in enumerate(rows, start=1):
        trace = published[f"r1.jsonl.zst:{line}"]
        parts = split_response(trace["text"])
        if "</think>" in row["full_response"]:
            assert parts.fault is None and parts.answer == row["answer_text"].strip()
            assert parts.thinking in row["full_response"]
            opened = row["full_response"].lstrip().startswith("<think>")
            assert trace["conversion"].split() == [*["think_prefilled"][opened:], "answer_tags_added"]
        else:
            assert trace["text"] == row["full_response"] and parts.fault == "thinking_not_closed"


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared test data")
def test_real_responses_without_the_structure_are_kept_as_they_are():
    for row in real("qwen3b_before_after_rlvr.jsonl"):
        for layout in ("messages", "am_r1"):
            trace = read_trace(chat(row["problem"], row["response"]), layout)
            assert trace.text == row["response"] and trace.conversion == ""
            assert split_response(trace.text).fault in ("thinking_not_closed", "answer_not_closed")


# --- a study ---------------------------------------------------------------------------------------------------------

QUESTIONS = [f"What is {number} + {number + 1}?" for number in range(12)]


def answered(number, value, way="Add."):
    return f"<think>{way}</think><answer>\\boxed{{{value}}}</answer>"


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Path:
    """The folder of a study of two published teachers, run until every answer has its verdict."""
    folder = tmp_path_factory.mktemp("audit")
    truth = {"ground_truth": None}
    rows = [conversation(question, answered(n, 2 * n + 1)) for n, question in enumerate(QUESTIONS)]
    for number, row in enumerate(rows):
        row["conversations"][0]["info"]["ground_truth"] = str(2 * number + 1)
        row["conversations"][1]["info"] |= truth
    rows[3]["conversations"][1]["value"] = answered(3, 0)  # wrong, and right at the second attempt
    second = json.loads(json.dumps(rows[3]))
    second["conversations"][1]["value"] = answered(3, 7, "Add again.")
    rows[4]["conversations"][1]["value"] = "<think>Never closed."
    unfit = conversation("What does https://example.org say?", answered(0, 1))
    unfit["conversations"][0]["info"]["ground_truth"] = "1"
    write_lines(folder / "am" / "math.jsonl", *rows, second, rows[0], unfit, b'{"conversations": ')
    write_lines(
        folder / "plain" / "a.jsonl.zst",
        *[
            chat(question, f"<think>Add.</think>\n\n\\boxed{{{2 * n + 1}}}")
            for n, question in enumerate(QUESTIONS[1:], 1)
        ],
        chat("What is 1000 + 1?", UNTAGGED),
        {"messages": [{"role": "user", "content": QUESTIONS[0]}]},
        chat(QUESTIONS[5], "<think>Cut", finish_reason="length"),
    )
    columns = {"turns": "conversations", "answer": "conversations.0.info.ground_truth"}
    source = {"path": "./am/math.jsonl", "category": "math", "licence": "CC0-1.0", "columns": columns}
    teacher = {"engine": "dataset", "revision": None}
    study = {
        "study": "audit",
        "results": "results",
        "store": "results/store",
        "corpus": {"sources": {"math": source}, "decontaminate": {"embedder": None}, "shards": 2},
        "teachers": {
            "one": teacher
            | {
                "model": "org/one",
                "label": "One",
                "colour": "#0072B2",
                "traces": "./am",
                "traces_layout": "am",
            },
            "two": teacher
            | {
                "model": "org/two",
                "label": "Two",
                "colour": "#D55E00",
                "traces": "./plain",
                "traces_layout": "messages",
            },
        },
        "curation": {"ngrams": {"tokenizer": {"model": "./resources/teachers/tokenizer"}}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    snakemake(
        folder,
        *(f"results/verification/{name}/{shard}/attempts.parquet" for name in ("one", "two") for shard in (0, 1)),
    )
    return folder


def snakemake(folder, *targets):
    """Run to the end and return what was printed."""
    command = [
        "snakemake",
        "-s",
        ROOT / "Snakefile",
        "--configfile",
        folder / "study.yaml",
        "-d",
        folder,
        "--cores",
        "2",
    ]
    done = subprocess.run(
        [sys.executable, "-m", *command, *targets],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def attempts_of(folder, teacher):
    tables = folder / "results" / "verification" / teacher
    found = pd.concat(pd.read_parquet(tables / f"{shard}/attempts.parquet") for shard in (0, 1))
    numbers = {query_id(turns(question)): number for number, question in enumerate(QUESTIONS)}
    return found.assign(number=found["query_id"].map(numbers)).sort_values(["number", "attempt"], ignore_index=True)


@pytest.mark.study
def test_a_study_of_published_traces_judges_every_answer(audited):
    one, two = attempts_of(audited, "one"), attempts_of(audited, "two")
    assert one["number"].tolist() == [0, 1, 2, 3, 3, *range(4, 12)]
    assert two["number"].tolist() == [1, 2, 3, 4, 5, 5, *range(6, 12)]
    assert one["attempt"].tolist() == [0, 0, 0, 0, 1, *[0] * 8]
    failed = one[one["verdict"] != "pass"].set_index("number")["reason"].to_dict()
    assert failed.keys() == {3, 4} and failed[4] == "thinking_not_closed"
    assert one.loc[one["number"] == 3, "accepted"].tolist() == [False, True]
    assert two[two["verdict"] != "pass"]["reason"].tolist() == ["truncated"]
    assert set(one["conversion"]) == {""} and two.loc[two["accepted"], "conversion"].unique() == ["answer_tags_added"]
    assert set(one["engine"]) == {"dataset"} and (one["seconds"] == 0).all() and one["devices"].isna().all()
    assert (two["output_tokens"] > 0).all() and two["model"].unique() == ["org/two"]


@pytest.mark.study
def test_the_ledger_of_such_a_study_balances(audited):
    plan = snakemake(audited, "-n", "results/statistics/ledger.csv")
    inputs = re.search(r"^rule reconcile_ledger:\n +input: (.*)$", plan, re.M)[1].split(", ")
    ledgers = [path for path in inputs if path.endswith(".ledger.parquet")]
    assert [path for path in ledgers if "/generation/" in path] == [
        f"results/generation/{name}/traces.ledger.parquet" for name in ("one", "two")
    ]
    reconcile([audited / path for path in ledgers if (audited / path).exists()], audited / "ledger.csv")
    lines = pd.read_csv(audited / "ledger.csv")
    counted = {
        (step, scope): dict(zip(rows["reason"], rows["rows"], strict=True))
        for (step, scope), rows in lines.groupby(["step", "scope"])
    }
    assert counted["import_traces", "one"] == {
        "in": 16,
        "kept": 13,
        "no_query": 1,
        "duplicate_answer": 1,
        "invalid_json": 1,
    }
    assert counted["import_traces", "two"] == {"in": 14, "kept": 12, "no_query": 1, "no_response": 1}
    given_up = {
        teacher: sum(counted["collect_attempts", f"{teacher}/{shard}"].get("give_up", 0) for shard in (0, 1))
        for teacher in ("one", "two")
    }
    assert given_up == {"one": 1, "two": 1}
    steps = list(dict.fromkeys(lines["step"]))
    assert steps.index("decontaminate_queries") < steps.index("import_traces") < steps.index("collect_attempts")
    dropped = pd.read_parquet(audited / "results/generation/two" / "traces.dropped.parquet").set_index("reason")[
        "detail"
    ]
    assert dropped["no_query"] == "a.jsonl.zst:12"
    assert dropped["no_response"] == "a.jsonl.zst:13: messages ends with a message of the user"


def test_a_ledger_of_traces_that_does_not_balance_stops_the_study(tmp_path):
    ledger = Ledger("import_traces", "one", 3)
    ledger.keep(2)
    ledger.drop("", "no_response", "a.jsonl:1")
    ledger.write(tmp_path / "l.ledger.parquet", tmp_path / "l.dropped.parquet")
    reconcile([tmp_path / "l.ledger.parquet"], tmp_path / "ledger.csv")
    broken = read_frame(tmp_path / "l.ledger.parquet", LEDGER)
    write_table(tmp_path / "l.ledger.parquet", broken.assign(rows=[3, 1, 1]), LEDGER)
    with pytest.raises(Exception, match="import_traces on one: 3 rows in, 1 kept, 1 dropped"):
        reconcile([tmp_path / "l.ledger.parquet"], tmp_path / "ledger.csv")
