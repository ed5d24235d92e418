"""Numbers as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def number(value: float | None, decimals: int = 0, unit: str = "") -> str:
    """A number for readers: grouped, with a true minus, an en dash where there is none."""
    if value is None or pd.isna(value):
        return "–"
    text = f"{value:,.{decimals}f}".replace("-", "−")
    return f"{text} {unit}" if unit else text


def percent(value: float | None) -> str:
    """A share as percent with one decimal."""
    return number(None if value is None else 100 * value, 1, "%")


def duration(seconds: float) -> str:
    """Seconds as the largest fitting unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return number(seconds / size, 1, unit)
    return number(seconds, 1, "s")


def p_value(value: float) -> str:
    """A p value to two digits, never as zero."""
    if pd.isna(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def bounded(row: Mapping[str, Any], value: str, low: str, high: str, decimals: int = 1) -> str:
    """A number of a row with its bounds, where it has any."""
    told = number(row[value], decimals)
    return told if pd.isna(row[low]) else f"{told} [{number(row[low], decimals)}, {number(row[high], decimals)}]"


def interval(row: Mapping[str, Any], decimals: int) -> str:
    """A difference with its bounds."""
    sign = "+" if row["difference"] > 0 and not pd.isna(row["low"]) else ""
    return sign + bounded(row, "difference", "low", "high", decimals)


def excludes_zero(row: Mapping[str, Any]) -> bool:
    """Whether the interval of a row lies on one side of zero."""
    return bool(row["low"] > 0 or row["high"] < 0)


def pair(row: Mapping[str, Any], teachers: Mapping[str, str]) -> str:
    """The two teachers of a row, on one line."""
    return f"{teachers[row['teacher_a']]} − {teachers[row['teacher_b']]}".replace(" ", "\u00a0")
