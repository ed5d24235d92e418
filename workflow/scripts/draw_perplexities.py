"""Figure 5: perplexity of the traces of each teacher under the configured scorer.

Reads what summarise_datasets says of one dataset per teacher and the paper's Figure 5 (means printed, the rest read from
its pixels); writes the figure as SVG, PNG and PDF and its data as CSV (origin, teacher, mean, low_whisker, q1, median, q3,
high_whisker). Traces without a perplexity are left out.
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
)

COLUMNS = ["origin", "teacher", "mean", "low_whisker", "q1", "median", "q3", "high_whisker"]


def prepare(boxes: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """One row per box."""
    run = boxes[(boxes["measure"] == "perplexity") & (boxes["category"] == ALL)]
    run = run.drop(columns=["measure", "category"]).assign(origin=THIS_RUN)
    paper = published.pivot(index="teacher", columns="statistic", values="value").reset_index().assign(origin=PAPER)
    return pd.concat([run, paper], ignore_index=True)[COLUMNS]


def draw(rows: pd.DataFrame, teachers: Mapping[str, Mapping[str, str]]) -> Figure:
    """This run left, the paper right, each on its own scale: the scorers differ."""
    looks = {
        "This run": {name: (teacher["label"], teacher["colour"]) for name, teacher in teachers.items()},
        "Paper (all or mathematics: not said)": {
            name: (label, grey) for (name, label), grey in zip(PAPER_LABELS.items(), PAPER_GREYS, strict=True)
        },
    }
    figure, axes = new_figure(8, 4, ncols=2)
    for ax, (title, styles), origin in zip(axes[0], looks.items(), (THIS_RUN, PAPER), strict=True):
        shown = rows[rows["origin"] == origin].set_index("teacher")
        ax.set_title(title)
        present = {name: look for name, look in styles.items() if name in shown.index}
        if not present:
            say_empty(ax, "No perplexities: the study sets no curation.perplexity")
            continue
        labels, colours = zip(*present.values(), strict=True)
        # The paper prints one decimal.
        draw_boxes(ax, [shown.loc[name] for name in present], labels, colours, decimals=2 if origin == THIS_RUN else 1)
        # Perplexity is at least 1: the axis starts there.
        ax.set_ylim(bottom=1)
    axes[0, 0].set_ylabel("Perplexity")
    return figure


def main(
    boxes: str,
    published: str,
    outputs: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, str]],
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = prepare(pd.read_csv(boxes), read_published(published))
    save(draw(rows, teachers), rows, "perplexities", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.boxes,  # noqa: F821
            snakemake.input.published,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
