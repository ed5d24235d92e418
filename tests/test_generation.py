"""Rounds, rendered prompts, published traces."""

import json

import pytest
from generate_responses import (
    attempt_numbers,
    generated_rows,
    open_queries,
    published_responses,
    published_rows,
)
from hypothesis import given
from hypothesis import strategies as st

from whichteacher.chat import CHAT_TEMPLATE, messages
from whichteacher.engines import Response
from whichteacher.queries import query_id
from whichteacher.responses import TAGS, join_response, split_response
from whichteacher.rule import InputError

PLAIN = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip() and not any(tag in text for tag in TAGS)
)


def test_a_round_takes_only_queries_without_an_accepted_attempt():
    queries = [{"query_id": identifier} for identifier in "cab"]
    verdicts = [
        {"query_id": "a", "verdict": "fail"},
        {"query_id": "a", "verdict": "pass"},
        {"query_id": "b", "verdict": "unknown"},
    ]
    assert [query["query_id"] for query in open_queries(queries, verdicts)] == ["b", "c"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_the_schedule_numbers_every_attempt_once(schedule):
    numbers = [number for round_ in range(len(schedule)) for number in attempt_numbers(schedule, round_)]
    assert numbers == list(range(sum(schedule)))


@given(PLAIN, PLAIN)
def test_a_joined_response_splits_into_its_parts(thinking, answer):
    parts = split_response(join_response(thinking, answer))
    assert (parts.thinking, parts.answer, parts.fault) == (thinking.strip(), answer.strip(), None)


@pytest.mark.parametrize(
    ("text", "answer_format", "fault"),
    [
        ("<think>work", "tags", "thinking_not_closed"),
        ("<think>work</think>\\boxed{1}", "tags", "answer_missing"),
        ("<think>work</think><answer>\\boxed{1}", "tags", "answer_not_closed"),
        ("<think>work</think><answer>1</answer> more", "tags", "text_outside_tags"),
        ("<think></think><answer>1</answer>", "tags", "thinking_empty"),
        ("<think>work</think><answer> </answer>", "tags", "answer_empty"),
        ("<think>a</think>b</think><answer>1</answer>", "tags", "nested_tags"),
        ("work that a template opened</think><answer>1</answer>", "tags", None),
        ("<think>work</think>the answer", "thinking_only", None),
        ("<think>work</think>", "thinking_only", "answer_empty"),
    ],
)
def test_the_first_fault_of_a_response_is_named(text, answer_format, fault):
    assert split_response(text, answer_format).fault == fault


def test_the_template_renders_the_bytes_we_promise():
    from jinja2 import Environment

    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    source = CHAT_TEMPLATE.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    rendered = environment.from_string(source).render(
        messages=messages([{"role": "user", "content": "Compute 1 + 1."}], "Be brief.", "Box it."),
        add_generation_prompt=True,
    )
    assert rendered == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nCompute 1 + 1.\nBox it.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_only_the_last_user_message_takes_the_suffix():
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    assert [m["content"] for m in messages(turns, "", "suffix")] == ["one", "two", "three\nsuffix"]
    assert turns[-1]["content"] == "three"


def test_attempt_rows_hold_the_parts_of_the_response():
    response = Response("key", "<think>a</think><answer>b</answer>", "stop", 3, 7, 0.1, "vllm", "vllm 0", "digest")
    (row,) = generated_rows(
        [({"query_id": "q"}, 2, "prompt", response)], {"answer_format": "tags", "model": "./m"}, "{}"
    )
    assert (row["attempt_id"], row["attempt"], row["thinking"], row["answer"]) == ("key", 2, "a", "b")


def test_published_traces_answer_the_queries_they_belong_to(tmp_path, tiny_model):
    record = {
        "system": "",
        "conversations": [
            {"from": "human", "value": "Compute 1 + 1.", "info": {}},
            {"from": "assistant", "value": "<think>1+1=2</think><answer>\\boxed{2}</answer>", "info": {}},
        ],
    }
    (tmp_path / "math.jsonl").write_text(json.dumps(record) + "\n")
    turns = [{"role": "user", "content": "Compute  1 + 1."}]
    known = {"query_id": query_id(turns), "turns": turns, "category": "math"}
    unknown = {"query_id": "f" * 32, "turns": turns, "category": "math"}
    teacher = {
        "traces": str(tmp_path),
        "traces_revision": None,
        "answer_format": "tags",
        "model": "org/data",
        "revision": "a" * 40,
    }
    (row,) = published_rows([known, unknown], teacher, {"model": str(tiny_model), "revision": None})
    assert (row["query_id"], row["answer"], row["finish_reason"]) == (known["query_id"], "\\boxed{2}", "stop")


def test_a_broken_published_row_names_file_and_line(tmp_path):
    (tmp_path / "math.jsonl").write_text('{"conversations": [{"from": "human"}]}\n')
    with pytest.raises(InputError, match=r"math\.jsonl:1"):
        published_responses(str(tmp_path))
    with pytest.raises(InputError, match=r"no \.jsonl file"):
        published_responses(str(tmp_path / "empty"))
