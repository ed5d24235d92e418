"""What one published trace shows of its making: faults of the template, and signs that it was cut off.

Nothing here says whether an answer is right. A *fault* is in the text, for everybody to see; a *sign* of truncation is a
suspicion, since most releases do not say how a response ended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from whichteacher.responses import ANSWER, END_ANSWER, END_THINK, TAGS, THINK, split_response
from whichteacher.structure import foreign_share, foreign_tag, loop_characters, template_token

#: Faults of a trace, in the order of reports; those of whichteacher.published.ODDITIES come after them.
FAULTS = {
    "thinking_missing": "no thinking: the response has none of its tags",
    "thinking_not_closed": "<think> is never closed",
    "thinking_not_opened": "</think> without <think>: the template had opened it",
    "thinking_empty": "nothing between the thinking tags",
    "answer_missing": "nothing after </think>",
    "answer_not_closed": "<answer> is never closed",
    "answer_empty": "nothing between the answer tags",
    "text_outside_tags": "text between </think> and <answer>, or after </answer>",
    "tags_repeated": "a tag stands more than once",
    "tags_in_earlier_turns": "an earlier turn of the assistant holds thinking or answer tags",
    "template_tokens": "special tokens of a chat template stand in the text",
    "foreign_tags": "another family's marks of thinking or answer stand in the text",
    "other_script": "over a tenth of the letters are of a script that the query does not use",
    "loop": "thinking or answer ends in a loop",
}
#: Signs that a response was cut off.
SIGNS = {
    "stated": "the release says so",
    "tag_open": "a thinking or answer tag is never closed",
    "box_open": "the last \\boxed{ is never closed",
    "fence_open": "a code fence is never closed",
    "no_end": "the text ends in the middle of a sentence or a bracket",
    "thinking_unended": "no end of thinking, where most of the release have one",
    "at_length_cap": "exactly as many tokens as many others have and hardly any has nearly: looks like a limit",
}
_TAG = re.compile("|".join(map(re.escape, TAGS)))
#: Share of letters from which another script is a fault.
_OTHER_SCRIPT = 0.1
#: A response of fewer words may be a bare value, which ends as it likes.
_SENTENCE_WORDS = 40
_CUT_ENDS = frozenset(",;:-+=<&\\([{/_")


def find_faults(turns: Sequence[dict[str, str]], text: str, conversion: str) -> list[str]:
    """Words of :data:`FAULTS` for a response in the project's format and the turns that it answers.

    ``conversion`` says what was done to bring it to the format (words of :data:`whichteacher.responses.CONVERSIONS`).
    """
    found = set()
    fault = split_response(text).fault
    if fault == "thinking_not_closed" and THINK not in text:
        fault = "thinking_missing"
    if fault == "nested_tags":
        fault = "tags_repeated"
    if fault == "answer_missing" and text.rpartition(END_THINK)[2].strip():
        # There is an answer, and only its tags are missing: no layout but ``am`` leaves that so.
        fault = "text_outside_tags"
    if fault:
        found.add(fault)
    if "think_prefilled" in conversion.split():
        found.add("thinking_not_opened")
    if any(text.count(tag) > 1 for tag in TAGS):
        found.add("tags_repeated")
    said = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    asked = "\n".join(turn["content"] for turn in turns if turn["role"] == "user")
    if any(tag in content for content in said for tag in TAGS) or any(foreign_tag(content, asked) for content in said):
        found.add("tags_in_earlier_turns")
    parts = _TAG.split(text)
    bare = "\n".join(parts)
    if template_token(bare) or any(template_token(turn["content"]) for turn in turns):
        found.add("template_tokens")
    if foreign_tag(bare, asked):
        found.add("foreign_tags")
    if foreign_share(asked, bare) > _OTHER_SCRIPT:
        found.add("other_script")
    if any(map(loop_characters, parts)):
        found.add("loop")
    return [name for name in FAULTS if name in found]


def find_signs(text: str, conversion: str, finish_reason: str, finish_stated: bool) -> list[str]:
    """Words of :data:`SIGNS` but for ``thinking_unended`` and ``at_length_cap``, which take the other responses to tell.

    Where the release says how the response ended, that alone counts; where the model closed its answer itself, it was not cut.
    """
    if finish_stated:
        return ["stated"] if finish_reason == "length" else []
    found = []
    tail = text.rpartition(END_THINK)[2] if END_THINK in text else text
    answer = tail.replace(ANSWER, "").replace(END_ANSWER, "").strip()
    if (THINK in text and END_THINK not in text) or (ANSWER in tail and END_ANSWER not in tail):
        found.append("tag_open")
    box = answer.rfind("\\boxed{")
    if box >= 0 and not _closes(answer, box + len("\\boxed{")):
        found.append("box_open")
    if answer.count("```") % 2:
        found.append("fence_open")
    closed = END_ANSWER in tail and "answer_tags_added" not in conversion.split()
    if not closed and not found and len(answer.split()) >= _SENTENCE_WORDS and _ends_inside(answer):
        found.append("no_end")
    return found


def _closes(text: str, start: int) -> bool:
    """Whether the brace before ``start`` is closed."""
    depth = 1
    for sign in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(sign.group(), 0)
        if not depth:
            return True
    return False


def _ends_inside(text: str) -> bool:
    """Whether a text ends where no sentence does: in a lower-case word of prose, in a bracket, or with a sign that joins."""
    last = text[-1]
    line = text[text.rfind("\n") + 1 :].strip()
    if line.count("(") > line.count(")"):
        return True
    # Points of a list, headings and cells of a table end without a full stop.
    if re.match(r"[-*#|>•]|\d+[.)]", line):
        return last in _CUT_ENDS
    return last in _CUT_ENDS or (last.islower() and last.isascii() and len(line.split()) > 3)
