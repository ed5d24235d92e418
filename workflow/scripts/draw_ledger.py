"""The ledger as a picture (ours): what came in, what each step left, and how many rows fell for which reason.

Reads the ledger of the whole study; writes the figure as SVG, PNG and PDF and its data as CSV: one row per line of the figure, with
its rows, where its bar starts, and its share (both in percent: the start of what came into the section, the share of what
came into the step). The corpus is one section, each teacher another; of its students, who share their rows, the first seed is shown.

A bar shows the part of the whole, so it starts at zero and is linear. One row beside two million cannot be seen there: that
is why each line has a dot on a logarithmic axis too, and its number.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from whichteacher.plotting import INK, MUTED, RULE, new_figure, save, say_empty

#: The sections that are no teacher's, and what is added to a teacher's name. Names of teachers are lower case.
CORPUS, _PUBLISHED = "Corpus", ", published"
#: Steps of the corpus, then those of a teacher, each in the order the rows walk through them.
CORPUS_STEPS = ("import_source", "clean_queries", "deduplicate_queries", "decontaminate_queries")
TEACHER_STEPS = ("collect_attempts", "curate_traces")
PUBLISHED_STEP, FORKED_STEP, TRAINED_STEP = "import_traces", "match_datasets", "train_student"
#: What is left of the corpus, and what falls.
_KEPT, _DROPPED = "#33658a", "#b5443a"
#: Inches: the figure and its two panels (left edge and width), a line, and what stands above and below all lines.
_WIDTH, _EDGE = 9.4, 0.15
_BARS, _DOTS = (2.65, 3.0), (5.9, 1.85)
_LINE, _ABOVE, _BELOW = 0.215, 1.0, 0.55
#: Inches from the right edge to the numbers of rows; beyond them stand the shares.
_SHARE = 0.78
#: Lines between sections.
_GAP = 0.9
_LONGEST_LABEL = 31

Line = dict[str, Any]


def _step(lines: pd.DataFrame, section: str, step: str, label: str, whole: int) -> Iterator[Line]:
    """A step's line, then one for each reason, the most frequent first. ``lines`` are the step's rows of the ledger."""
    counts = lines.groupby("reason")["rows"].sum()
    rows_in, left = int(counts.get("in", 0)), int(counts.get("kept", 0))

    def line(name: str, kind: str, rows: int, start: int) -> Line:
        shares = {"start": 100 * start / max(whole, 1), "share": 100 * rows / max(rows_in, 1)}
        return {"section": section, "step": step, "line": name, "kind": kind, "rows": rows, **shares}

    yield line(label, "left", left, 0)
    reasons = counts.drop(["in", "kept"], errors="ignore").sort_index().sort_values(ascending=False, kind="stable")
    end = rows_in
    for reason, rows in reasons.items():
        end -= int(rows)
        yield line(reason, "dropped", int(rows), end)


def _steps(lines: pd.DataFrame, section: str, steps: tuple[str, ...], start: str) -> Iterator[Line]:
    """Steps that hand their rows on, below a line for what came in; ``start`` names it."""
    whole = _rows_in(lines, steps)
    yield _whole(section, start, whole)
    for step in steps:
        here = lines[lines["step"] == step]
        if len(here):
            yield from _step(here, section, step, step, whole)


def _rows_in(lines: pd.DataFrame, steps: tuple[str, ...]) -> int:
    """Rows that came into the first of ``steps`` that the ledger has."""
    incoming = lines[lines["reason"] == "in"].groupby("step")["rows"].sum()
    return int(next((incoming[step] for step in steps if step in incoming), 0))


def _whole(section: str, label: str, rows: int) -> Line:
    return {"section": section, "step": "", "line": label, "kind": "in", "rows": rows, "start": 0.0, "share": 100.0}


def corpus_lines(lines: pd.DataFrame) -> Iterator[Line]:
    """The section of the corpus: each source, then what every step left and dropped."""
    first = lines[(lines["step"] == CORPUS_STEPS[0]) & (lines["reason"] == "in")]
    whole, start = int(first["rows"].sum()), 0
    found = list(_steps(lines[lines["step"].isin(CORPUS_STEPS)], CORPUS, CORPUS_STEPS, "rows of all sources"))
    yield found[0]
    for row in first.to_dict("records"):
        shares = {"start": 100 * start / max(whole, 1), "share": 100 * row["rows"] / max(whole, 1)}
        here = {"section": CORPUS, "step": CORPUS_STEPS[0], "line": row["scope"], "kind": "source", "rows": row["rows"]}
        yield here | shares
        start += row["rows"]
    yield from found[1:]


def teacher_lines(lines: pd.DataFrame, teacher: str) -> Iterator[Line]:
    """The section of a teacher: its published answers where it has some, its queries, and what is in its datasets."""
    parts = lines["scope"].str.split("/", expand=True).reindex(columns=range(2))
    forked = lines[(lines["step"] == FORKED_STEP) & (parts[1] == teacher)]
    trained = lines[(lines["step"] == TRAINED_STEP) & (parts[1] == teacher)]
    mine = lines[~lines["step"].isin([FORKED_STEP, TRAINED_STEP]) & (parts[0] == teacher)]
    if (mine["step"] == PUBLISHED_STEP).any():
        yield from _steps(mine, teacher + _PUBLISHED, (PUBLISHED_STEP,), "published answers")
    yield from _steps(mine, teacher, TEACHER_STEPS, "queries asked")
    whole = _rows_in(mine, TEACHER_STEPS)
    for control, here in forked.groupby(parts[0], sort=False):
        yield from _step(here, teacher, FORKED_STEP, f"{FORKED_STEP}: {control}", whole)
        # The rows are the same for every seed.
        seeds = trained[parts.loc[trained.index, 0] == control]
        first = seeds[seeds["scope"] == seeds["scope"].min()]
        if len(first):
            yield from _step(first, teacher, TRAINED_STEP, f"{TRAINED_STEP}: {control}", whole)


def prepare(lines: pd.DataFrame, teachers: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """The lines of the figure from the ledger's (columns of LEDGER), in their order.

    ``kind`` says what ``rows`` are: ``in`` (of a section), ``source``, ``left`` by a step, or ``dropped`` for a reason.
    """
    found = [*corpus_lines(lines), *(line for teacher in teachers for line in teacher_lines(lines, teacher))]
    return pd.DataFrame(found, columns=["section", "step", "line", "kind", "rows", "start", "share"])


def draw(rows: pd.DataFrame, teachers: Mapping[str, Mapping[str, str]]) -> Figure:
    """All lines of :func:`prepare` below one another: name, bar, dot, number, share."""
    sections = list(dict.fromkeys(rows["section"]))
    height = _LINE * (len(rows) + (1 + _GAP) * len(sections)) + _ABOVE + _BELOW
    figure, axes = new_figure(_WIDTH, height, ncols=2)
    bars, dots = axes[0]
    if not rows["rows"].any():
        dots.set_axis_off()
        say_empty(bars, "No rows came in")
        return figure
    figure.set_layout_engine(None)
    for ax, (left, width) in ((bars, _BARS), (dots, _DOTS)):
        ax.set_position((left / _WIDTH, _BELOW / height, width / _WIDTH, 1 - (_BELOW + _ABOVE) / height))
    place = 0.0
    for section in sections:
        here = rows[rows["section"] == section]
        looks = teachers.get(section.removesuffix(_PUBLISHED), {"label": CORPUS, "colour": _KEPT})
        title = looks["label"] + (": published answers" if section.endswith(_PUBLISHED) else "")
        _write(bars, _EDGE, place + 0.5, title, fontweight="bold", fontsize=11)
        place += 1
        whole = here["rows"].iloc[0]
        for row in here.to_dict("records"):
            _draw_line(bars, dots, row, place + 0.5, whole, looks["colour"])
            place += 1
        place += _GAP
    _set_axes(bars, dots, place - _GAP, int(rows["rows"].max()))
    _head(figure, height, rows)
    return figure


def _draw_line(bars: Axes, dots: Axes, row: Mapping[str, Any], place: float, whole: int, colour: str) -> None:
    """One line. ``whole`` are the rows that came into the section, ``colour`` is for what is left of them."""
    main = row["kind"] in ("in", "left")
    width = 100 * row["rows"] / max(whole, 1)
    look = _DROPPED if row["kind"] == "dropped" else colour
    for ax in (bars, dots):
        ax.axhline(place, color=RULE, linewidth=0.5, zorder=0)
    bars.barh(place, width, left=row["start"], height=0.68 if main else 0.44, color=look, alpha=1 if main else 0.75)
    if row["rows"]:
        filled = look if row["kind"] != "source" else "white"
        dots.plot(row["rows"], place, "o", markersize=5.5, markerfacecolor=filled, markeredgecolor=look)
    weight = {"fontweight": "bold"} if main else {}
    label = row["line"] if len(row["line"]) <= _LONGEST_LABEL else f"{row['line'][: _LONGEST_LABEL - 1]}…"
    _write(bars, _EDGE + (0 if main else 0.18), place, label, fontsize=9, **weight)
    _write(bars, _WIDTH - _SHARE, place, f"{row['rows']:,}", side="right", fontsize=9, **weight)
    _write(bars, _WIDTH - _EDGE, place, _percent(row), side="right", fontsize=9, color=MUTED)


def _percent(row: Mapping[str, Any]) -> str:
    """The share of a line, never rounded to nothing or to everything."""
    share = row["share"]
    if 0 < share < 0.05:
        return "< 0.1 %"
    if 99.95 <= share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %"


def _write(ax: Axes, inches: float, place: float, text: str, side: str = "left", **style: object) -> None:
    """Text at ``inches`` from the figure's left edge, in the line at ``place`` of the panel of bars."""
    x = (inches - _BARS[0]) / _BARS[1]
    ax.text(x, place, text, transform=ax.get_yaxis_transform(), ha=side, va="center", **style)


def _set_axes(bars: Axes, dots: Axes, end: float, most: int) -> None:
    for ax in (bars, dots):
        ax.set_ylim(end, 0)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_tick_params(labelsize=8.5)
    bars.set_xlim(0, 100)
    bars.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    bars.set_xlabel("of what came in", fontsize=9)
    dots.set_xscale("log")
    dots.set_xlim(0.6, 1.7 * max(most, 1))
    dots.xaxis.set_major_locator(LogLocator(numticks=6))
    dots.xaxis.set_major_formatter(FuncFormatter(_short))
    dots.minorticks_off()
    dots.set_xlabel("rows, logarithmic", fontsize=9)


def _short(value: float, _: object = None) -> str:
    """A power of ten: 1, 10, 100, 1k, 10k, 100k, 1M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _head(figure: Figure, height: float, rows: pd.DataFrame) -> None:
    """Title, and what the columns of numbers are."""
    corpus = rows[rows["section"] == CORPUS]
    whole, left = corpus["rows"].iloc[0], corpus.loc[corpus["kind"] == "left", "rows"].iloc[-1]
    style = {"va": "center", "color": INK}
    title = f"{left:,} of {whole:,} rows are asked as queries"
    figure.text(_EDGE / _WIDTH, 1 - 0.27 / height, title, fontsize=14, fontweight="bold", **style)
    told = "Bold: what came in and what each step left; below it, what it dropped and why. Hollow: sources."
    figure.text(_EDGE / _WIDTH, 1 - 0.55 / height, told, fontsize=9.5, va="center", color=MUTED)
    for inches, text in ((_WIDTH - _SHARE, "rows"), (_WIDTH - _EDGE, "of step")):
        figure.text(inches / _WIDTH, 1 - 0.85 / height, text, fontsize=9, ha="right", va="center", color=MUTED)


def main(ledger: str, outputs: Mapping[str, str], teachers: Mapping[str, Mapping[str, str]]) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv)."""
    rows = prepare(pd.read_csv(ledger), teachers)
    save(draw(rows, teachers), rows, "ledger", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.ledger,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
