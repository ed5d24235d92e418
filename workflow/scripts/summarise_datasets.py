"""The numbers of Figures 2 to 5 for the datasets that the figures show: small tables in the place of millions of traces.

Reads the measures of the traces (TRACE_MEASURES) and one dataset per teacher (TRACES), no text; writes three CSV files.

``categories``: teacher, category, traces, output_tokens.
``lengths``: teacher, category, span (in tokens, closed at its upper end), traces.
``boxes``: teacher, measure (``output_tokens``, ``perplexity``), category (``all`` last) and, as in the paper's Figures 4 and 5,
mean, low_whisker, q1, median, q3, high_whisker. A measure that no trace of a category has yields no row.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.cbook import boxplot_stats

from whichteacher.outcomes import ALL, measures_of_dataset
from whichteacher.tables import write_text


def spans(width: int, bins: int) -> list[str]:
    """Names of ``bins`` bins of ``width`` tokens, each closed at its upper end, and of the open one above them."""
    inner = [f"{width * i}-{width * (i + 1)}" for i in range(1, bins)]
    return [f"<={width}", *inner, f">{width * bins}"]


def count_spans(lengths: pd.Series, width: int, bins: int) -> np.ndarray:
    """Traces per bin of :func:`spans`."""
    chosen = np.minimum((lengths.to_numpy() - 1) // width, bins)
    return np.bincount(np.maximum(chosen, 0).astype(int), minlength=bins + 1)


def by_category(traces: pd.DataFrame) -> pd.DataFrame:
    """Traces and their tokens per category."""
    grouped = traces.groupby("category")["output_tokens"]
    return grouped.agg(traces="size", output_tokens="sum").reset_index()


def histogram(traces: pd.DataFrame, width: int, bins: int) -> pd.DataFrame:
    """Traces per category and span; every span has a row."""
    rows = [
        pd.DataFrame(
            {
                "category": category,
                "span": spans(width, bins),
                "traces": count_spans(group["output_tokens"], width, bins),
            }
        )
        for category, group in traces.groupby("category")
    ]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["category", "span", "traces"])


def box_statistics(values: Sequence[float]) -> dict[str, float]:
    """Mean, quartiles and Tukey whiskers (1.5 interquartile ranges), as in the paper's Figures 4 and 5."""
    found = boxplot_stats(np.asarray(values, dtype=float))[0]
    return {
        "mean": found["mean"],
        "low_whisker": found["whislo"],
        "q1": found["q1"],
        "median": found["med"],
        "q3": found["q3"],
        "high_whisker": found["whishi"],
    }


def boxes(traces: pd.DataFrame) -> pd.DataFrame:
    """The box of every measure and category."""
    rows = []
    for measure in ("output_tokens", "perplexity"):
        for category, group in [*traces.groupby("category"), (ALL, traces)]:
            values = group[measure].dropna()
            if len(values):
                rows.append({"measure": measure, "category": category, **box_statistics(values)})
    names = ["measure", "category", "mean", "low_whisker", "q1", "median", "q3", "high_whisker"]
    return pd.DataFrame(rows, columns=names)


def main(
    measures: Sequence[str],
    datasets: Sequence[str],
    outputs: Mapping[str, str],
    teachers: Sequence[str],
    width: int,
    bins: int,
) -> None:
    """Summarise ``datasets``, in the order of ``teachers`` as ``measures`` are, into ``outputs`` (categories, lengths, boxes)."""
    parts: dict[str, list[pd.DataFrame]] = {"categories": [], "lengths": [], "boxes": []}
    for teacher, measure, dataset in zip(teachers, measures, datasets, strict=True):
        traces = measures_of_dataset(measure, dataset, ["category", "output_tokens", "perplexity"])
        for name, table in (
            ("categories", by_category(traces)),
            ("lengths", histogram(traces, width, bins)),
            ("boxes", boxes(traces)),
        ):
            table.insert(0, "teacher", teacher)
            parts[name].append(table)
    for name, tables in parts.items():
        write_text(outputs[name], pd.concat(tables, ignore_index=True).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.measures,  # noqa: F821
            snakemake.input.datasets,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
