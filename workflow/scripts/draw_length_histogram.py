"""Figure 3: how long the mathematics traces of each teacher are.

Reads what summarise_datasets says of one dataset per teacher and the paper's Figure 3 (read from its pixels); writes the
figure as SVG, PNG and PDF and its data as CSV (origin, teacher, span in tokens, instances). Mathematics only, as in the paper.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from whichteacher.plotting import (
    INK,
    PAPER,
    PAPER_GREYS,
    PAPER_LABELS,
    THIS_RUN,
    new_figure,
    read_published,
    save,
    thousands,
)


def prepare(lengths: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """All bars of both panels."""
    run = lengths[lengths["category"] == "math"].rename(columns={"traces": "instances"})
    run = run[["teacher", "span", "instances"]].assign(origin=THIS_RUN)
    paper = published[published["statistic"] == "instances"]
    paper = pd.DataFrame(
        {
            "origin": PAPER,
            "teacher": paper["teacher"],
            "span": paper["item"],
            "instances": (paper["value"] * 1000).round().astype(int),
        }
    )
    return pd.concat([run, paper], ignore_index=True)[["origin", "teacher", "span", "instances"]]


def draw(rows: pd.DataFrame, teachers: Mapping[str, Mapping[str, str]]) -> Figure:
    """This run above the paper."""
    looks = {
        THIS_RUN: {name: (teacher["label"], teacher["colour"]) for name, teacher in teachers.items()},
        PAPER: {name: (label, grey) for (name, label), grey in zip(PAPER_LABELS.items(), PAPER_GREYS, strict=True)},
    }
    titles = {THIS_RUN: "This run, mathematics", PAPER: "Paper, mathematics (read from its pixels)"}
    figure, axes = new_figure(8, 6.4, nrows=2)
    for ax, (origin, styles) in zip(axes[:, 0], looks.items(), strict=True):
        shown = rows[rows["origin"] == origin]
        names = list(dict.fromkeys(shown["span"]))
        width = 0.84 / len(styles)
        for index, (teacher, (label, colour)) in enumerate(styles.items()):
            heights = shown[shown["teacher"] == teacher].set_index("span")["instances"].reindex(names)
            where = np.arange(len(names)) + (index - (len(styles) - 1) / 2) * width
            ax.bar(where, heights, width, label=label, color=colour, edgecolor="white", linewidth=0.4)
        pretty = [name.replace("<=", "≤ ").replace(">", "> ").replace("-", "–\n") for name in names]
        ax.set_xticks(range(len(names)), pretty, fontsize=8)
        ax.set_title(titles[origin])
        ax.set_ylabel("Instances")
        ax.tick_params(axis="x", labelcolor=INK)
        ax.grid(visible=False, axis="x")
        thousands(ax.yaxis)
        ax.legend()
    axes[-1, 0].set_xlabel("Output tokens")
    return figure


def main(
    lengths: str,
    published: str,
    outputs: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, str]],
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = prepare(pd.read_csv(lengths), read_published(published))
    save(draw(rows, teachers), rows, "length_histogram", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.lengths,  # noqa: F821
            snakemake.input.published,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
