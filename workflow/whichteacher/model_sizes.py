"""How many parameters a model of a hub has, as far as its name or its card tells: for estimates before anything is fetched."""

from __future__ import annotations

import re
from typing import NamedTuple


class Size(NamedTuple):
    """Parameters of a model: all of them, and those that one token passes (``active``: all, where the name tells no other number)."""

    parameters: float
    active: float


#: As the models' cards print them, where the name does not.
_CARDS = {
    "a-m-team/AM-Thinking-v1": Size(32.8e9, 32.8e9),
    "deepseek-ai/DeepSeek-R1": Size(671e9, 37e9),
}
#: "32B", "1.5b", "8x7B", "500M" in a hub id; not "A22B" (the active ones of a mixture), and no version ("2.5").
_ALL = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)
_ACTIVE = re.compile(r"(?<![A-Za-z0-9.])A(\d+(?:\.\d+)?)B(?![A-Za-z0-9])", re.IGNORECASE)


def size_of(model: str) -> Size | None:
    """The size that a hub id tells ("Qwen/Qwen3-235B-A22B": 235e9, of which 22e9 active), None where it tells none."""
    if model in _CARDS:
        return _CARDS[model]
    name = model.rpartition("/")[2]
    found, active = _ALL.search(name), _ACTIVE.search(name)
    if found is None:
        return None
    many, number, unit = found.groups()
    parameters = int(many or 1) * float(number) * (1e9 if unit.upper() == "B" else 1e6)
    return Size(parameters, float(active[1]) * 1e9 if active else parameters)
