"""The paper's Figures 1 to 6 and Tables 1 and 2 from its printed numbers alone, without any run.

Reads config/published: printed values, and values read off the pixels of the figures, which are marked as such under each picture.
Writes each figure as SVG, PNG and PDF with its numbers as CSV, and the tables as Markdown.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from whichteacher.plotting import (
    CATEGORY_COLOURS,
    CATEGORY_LABELS,
    INK,
    MUTED,
    PAPER_LABELS,
    draw_boxes,
    new_figure,
    read_published,
    save,
    thousands,
)
from whichteacher.tables import write_text

#: The colours of Okabe and Ito, which colour-blind readers tell apart, in the order of the paper's teachers.
_COLOURS = dict(zip(PAPER_LABELS, ("#0072B2", "#D55E00", "#009E73"), strict=True))
_OTHERS = "#c5ced6"


def _note(figure: Figure, rows: pd.DataFrame, more: str = "") -> None:
    """Say under a figure how its numbers are known."""
    read = rows["how"] == "pixel"
    how = "All values are printed in the paper."
    if read.any():
        how = "All values" if read.all() else "All values but the printed means"
        how += " were read off the paper’s pixels."
    figure.supxlabel(f"{how} {more}".strip(), fontsize=8, color=MUTED)


def draw_scores(rows: pd.DataFrame) -> Figure:
    """Figure 1: accuracy of the students and of other models of 32B and more, each benchmark best first."""
    figure, axes = new_figure(11, 4.6, ncols=2)
    for ax, (benchmark, bars) in zip(axes[0], rows.groupby("item", sort=False), strict=True):
        bars = bars.sort_values("value", ascending=False, kind="stable")
        for place, bar in enumerate(bars.to_dict("records")):
            ours = next((name for name in PAPER_LABELS if bar["teacher"].startswith(name.removesuffix("-v1"))), None)
            colour = _COLOURS[ours] if ours and "(ours)" in bar["teacher"] else _OTHERS
            hatch = "////" if bar["training"] == "SFT" and colour == _OTHERS else None
            ax.bar(place, bar["value"], width=0.72, color=colour, hatch=hatch, edgecolor="white")
            ax.text(place, bar["value"] + 0.6, f"{bar['value']:.1f}", ha="center", fontsize=8)
        ax.set_xticks(range(len(bars)), bars["teacher"], rotation=40, ha="right", fontsize=7.5, color=INK)
        ax.set_title(benchmark)
        ax.set_ylim(0, 100)
        ax.set_ylabel("Accuracy (%)")
        ax.grid(visible=False, axis="x")
    _note(
        figure, rows, "Coloured: the paper’s students. Hatched: others trained by SFT alone. The paper cuts its axes."
    )
    return figure


def draw_shares(rows: pd.DataFrame) -> Figure:
    """Figure 2: categories by instances, and by output tokens of each teacher."""
    pies = {("all", "instances"): ("Instances", "thousand")}
    pies |= {(name, "output_tokens"): (f"{label} tokens", "million") for name, label in PAPER_LABELS.items()}
    figure, axes = new_figure(10.5, 3.4, ncols=len(pies))
    for ax, ((teacher, statistic), (title, unit)) in zip(axes[0], pies.items(), strict=True):
        found = rows[(rows["teacher"] == teacher) & (rows["statistic"] == statistic)].set_index("item")["value"]
        parts = found.reindex([category for category in CATEGORY_COLOURS if category in found.index])
        ax.pie(
            parts,
            colors=[CATEGORY_COLOURS[category] for category in parts.index],
            labels=[f"{share:.1f} %" if share >= 3 else "" for share in 100 * parts / parts.sum()],
            labeldistance=1.12,
            textprops={"fontsize": 8},
            startangle=90,
            counterclock=False,
            wedgeprops={"linewidth": 1.5, "edgecolor": "white"},
        )
        ax.set_title(f"{title}\n{parts.sum():,.1f} {unit}", loc="center", fontsize=9)
    handles = [Patch(color=colour, label=CATEGORY_LABELS.get(name, name)) for name, colour in CATEGORY_COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    _note(figure, rows)
    return figure


def draw_histogram(rows: pd.DataFrame) -> Figure:
    """Figure 3: mathematics traces by length, the three teachers side by side."""
    counts = rows[rows["statistic"] == "instances"]
    spans = list(dict.fromkeys(counts["item"]))
    figure, axes = new_figure(10, 4)
    ax = axes[0][0]
    for number, (name, label) in enumerate(PAPER_LABELS.items()):
        values = counts[counts["teacher"] == name].set_index("item")["value"].reindex(spans)
        ax.bar(np.arange(len(spans)) + (number - 1) * 0.27, values, width=0.26, color=_COLOURS[name], label=label)
    ax.set_xticks(range(len(spans)), spans, rotation=30, ha="right", fontsize=8)
    ax.set_xlabel("Output tokens")
    ax.set_ylabel("Instances (thousand)")
    ax.grid(visible=False, axis="x")
    ax.legend()
    _note(figure, counts)
    return figure


def _draw_three_boxes(rows: pd.DataFrame, label: str, decimals: int, note: str) -> Figure:
    boxes = rows.pivot(index="teacher", columns="statistic", values="value").loc[list(PAPER_LABELS)]
    figure, axes = new_figure(6, 4.2)
    ax = axes[0][0]
    draw_boxes(ax, boxes.to_dict("records"), list(PAPER_LABELS.values()), list(_COLOURS.values()), decimals)
    ax.set_ylabel(label)
    if decimals == 0:
        thousands(ax.yaxis)
    _note(figure, rows, note)
    return figure


def draw_lengths(rows: pd.DataFrame, shares: pd.DataFrame) -> Figure:
    """Figure 4: length of the traces, in both readings: its caption says all categories, but its means are those of mathematics.

    The means of all categories follow from Figure 2: output tokens by instances.
    """
    note = "\nThe caption says all categories; the printed means are those of mathematics.\nRings: means of all categories, from Figure 2."
    figure = _draw_three_boxes(rows, "Output tokens", 0, note)
    totals = shares[shares["item"] == "all"].set_index(["statistic", "teacher"])["value"]
    for place, name in enumerate(PAPER_LABELS, start=1):
        mean = 1000 * totals["output_tokens", name] / totals["instances", "all"]
        figure.axes[0].plot(place + 0.34, mean, marker="o", markerfacecolor="none", markeredgecolor=INK)
        figure.axes[0].annotate(
            f"{mean:,.0f}", (place + 0.34, mean), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    return figure


def draw_perplexities(rows: pd.DataFrame) -> Figure:
    """Figure 5: perplexity of the traces."""
    return _draw_three_boxes(rows, "Perplexity", 1, "\nOf all categories or of mathematics: the paper does not say.")


def draw_loss(rows: pd.DataFrame) -> Figure:
    """Figure 6: smoothed training loss of the three students."""
    figure, axes = new_figure(7.5, 4)
    ax = axes[0][0]
    for name, label in PAPER_LABELS.items():
        line = rows[(rows["teacher"] == name) & (rows["statistic"] == "smoothed_loss")]
        ax.plot(line["item"].astype(float), line["value"], color=_COLOURS[name], label=label, marker="o", markersize=3)
    ax.set_xlabel("Step")
    ax.set_ylabel("Smoothed loss (nats)")
    ax.set_ylim(bottom=0)
    ax.legend()
    _note(figure, rows)
    return figure


#: Figure -> the files of config/published it needs, its own first, and what draws it.
FIGURES: dict[str, tuple[tuple[str, ...], Callable[..., Figure]]] = {
    "figure1": (("fig1_scores",), draw_scores),
    "figure2": (("fig2_shares",), draw_shares),
    "figure3": (("fig3_math_lengths",), draw_histogram),
    "figure4": (("fig4_lengths", "fig2_shares"), draw_lengths),
    "figure5": (("fig5_perplexity",), draw_perplexities),
    "figure6": (("fig6_loss",), draw_loss),
}
#: Table -> its file, its title.
TABLES = {
    "table1": ("table1_scores", "**Table 1.** Pass@1 of the students in percent, as printed."),
    "table2": ("table2_lengths", "**Table 2.** Mean output tokens of the students, as printed."),
}


def to_markdown(rows: pd.DataFrame, title: str) -> str:
    """A table of the paper: its students by benchmark."""
    students = rows[rows["statistic"] == "student"]
    cells = students.pivot(index="item", columns="teacher", values="value")[list(PAPER_LABELS)]
    cells = cells.loc[list(dict.fromkeys(students["item"]))]
    lines = [title, "", f"| | {' | '.join(PAPER_LABELS.values())} |", f"|---|{'---:|' * len(PAPER_LABELS)}"]
    lines += [f"| {name} | {' | '.join(f'{value:,.1f}' for value in row)} |" for name, row in cells.iterrows()]
    return "\n".join(lines) + "\n"


def main(published: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Draw everything. ``published`` maps the files of config/published by their stems, ``outputs`` are named
    ``figure1_svg``, ``table1_md``, and so on."""
    for name, (stems, draw) in FIGURES.items():
        rows = [read_published(published[stem]) for stem in stems]
        save(draw(*rows), rows[0], name, *(outputs[f"{name}_{kind}"] for kind in ("svg", "png", "pdf", "csv")))
    for name, (stem, title) in TABLES.items():
        write_text(outputs[f"{name}_md"], to_markdown(read_published(published[stem]), title))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(dict(snakemake.input.items()), dict(snakemake.output.items()))  # noqa: F821
