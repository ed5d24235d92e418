"""What can be wrong with a dialogue and its response as text: structure, leaked tags, mixed scripts, loops.

The functions look at texts alone, so they serve curated traces and published ones alike.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from whichteacher.responses import TAGS, split_response


class Fault(NamedTuple):
    """Why a text is refused: ``reason`` as the ledger names it, ``detail`` is what was found."""

    reason: str
    detail: str | None = None


# --- structure -------------------------------------------------------------------------------------------------------


def structure_fault(
    turns: Sequence[dict[str, str]], text: str, answer_format: str = "tags", leaks: bool = True
) -> Fault | None:
    """The first fault of the dialogue that the response ``text`` completes, None where there is none.

    ``turns`` (``role``, ``content``) end with the user's last message. The paper asks for an even number of turns and for
    both segments (section 2.2); user and assistant must also alternate, no turn may be empty, and every tag of the format
    stands exactly once. ``leaks`` also refuses what :func:`leaked` finds in the response or an earlier turn.
    """
    roles = [turn["role"] for turn in turns] + ["assistant"]
    if len(roles) % 2:
        return Fault("structure_odd_turns", str(len(roles)))
    if roles != ["user", "assistant"] * (len(roles) // 2):
        return Fault("structure_roles", " ".join(roles))
    if not all(turn["content"].strip() for turn in turns):
        return Fault("structure_turn_empty")
    parts = split_response(text, answer_format)
    if parts.fault:
        return Fault(f"structure_{parts.fault}")
    return leak_fault(turns, f"{parts.thinking}\n{parts.answer}") if leaks else None


# --- leaks -----------------------------------------------------------------------------------------------------------

#: Names between the bars of special tokens, by family: ChatML and Qwen, Llama 3, gpt-oss, Phi, GLM, Cohere.
_SPECIAL = (
    *("im_start", "im_end", "im_sep", "endoftext", "startoftext", "fim_prefix", "fim_middle", "fim_suffix", "fim_pad"),
    *("repo_name", "file_sep", "object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end"),
    *("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"),
    *("begin_of_text", "end_of_text", "eot_id", "eom_id", "start_header_id", "end_header_id", "python_tag"),
    *("channel", "message", "constrain", "start", "end", "return", "call", "endofprompt"),
    *("system", "user", "assistant", "observation", "begin_of_box", "end_of_box", "pad", "eos", "bos"),
    *("START_OF_TURN_TOKEN", "END_OF_TURN_TOKEN", "SYSTEM_TOKEN", "USER_TOKEN", "CHATBOT_TOKEN"),
)
#: What a chat template writes between turns. Full-width bars are DeepSeek's. ``</s>`` is HTML too, so it counts only as
#: the last thing of a text.
_TEMPLATE_TOKEN = re.compile(
    rf"<\|(?:{'|'.join(_SPECIAL)})\|>|<\uff5c[^<>\uff5c\n]{{1,40}}\uff5c>|<(?:start|end)_of_turn>"
    r"|\[/?INST\]|<</?SYS>>|(?:</s>|<eos>)(?=\s*\Z)"
)
#: How other families mark thinking and answer, and this one's tags in another spelling.
_FOREIGN_TAG = re.compile(
    r"<\s*/?\s*(?:think|answer)\s*/?\s*>|</?(?:thinking|thoughts?|reasoning|reflection|scratchpad|seed:think)>"
    r"|<\|(?:begin|end)_of_(?:thought|solution)\|>|\u25c1/?think\u25b7|\[/?THINK\]|\[(?:BEGIN|END) FINAL RESPONSE\]",
    re.IGNORECASE,
)


def template_token(text: str) -> str | None:
    """The first token of a chat template in ``text``: it would start or end a turn in training."""
    found = _TEMPLATE_TOKEN.search(text)
    return found[0] if found else None


def foreign_tag(text: str, asked: str = "") -> str | None:
    """The first tag by which another family marks thinking or answer; one that the query ``asked`` holds is no leak."""
    return next((found[0] for found in _FOREIGN_TAG.finditer(text) if found[0] not in asked), None)


def leak_fault(turns: Sequence[dict[str, str]], parts: str) -> Fault | None:
    """A leak in thinking and answer (``parts``, without the format's own tags) or in an earlier turn.

    Template tokens count in every turn. A user may write of tags; an earlier turn of the assistant with tags, the
    format's own too, holds reasoning that no template would show again.
    """
    if token := template_token(parts):
        return Fault("structure_template_token", token)
    asked = "\n".join(turn["content"] for turn in turns if turn["role"] == "user")
    if tag := foreign_tag(parts, asked):
        return Fault("structure_foreign_tag", tag)
    for turn in turns:
        if token := template_token(turn["content"]):
            return Fault("structure_template_token_in_turn", token)
        if turn["role"] == "assistant":
            tag = next((tag for tag in TAGS if tag in turn["content"]), None) or foreign_tag(turn["content"], asked)
            if tag and tag not in asked:
                return Fault("structure_tag_in_turn", tag)
    return None


# --- scripts ---------------------------------------------------------------------------------------------------------

#: First code points of ranges of letters, and the script of each; "" are no letters, or letters that formulas of every
#: language use (Greek, letter-like and mathematical symbols).
_RANGES = (
    (0x0041, "latin"), (0x005B, ""), (0x0061, "latin"), (0x007B, ""), (0x00AA, "latin"), (0x00AB, ""),
    (0x00BA, "latin"), (0x00BB, ""), (0x00C0, "latin"), (0x00D7, ""), (0x00D8, "latin"), (0x00F7, ""),
    (0x00F8, "latin"), (0x02B0, ""), (0x0400, "cyrillic"), (0x0530, "other"), (0x1100, "cjk"), (0x1200, "other"),
    (0x1D00, ""), (0x1E00, "latin"), (0x1F00, ""), (0x2C00, "other"), (0x2C60, "latin"), (0x2C80, "other"),
    (0x2E00, ""), (0x2E80, "cjk"), (0x3000, ""), (0x3005, "cjk"), (0x3008, ""), (0x3021, "cjk"), (0x3030, ""),
    (0x3031, "cjk"), (0x3200, ""), (0x3400, "cjk"), (0x4DC0, ""), (0x4E00, "cjk"), (0xA000, "other"),
    (0xA640, "cyrillic"), (0xA6A0, "other"), (0xA720, "latin"), (0xA800, "other"), (0xA960, "cjk"), (0xA980, "other"),
    (0xAB30, "latin"), (0xAB70, "other"), (0xAC00, "cjk"), (0xD800, ""), (0xF900, "cjk"), (0xFB00, "latin"),
    (0xFB07, "other"), (0xFE00, ""), (0xFE70, "other"), (0xFEFF, ""), (0xFF21, "latin"), (0xFF3B, ""),
    (0xFF41, "latin"), (0xFF5B, ""), (0xFF66, "cjk"), (0xFFE0, ""), (0x10000, "other"), (0x1D400, ""),
    (0x1D800, "other"), (0x1F000, ""), (0x20000, "cjk"), (0x323B0, ""),
)  # fmt: skip
_STARTS = [start for start, _ in _RANGES]
_ASCII_LETTER = re.compile(r"[A-Za-z]+")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
#: Code and formulas are written in Latin letters in every language.
_NO_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[A-Za-z]+|https?://\S+",
    re.DOTALL,
)
#: A single Latin letter in other prose names a point or a variable; a short run is a unit or an acronym.
_LATIN_WORD = re.compile(r"[A-Za-z]{4,}")


@functools.cache
def script_of(character: str) -> str:
    """``latin``, ``cjk`` (Han, Kana, Hangul, Bopomofo), ``cyrillic`` or ``other``; "" for what is no letter of a language."""
    return _RANGES[bisect.bisect_right(_STARTS, ord(character)) - 1][1] if character >= "A" else ""


def letters(text: str) -> Counter[str]:
    """Letters of the prose of ``text`` by script; code and formulas are left out."""
    prose = _NO_PROSE.sub(" ", text)
    counts = Counter({"latin": sum(map(len, _ASCII_LETTER.findall(prose)))})
    for character, count in Counter("".join(_BEYOND_ASCII.findall(prose))).items():
        if script := script_of(character):
            counts[script] += count
    if counts.total() > counts["latin"]:
        # Beside another script only words count as Latin.
        counts["latin"] += sum(map(len, _LATIN_WORD.findall(prose))) - sum(map(len, _ASCII_LETTER.findall(prose)))
    return +counts


def foreign_share(asked: str, text: str) -> float:
    """Share of the letters of ``text`` in scripts that the query ``asked`` does not use; 0 where either has no letters.

    Chinese in the response to an English query, English words in that to a Chinese one. A query that asks for a translation
    counts as well, so compare teachers on the same queries.
    """
    used = letters(asked)
    beyond = {script_of(character) for character in set("".join(_BEYOND_ASCII.findall(text)))} - {""}
    if not used or ("latin" in used and beyond <= used.keys()):
        return 0.0  # of almost all texts, without counting
    found = letters(text)
    if not found:
        return 0.0
    return sum(count for script, count in found.items() if script not in used) / found.total()


# --- loops -----------------------------------------------------------------------------------------------------------

#: A loop is a passage that stands at least this often at the end of a text, and at least so many characters in all.
LOOP_REPEATS, LOOP_CHARACTERS = 4, 200
#: Longest passage that is looked for.
LOOP_PERIOD = 4000
#: Characters at the end that must have stood before: most texts are done here.
_LOOP_PROBE = 32


def loop_characters(text: str) -> int:
    """Length of the loop that ``text`` ends in, in characters; 0 where it ends in none.

    Exact repeats only: a loop that counts up is none. Rules and fillers (repeats without a letter or digit) are none either.
    """
    text = text.rstrip()
    if len(text) < LOOP_CHARACTERS:
        return 0
    probe, end = text[-_LOOP_PROBE:], len(text)
    start = max(0, end - LOOP_PERIOD - _LOOP_PROBE)
    found = text.rfind(probe, start, end - 1)
    while found >= 0:
        period = end - len(probe) - found
        least = max(LOOP_REPEATS * period, LOOP_CHARACTERS)
        if least <= end and text[end - least : end - period] == text[end - least + period :]:
            if not any(map(str.isalnum, text[end - period :])):
                return 0
            start = end - least
            while start and text[start - 1] == text[start - 1 + period]:
                start -= 1
            return end - start
        found = text.rfind(probe, max(0, end - LOOP_PERIOD - _LOOP_PROBE), found + len(probe) - 1)
    return 0
