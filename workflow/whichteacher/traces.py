"""What the statistics and the report both look for in a trace."""

from __future__ import annotations

import re


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
