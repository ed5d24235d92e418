"""Figure 1: what the students and the other models score, beside the paper's bars.

Reads the students' scores, those of the models evaluated beside them, and the paper's Figure 1 and Table 1; writes the figure as SVG, PNG and PDF and its data as CSV
(origin, student, benchmark, name, value in percent, low and high: the smallest and largest training seed).
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whichteacher.outcomes import ALL
from whichteacher.plotting import INK, MUTED, PAPER, PAPER_GREYS, THIS_RUN, new_figure, read_published, save

#: Benchmarks whose bars the paper draws, in its order; the others come from its Table 1.
ROLES = ("AIME2024", "LiveCodeBench", "AIME2025", "MATH500")
#: Bars' widths left free between this run and the paper, for the heading between them.
_GAP = 1.1


def run_bars(scores: pd.DataFrame, control: str) -> pd.DataFrame:
    """Students of one control: mean over seeds, and the range of the seeds, in percent."""
    rows = scores[scores["control"] == control]
    percent = rows.assign(value=100 * rows["pass_at_1"])
    keys = ["benchmark", "teacher"]
    mean = percent[percent["seed"] == ALL].set_index(keys)["value"]
    seeds = percent[percent["seed"] != ALL].groupby(keys)["value"].agg(low="min", high="max")
    bars = seeds.join(mean).reset_index().rename(columns={"teacher": "name"})
    return bars.assign(origin=THIS_RUN)


def model_bars(scores: pd.DataFrame) -> pd.DataFrame:
    """The models that were evaluated beside the students, in percent."""
    percent = 100 * scores["pass_at_1"]
    return scores[["benchmark"]].assign(name=scores["model"], value=percent, low=percent, high=percent, origin=THIS_RUN)


def paper_bars(figure: pd.DataFrame, table: pd.DataFrame, role: str) -> pd.DataFrame:
    """The paper's bars of one benchmark: its Figure 1, or the students of its Table 1 where the figure has none."""
    bars = figure[figure["item"] == role][["teacher", "value"]]
    if bars.empty:
        bars = table[(table["item"] == role) & (table["statistic"] == "student")][["teacher", "value"]]
        bars = bars.assign(teacher=bars["teacher"] + " student")
    return bars.rename(columns={"teacher": "name"}).assign(origin=PAPER, benchmark=role)


def prepare(
    scores: pd.DataFrame,
    models: pd.DataFrame | None,
    figure: pd.DataFrame,
    table: pd.DataFrame,
    control: str,
    benchmarks: Mapping[str, Mapping[str, str | None]],
) -> pd.DataFrame:
    """All bars, benchmarks in the paper's order of their roles, those without one last. ``models`` are the scores of score_models, None where there
    are no such models."""
    run = run_bars(scores, control).assign(student=True)
    if models is not None:
        run = pd.concat([run, model_bars(models).assign(student=False)], ignore_index=True)
    places = {role: place for place, role in enumerate(ROLES)}
    parts = []
    for name in sorted(benchmarks, key=lambda name: places.get(benchmarks[name]["role"], len(ROLES))):
        parts.append(run[run["benchmark"] == name])
        if role := benchmarks[name]["role"]:
            parts.append(paper_bars(figure, table, role).assign(benchmark=name))
    return pd.concat(parts, ignore_index=True)[["origin", "student", "benchmark", "name", "value", "low", "high"]]


def draw(
    bars: pd.DataFrame,
    benchmarks: Mapping[str, Mapping[str, str | None]],
    teachers: Mapping[str, Mapping[str, str]],
    models: Mapping[str, Mapping[str, str]],
) -> Figure:
    """A panel per benchmark, two to a row: this run's bars above the paper's, each best first. Students are filled, other
    models hatched."""
    names = list(dict.fromkeys(bars["benchmark"]))
    tallest = [
        bars[bars["benchmark"].isin(names[start : start + 2])].groupby("benchmark").size().max()
        for start in range(0, len(names), 2)
    ]
    figure, axes = new_figure(
        10.5,
        sum(0.27 * (bars_high + _GAP) + 0.8 for bars_high in tallest),
        nrows=len(tallest),
        ncols=2,
        height_ratios=[bars_high + _GAP for bars_high in tallest],
    )
    for index, ax in enumerate(axes.flat):
        if index >= len(names):
            ax.set_axis_off()
            continue
        benchmark = benchmarks[names[index]]
        _draw_panel(ax, bars[bars["benchmark"] == names[index]], benchmark["role"], teachers, models)
        ax.set_ylim(tallest[index // 2] + _GAP - 0.5, -0.6)
        ax.set_title(benchmark["label"])
        ax.set_xlabel("Pass@1 (%)")
    return figure


def _draw_panel(
    ax: Axes,
    bars: pd.DataFrame,
    role: str | None,
    teachers: Mapping[str, Mapping[str, str]],
    models: Mapping[str, Mapping[str, str]],
) -> None:
    """The bars of one benchmark."""
    place, ticks = 0.0, {}
    for origin in (THIS_RUN, PAPER):
        shown = bars[bars["origin"] == origin].sort_values("value", ascending=False)
        for bar in shown.to_dict("records"):
            if origin == THIS_RUN and bar["student"]:
                look, label = teachers[bar["name"]], f"{teachers[bar['name']]['label']} student"
                spread = [[bar["value"] - bar["low"]], [bar["high"] - bar["value"]]]
                ax.errorbar(bar["value"], place, xerr=spread, color=INK, capsize=3, elinewidth=1.2, zorder=3)
                style = {"color": look["colour"]}
            elif origin == THIS_RUN:
                look, label = models[bar["name"]], models[bar["name"]]["label"]
                style = {"facecolor": "white", "edgecolor": look["colour"], "hatch": "////", "linewidth": 1.0}
            else:
                label = bar["name"]
                style = {"color": PAPER_GREYS[0 if "(ours)" in label or label.endswith(" student") else 2]}
            ax.barh(place, bar["value"], height=0.74, **style)
            end = max(bar["value"], bar["high"]) if origin == THIS_RUN else bar["value"]
            ax.annotate(
                f"{bar['value']:.1f}", (end, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9
            )
            ticks[place] = label
            place += 1
        if origin == THIS_RUN and role:
            ax.text(0, place - 0.1, f"Paper, {role}", color=MUTED, fontsize=9, va="center", fontweight="bold")
            place += _GAP - 0.3
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=9)
    ax.set_xlim(0, 110)
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)


def main(
    scores: str,
    models_scores: str | None,
    figure: str,
    table: str,
    outputs: Mapping[str, str],
    control: str,
    benchmarks: Mapping[str, Mapping[str, str | None]],
    teachers: Mapping[str, Mapping[str, str]],
    models: Mapping[str, Mapping[str, str]],
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    read = pd.read_csv(scores, dtype={"seed": str})
    beside = pd.read_csv(models_scores) if models_scores else None
    bars = prepare(read, beside, read_published(figure), read_published(table), control, benchmarks)
    save(draw(bars, benchmarks, teachers, models), bars, "scores", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.scores,  # noqa: F821
            snakemake.input.models or None,  # noqa: F821
            snakemake.input.figure,  # noqa: F821
            snakemake.input.table,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
