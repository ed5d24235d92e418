"""Figure 4: lengths of the traces of each teacher, in both readings of the paper's figure.

The paper calls its figure one of the whole datasets, but the printed means are those of mathematics; so this run is
drawn for mathematics and for all categories. Reads what summarise_datasets says of one dataset per teacher and the
paper's Figure 4 (means printed, the rest read from its pixels); writes the figure as SVG, PNG and PDF and its data as CSV
(origin, teacher, scope, mean, low_whisker, q1, median, q3, high_whisker in tokens).
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from whichteacher.outcomes import ALL
from whichteacher.plotting import (
    PAPER,
    PAPER_GREYS,
    PAPER_LABELS,
    THIS_RUN,
    draw_boxes,
    new_figure,
    read_published,
    save,
    say_empty,
    thousands,
)

TITLES = {
    (THIS_RUN, "math"): "This run, mathematics",
    (THIS_RUN, ALL): "This run, all categories",
    (PAPER, "math"): "Paper, mathematics",
}

COLUMNS = ["origin", "teacher", "scope", "mean", "low_whisker", "q1", "median", "q3", "high_whisker"]


def prepare(boxes: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """One row per box."""
    run = boxes[(boxes["measure"] == "output_tokens") & boxes["category"].isin(["math", ALL])]
    run = run.drop(columns="measure").rename(columns={"category": "scope"}).assign(origin=THIS_RUN)
    paper = published.pivot(index=["teacher", "item"], columns="statistic", values="value").reset_index()
    paper = paper.rename(columns={"item": "scope"}).assign(origin=PAPER)
    return pd.concat([run, paper], ignore_index=True)[COLUMNS]


def draw(rows: pd.DataFrame, teachers: Mapping[str, Mapping[str, str]]) -> Figure:
    """Three panels side by side, each on its own scale."""
    looks = {
        THIS_RUN: {name: (teacher["label"], teacher["colour"]) for name, teacher in teachers.items()},
        PAPER: {name: (label, grey) for (name, label), grey in zip(PAPER_LABELS.items(), PAPER_GREYS, strict=True)},
    }
    figure, axes = new_figure(9.5, 4, ncols=3)
    for ax, ((origin, scope), title) in zip(axes[0], TITLES.items(), strict=True):
        shown = rows[(rows["origin"] == origin) & (rows["scope"] == scope)].set_index("teacher")
        ax.set_title(title)
        present = {name: look for name, look in looks[origin].items() if name in shown.index}
        if not present:
            say_empty(ax, "No traces")
            continue
        labels, colours = zip(*present.values(), strict=True)
        draw_boxes(ax, [shown.loc[name] for name in present], labels, colours)
        thousands(ax.yaxis)
    axes[0, 0].set_ylabel("Output tokens per trace")
    return figure


def main(
    boxes: str,
    published: str,
    outputs: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, str]],
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = prepare(pd.read_csv(boxes), read_published(published))
    save(draw(rows, teachers), rows, "lengths", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.boxes,  # noqa: F821
            snakemake.input.published,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
