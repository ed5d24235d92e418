"""Published traces: the layouts they are released in, brought to the project's one response format.

Who asked what is read as :func:`whichteacher.rows.turns_of` reads it for a source, so a trace and the query that was
imported from the same dialogue column have the same ``query_id``. A release's ``system`` column is no part of it; a system
message inside the dialogue is, as it is in the source.

A response that is not in the format stays what it is, for verification to judge. Only a row that cannot be read is a
:class:`~whichteacher.rows.Fault`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from whichteacher.code_tests import code_tests_of
from whichteacher.instructions import instruction_fault
from whichteacher.release import FILES
from whichteacher.responses import ANSWER, END_ANSWER, END_THINK, TAGS, THINK, join_response, split_response
from whichteacher.rows import (
    Fault,
    Turns,
    answer_of,
    canonical,
    constraints_of,
    decoded,
    file_rows,
    printable,
    text_of,
    turns_of,
)
from whichteacher.rule import InputError

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
    finish_stated: bool
    oddities: tuple[str, ...]  # of ODDITIES: what the row shows and the text does not
    score: float | None
    perplexity: float | None


class Layout(NamedTuple):
    """Which column holds the dialogue, and how a response (its text and ``info``) comes to the one format: text and words."""

    dialogue: str
    convert: Callable[[str, Mapping[str, Any]], tuple[str, str]]


class References(NamedTuple):
    """What answers to a row's query can be verified with."""

    answer: str | None
    tests: str | None
    constraints: str | None
    places: tuple[str, ...]  # where they were found
    fault: Fault | None  # why one that is there cannot be read


#: What a release's row may have wrong beside the text of its response.
ODDITIES = {
    "thinking_field_differs": "info.think_content is not the thinking of the text",
    "answer_field_differs": "info.answer_content is not the answer of the text",
    "score_not_a_number": "verify_score is text, or nothing that is a number",
    "perplexity_not_a_number": "ppl is text, or nothing that is a number",
    "reference_unreadable": "a reference, tests or constraints are there and cannot be read",
}
#: Where releases keep what verifies an answer: names in the rows and in the turns' info, the first that is filled counts.
_REFERENCE_NAMES = {
    "answer": ("ground_truth", "reference_answer", "expected_answer", "answer"),
    "tests": ("test_case", "test_cases", "tests"),
    "constraints": ("instruction_constrain", "constraints"),
}
#: Further columns that a row may have, in every layout.
OPTIONAL_COLUMNS = (
    "system",
    "verify_score",
    "ppl",
    "finish_reason",
    *(name for names in _REFERENCE_NAMES.values() for name in names),
)
#: Rows of a file that its layout is told from.
_SAMPLED_ROWS = 200


def read_trace(values: Mapping[str, Any], layout: str) -> Trace:
    """A row of a release in the layout of that name (:data:`LAYOUTS`). Raises :class:`Fault` where it cannot be read.

    Score, perplexity and finish reason are looked for in the response's turn, in its ``info``, in that of the question and
    in the row: the cards leave open where they stand.
    """
    column, convert = LAYOUTS[layout]
    found, turns = _dialogue(values, column)
    after = found[len(turns) :]
    if not after:
        raise Fault("no_response", f"{column} ends with a message of the user")
    if len(after) > 1 or after[0].get("role", after[0].get("from")) == "system":
        raise Fault("wrong_turns", f"{len(after)} messages follow the user's last one, not the response alone")
    response = after[0]
    info, asked = _info(response), _info(found[len(turns) - 1])
    places = (response, info, asked, values)
    # Checked before the conversion, which looks for tags in it.
    said = text_of(response.get("content", response.get("value")), "response")
    text, conversion = convert(said, info)
    finish_reason = _finish_reason(places)
    return Trace(
        system="" if values.get("system") is None else text_of(values["system"], "system"),
        turns=turns,
        text=text,
        conversion=conversion,
        finish_reason=finish_reason or "stop",
        score=_number("verify_score", places),
        perplexity=_number("ppl", places),
        finish_stated=finish_reason is not None,
        oddities=(
            *_oddities(said, info, places),
            *(["reference_unreadable"] if _references(values, found, turns).fault else []),
        ),
    )


def read_query(values: Mapping[str, Any], layout: str) -> tuple[Turns, References]:
    """The query of a row and what verifies answers to it. Raises :class:`Fault` where the dialogue cannot be read.

    References are looked for in the infos of question and response, then in the row. One that cannot be read is none, and
    ``fault`` says why: the query can be asked all the same.
    """
    found, turns = _dialogue(values, LAYOUTS[layout].dialogue)
    return turns, _references(values, found, turns)


def _references(values: Mapping[str, Any], found: list[dict[str, Any]], turns: Turns) -> References:
    answered = _info(found[len(turns)]) if len(found) > len(turns) else {}
    places = (
        ("the info of the question", _info(found[len(turns) - 1])),
        ("the info of the first turn", _info(found[0])),
        ("the info of the response", answered),
        ("the row", values),
    )
    read: dict[str, str | None] = {}
    where, fault = [], None
    for kind, names in _REFERENCE_NAMES.items():
        read[kind] = None
        for (place, holder), name in itertools.product(places, names):
            value = holder.get(name)
            if value is None or value in ("", [], {}):
                continue
            try:
                read[kind] = _REFERENCE_READERS[kind](value)
                where.append(f"{name} of {place}")
            except Fault as error:
                fault = Fault(error.reason, f"{name} of {place}: {error.detail}")
            break
    return References(**read, places=tuple(where), fault=fault)


def _known_constraints(value: Any) -> str | None:
    """:func:`constraints_of`, only of instructions that the verifier knows: others would end its job, and a release has what it
    has."""
    text = constraints_of(value)
    if text is not None:
        read = json.loads(text)
        for name, arguments in zip(read["instruction_id_list"], read["kwargs"], strict=True):
            if fault := instruction_fault(name, arguments):
                raise Fault("wrong_constraints", fault)
    return text


_REFERENCE_READERS: dict[str, Callable[[Any], str | None]] = {
    "answer": answer_of,
    "tests": code_tests_of,
    "constraints": _known_constraints,
}


def _dialogue(values: Mapping[str, Any], column: str) -> tuple[list[dict[str, Any]], Turns]:
    """All turns as found, and those of the query. Raises :class:`Fault`."""
    if values.get(column) is None:
        raise Fault("missing_column", f"no {column}")
    found = decoded(values[column], column)
    return found, turns_of({"turns": found})


def _info(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    return turn["info"] if isinstance(turn.get("info"), Mapping) else {}


def _oddities(text: str, info: Mapping[str, Any], places: tuple[Mapping[str, Any], ...]) -> list[str]:
    """Words of :data:`ODDITIES` but for the reference's."""
    found = []
    parts = split_response(text)
    for field, part, word in (
        ("think_content", parts.thinking, "thinking_field_differs"),
        ("answer_content", parts.answer, "answer_field_differs"),
    ):
        said = info.get(field)
        # What has no parts has nothing to differ from: that is a fault of its own.
        if isinstance(said, str) and part is not None and _bare(said) != part:
            found.append(word)
    for field, word in (("verify_score", "score_not_a_number"), ("ppl", "perplexity_not_a_number")):
        given = next((place[field] for place in places if place.get(field) is not None), None)
        number = isinstance(given, (int, float)) and not isinstance(given, bool) and given == given
        if given is not None and not number:
            found.append(word)
    return found


def _bare(part: str) -> str:
    """A part as the fields hold it, without the tags that some releases leave there."""
    part = part.strip()
    for opened, closed in ((THINK, END_THINK), (ANSWER, END_ANSWER)):
        part = part.removeprefix(opened).removesuffix(closed).strip()
    return part


def _finish_reason(places: tuple[Mapping[str, Any], ...]) -> str | None:
    """How the response ended, None where the row does not say."""
    said = next((place["finish_reason"] for place in places if place.get("finish_reason")), None)
    if said is None:
        return None
    said = text_of(said, "finish_reason")
    return _FINISH_REASONS.get(said.lower(), said)


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


# --- which layout ----------------------------------------------------------------------------------------------------


class Detection(NamedTuple):
    """The layout of a file, and why it was taken for that, in words."""

    layout: str
    why: str


def layout_of(path: Path, name: str, layout: str) -> Detection:
    """The layout of a file: ``layout``, or for ``auto`` what its first rows look like.

    A row is taken for ``open_thoughts`` where its conversations hold that release's marks, for ``am`` where they hold info, for
    ``am_r1`` where its messages hold info, and for ``messages`` where they do not. The layout of most rows is the file's.
    Raises :class:`InputError` where no row looks like any.
    """
    columns = sorted({column for column, _ in LAYOUTS.values()})
    votes: Counter[str] = Counter()
    signs: Counter[str] = Counter()
    references: Counter[str] = Counter()
    sampled, seen = 0, {}
    for row in itertools.islice(file_rows(path, [], [*columns, *OPTIONAL_COLUMNS], name), _SAMPLED_ROWS):
        sampled += 1
        if row.values is None:
            continue
        seen.update(dict.fromkeys(row.values))
        found = _look_of(row.values)
        if found is None:
            continue
        looks, sign = found
        votes[looks] += 1
        signs[sign] += 1
        try:
            references.update(read_query(row.values, looks)[1].places or ["none"])
        except Fault:
            references["none"] += 1
    if layout != "auto":
        given = f"given; {votes[layout]} of the first {sampled} rows look like it"
        return Detection(layout, f"{given}; {_counted('references: ', references)}")
    if not votes:
        names = pq.read_schema(path).names if path.name.endswith(".parquet") else list(seen)
        there = printable(", ".join(names[:30])) or "none"
        raise InputError(
            f"{name}: none of its first {sampled} rows looks like published traces, which have {' or '.join(columns)}; its "
            f"columns are: {there}; bring it to one of these, or set the layout"
        )
    layout = max(votes, key=lambda found: (votes[found], found))
    return Detection(
        layout, f"{_counted('', signs)} of the first {sampled} rows; {_counted('references: ', references)}"
    )


def _look_of(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The layout that a row looks like and the sign of it, None where it looks like none."""
    for column in ("conversations", "messages"):
        try:
            found = decoded(values[column], column) if values.get(column) is not None else None
        except Fault:
            continue
        if not isinstance(found, list) or not found or not all(isinstance(turn, Mapping) for turn in found):
            continue
        informed = any(_info(turn) for turn in found)
        said = [turn.get("content", turn.get("value")) for turn in found]
        if column == "messages":
            return ("am_r1", "messages with info") if informed else ("messages", "messages without info")
        if informed:
            return "am", "conversations with info"
        marked = any(marker in text for text in said if isinstance(text, str) for marker in _MARKERS)
        return "open_thoughts", f"conversations {'with thought marks' if marked else 'without info or marks'}"
    return None


def _counted(before: str, counts: Mapping[str, int]) -> str:
    """Counts in words, the most frequent first."""
    return before + ", ".join(
        f"{count} {what}" for what, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
