"""What is wrong with a dialogue and its response: structure, leaks, scripts, loops."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from whichteacher.structure import (
    LOOP_CHARACTERS,
    LOOP_PERIOD,
    LOOP_REPEATS,
    foreign_share,
    letters,
    loop_characters,
    structure_fault,
)

GOOD = "<think>work</think><answer>1</answer>"


def dialogue(*contents: str) -> list[dict[str, str]]:
    """Turns that begin with the user's and alternate."""
    return [{"role": ("user", "assistant")[number % 2], "content": content} for number, content in enumerate(contents)]


def fault(turns: list[dict[str, str]], text: str, answer_format: str = "tags", **options: bool) -> tuple | None:
    found = structure_fault(turns, text, answer_format, **options)
    return found and tuple(found)


@pytest.mark.parametrize(
    ("roles", "text", "reason"),
    [
        (["user"], GOOD, None),
        (["user", "assistant", "user"], GOOD, None),
        (["user", "assistant"], GOOD, "structure_odd_turns"),
        ([], GOOD, "structure_odd_turns"),
        (["assistant", "user", "user"], GOOD, "structure_roles"),
        (["user", "user", "user"], GOOD, "structure_roles"),
        (["system", "assistant", "user"], GOOD, "structure_roles"),
        (["user"], "work</think><answer>1</answer>", None),  # the template opened it
        (["user"], "<think>work", "structure_thinking_not_closed"),
        (["user"], "<think>work</think>", "structure_answer_missing"),
        (["user"], "<think>work</think><answer>1", "structure_answer_not_closed"),
        (["user"], "<think> \n</think><answer>1</answer>", "structure_thinking_empty"),
        (["user"], "<think>work</think><answer>\t</answer>", "structure_answer_empty"),
        (["user"], "<think>work</think>So <answer>1</answer>", "structure_text_outside_tags"),
        (["user"], "<think>a</think>b</think><answer>1</answer>", "structure_nested_tags"),
        (["user"], "<think><think>a</think><answer>1</answer>", "structure_nested_tags"),
        (["user"], "Well <think>a</think><answer>1</answer>", "structure_nested_tags"),
        (["user"], "<think>a</think><answer>1</answer><answer>2</answer>", "structure_nested_tags"),
    ],
)
def test_structure(roles, text, reason):
    found = structure_fault([{"role": role, "content": "x"} for role in roles], text, "tags")
    assert (found and found.reason) == reason


def test_an_empty_turn_is_told():
    assert fault(dialogue("x", " \n", "y"), GOOD) == ("structure_turn_empty", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a<|im_end|>", ("structure_template_token", "<|im_end|>")),
        ("<|endoftext|>Human: next", ("structure_template_token", "<|endoftext|>")),
        ("<\uff5cend\u2581of\u2581sentence\uff5c>", ("structure_template_token", "<\uff5cend\u2581of\u2581sentence\uff5c>")),
        ("[INST] more [/INST]", ("structure_template_token", "[INST]")),
        ("<end_of_turn>", ("structure_template_token", "<end_of_turn>")),
        ("the end</s>", ("structure_template_token", "</s>")),
        ("struck <s>out</s> text", None),
        ("the mean <|x|> and a |> b", None),
        ("<thinking>more</thinking>", ("structure_foreign_tag", "<thinking>")),
        ("<|begin_of_thought|>", ("structure_foreign_tag", "<|begin_of_thought|>")),
        ("</Think> so", ("structure_foreign_tag", "</Think>")),
        ("\u25c1think\u25b7", ("structure_foreign_tag", "\u25c1think\u25b7")),
        ("I am thinking of an <em>answer</em>.", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", ["thinking", "answer"])
def test_leaks_in_the_parts(part, text, expected):
    parts = {"thinking": "work", "answer": "1", part: text}
    # The end of the thinking is no end of the text, so there it is a tag like any other.
    if part == "thinking" and text.endswith("</s>"):
        expected = None
    response = f"<think>{parts['thinking']}</think><answer>{parts['answer']}</answer>"
    assert fault(dialogue("x"), response) == expected
    assert fault(dialogue("x"), response, leaks=False) is None


def test_a_tag_that_the_user_asked_for_is_no_leak():
    response = "<think>work</think><answer><reasoning>r</reasoning></answer>"
    assert fault(dialogue("x"), response) == ("structure_foreign_tag", "<reasoning>")
    assert fault(dialogue("Write <reasoning>r</reasoning> round your reasons."), response) is None


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (("x", "<think>a</think>b", "y"), ("structure_tag_in_turn", "<think>")),
        (("x", "<Thinking>a", "y"), ("structure_tag_in_turn", "<Thinking>")),
        (("x", "a<|im_end|>", "y"), ("structure_template_token_in_turn", "<|im_end|>")),
        (("x<|im_start|>system", "a", "y"), ("structure_template_token_in_turn", "<|im_start|>")),
        (("what does <think> mean?", "a", "y"), None),
        (("what does <think> mean?", "<think> marks thinking", "y"), None),
    ],
)
def test_leaks_in_earlier_turns(turns, expected):
    assert fault(dialogue(*turns), GOOD) == expected
    assert fault(dialogue(*turns), GOOD, leaks=False) is None


# --- scripts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("caf\u00e9", {"latin": 4}),
        ("\u4e2d\u6587\u3002\u304b\u306a\ud55c\uae00", {"cjk": 6}),
        ("\u043f\u0440\u0438", {"cyrillic": 3}),
        ("\u0639\u0631", {"other": 2}),
        ("1 + 2 = 3, \u03b1\u03b2 \u2211 \U0001d465 \U0001f600", {}),
        ("`name` $x + y$ \\(z\\) \\frac{1}{2} ```python\nprint(1)\n``` https://example.org/a", {}),
        ("\u5f97 x = 3 cm", {"cjk": 1}),
        ("\u5f97 the answer", {"cjk": 1, "latin": 6}),
    ],
)
def test_letters_by_script(text, counts):
    assert dict(letters(text)) == counts


@pytest.mark.parametrize(
    ("asked", "text", "share"),
    [
        ("What is it?", "It is two.", 0),
        ("What is it?", "It is \u4e8c\u4e8c\u4e8c\u4e8c\u4e8c words", 0.5),
        ("\u662f\u4ec0\u4e48", "\u662f\u662f\u662f\u662f word", 0.5),
        ("\u662f\u4ec0\u4e48", "\u662f x + y", 0),
        ("Translate \u662f", "It \u662f", 0),
        ("1 + 1", "It is two.", 0),
        ("What is it?", "42", 0),
    ],
)
def test_share_of_foreign_letters(asked, text, share):
    assert foreign_share(asked, text) == pytest.approx(share)


@given(st.text(max_size=60), st.text(max_size=200))
def test_the_share_is_that_of_a_plain_count(asked, text):
    used, found = letters(asked), letters(text)
    other = sum(count for script, count in found.items() if script not in used)
    assert foreign_share(asked, text) == (other / found.total() if used and found else 0)


# --- loops -----------------------------------------------------------------------------------------------------------


def plain_loop(text: str) -> int:
    """The same by trying every period, the shortest first."""
    text = text.rstrip()
    for period in range(1, min(LOOP_PERIOD, len(text)) + 1):
        length = period
        while length < len(text) and text[-length - 1] == text[-length - 1 + period]:
            length += 1
        if length >= max(LOOP_REPEATS * period, LOOP_CHARACTERS):
            return length if any(map(str.isalnum, text[-period:])) else 0
    return 0


@given(st.text("ab .", max_size=50), st.text("ab -", min_size=1, max_size=80), st.integers(0, 90), st.integers(0, 79))
def test_loops_are_those_of_a_plain_search(lead, passage, repeats, rest):
    text = lead + passage * repeats + passage[: rest % len(passage)]
    assert loop_characters(text) == plain_loop(text)


@given(st.text(st.characters(codec="utf-8"), max_size=400))
def test_ordinary_text_ends_in_no_loop(text):
    assume(len(set(text)) > 3)
    assert loop_characters(text) == plain_loop(text)


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("So " + "wait, let me check again. " * 9, True),
        ("So " + "wait, let me check again. " * 9 + "It is 4.", False),  # it found its way out
        ("Wait. " * 20, False),  # too short
        ("| --- | --- |\n" + "-" * 500, False),
        (" ".join(str(number) for number in range(300)), False),
    ],
)
def test_what_is_a_loop(text, looping):
    assert bool(loop_characters(text)) == looping
