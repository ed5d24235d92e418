"""Figure 6: training loss of each teacher's students.

Reads the training logs (TRAINING_LOG) of every seed of one control and the paper's Figure 6 (read from its pixels);
writes the figure as SVG, PNG and PDF and its data as CSV (origin, teacher, step, loss: mean over the seeds, smoothed).
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from whichteacher.outcomes import by_teacher
from whichteacher.plotting import (
    PAPER,
    PAPER_GREYS,
    PAPER_LABELS,
    THIS_RUN,
    new_figure,
    read_published,
    save,
    thousands,
)
from whichteacher.schemas import TRAINING_LOG
from whichteacher.tables import read_frame


def prepare(logs: Mapping[str, pd.DataFrame], published: pd.DataFrame, smoothing: int) -> pd.DataFrame:
    """All points. ``logs`` hold the steps of every seed; ``smoothing`` is the width of the centred moving average.

    Only full windows are averaged, as the paper's smoothed lines also begin some 25 steps in; a run of fewer than five
    windows is smoothed over a fifth of its steps.
    """
    parts = []
    for teacher, log in logs.items():
        mean = log.groupby("step")["loss"].mean()
        smoothed = mean.rolling(max(1, min(smoothing, len(mean) // 5)), center=True).mean()
        parts.append(pd.DataFrame({"step": mean.index, "loss": mean.to_numpy(), "smoothed": smoothed.to_numpy()}))
        parts[-1] = parts[-1].assign(origin=THIS_RUN, teacher=teacher)
    paper = published[published["statistic"] == "smoothed_loss"]
    parts.append(
        pd.DataFrame(
            {
                "origin": PAPER,
                "teacher": paper["teacher"],
                "step": paper["item"].astype(int),
                "smoothed": paper["value"],
            }
        )
    )
    return pd.concat(parts, ignore_index=True)[["origin", "teacher", "step", "loss", "smoothed"]]


def draw(rows: pd.DataFrame, teachers: Mapping[str, Mapping[str, str]]) -> Figure:
    """This run (raw pale, smoothed strong) left, the paper's smoothed lines right."""
    figure, axes = new_figure(8.5, 3.9, ncols=2)
    ours, theirs = axes[0]
    for name, teacher in teachers.items():
        line = rows[(rows["origin"] == THIS_RUN) & (rows["teacher"] == name)]
        ours.plot(line["step"], line["loss"], color=teacher["colour"], alpha=0.22, linewidth=0.9)
        ours.plot(line["step"], line["smoothed"], color=teacher["colour"], linewidth=2, label=teacher["label"])
    ours.set_title("This run, mean over training seeds")
    ours.set_ylabel("Loss (nats per token)")
    styles = zip(PAPER_LABELS.items(), PAPER_GREYS, ("-", "--", "-."), strict=True)
    for (name, label), grey, dashes in styles:
        line = rows[(rows["origin"] == PAPER) & (rows["teacher"] == name)]
        theirs.plot(line["step"], line["smoothed"], color=grey, linewidth=2, linestyle=dashes, label=label)
    theirs.set_title("Paper, smoothed (read from its pixels)")
    for ax in axes[0]:
        ax.set_xlabel("Training step")
        ax.set_ylim(bottom=0)
        thousands(ax.xaxis)
        ax.legend()
    return figure


def main(
    logs: Sequence[str],
    published: str,
    outputs: Mapping[str, str],
    teachers: Mapping[str, Mapping[str, str]],
    smoothing: int,
) -> None:
    """Draw the figure and write ``outputs`` (svg, png, pdf, csv); ``logs`` hold equally many files per teacher, in order."""
    frames = {
        teacher: read_frame(files, TRAINING_LOG, ["step", "loss"])
        for teacher, files in by_teacher(list(teachers), logs).items()
    }
    rows = prepare(frames, read_published(published), smoothing)
    save(draw(rows, teachers), rows, "training_loss", **outputs)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.logs,  # noqa: F821
            snakemake.input.published,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
