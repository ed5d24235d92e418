"""Figure 2: shares of the categories by instances and, for each teacher, by output tokens.

Reads what summarise_datasets says of one dataset per teacher and the paper's Figure 2; writes the figure as SVG, PNG and
PDF and its data as CSV (origin, pie, category, value, share in percent). Multi-turn and general queries are drawn together
as "general chat", as the paper does.
"""

from collections.abc import Mapping
from math import cos, radians, sin

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Wedge

from whichteacher.plotting import (
    CATEGORY_COLOURS,
    CATEGORY_LABELS,
    MUTED,
    PAPER,
    PAPER_CATEGORIES,
    PAPER_LABELS,
    THIS_RUN,
    new_figure,
    read_published,
    save,
)

INSTANCES = "instances"
#: Wedges from this share on carry their number.
_LABELLED = 5.0


def run_pies(categories: pd.DataFrame) -> pd.DataFrame:
    """Instances (of all teachers' datasets together, which are the same queries in a parallel study) and tokens.

    ``categories`` holds teacher, category, traces and output_tokens."""
    grouped = categories.assign(category=categories["category"].map(PAPER_CATEGORIES))
    frame = grouped.groupby(["teacher", "category"], as_index=False)[["traces", "output_tokens"]].sum()
    instances = frame.groupby("category", as_index=False)["traces"].sum().rename(columns={"traces": "value"})
    # Each query once: the same queries stand in every teacher's dataset.
    instances["value"] /= max(1, categories["teacher"].nunique())
    tokens = frame.rename(columns={"output_tokens": "value", "teacher": "pie"})[["pie", "category", "value"]]
    return pd.concat([instances.assign(pie=INSTANCES), tokens], ignore_index=True).assign(origin=THIS_RUN)


def paper_pies(published: pd.DataFrame) -> pd.DataFrame:
    """The paper's printed values: thousands of instances, millions of tokens."""
    rows = published[published["statistic"].isin([INSTANCES, "output_tokens"]) & (published["item"] != "all")]
    pies = rows["teacher"].where(rows["statistic"] != INSTANCES, INSTANCES)
    return pd.DataFrame({"pie": pies, "category": rows["item"], "value": rows["value"], "origin": PAPER})


def prepare(categories: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """All pies with the share of each wedge in percent."""
    rows = pd.concat([run_pies(categories), paper_pies(published)], ignore_index=True)
    rows["share"] = 100 * rows["value"] / rows.groupby(["origin", "pie"])["value"].transform("sum")
    return rows[["origin", "pie", "category", "value", "share"]]


def draw(rows: pd.DataFrame, teachers: Mapping[str, str]) -> Figure:
    """This run's pies above the paper's; ``teachers`` maps names to labels."""
    pies = {
        THIS_RUN: {INSTANCES: "Instances"} | {name: f"{label} tokens" for name, label in teachers.items()},
        PAPER: {INSTANCES: "Instances"} | {name: f"{label} tokens" for name, label in PAPER_LABELS.items()},
    }
    columns = max(len(chosen) for chosen in pies.values())
    figure, axes = new_figure(2.35 * columns, 5.9, nrows=2, ncols=columns)
    for line, (origin, chosen) in zip(axes, pies.items(), strict=True):
        for ax in line[len(chosen) :]:
            ax.set_axis_off()
        for ax, (pie, label) in zip(line, chosen.items(), strict=False):
            shown = rows[(rows["origin"] == origin) & (rows["pie"] == pie)].set_index("category")
            order = [category for category in CATEGORY_COLOURS if category in shown.index]
            shown = shown.loc[order]
            wedges, _ = ax.pie(
                shown["value"],
                colors=[CATEGORY_COLOURS[category] for category in order],
                startangle=90,
                counterclock=False,
                radius=1.1,
                wedgeprops={"linewidth": 1.5, "edgecolor": "white"},
            )
            for wedge, share in zip(wedges, shown["share"], strict=True):
                if share >= _LABELLED:
                    _label_wedge(ax, wedge, share)
            ax.set_title(label, loc="center", fontsize=9.5)
            ax.text(0, -1.28, _total(origin, pie, shown["value"].sum()), ha="center", va="top", color=MUTED, fontsize=9)
        line[0].annotate(
            origin.capitalize(),
            (-0.12, 0.5),
            xycoords="axes fraction",
            rotation=90,
            va="center",
            ha="center",
            fontweight="bold",
        )
    present = [category for category in CATEGORY_COLOURS if (rows["category"] == category).any()]
    figure.legend(
        handles=[
            Patch(color=CATEGORY_COLOURS[category], label=CATEGORY_LABELS.get(category, category))
            for category in present
        ],
        loc="outside lower center",
        ncols=len(present),
    )
    return figure


def _label_wedge(ax: Axes, wedge: Wedge, share: float) -> None:
    angle = radians((wedge.theta1 + wedge.theta2) / 2)
    red, green, blue = wedge.get_facecolor()[:3]
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    ax.text(
        0.8 * cos(angle),
        0.8 * sin(angle),
        f"{share:.0f} %",
        ha="center",
        va="center",
        fontsize=8.5,
        color="white" if dark else "black",
    )


def _total(origin: str, pie: str, value: float) -> str:
    if origin == PAPER:
        return f"{value:,.1f} thousand" if pie == INSTANCES else f"{value:,.1f} million"
    return f"{value:,.0f}"


def main(
    categories: str,
    published: str,
    outputs: Mapping[str, str],
    teachers: Mapping[str, str],
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = prepare(pd.read_csv(categories), read_published(published))
    save(draw(rows, teachers), rows, "category_shares", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.categories,  # noqa: F821
            snakemake.input.published,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
