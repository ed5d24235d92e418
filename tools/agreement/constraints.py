"""Instruction following against IFEval's own verdicts, and the language detection that its length limit rests on."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from agreement import Graded, Row, read_rows, tally
from whichteacher.config import Verification
from whichteacher.responses import join_response
from whichteacher.verifiers.constraints import TELLING_LETTERS, detect_language
from whichteacher.verifiers.dispatch import verify_many

#: So many questions are cut to few letters, and to the fewest whose language is believed.
_SHORT_TEXTS, _FEW_LETTERS = 250, 40
_WORDS = {True: "pass", False: "fail", None: "unknown"}


def measure(data: Path, jobs: int) -> list[Row]:
    """Whole prompts, single instructions and short English texts; each answer behind thinking that must not count."""
    responses = read_rows(data / "ifeval" / "ifeval_gpt4_verdicts.jsonl")
    verdicts = verify_many([_row(response) for response in responses], Verification(), jobs, "constraints")
    followed = [list(json.loads(verdict["evidence"])["followed"].values()) for verdict in verdicts]
    prompts = [
        Graded(str(response["key"]), verdict["verdict"], all(response["follow_strict"]), verdict["reason"])
        for response, verdict in zip(responses, verdicts, strict=True)
    ]
    instructions = [
        Graded(f"{response['key']} {identifier}", _WORDS[ours], theirs, f"{len(response['response'])} characters")
        for response, all_ours in zip(responses, followed, strict=True)
        for identifier, ours, theirs in zip(
            response["instruction_id_list"], all_ours, response["follow_strict"], strict=True
        )
    ]
    return [
        tally("IFEval, prompts", prompts, "GPT-4's responses, strict"),
        tally("IFEval, instructions", instructions, "the same, one by one"),
        *(_short_english(data, letters) for letters in (_FEW_LETTERS, TELLING_LETTERS)),
    ]


def _row(response: dict[str, Any]) -> dict[str, Any]:
    constraints = {name: response[name] for name in ("instruction_id_list", "kwargs")}
    return {
        "attempt_id": str(response["key"]),
        "query_id": str(response["key"]),
        "category": "instruction_following",
        "text": join_response("Hmm, <<well>>, *let* me see.", response["response"]),
        "finish_reason": "stop",
        "answer_format": "tags",
        "constraints": json.dumps(constraints),
    }


def _short_english(data: Path, letters: int) -> Row:
    graded = []
    for question in read_rows(data / "benchmarks" / "gsm8k_test.jsonl")[:_SHORT_TEXTS]:
        text = question["question"]
        counts = itertools.accumulate(map(str.isalpha, text))
        short = "".join(letter for letter, count in zip(text, counts, strict=True) if count <= letters)
        found = detect_language(short)
        graded.append(Graded(str(question["id"]), _WORDS[found == "en"], True, f"taken for {found}"))
    return tally(f"GSM8K, {letters} letters", graded, "English questions, cut; theirs: English")
