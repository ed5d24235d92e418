"""One look for every figure, and files whose bytes depend on the data alone.

This run is drawn in its teachers' colours, the paper's published values beside it in greys, so that the two are never
mistaken for one another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from whichteacher.tables import atomic_path, write_text

INK, MUTED, RULE = "#1f2933", "#5b6770", "#d9dee3"
#: The paper's three teachers, in its order. Told apart by lightness, also in print.
PAPER_GREYS = ("#3d4852", "#8795a1", "#c5ced6")
PAPER_LABELS = {"AM-Thinking-v1": "AM-Thinking-v1", "Qwen3-235B-A22B": "Qwen3-235B", "DeepSeek-R1": "DeepSeek-R1"}
#: Category colours of Paul Tol's "muted" scheme, which stays distinct to colour-blind readers.
CATEGORY_COLOURS = {
    "general chat": "#88ccee",
    "math": "#332288",
    "code": "#117733",
    "science": "#ddcc77",
    "if": "#cc6677",
}
#: The five groups of the paper's Figure 2.
PAPER_CATEGORIES = {
    "multi_turn": "general chat",
    "general": "general chat",
    "math": "math",
    "code": "code",
    "science": "science",
    "instruction_following": "if",
}
CATEGORY_LABELS = {"if": "instruction following"}
THIS_RUN, PAPER = "this run", "paper"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff2",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "svg.fonttype": "path",  # glyphs as paths: the same picture wherever it is opened
    "pdf.fonttype": 42,  # text that can be searched and selected
}


def new_figure(width: float, height: float, **grid: object) -> tuple[Figure, np.ndarray]:
    """A figure of ``width`` x ``height`` inches in the project's style, and its axes as a two-dimensional array."""
    plt.rcdefaults()
    plt.rcParams.update(_STYLE)
    figure, axes = plt.subplots(figsize=(width, height), squeeze=False, **grid)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    return figure, axes


def save(figure: Figure, data: pd.DataFrame, name: str, svg: str, png: str, pdf: str, csv: str) -> None:
    """Write a figure as SVG, PNG and PDF and its data as CSV. ``name`` seeds the ids inside the SVG."""
    kinds = (
        (svg, "svg", {"Date": None, "Creator": None}),
        (png, "png", {"Software": None}),
        (pdf, "pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
    )
    with plt.rc_context({"svg.hashsalt": name}):
        for path, kind, metadata in kinds:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
    plt.close(figure)
    write_text(csv, data.to_csv(index=False))


def read_published(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A file of config/published: the paper's numbers, one per row."""
    return pd.read_csv(path, dtype={"item": str, "page": "Int64"})


def thousands(axis: object) -> None:
    """Label an axis with few, grouped whole numbers."""
    axis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def say_empty(ax: Axes, text: str) -> None:
    """Put ``text`` where there is nothing to draw."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED, wrap=True)


def _two_lines(label: str) -> str:
    """A long name broken at its middle hyphen or space, for the foot of a narrow column."""
    breaks = [place for place, letter in enumerate(label[:-1]) if letter in "- "]
    if len(label) <= 9 or not breaks:
        return label
    place = min(breaks, key=lambda found: abs(found + 1 - len(label) / 2)) + 1
    return f"{label[:place].rstrip()}\n{label[place:]}"


def draw_boxes(
    ax: Axes,
    boxes: Sequence[Mapping[str, float]],
    labels: Sequence[str],
    colours: Sequence[str],
    decimals: int = 1,
) -> None:
    """Box plots, without outliers, each mean marked and printed above its box."""
    drawn = ax.bxp(
        [
            {
                "mean": box["mean"],
                "whislo": box["low_whisker"],
                "q1": box["q1"],
                "med": box["median"],
                "q3": box["q3"],
                "whishi": box["high_whisker"],
            }
            for box in boxes
        ],
        widths=0.55,
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        medianprops={"color": "white", "linewidth": 2},
        meanprops={"marker": "D", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": INK},
        whiskerprops={"color": MUTED},
        capprops={"color": MUTED},
    )
    for patch, colour in zip(drawn["boxes"], colours, strict=True):
        patch.set(facecolor=colour, edgecolor="none")
    for position, box in enumerate(boxes, start=1):
        ax.annotate(
            f"{box['mean']:,.{decimals}f}",
            (position, max(box["high_whisker"], box["mean"])),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontweight="bold",
            fontsize=9,
        )
    ax.set_xticks(range(1, len(labels) + 1), [_two_lines(label) for label in labels])
    ax.grid(visible=False, axis="x")
    ax.margins(y=0.12)
    ax.set_ylim(bottom=0)
