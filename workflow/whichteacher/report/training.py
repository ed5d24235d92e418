"""What the students were trained on, what it took, and what was proved before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.report.formatting import duration, number, percent
from whichteacher.report.source import Source
from whichteacher.report.table import Table, table

_STUDENT = ("Teacher", "Control", "Seed")


def _student(row: Mapping[str, Any], teachers: Mapping[str, str]) -> tuple[str, str, str]:
    return teachers[row["teacher"]], row["control"], str(row["seed"])


def training_costs(rows: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """What training each student took."""
    shown = [
        (
            *_student(row, teachers),
            number(row["steps"]),
            number(row["tokens_seen"]),
            number(row["loss_tokens_seen"]),
            duration(row["seconds"]),
            number(row["tokens_per_second"]),
            number(row["device_hours"], 1),
            number(row["peak_memory"] / 2**30, 1, "GiB"),
            number(row["parameters"]),
        )
        for row in rows.to_dict("records")
    ]
    heads = ("Steps", "Tokens seen", "With loss", "Time", "Tokens/s", "GPU-hours", "Memory", "Parameters")
    caption = "Training: time over all starts; memory of the fullest GPU, without one of the largest process."
    return table(caption, (*_STUDENT, *heads), shown, text=(0, 1, 2))


def training_data(rows: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """What each student was given, and what its preflight proved."""
    shown = [
        (
            *_student(row, teachers),
            number(row["traces"]),
            number(row["too_long"]),
            number(row["control_token"]),
            number(row["tokens"]),
            percent(row["loss_tokens"] / row["tokens"]),
            number(row["packed_rows"]),
            percent(row["fill"]),
            _exponent(row["neighbour_loss"]),
            _exponent(row["own_loss"]),
            _exponent(row["accumulation_difference"]),
            _exponent(row["repetition_difference"]),
        )
        for row in rows.to_dict("records")
    ]
    heads = (
        "Traces",
        "Too long",
        "Control token",
        "Tokens",
        "With loss",
        "Rows",
        "Filled",
        "By neighbour",
        "By own token",
        "By accumulation",
        "By repetition",
    )
    caption = (
        "One epoch. Traces that are too long, or hold a token of the template as text, are left out, never cut. By neighbour: "
        "how far a packed sample’s loss moves when all tokens before it in its row are exchanged; by own token: when one of its own is; by accumulation: by which share the loss differs "
        "when eight sequences come one after another instead of at once; by repetition: when the same is computed again from the same seed."
    )
    return table(caption, (*_STUDENT, *heads), shown, text=(0, 1, 2))


def _exponent(value: float) -> str:
    return "–" if pd.isna(value) else "0" if value == 0 else f"{value:.1e}".replace("-", "−")


def packed_batches(preflights: Sequence[Source], names: Sequence[str]) -> list[dict[str, Any]]:
    """The first packed samples of each of ``names``, decoded, with the link to their file."""
    return [
        {"name": name, "samples": source.content["batch"], "files": source.links}
        for name, source in zip(names, preflights, strict=True)
    ]
