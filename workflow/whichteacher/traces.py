"""What the statistics and the report both look for in a trace."""

from __future__ import annotations

import re

#: Words per n-gram of the repetition measure.
NGRAM = 8


def find_answer(thinking: str, reference: str | None, reference_type: str | None) -> int | None:
    """Where the reference first stands in the thinking, as the number of characters up to its end; None if nowhere.

    It must stand free: 12 is not found in 312, 12.5 or 12,500. A choice letter is never looked for, as letters stand
    everywhere. A short number may stand there by chance, or as part of the question: compare teachers on the same
    queries, where chance is the same for all.
    """
    if not reference or reference_type == "choice":
        return None
    found = re.search(rf"(?<![\w.,]){re.escape(reference)}(?!\w|[.,]\d)", thinking)
    return found.end() if found else None


def repeated_share(text: str) -> float | None:
    """Share of the word n-grams of ``text`` that stood before in it; None for a text shorter than one n-gram."""
    words = text.split()
    count = len(words) - NGRAM + 1
    if count < 1:
        return None
    return 1 - len(set(zip(*(words[start:] for start in range(NGRAM)), strict=False))) / count


def shorten(text: str, characters: int = 2000) -> str:
    """``text`` as pages show it: without its end where it is long."""
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text):,} characters)"
