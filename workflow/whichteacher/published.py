"""Published traces: the layouts they are released in, brought to the project's one response format.

Who asked what is read as :func:`whichteacher.rows.turns_of` reads it for a source, so a trace and the query that was
imported from the same dialogue column have the same ``query_id``. A release's ``system`` column is no part of it; a system
message inside the dialogue is, as it is in the source.

A response that is not in the format stays what it is, for verification to judge. Only a row that cannot be read is a
:class:`~whichteacher.rows.Fault`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from whichteacher.release import FILES
from whichteacher.responses import ANSWER, END_ANSWER, END_THINK, TAGS, THINK, join_response, split_response
from whichteacher.rows import Fault, Turns, answer_of, canonical, decoded, text_of, turns_of

#: OpenThoughts-114k's marks, by the tag that takes their place.
_MARKERS = {
    "<|begin_of_thought|>": THINK,
    "<|end_of_thought|>": END_THINK,
    "<|begin_of_solution|>": ANSWER,
    "<|end_of_solution|>": END_ANSWER,
}
#: What releases and servers call the two ends of a response that the study tells apart.
_FINISH_REASONS = dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence"), "stop") | dict.fromkeys(
    ("length", "max_tokens", "max_length"), "length"
)


#: Our categories by the names of the release.
_CATEGORIES = {name: category for category, name in FILES.items()}


class Trace(NamedTuple):
    """One published response. ``turns`` is its query, ``system`` what the release says was the system message ("": none)."""

    system: str
    turns: Turns
    text: str
    conversion: str  # words of whichteacher.responses.CONVERSIONS
    finish_reason: str  # "stop" where the release does not say
    score: float | None
    perplexity: float | None


class Layout(NamedTuple):
    """Which column holds the dialogue, and how a response (its text and ``info``) comes to the one format: text and words."""

    dialogue: str
    convert: Callable[[str, Mapping[str, Any]], tuple[str, str]]


#: Further columns that a row may have, in every layout.
OPTIONAL_COLUMNS = ("system", "verify_score", "ppl", "finish_reason")


def read_trace(values: Mapping[str, Any], layout: str) -> Trace:
    """A row of a release in the layout of that name (:data:`LAYOUTS`). Raises :class:`Fault` where it cannot be read.

    Score, perplexity and finish reason are looked for in the response's turn, in its ``info``, in that of the question and
    in the row: the cards leave open where they stand.
    """
    column, convert = LAYOUTS[layout]
    if values.get(column) is None:
        raise Fault("missing_column", f"no {column}")
    found = decoded(values[column], column)
    turns = turns_of({"turns": found})
    after = found[len(turns) :]
    if not after:
        raise Fault("no_response", f"{column} ends with a message of the user")
    if len(after) > 1 or after[0].get("role", after[0].get("from")) == "system":
        raise Fault("wrong_turns", f"{len(after)} messages follow the user's last one, not the response alone")
    response = after[0]
    info, asked = (
        turn["info"] if isinstance(turn.get("info"), Mapping) else {} for turn in (response, found[len(turns) - 1])
    )
    places = (response, info, asked, values)
    text, conversion = convert(response.get("content", response.get("value")), info)
    return Trace(
        system="" if values.get("system") is None else text_of(values["system"], "system"),
        turns=turns,
        text=text,
        conversion=conversion,
        finish_reason=_finish_reason(places),
        score=_number("verify_score", places),
        perplexity=_number("ppl", places),
    )


def read_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """All that a record of the ``am`` layout holds, as columns of TRACES (:data:`whichteacher.release.COLUMNS`).

    Keys of ``info`` are looked for in the response's turn, then in the question's. Tests and constraints that are no text are
    written as JSON, numbers as references as text. Raises :class:`Fault` where the record cannot be read, or its response is not
    in the format.
    """
    trace = read_trace(values, "am")
    thinking, answer, fault = split_response(trace.text)
    if fault:
        raise Fault(f"structure_{fault}", "the response is not in the format of the release")
    found = decoded(values["conversations"], "conversations")
    infos = [turn["info"] for turn in reversed(found[-2:]) if isinstance(turn.get("info"), Mapping)]

    def held(key: str) -> Any:
        return next((info[key] for info in infos if info.get(key) is not None), None)

    def written(key: str) -> str | None:
        value = held(key)
        return value if value is None or isinstance(value, str) else canonical(value, key)

    category = held("category")
    if category not in _CATEGORIES:
        raise Fault("wrong_type", f"category {category!r} is none of {', '.join(_CATEGORIES)}")
    return {
        "system": trace.system,
        "turns": trace.turns,
        "thinking": thinking,
        "answer": answer,
        "source": text_of(held("source"), "source"),
        "category": _CATEGORIES[category],
        "reference": answer_of(held("ground_truth")),
        "tests": written("test_case"),
        "constraints": written("instruction_constrain"),
        "verify_score": trace.score,
        "teacher": text_of(held("model_name"), "model_name"),
        "perplexity": trace.perplexity,
    }


def _finish_reason(places: tuple[Mapping[str, Any], ...]) -> str:
    said = next((place["finish_reason"] for place in places if place.get("finish_reason")), "stop")
    said = text_of(said, "finish_reason")
    return _FINISH_REASONS.get(said.lower(), said)


def _number(name: str, places: tuple[Mapping[str, Any], ...]) -> float | None:
    """The first finite number of that name, or text that is one: releases mix the types. None where there is none."""
    for place in places:
        value = place.get(name)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                continue
            if math.isfinite(number):
                return number
    return None


# --- layouts ---------------------------------------------------------------------------------------------------------


def _am(text: str, info: Mapping[str, Any]) -> tuple[str, str]:
    """The text has the tags; where it has none at all, the parts stand in ``info``."""
    thinking, answer = info.get("think_content"), info.get("answer_content")
    if thinking and answer and not any(tag in text for tag in TAGS):
        return join_response(text_of(thinking, "think_content"), text_of(answer, "answer_content")), "markers_replaced"
    return text, ""


def _am_r1(text: str, info: Mapping[str, Any]) -> tuple[str, str]:
    """As :func:`_am`; DeepSeek-R1 heeds the request for answer tags now and then."""
    text, conversion = _am(text, info)
    return (text, conversion) if conversion else _messages(text, info)


def _open_thoughts(text: str, info: Mapping[str, Any]) -> tuple[str, str]:
    """The first release has marks of its own, one for each tag; the later ones write as :func:`_messages` reads."""
    replaced = text
    for marker, tag in _MARKERS.items():
        replaced = replaced.replace(marker, tag)
    return (replaced, "markers_replaced") if replaced != text else _messages(text, info)


def _messages(text: str, _: Mapping[str, Any]) -> tuple[str, str]:
    """Thinking that is closed, then the answer: tags go around an answer that has none."""
    head, closed, tail = text.rpartition(END_THINK)
    if not closed:
        return text, ""
    done = []
    if not head.lstrip().startswith(THINK):
        head = THINK + head
        done.append("think_prefilled")
    if tail.strip() and ANSWER not in tail and END_ANSWER not in tail:
        tail = ANSWER + tail.strip() + END_ANSWER
        done.append("answer_tags_added")
    return head + closed + tail, " ".join(done)


#: The layouts by the names of the configuration's ``traces_layout``.
LAYOUTS = {
    "am": Layout("conversations", _am),
    "am_r1": Layout("messages", _am_r1),
    "open_thoughts": Layout("conversations", _open_thoughts),
    "messages": Layout("messages", _messages),
}
