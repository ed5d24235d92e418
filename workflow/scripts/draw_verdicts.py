"""What the verifiers said of each teacher's attempts, by category (ours).

Reads the counts of summarise_verdicts; writes the figure as SVG, PNG and PDF and its data as CSV (teacher, category, verdict, attempts,
share of the teacher's attempts in the category).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from whichteacher.plotting import MUTED, RULE, new_figure, save, say_empty

#: Narrower parts of a bar stand without their number.
_LABELLED = 0.07
_BAR = 0.74


def shares(verdicts: pd.DataFrame, categories: Sequence[str]) -> pd.DataFrame:
    """Attempts and their share by teacher, category and verdict; rows in the order of ``categories``."""
    counts = verdicts.groupby(["teacher", "category", "verdict"], sort=False)["attempts"].sum().reset_index()
    counts["share"] = counts["attempts"] / counts.groupby(["teacher", "category"])["attempts"].transform("sum")
    order = counts["category"].map({name: place for place, name in enumerate(categories)})
    return counts.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def draw(rows: pd.DataFrame, teachers: Mapping[str, Mapping[str, str]]) -> Figure:
    """A panel per category, a bar per teacher: passed in the teacher's colour, failed in grey, undecided hatched."""
    categories = list(dict.fromkeys(rows["category"]))
    columns = min(3, max(1, len(categories)))
    lines = -(-len(categories) // columns) or 1
    figure, axes = new_figure(3.2 * columns, 0.7 + lines * (0.7 + 0.36 * len(teachers)), nrows=lines, ncols=columns)
    if not categories:
        say_empty(axes[0, 0], "No attempt has been verified")
        return figure
    found = rows.set_index(["category", "teacher", "verdict"])["share"]
    for ax in axes.flat[len(categories) :]:
        ax.set_axis_off()
    for place, (category, ax) in enumerate(zip(categories, axes.flat, strict=False)):
        for line, (name, look) in enumerate(teachers.items()):
            left = 0.0
            for verdict, style in (
                ("pass", {"color": look["colour"]}),
                ("fail", {"color": RULE}),
                ("unknown", {"facecolor": "white", "edgecolor": MUTED, "hatch": "////", "linewidth": 0.6}),
            ):
                share = float(found.get((category, name, verdict), 0.0))
                ax.barh(line, share, _BAR, left=left, **style)
                if share >= _LABELLED:
                    colour = "white" if verdict == "pass" else MUTED
                    box = {"facecolor": "white", "edgecolor": "none", "pad": 1} if verdict == "unknown" else None
                    ax.text(
                        left + share / 2,
                        line,
                        f"{share:.0%}",
                        ha="center",
                        va="center",
                        fontsize=8.5,
                        color=colour,
                        bbox=box,
                    )
                left += share
        ax.set_title(category.replace("_", " ").capitalize())
        ax.set_yticks(range(len(teachers)), [look["label"] for look in teachers.values()])
        ax.invert_yaxis()
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(PercentFormatter(1))
        ax.grid(visible=False)
        if place % columns:
            ax.set_yticklabels([])
    figure.legend(
        handles=[
            Patch(color=MUTED, label="passed (in the teacher's colour)"),
            Patch(color=RULE, label="failed"),
            Patch(facecolor="white", edgecolor=MUTED, hatch="////", linewidth=0.6, label="undecided"),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def main(
    verdicts: str, outputs: Mapping[str, str], teachers: Mapping[str, Mapping[str, str]], categories: Sequence[str]
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = shares(pd.read_csv(verdicts), categories)
    save(draw(rows, teachers), rows, "verdicts", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.verdicts,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
