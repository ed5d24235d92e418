"""Tables as the template of the report takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Table = dict[str, Any]

#: Columns that tables leave out where they hold one value.
CONSTANT = ("Control", "Category", "Difficulty", "Expected")


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[int] = (0,)) -> Table:
    """A table for the template. ``text`` are the places of the columns that hold text; a row may end in a bool: bold.

    The columns of :data:`CONSTANT` are left out where all rows say the same there.
    """
    found = list(rows)
    places = [
        place for place, head in enumerate(heads) if head not in CONSTANT or len({row[place] for row in found}) > 1
    ]
    return {
        "caption": caption,
        "columns": [{"head": heads[place], "number": place not in text} for place in places],
        "rows": [{"cells": [row[place] for place in places], "sure": row[-1] is True} for row in found],
    }
