"""IFEval's instructions by name, with their arguments: what :mod:`whichteacher.verifiers.constraints` checks, also for those who
must know before anything is verified and cannot load what the checks need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The arguments of each instruction, all of them required.
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "keywords:existence": ("keywords",),
    "keywords:forbidden_words": ("forbidden_words",),
    "keywords:frequency": ("keyword", "frequency", "relation"),
    "keywords:letter_frequency": ("letter", "let_frequency", "let_relation"),
    "length_constraints:number_words": ("num_words", "relation"),
    "length_constraints:number_sentences": ("num_sentences", "relation"),
    "length_constraints:number_paragraphs": ("num_paragraphs",),
    "length_constraints:nth_paragraph_first_word": ("num_paragraphs", "nth_paragraph", "first_word"),
    "detectable_content:number_placeholders": ("num_placeholders",),
    "detectable_content:postscript": ("postscript_marker",),
    "detectable_format:number_bullet_lists": ("num_bullets",),
    "detectable_format:constrained_response": (),
    "detectable_format:number_highlighted_sections": ("num_highlights",),
    "detectable_format:multiple_sections": ("section_spliter", "num_sections"),
    "detectable_format:json_format": (),
    "detectable_format:title": (),
    "combination:two_responses": (),
    "combination:repeat_prompt": ("prompt_to_repeat",),
    "startend:end_checker": ("end_phrase",),
    "startend:quotation": (),
    "change_case:capital_word_frequency": ("capital_frequency", "capital_relation"),
    "change_case:english_capital": (),
    "change_case:english_lowercase": (),
    "punctuation:no_comma": (),
    "language:response_language": ("language",),
}
#: What IFEval's relations say.
RELATIONS = ("less than", "at least")
_LISTS = ("keywords", "forbidden_words")


def instruction_fault(name: str, arguments: Mapping[str, Any]) -> str | None:
    """Why an instruction cannot be verified, None where it can."""
    if name not in INSTRUCTIONS:
        return f"no instruction of IFEval: {name!r}"
    if set(arguments) != set(INSTRUCTIONS[name]):
        return f"{name} takes {', '.join(INSTRUCTIONS[name]) or 'no arguments'}, not {', '.join(arguments) or 'none'}"
    for key, value in arguments.items():
        if key in _LISTS:
            fits = isinstance(value, list) and value and all(isinstance(word, str) and word.strip() for word in value)
        elif key.endswith("relation"):
            fits = value in RELATIONS
        elif key.startswith(("num_", "nth_")) or key.endswith("frequency"):
            fits = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        else:
            fits = isinstance(value, str) and bool(value.strip()) and (key != "letter" or len(value) == 1)
        if not fits:
            return f"{name}: {key} cannot be {value!r}"
    if "nth_paragraph" in arguments and not 1 <= arguments["nth_paragraph"] <= arguments["num_paragraphs"]:
        return f"{name}: there is no paragraph {arguments['nth_paragraph']} of {arguments['num_paragraphs']}"
    return None
