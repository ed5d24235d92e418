"""Rounds, rendered prompts, the parts of responses."""

import json

import pyarrow as pa
import pytest
from generate_responses import attempt_rows
from hypothesis import given
from hypothesis import strategies as st

from whichteacher.chat import CHAT_TEMPLATE, messages
from whichteacher.responses import CONVERSIONS, TAGS, convert_response, join_response, split_response
from whichteacher.rounds import Wanted, attempt_numbers, open_queries, render_prompts
from whichteacher.rule import InputError
from whichteacher.schemas import ATTEMPTS, QUERIES
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
        ("<think>work</think>\n<answer>1</answer>\n", "thinking_only", None),
        ("<think>work</think>so <answer>1</answer>", "thinking_only", "nested_tags"),
        ("<think>work</think>", "thinking_only", "answer_empty"),
    ],
)
def test_the_first_fault_of_a_response_is_named(text, answer_format, fault):
    assert split_response(text, answer_format).fault == fault


@pytest.mark.parametrize(
    ("prompt", "text", "reasoning", "answer_format", "expected"),
    [
        ("p", "<think>a</think><answer>b</answer>", None, "tags", ("a", "b", "")),
        ("p<think>\n", "a</think><answer>b</answer>", None, "tags", ("a", "b", "think_prefilled")),
        ("p", "<think>a</think>b", None, "thinking_only", ("a", "b", "answer_tags_added")),
        ("p", "<think>a</think> <answer>b</answer>", None, "thinking_only", ("a", "b", "")),
        ("p<think>", "a</think>b", None, "thinking_only", ("a", "b", "think_prefilled answer_tags_added")),
        ("p", "b", "a", "thinking_only", ("a", "b", "reasoning_joined answer_tags_added")),
        # The server took the opened thinking out of the text: nothing was left to prefill.
        ("p<think>", "<answer>b</answer>", "a", "tags", ("a", "b", "reasoning_joined")),
        ("p<think>", "never closed", None, "thinking_only", (None, None, "think_prefilled")),
    ],
)
def test_what_brings_a_response_to_the_format_is_recorded(prompt, text, reasoning, answer_format, expected):
    converted, words = convert_response(prompt, text, reasoning, answer_format)
    parts = split_response(converted, answer_format)
    assert (parts.thinking, parts.answer, words) == expected
    assert set(words.split()) <= CONVERSIONS.keys()


def test_a_chat_endpoint_is_given_messages_and_an_engine_what_the_template_renders(tiny_model):
    turns = [{"role": "user", "content": "Größe?"}]
    queries = pa.table(
        {"query_id": ["q"], "category": ["math"], "turns": pa.array([turns], QUERIES.field("turns").type)}
    )
    teacher = {"model": str(tiny_model), "revision": None, "system_prompt": "Think.", "suffixes": {"math": "Box it."}}
    (chat,) = render_prompts(queries, teacher | {"engine": "openai", "endpoint": {"api": "chat"}})
    assert json.loads(chat) == messages(turns, "Think.", "Box it.") and "Größe" in chat
    for engine in ({"engine": "vllm"}, {"engine": "openai", "endpoint": {"api": "completions"}}):
        assert render_prompts(queries, teacher | engine) == [
            "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\nGröße?\nBox it.<|im_end|>\n<|im_start|>assistant\n"
        ]


def test_the_query_that_a_template_cannot_render_is_named(tiny_model, tmp_path):
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    strict = (
        "{% if messages | length > 1 %}{{ raise_exception('one message only') }}{% endif %}{{ messages[0].content }}"
    )
    (tmp_path / "chat_template.jinja").write_text(strict)
    one = [{"role": "user", "content": "fine"}]
    two = [*one, {"role": "assistant", "content": "a"}, *one]
    rows = {
        "query_id": ["a", "b"],
        "category": ["math"] * 2,
        "turns": pa.array([one, two], QUERIES.field("turns").type),
    }
    teacher = {"model": str(tmp_path), "revision": None, "system_prompt": "", "suffixes": {}, "engine": "vllm"}
    with pytest.raises(ValueError, match=r"query b: the chat template of .* fails: one message only"):
        render_prompts(pa.table(rows), teacher)


def test_a_teacher_without_a_usable_tokenizer_is_one_line(tmp_path):
    queries = pa.table({"query_id": ["q"], "category": ["math"], "turns": pa.array([[]], QUERIES.field("turns").type)})
    teacher = {"model": str(tmp_path), "revision": None, "system_prompt": "", "suffixes": {}, "engine": "vllm"}
    with pytest.raises(InputError, match="no usable tokenizer"):
        render_prompts(queries, teacher)


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
    parts = [list(map(str, rows[name])) for name in ("thinking", "answer", "conversion")]
    assert parts == [["a", "a"], ["b", "b"], ["", ""]]
    assert list(rows) == ATTEMPTS.names
