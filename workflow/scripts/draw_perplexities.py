"""Figure 5: perplexity of the traces of each teacher under the configured scorer.

Reads the measures of the traces of one dataset per teacher and the paper's Figure 5 (means printed, the rest read from
its pixels); writes the figure as SVG and PNG and its data as CSV (origin, teacher, mean, low_whisker, q1, median, q3,
high_whisker). Traces without a perplexity are left out.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from whichteacher.outcomes import measures_of_dataset
from whichteacher.plotting import (
    PAPER,
    PAPER_GREYS,
    PAPER_LABELS,
    THIS_RUN,
    box_statistics,
    draw_boxes,
    new_figure,
    read_published,
    save,
    say_empty,
)


def prepare(traces: Mapping[str, pd.DataFrame], published: pd.DataFrame) -> pd.DataFrame:
    """One row per box."""
    scored = {teacher: frame["perplexity"].dropna() for teacher, frame in traces.items()}
    rows = [
        {"origin": THIS_RUN, "teacher": teacher, **box_statistics(values)}
        for teacher, values in scored.items()
        if len(values)
    ]
    paper = published.pivot(index="teacher", columns="statistic", values="value").reset_index().assign(origin=PAPER)
    return pd.concat([pd.DataFrame(rows), paper], ignore_index=True)


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
    measures: Sequence[str],
    datasets: Sequence[str],
    published: str,
    outputs: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, str]],
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, csv); ``measures`` and ``datasets`` in the order of ``teachers``."""
    traces = {
        teacher: measures_of_dataset(measure, dataset, ["perplexity"])
        for teacher, measure, dataset in zip(teachers, measures, datasets, strict=True)
    }
    rows = prepare(traces, read_published(published))
    save(draw(rows, teachers), rows, "perplexities", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.measures,  # noqa: F821
            snakemake.input.datasets,  # noqa: F821
            snakemake.input.published,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
