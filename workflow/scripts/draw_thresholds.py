"""What other thresholds would have passed, by teacher and category (ours): also the distribution of each teacher's scores.

Reads the sweep of summarise_verdicts; writes the figure as SVG, PNG and PDF and its data as CSV (the sweep).
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from whichteacher.plotting import INK, new_figure, save, say_empty


def draw(
    sweep: pd.DataFrame,
    teachers: Mapping[str, Mapping[str, str]],
    categories: Sequence[str],
    thresholds: Mapping[str, float],
) -> Figure:
    """A panel per category of ``sweep``, a line per teacher: the share of its decided attempts with at least that score.

    ``thresholds`` are those that were set, by category.
    """
    shown = [category for category in categories if (sweep["category"] == category).any()]
    columns = min(3, max(1, len(shown)))
    lines = -(-len(shown) // columns) or 1
    figure, axes = new_figure(3.0 * columns, 0.6 + 2.3 * lines, nrows=lines, ncols=columns, sharey=True)
    if not shown:
        say_empty(axes[0, 0], "No attempt has been decided")
        return figure
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for place, (category, ax) in enumerate(zip(shown, axes.flat, strict=False)):
        for name, look in teachers.items():
            rows = sweep[(sweep["category"] == category) & (sweep["teacher"] == name)].sort_values("threshold")
            # A share holds from the threshold before it, because every score in between fails it too.
            ax.step(
                rows["threshold"], rows["share"], where="pre", color=look["colour"], label=look["label"], linewidth=1.6
            )
        ax.axvline(thresholds[category], color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        ax.set_title(category.replace("_", " ").capitalize())
        ax.set_xlim(0, 1.005)
        ax.set_ylim(0, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        if place + columns >= len(shown):
            ax.set_xlabel("score, at least")
    axes[0, 0].set_ylabel("attempts")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(teachers))
    return figure


def main(
    sweep: str,
    outputs: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, str]],
    categories: Sequence[str],
    thresholds: Mapping[str, float],
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = pd.read_csv(sweep)
    save(draw(rows, teachers, categories, thresholds), rows, "thresholds", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.sweep,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
