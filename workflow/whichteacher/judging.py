"""Judges: what they are asked, and what is read from what they say.

A judge is a language model or a reward model behind an engine and the store, like a teacher, at temperature 0. It sees the
query, the reference and the answer part, never the reasoning: a long trace would sway it or overflow its context. What it is
asked stands in ``resources/judge_prompts``, one file per task and version, because the paper publishes none of its prompts; a
prompt that changes gets a new file.

=====================  ===============  ======================================  =========================================
category               task             asked for                               score
=====================  ===============  ======================================  =========================================
math                   equivalence      answers that failed by rule             1 equal, 0 different
science                similarity       answers that no rule decides            0 to 5, divided by 5
multi_turn, general    rating           every finished answer                   (helpfulness + correctness + coherence) / 12
instruction_following  constraints      queries without constraints             none: the rules check what it writes down
=====================  ===============  ======================================  =========================================

The paper's section 2.2 names the tasks, its predecessor (DeepDistill, section 2.4.1) their scales.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whichteacher.engines.respond import Response
from whichteacher.engines.reward import SCORED
from whichteacher.instructions import instruction_fault
from whichteacher.responses import END_THINK
from whichteacher.verifiers.math import last_boxed
from whichteacher.verifiers.outcome import Outcome, undecided

PROMPTS_FOLDER = Path(__file__).resolve().parents[2] / "resources" / "judge_prompts"

#: The current prompt of each category's task: the name of its file.
PROMPTS = {
    "math": "equivalence-1",
    "science": "similarity-1",
    "multi_turn": "rating-1",
    "general": "rating-1",
    "instruction_following": "constraints-1",
}
#: The most that a rating can be (HelpSteer2's scale), and a similarity.
_TOP_RATING = 4
_TOP_SIMILARITY = 5
#: Verdicts by rule that no judge is asked about: nothing was compared, or what was compared leaves no doubt. Two different
#: integers, letters or measured numbers are different whatever a model says of them.
_CERTAIN = frozenset({"no_reference", "no_box", "empty_box", "other_integer", "other_letter", "other_number"})
#: So much of what a judge said is kept as evidence: its last words, where the judgement stands.
_SHOWN_CHARACTERS = 400

#: Where a prompt shows reference and answer.
_SECTIONS = {name: f"<{name}>\n{{{name}}}\n</{name}>" for name in ("reference", "answer")}
_SECTION = re.compile("|".join(map(re.escape, _SECTIONS.values())))
_PLACE = re.compile(r"\{(query|reference|answer)\}")
_VERDICT = re.compile(r"^[^\w\n]*verdict[^\w\n]+(equal|different)[^\w\n]*$", re.IGNORECASE | re.MULTILINE)


def is_judged(category: str, verdict: str, reason: str, reference: str | None) -> bool:
    """Whether a finished answer of ``category``, with this verdict by rule, goes to the judge."""
    if category in ("multi_turn", "general"):
        return True
    if not reference or reason in _CERTAIN:
        return False
    return verdict != "pass" if category in ("math", "science") else False


def _shown_query(turns: Sequence[Mapping[str, str]]) -> str:
    """A dialogue as text: its only message, or every message under its role."""
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in turns)


def chats_of(rows: Sequence[Mapping[str, Any]], engine: str, swapped: bool = False) -> list[list[dict[str, str]]]:
    """What a judge is given for each row (category, turns, reference and answer part); ``swapped`` as in :func:`ask`."""
    if engine == "reward":
        return [rate(row["turns"], row["answer"]) for row in rows]
    return [ask(row["category"], row["turns"], row["reference"], row["answer"], swapped) for row in rows]


def outcome_of(category: str, engine: str, response: Response) -> Outcome:
    """What a judge's response decides."""
    if response.finish_reason != "stop":
        return undecided(f"judge_{response.finish_reason}")
    return read_judgement(category, engine, response.text)


def ask(
    category: str,
    turns: Sequence[Mapping[str, str]],
    reference: str | None = None,
    answer: str = "",
    swapped: bool = False,
) -> list[dict[str, str]]:
    """The chat that asks a language model about ``answer`` (for ``instruction_following`` about the query itself).

    Of a mathematics or science answer with a box, the box is shown alone. ``swapped`` shows the answer before the
    reference. Raises :class:`ValueError` where the prompt does not show both.
    """
    if category in ("math", "science"):
        answer = last_boxed(answer) or answer
    values = {"query": _shown_query(turns), "reference": reference or "", "answer": answer}
    template = (PROMPTS_FOLDER / f"{PROMPTS[category]}.txt").read_text(encoding="utf-8")
    if swapped:
        if sorted(_SECTION.findall(template)) != sorted(_SECTIONS.values()):
            raise ValueError(f"{PROMPTS[category]} does not show reference and answer once each")
        other = {_SECTIONS["reference"]: _SECTIONS["answer"], _SECTIONS["answer"]: _SECTIONS["reference"]}
        template = _SECTION.sub(lambda section: other[section[0]], template)
    # In one pass: what a value holds is never a place itself.
    return [{"role": "user", "content": _PLACE.sub(lambda place: values[place[1]], template)}]


def rate(turns: Sequence[Mapping[str, str]], answer: str) -> list[dict[str, str]]:
    """The dialogue that a reward model scores: the query's turns and the answer part."""
    return [
        *({"role": turn["role"], "content": turn["content"]} for turn in turns),
        {"role": "assistant", "content": answer},
    ]


def _number(name: str, top: float, text: str) -> float | None:
    """The last ``name: number`` that stands on a line of its own; None where there is none from 0 to ``top``."""
    pattern = rf"^[^\w\n]*{name}[^\w\n-]+(-?\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*{top})?[^\w\n]*$"
    found = re.findall(pattern, text, re.IGNORECASE | re.MULTILINE)
    value = float(found[-1]) if found else -1.0
    return value if 0 <= value <= top else None


def read_judgement(category: str, engine: str, text: str) -> Outcome:
    """What a judgement says. One that says nothing that was asked for is undecided (``judge_unreadable``).

    ``text`` of the engine ``reward`` is a JSON object of the heads' values. Their sum is cut to the scale: a regression
    may leave it.
    """
    said = text.rpartition(END_THINK)[2].strip()
    evidence: dict[str, Any] = {"said": said[-_SHOWN_CHARACTERS:]}
    if category == "math":
        found = _VERDICT.findall(said)
        score = float(found[-1].lower() == "equal") if found else None
    elif category == "science":
        value = _number("score", _TOP_SIMILARITY, said)
        score = None if value is None else value / _TOP_SIMILARITY
    else:
        if engine == "reward":
            heads = json.loads(text)
            evidence = {"heads": heads}
            values = [heads[name] for name in SCORED]
        else:
            values = [_number(name, _TOP_RATING, said) for name in SCORED]
        score = None if None in values else min(max(sum(values) / (_TOP_RATING * len(SCORED)), 0.0), 1.0)
    return undecided("judge_unreadable", **evidence) if score is None else Outcome(score, "judged", evidence)


def read_constraints(text: str) -> tuple[str | None, list[str]]:
    """The constraints that a judge wrote down, as the JSON of QUERIES (None: none), and what of it could not be used.

    A constraint that the rules do not know or whose arguments do not fit is left out, the others stay. Raises
    :class:`ValueError` where no such object is there.
    """
    said = text.rpartition(END_THINK)[2]
    decoder = json.JSONDecoder()
    for place in re.finditer(r"\{", said):
        try:
            found, _ = decoder.raw_decode(said, place.start())
            pairs = list(zip(found["instruction_id_list"], found["kwargs"], strict=True))
        except (ValueError, KeyError, TypeError):
            continue
        kept, faults = [], []
        for identifier, arguments in pairs:
            try:
                given = {name: value for name, value in dict(arguments or {}).items() if value is not None}
            except (TypeError, ValueError):
                faults.append(f"{identifier}: its arguments are {arguments!r}")
                continue
            if fault := instruction_fault(str(identifier), given):
                faults.append(fault)
            else:
                kept.append((identifier, given))
        names, kwargs = [name for name, _ in kept], [arguments for _, arguments in kept]
        payload = {"instruction_id_list": names, "kwargs": kwargs}
        return (json.dumps(payload, sort_keys=True) if kept else None), faults
    raise ValueError("no object with instruction_id_list and kwargs")
