"""Figure 7 (ours): the paired difference between the students of every two teachers, with its interval.

Reads the comparison of the students; writes the figure as SVG, PNG and PDF and its data as CSV (the rows of one control,
benchmark by benchmark). A difference is filled with the colour of the teacher that is ahead where its interval excludes
zero, and hollow grey where it does not.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whichteacher.outcomes import ALL
from whichteacher.plotting import INK, MUTED, RULE, new_figure, save, say_empty

#: Inches: width of the figure, margins of its axes and of its texts, height of a line and of what stands around them.
_WIDTH, _LEFT, _RIGHT, _EDGE = 8.0, 2.35, 1.85, 0.15
_LINE, _ABOVE, _BELOW = 0.31, 0.8, 0.6
#: Lines that each benchmark's heading takes.
_HEADING = 1.6


def prepare(comparison: pd.DataFrame, control: str, benchmarks: Mapping[str, str]) -> pd.DataFrame:
    """The rows of one control, all benchmarks together first, each row turned so that the teacher ahead comes first."""
    rows = comparison[comparison["control"] == control].dropna(subset=["low", "high"])
    behind = rows["difference"] < 0
    turned = rows.assign(
        ahead=rows["teacher_b"].where(behind, rows["teacher_a"]),
        behind=rows["teacher_a"].where(behind, rows["teacher_b"]),
        difference=rows["difference"].abs(),
        low=(-rows["high"]).where(behind, rows["low"]),
        high=(-rows["low"]).where(behind, rows["high"]),
    )
    parts = [
        turned[turned["benchmark"] == benchmark].sort_values("difference", ascending=False, kind="stable")
        for benchmark in (ALL, *benchmarks)
    ]
    columns = [
        "control",
        "benchmark",
        "ahead",
        "behind",
        "difference",
        "low",
        "high",
        "p",
        "p_holm",
        "problems",
        "seeds",
    ]
    return pd.concat(parts, ignore_index=True)[columns]


def headline(rows: pd.DataFrame, confidence: float) -> str:
    """What the figure says at a glance: a difference only where an interval excludes zero and Holm's p agrees."""
    sure = (rows["low"] > 0) | (rows["high"] < 0)
    if (sure & (rows["p_holm"] < 1 - confidence)).any():
        return "Every answer verified, yet students differ by teacher"
    if sure.any():
        return "Students may differ by teacher: not settled after correction"
    return "No difference between students is shown"


def draw(
    rows: pd.DataFrame, benchmarks: Mapping[str, str], teachers: Mapping[str, Mapping[str, str]], confidence: float
) -> Figure:
    """One line per pair, under the heading of its benchmark."""
    headings = {ALL: "All benchmarks together", **benchmarks}
    shown = [name for name in headings if (rows["benchmark"] == name).any()]
    height = _LINE * (len(rows) + _HEADING * len(shown)) + _ABOVE + _BELOW
    figure, axes = new_figure(_WIDTH, height)
    ax = axes[0, 0]
    if rows.empty:
        say_empty(ax, "No two teachers to compare")
        return figure
    figure.set_layout_engine(None)
    figure.subplots_adjust(_LEFT / _WIDTH, _BELOW / height, 1 - _RIGHT / _WIDTH, 1 - _ABOVE / height)
    low, high = min(0, rows["low"].min()), max(0, rows["high"].max())
    margin = 0.04 * (high - low) or 1.0
    ax.set_xlim(low - margin, high + margin)
    place = 0.0
    for benchmark in shown:
        here = rows[rows["benchmark"] == benchmark]
        _write(ax, "left", place + _HEADING - 0.5, headings[benchmark], fontweight="bold", fontsize=11)
        _write(ax, "right", place + _HEADING - 0.5, f"{here['problems'].iloc[0]:,} problems", color=MUTED, fontsize=9)
        place += _HEADING
        for row in here.to_dict("records"):
            _draw_row(ax, row, place + 0.5, teachers)
            place += 1
    ax.axvline(0, color=INK, linewidth=1.2, zorder=1)
    ax.set_ylim(place, 0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(f"Points of pass@1 ahead, with {confidence * 100:g} % interval")
    sure = (rows["low"] > 0) | (rows["high"] < 0)
    figure.text(
        _EDGE / _WIDTH,
        1 - 0.3 / height,
        headline(rows, confidence),
        fontsize=14,
        fontweight="bold",
        va="center",
    )
    figure.text(
        _EDGE / _WIDTH,
        1 - 0.6 / height,
        f"{sure.sum()} of {len(rows)} paired differences have an interval that excludes zero; hollow grey: not shown to differ",
        color=MUTED,
        fontsize=9.5,
        va="center",
    )
    return figure


def _write(ax: Axes, side: str, place: float, text: str, **style: object) -> None:
    """Text in the left or right margin, flush with the figure's edge."""
    width = _WIDTH - _LEFT - _RIGHT
    x = (_EDGE - _LEFT) / width if side == "left" else 1 + (_RIGHT - _EDGE) / width
    ax.text(x, place, text, transform=ax.get_yaxis_transform(), ha=side, va="center", **style)


def _draw_row(ax: Axes, row: Mapping[str, Any], place: float, teachers: Mapping[str, Mapping[str, str]]) -> None:
    """One difference: names left, interval in the middle, numbers right."""
    sure = row["low"] > 0 or row["high"] < 0
    colour = teachers[row["ahead"]]["colour"] if sure else "#8795a1"
    ax.axhline(place, color=RULE, linewidth=0.6, zorder=0)
    ax.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=3.2, solid_capstyle="round", zorder=2)
    ax.plot(
        row["difference"],
        place,
        "o",
        markersize=9,
        markerfacecolor=colour if sure else "white",
        markeredgecolor=colour,
        markeredgewidth=2,
        zorder=3,
    )
    _write(ax, "left", place, f"  {teachers[row['ahead']]['label']} over {teachers[row['behind']]['label']}")
    numbers = f"{row['difference']:+.1f}  [{row['low']:.1f}, {row['high']:.1f}]".replace("-", "−")
    look = {"color": INK, "fontweight": "bold"} if sure else {"color": MUTED}
    _write(ax, "right", place, numbers, fontsize=9.5, **look)


def main(
    comparison: str,
    outputs: Mapping[str, str],
    control: str,
    benchmarks: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, str]],
    confidence: float,
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = prepare(pd.read_csv(comparison), control, benchmarks)
    save(draw(rows, benchmarks, teachers, confidence), rows, "differences", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.comparison,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
