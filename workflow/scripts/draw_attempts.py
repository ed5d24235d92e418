"""How many queries stay unsolved after each attempt, by teacher and category (ours).

Reads the curves of summarise_attempts; writes the figure as SVG, PNG and PDF and its data as CSV (the curves). A curve falls by what
each attempt solves; a query that was given up counts as unsolved for as long as it is known to be.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from whichteacher.outcomes import ALL
from whichteacher.plotting import new_figure, save, say_empty

#: Inches that a panel takes.
_WIDTH, _HEIGHT = 3.0, 2.3


def draw(survival: pd.DataFrame, teachers: Mapping[str, Mapping[str, str]], categories: Sequence[str]) -> Figure:
    """A panel for all queries and one per category of ``survival``, a line with its bounds per teacher."""
    shown = [category for category in (ALL, *categories) if (survival["category"] == category).any()]
    columns = min(4, max(1, len(shown)))
    lines = -(-len(shown) // columns) or 1
    figure, axes = new_figure(
        max(4.0, _WIDTH * columns), 0.7 + _HEIGHT * lines, nrows=lines, ncols=columns, sharex=True, sharey=True
    )
    if not shown:
        say_empty(axes[0, 0], "No attempt has been made")
        return figure
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for place, (category, ax) in enumerate(zip(shown, axes.flat, strict=False)):
        for number, (name, look) in enumerate(teachers.items()):
            rows = survival[(survival["category"] == category) & (survival["teacher"] == name)].sort_values("attempt")
            _draw_curve(ax, rows, look, 0.09 * (number + 1))
        ax.set_title("All queries" if category == ALL else category.replace("_", " ").capitalize())
        ax.set_ylim(0, 1.03)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        if place + columns >= len(shown):
            ax.set_xlabel("attempts")
            ax.tick_params(labelbottom=True)
        if place % columns == 0:
            ax.set_ylabel("not solved")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(teachers))
    return figure


def _draw_curve(ax: Axes, rows: pd.DataFrame, look: Mapping[str, str], shift: float) -> None:
    """One teacher's curve from "none is solved before the first attempt" on; its bounds stand ``shift`` to the right of the step."""
    places, heights = [0, *rows["attempt"]], [1.0, *rows["survival"]]
    places, heights = [*places, places[-1] + 0.4], [*heights, heights[-1]]  # the last step is one, too
    ax.step(places, heights, where="post", color=look["colour"], label=look["label"], linewidth=1.6)
    ax.vlines(rows["attempt"] + shift, rows["low"], rows["high"], color=look["colour"], linewidth=1.2, clip_on=False)
    ax.plot(rows["attempt"] + shift, rows["survival"], "o", color=look["colour"], markersize=3.5, clip_on=False)


def main(
    survival: str,
    outputs: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, str]],
    categories: Sequence[str],
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = pd.read_csv(survival)
    save(draw(rows, teachers, categories), rows, "attempts", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.survival,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
