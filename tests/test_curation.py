"""Filters, controls and the released schema."""

import json

import pandas as pd
import pytest
from curate_traces import structure_fault
from export_dataset import FILES, card, released_row
from export_dataset import main as export
from find_frequent_ngrams import frequent
from hypothesis import given
from hypothesis import strategies as st
from match_datasets import match, shuffled

from whichteacher.rule import InputError
from whichteacher.schemas import TRACES
from whichteacher.tables import write_table

GOOD = "<think>work</think><answer>1</answer>"


def trace(identifier: str, tokens: int = 10, **changes) -> dict:
    return {
        "query_id": identifier,
        "source": "made",
        "source_row": "1",
        "category": "math",
        "licence": "Apache-2.0",
        "turns": [{"role": "user", "content": "Compute 1 + 1."}],
        "reference": "2",
        "reference_type": "number",
        "tests": None,
        "constraints": None,
        "attempt_id": f"a{identifier}",
        "teacher": "steps",
        "system": "",
        "prompt": "rendered",
        "thinking": "1+1=2",
        "answer": "\\boxed{2}",
        "verify_score": 1.0,
        "attempts": 1,
        "output_tokens": tokens,
        "perplexity": 1.5,
        **changes,
    }


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 5), st.integers(0, 4))
def test_frequent_ngrams_are_those_of_a_plain_count(tokens, size, max_count):
    windows = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    expected = {window: windows.count(window) for window in windows if windows.count(window) > max_count}
    found = {tuple(map(int, row["ngram"].split())): row["count"] for row in frequent([tokens], size, max_count)}
    assert found == expected


@pytest.mark.parametrize(
    ("roles", "text", "fault"),
    [
        (["user"], GOOD, None),
        (["user", "assistant", "user"], GOOD, None),
        (["user", "assistant"], GOOD, "structure_odd_turns"),
        (["assistant", "user", "user"], GOOD, "structure_roles"),
        (["user"], "<think>work</think>", "structure_answer_missing"),
    ],
)
def test_structure(roles, text, fault):
    assert structure_fault([{"role": role, "content": "x"} for role in roles], text, "tags") == fault


def frames(**teachers: list[dict]) -> dict[str, pd.DataFrame]:
    return {name: pd.DataFrame(rows) for name, rows in teachers.items()}


def test_parallel_keeps_the_queries_every_teacher_solved():
    kept = match(frames(a=[trace("1"), trace("2")], b=[trace("2"), trace("3")]), "parallel")
    assert {name: list(frame["query_id"]) for name, (frame, _) in kept.items()} == {"a": ["2"], "b": ["2"]}


def test_equal_rows_and_tokens_bound_every_teacher():
    teachers = frames(a=[trace(str(i), 10) for i in range(9)], b=[trace(str(i), 30) for i in range(5)])
    rows = match(teachers, "equal_rows")
    assert {len(frame) for frame, _ in rows.values()} == {5}
    tokens = match(teachers, "equal_tokens")
    assert all(frame["output_tokens"].sum() <= 90 for frame, _ in tokens.values())
    assert len(tokens["a"][0]) == 9 and len(tokens["b"][0]) == 3
    with pytest.raises(InputError, match="no such control"):
        match(teachers, "unheard_of")


def test_the_cut_takes_the_same_queries_first_for_every_teacher():
    a, b = pd.DataFrame([trace(str(i)) for i in range(30)]), pd.DataFrame([trace(str(i)) for i in range(29, -1, -1)])
    assert list(shuffled(a)["query_id"]) == list(shuffled(b)["query_id"]) != list(a["query_id"])


def test_the_released_schema(tmp_path):
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    record = released_row(trace("1", turns=turns))
    assert list(record) == ["system", "conversations"]
    assert [turn["from"] for turn in record["conversations"]] == ["human", "assistant", "human", "assistant"]
    infos = [turn["info"] for turn in record["conversations"]]
    assert all(list(info) == list(infos[0]) for info in infos) and len(infos[0]) == 10
    assert infos[2]["ground_truth"] == "2" and infos[0]["ground_truth"] is None
    assert infos[3]["verify_score"] == 1.0 and infos[3]["model_name"] == "steps" and infos[3]["ppl"] == 1.5
    assert record["conversations"][-1]["value"] == "<think>1+1=2</think><answer>\\boxed{2}</answer>"


def test_an_export_is_loaded_by_the_datasets_library(tmp_path):
    from datasets import load_dataset

    rows = [trace("1"), trace("2", category="general", source="other"), trace("3")]
    write_table(tmp_path / "d.parquet", rows, TRACES)
    export(str(tmp_path / "d.parquet"), str(tmp_path / "out"), "parallel", "Steps", "test")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["README.md", *(f"{name}.jsonl" for name in FILES.values())]
    )
    lines = (tmp_path / "out" / "math.jsonl").read_text().splitlines()
    assert [json.loads(line)["conversations"][0]["value"] for line in lines] == ["Compute 1 + 1."] * 2
    loaded = load_dataset(str(tmp_path / "out"), "math", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 2 and loaded[0]["conversations"][1]["info"]["think_content"] == "1+1=2"
    assert "| made | Apache-2.0 | 2 |" in card(rows, "parallel", "Steps", "test")
