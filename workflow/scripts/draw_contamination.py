"""How many queries every threshold of decontamination would flag and drop (ours), so that the ones that were set can be judged.

Reads the sweep (CONTAMINATION_SWEEP); writes the figure as SVG, PNG and PDF and its data as CSV (the columns of the sweep). Each
method counts by itself: a query that two of them find stands in both panels.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from whichteacher.plotting import INK, MUTED, new_figure, save, say_empty
from whichteacher.schemas import CONTAMINATION_SWEEP
from whichteacher.tables import read_frame

#: Method -> title of its panel, its axis, and the key of ``corpus.decontaminate`` that holds its threshold.
PANELS = {
    "ngram": ("Word n-grams", "share of the problem's n-grams found in the query, at least", "containment"),
    "embedding": ("Embeddings", "similarity to the problem, above", "similarity"),
}
EXACT = "exact"
_COLOUR = "#b5443a"


def draw(sweep: pd.DataFrame, thresholds: Mapping[str, float]) -> Figure:
    """A panel per method of the ``sweep`` that has a choice of thresholds; ``thresholds`` are those that were set, by key of
    ``corpus.decontaminate``."""
    panels = [method for method in PANELS if (sweep["method"] == method).any()]
    figure, axes = new_figure(8.0, 3.9, ncols=max(1, len(panels)), sharey=True)
    if not panels or not sweep["queries"].any():
        for ax in axes[0]:
            ax.set_axis_off()
        say_empty(axes[0, 0], "No query is like a problem of a benchmark, at any threshold of the sweep")
        return figure
    for ax, method in zip(axes[0], panels, strict=True):
        _draw_panel(ax, sweep[sweep["method"] == method], method, thresholds[PANELS[method][2]])
    axes[0, 0].set_ylabel("queries")
    exact = int(sweep.loc[sweep["method"] == EXACT, "queries"].sum())
    equal = f"{exact:,} {'query has' if exact == 1 else 'queries have'} the text of a problem"
    figure.suptitle(f"What other thresholds would flag; {equal}", x=0.02, ha="left", fontsize=12, fontweight="bold")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=9)
    # Linear below 1, so that no query has a place.
    axes[0, 0].set_yscale("symlog", linthresh=1)
    axes[0, 0].yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
    axes[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes[0, 0].set_ylim(-0.15, 2 * sweep["queries"].max())
    return figure


def _draw_panel(ax: Axes, rows: pd.DataFrame, method: str, set_to: float) -> None:
    """Flagged and dropped queries by threshold, and the threshold that was set with its numbers."""
    title, label, _ = PANELS[method]
    rows = rows.sort_values("threshold")
    style = {"markersize": 7, "markerfacecolor": "white"}
    ax.plot(rows["threshold"], rows["queries"], "o-", color=MUTED, linewidth=1.2, label="flagged", **style)
    ax.plot(rows["threshold"], rows["dropped"], "o-", color=_COLOUR, linewidth=1.2, markersize=4, label="dropped")
    here = rows[np.isclose(rows["threshold"], set_to)]
    ax.axvline(set_to, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    told = f"set to {set_to:g}"
    if len(here):
        told += f": {int(here['queries'].iloc[0]):,} flagged, {int(here['dropped'].iloc[0]):,} dropped"
    # Above the panel: inside it, a flat curve could run through it.
    ax.text(0, 1.03, told, transform=ax.transAxes, color=MUTED, fontsize=9, va="bottom")
    ax.set_title(title, pad=22)
    ax.set_xlabel(label, fontsize=9)


def main(sweep: str, outputs: Mapping[str, str], thresholds: Mapping[str, float]) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = read_frame(sweep, CONTAMINATION_SWEEP)
    save(draw(rows, thresholds), rows, "contamination", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.sweep,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
