"""Instruction following: the verifiable instructions of IFEval (Zhou et al. 2023, arXiv 2311.07911), strict, on the answer part.

Written from the published definitions, because the public packages download a sentence model when imported. Words are runs of
letters, digits and underscores. Sentences are counted by rule (see :func:`count_sentences`), and which language a text is in is not
decided here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from whichteacher.rule import InputError
from whichteacher.verifiers.outcome import Outcome, undecided

#: Known instructions that need a model; they stay undecided.
UNDECIDED = frozenset({"language:response_language"})

_RESPONSES = ("my answer is yes.", "my answer is no.", "my answer is maybe.")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Co|vs|etc|e\.g|i\.e|[A-Z])\.(?=\s)")
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")


def version() -> str:
    """Version of the rules."""
    return "1"


def count_words(text: str) -> int:
    """Runs of word characters."""
    return len(re.findall(r"\w+", text))


def count_sentences(text: str) -> int:
    """Sentences: ends at full stops, exclamation and question marks before a space, abbreviations and initials apart."""
    text = _ABBREVIATION.sub(lambda match: match[0][:-1], text.strip())
    pieces = [piece for piece in _SENTENCE_END.split(text) if re.search(r"\w", piece)]
    return len(pieces)


def _related(count: int, relation: str | None, wanted: int) -> bool:
    """IFEval's two relations."""
    if relation == "less than":
        return count < wanted
    if relation in (None, "at least"):
        return count >= wanted
    raise ValueError(f"unknown relation {relation!r}")


def _occurrences(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.IGNORECASE))


def _keyword(text: str, keyword: str) -> int:
    return _occurrences(re.escape(keyword), text)


def _paragraphs(text: str, separator: str) -> list[str] | None:
    """Paragraphs between separators; None where one in the middle is empty."""
    parts = re.split(separator, text)
    filled = [part for index, part in enumerate(parts) if part.strip() or 0 < index < len(parts) - 1]
    return None if any(not part.strip() for part in filled) else filled


def _number_paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = _paragraphs(text, r"\s?\*\*\*\s?")
    return parts is not None and len(parts) == num_paragraphs


def _nth_paragraph(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = [part.strip() for part in re.split(r"\n\n", text)]
    filled = [part for part in parts if part]
    if len(filled) != num_paragraphs or nth_paragraph > len(parts) or not parts[nth_paragraph - 1]:
        return False
    word = re.match(r"[\"']*([^\s.,?!'\"]*)", parts[nth_paragraph - 1])
    return word is not None and word[1].lower() == first_word.lower()


def _postscript(text: str, postscript_marker: str) -> bool:
    spelled = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(
        postscript_marker, re.escape(postscript_marker.lower())
    )
    return re.search(rf"^\s*{spelled}|\s{spelled}", text.lower(), re.MULTILINE) is not None


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.split(rf"\s?{re.escape(section_spliter)}\s?\d+\s?", text)) - 1 >= num_sections


def _highlights(text: str, num_highlights: int) -> bool:
    single = [match.strip("*").strip() for match in re.findall(r"\*[^\n*]*\*", text)]
    double = [match.removeprefix("**").removesuffix("**").strip() for match in re.findall(r"\*\*[^\n*]*\*\*", text)]
    return sum(map(bool, single)) + sum(map(bool, double)) >= num_highlights


def _bullets(text: str, num_bullets: int) -> bool:
    stars = re.findall(r"^\s*\*[^*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def _json_format(text: str) -> bool:
    text = re.sub(r"^```(?:json|JSON|Json)?", "", text.strip()).removesuffix("```").strip()
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _title(text: str) -> bool:
    return any(match.strip("<>").strip() for match in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str) -> bool:
    parts = text.split("******")
    filled = [part.strip() for index, part in enumerate(parts) if part.strip() or 0 < index < len(parts) - 1]
    return len(filled) == 2 and all(filled) and filled[0] != filled[1]


def _capital_words(text: str, capital_frequency: int, capital_relation: str | None = None) -> bool:
    words = re.findall(r"[\w'-]*\w", text)
    return _related(sum(word.isupper() for word in words), capital_relation, capital_frequency)


def _quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == '"' and text[-1] == '"'


def _ends_with(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


CHECKS: dict[str, Callable[..., bool]] = {
    "keywords:existence": lambda text, keywords: all(_keyword(text, word) for word in keywords),
    "keywords:forbidden_words": lambda text, forbidden_words: (
        not any(_occurrences(rf"\b{re.escape(word)}\b", text) for word in forbidden_words)
    ),
    "keywords:frequency": lambda text, keyword, frequency, relation=None: _related(
        _keyword(text, keyword), relation, frequency
    ),
    "keywords:letter_frequency": lambda text, letter, let_frequency, let_relation=None: _related(
        text.lower().count(letter.lower()), let_relation, let_frequency
    ),
    "length_constraints:number_words": lambda text, num_words, relation=None: _related(
        count_words(text), relation, num_words
    ),
    "length_constraints:number_sentences": lambda text, num_sentences, relation=None: _related(
        count_sentences(text), relation, num_sentences
    ),
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, num_placeholders: (
        len(re.findall(r"\[.*?\]", text)) >= num_placeholders
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text: any(said in text.lower() for said in _RESPONSES),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda text, prompt_to_repeat: (
        text.strip().lower().startswith(prompt_to_repeat.strip().lower())
    ),
    "startend:end_checker": _ends_with,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text: text.isupper(),
    "change_case:english_lowercase": lambda text: text.islower(),
    "punctuation:no_comma": lambda text: "," not in text,
}


def follows(identifier: str, arguments: dict[str, Any], text: str) -> bool | None:
    """Whether ``text`` follows one instruction; None where rules cannot tell.

    Raises :class:`InputError` for an identifier that is not IFEval's or arguments it does not take.
    """
    if identifier in UNDECIDED:
        return None
    if identifier not in CHECKS:
        raise InputError(
            f"instruction {identifier!r} is no IFEval instruction this version knows: correct `instruction_id_list` "
            f"(known: {', '.join(sorted([*CHECKS, *UNDECIDED]))})"
        )
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return bool(text.strip()) and CHECKS[identifier](text, **given)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"instruction {identifier!r} does not take kwargs {given}: correct `kwargs` ({error})"
        ) from None


def check(answer: str, constraints: str | None) -> Outcome:
    """The share of the query's instructions that the answer follows.

    ``constraints`` is the JSON of QUERIES. One instruction the rules cannot decide leaves the whole undecided unless the others
    already failed. Raises :class:`InputError` for an unknown instruction.
    """
    try:
        payload = json.loads(constraints or "")
        pairs = list(zip(payload["instruction_id_list"], payload["kwargs"], strict=True))
    except (ValueError, KeyError, TypeError):
        return undecided("reference_unreadable")
    if not pairs:
        return undecided("no_reference")
    followed = {}
    for index, (identifier, arguments) in enumerate(pairs):
        followed[f"{index} {identifier}"] = follows(identifier, arguments or {}, answer)
    values = list(followed.values())
    if None in values:
        return undecided("no_judge", followed=followed)
    reason = "followed" if all(values) else "not_followed"
    return Outcome(sum(values) / len(values), reason, {"followed": followed})
