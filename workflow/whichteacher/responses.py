"""The one response format: ``<think>reasoning</think><answer>answer</answer>`` (paper section 2.2)."""

from __future__ import annotations

from typing import NamedTuple

THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)

#: What may have to be done to a response to bring it to the format, by the word that records it.
CONVERSIONS = {
    "think_prefilled": "the prompt's template had opened <think>",
    "reasoning_joined": "the endpoint handed the reasoning over apart from the answer",
    "answer_tags_added": "the model closed </think> and wrote its answer without tags",
    "markers_replaced": "a published trace marked thinking and answer in another way",
}


class Parts(NamedTuple):
    """A response taken apart. ``fault`` names the first thing wrong with its structure, None where nothing is."""

    thinking: str | None
    answer: str | None
    fault: str | None


def split_response(text: str, answer_format: str = "tags") -> Parts:
    """Split a response on its last ``</think>``.

    A template that pre-fills ``<think>`` leaves only the closing tag in the response, so the opening one is optional.
    ``answer_format`` is ``tags`` (the answer stands between answer tags) or ``thinking_only`` (everything after
    ``</think>`` is the answer, with or without tags around it: DeepSeek-R1 and Qwen3, which are asked for tags and heed it
    now and then).
    """
    head, closed, tail = text.rpartition(END_THINK)
    if not closed:
        return Parts(None, None, "thinking_not_closed")
    thinking = head.strip().removeprefix(THINK).strip()
    if answer_format == "thinking_only":
        answer = _without_tags(tail.strip())
    else:
        before, opened, rest = tail.partition(ANSWER)
        if not opened:
            return Parts(thinking, None, "answer_missing")
        answer, ended, after = rest.rpartition(END_ANSWER)
        if not ended:
            return Parts(thinking, None, "answer_not_closed")
        answer = answer.strip()
        if before.strip() or after.strip():
            return Parts(thinking, answer, "text_outside_tags")
    if any(tag in thinking for tag in TAGS) or any(tag in answer for tag in TAGS):
        return Parts(thinking, answer, "nested_tags")
    if not thinking:
        return Parts(thinking, answer, "thinking_empty")
    if not answer:
        return Parts(thinking, answer, "answer_empty")
    return Parts(thinking, answer, None)


def _without_tags(answer: str) -> str:
    tagged = answer.startswith(ANSWER) and answer.endswith(END_ANSWER)
    return answer.removeprefix(ANSWER).removesuffix(END_ANSWER).strip() if tagged else answer


def convert_response(prompt: str, text: str, reasoning: str | None, answer_format: str) -> tuple[str, str]:
    """A response as one text, and the words (of :data:`CONVERSIONS`, with spaces between) for what the format needs done.

    ``prompt`` is the rendered prompt, ``reasoning`` what an endpoint handed over apart from ``text`` (None elsewhere).
    """
    done = []
    if reasoning is not None:
        text = f"{THINK}{reasoning}{END_THINK}{text}"
        done.append("reasoning_joined")
    elif prompt.rstrip().endswith(THINK):
        done.append("think_prefilled")
    tail = text.rpartition(END_THINK)[2].strip()
    if answer_format == "thinking_only" and END_THINK in text and _without_tags(tail) == tail:
        done.append("answer_tags_added")
    return text, " ".join(done)


def join_response(thinking: str, answer: str) -> str:
    """The format of the released data and of every training sample."""
    return f"{THINK}{thinking}{END_THINK}{ANSWER}{answer}{END_ANSWER}"
