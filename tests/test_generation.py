"""Rounds, rendered prompts, the parts of responses."""

import pyarrow as pa
import pytest
from generate_responses import Wanted, attempt_numbers, attempt_rows, open_queries
from hypothesis import given
from hypothesis import strategies as st

from whichteacher.chat import CHAT_TEMPLATE, messages
from whichteacher.responses import TAGS, join_response, split_response
from whichteacher.schemas import ATTEMPTS
from whichteacher.store import RESPONSES

PLAIN = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip() and not any(tag in text for tag in TAGS)
)


def test_a_round_takes_only_queries_without_an_accepted_attempt():
    queries = pa.table({"query_id": list("cab")})
    verdicts = pa.table({"query_id": list("aab"), "verdict": ["fail", "pass", "unknown"]})
    assert open_queries(queries, verdicts)["query_id"].to_pylist() == ["b", "c"]


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
    stored = {
        **{field.name: 0 if field.type in (pa.int64(), pa.float64()) else "" for field in RESPONSES},
        "reasoning": None,
        "text": "<think>a</think><answer>b</answer>",
    }
    responses = pa.Table.from_pylist([{**stored, "key": key} for key in ("k2", "k3")], schema=RESPONSES)
    wanted = Wanted(["p", "q"], ["prompt p", "prompt q"], range(2, 4), ["k0", "k1", "k2", "k3"])
    rows = attempt_rows(responses, wanted, 2, {"answer_format": "tags"})
    assert rows["attempt_id"].to_pylist() == ["k2", "k3"]
    assert (rows["query_id"], rows["attempt"]) == (["q", "q"], [2, 3])
    assert (rows["thinking"], rows["answer"], rows["conversion"]) == (["a", "a"], ["b", "b"], ["", ""])
    assert list(rows) == ATTEMPTS.names
