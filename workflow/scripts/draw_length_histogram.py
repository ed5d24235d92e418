"""Figure 3: how long the mathematics traces of each teacher are.

Reads the measures of the traces of one dataset per teacher and the paper's Figure 3 (read from its pixels); writes the
figure as SVG and PNG and its data as CSV (origin, teacher, span in tokens, instances). Mathematics only, as in the paper.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from whichteacher.outcomes import measures_of_dataset
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


def spans(width: int, bins: int) -> list[str]:
    """Names of ``bins`` bins of ``width`` tokens, each closed at its upper end, and of the open one above them."""
    inner = [f"{width * i}-{width * (i + 1)}" for i in range(1, bins)]
    return [f"<={width}", *inner, f">{width * bins}"]


def count_spans(lengths: pd.Series, width: int, bins: int) -> np.ndarray:
    """Traces per bin of :func:`spans`."""
    chosen = np.minimum((lengths.to_numpy() - 1) // width, bins)
    return np.bincount(np.maximum(chosen, 0).astype(int), minlength=bins + 1)


def prepare(traces: Mapping[str, pd.DataFrame], published: pd.DataFrame, width: int, bins: int) -> pd.DataFrame:
    """All bars of both panels."""
    run = [
        pd.DataFrame(
            {
                "origin": THIS_RUN,
                "teacher": teacher,
                "span": spans(width, bins),
                "instances": count_spans(frame.loc[frame["category"] == "math", "output_tokens"], width, bins),
            }
        )
        for teacher, frame in traces.items()
    ]
    paper = published[published["statistic"] == "instances"]
    paper = pd.DataFrame(
        {
            "origin": PAPER,
            "teacher": paper["teacher"],
            "span": paper["item"],
            "instances": (paper["value"] * 1000).round().astype(int),
        }
    )
    return pd.concat([*run, paper], ignore_index=True)


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
    measures: Sequence[str],
    datasets: Sequence[str],
    published: str,
    outputs: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, str]],
    width: int,
    bins: int,
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, csv); ``measures`` and ``datasets`` in the order of ``teachers``."""
    traces = {
        teacher: measures_of_dataset(measure, dataset, ["category", "output_tokens"])
        for teacher, measure, dataset in zip(teachers, measures, datasets, strict=True)
    }
    rows = prepare(traces, read_published(published), width, bins)
    save(draw(rows, teachers), rows, "length_histogram", **outputs)


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
