"""Filters and controls."""

import math

import pandas as pd
import pytest
from curate_traces import structure_fault
from find_frequent_ngrams import frequent
from hypothesis import given
from hypothesis import strategies as st
from match_datasets import match, shuffled
from score_perplexity import batches, perplexities

from whichteacher.rule import InputError, Progress

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


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 100))
def test_batches_cover_every_row_once_within_the_budget(lengths, budget):
    made = list(batches(lengths, budget))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in made)


def test_perplexity_is_that_of_one_row_at_a_time(tiny_model):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    rows = [([5, 6, 7, 8, 9, 10], 3), ([20, 21], 1), ([30], 1)]
    values = perplexities(model, rows, Progress("test", len(rows)))
    for (ids, first), value in list(zip(rows, values, strict=True))[:2]:
        with torch.inference_mode():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = math.exp(-sum(logp[i - 1, ids[i]].item() for i in range(first, len(ids))) / (len(ids) - first))
        assert value == pytest.approx(expected, rel=1e-4)
    assert values[2] is None


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
