"""Does the gap between two teachers' students close where length, perplexity or anything else is held equal?

Reads every student's scored samples (SCORED_SAMPLES) and the CSV ``student_comparison``; writes a CSV and a Markdown list.

``gaps``: one row per pair of teachers, benchmark and control, the reference first: kind (of the control), problems, seeds;
difference, low and high under the control, as in ``student_comparison``; reference_difference, reference_low and
reference_high, the same under the reference; change, change_low and change_high: difference less reference_difference, with
an interval of its own (nested bootstrap over the same problems, training seeds and samples of all four groups of
students); remaining (difference / reference_difference, empty where the reference's interval includes zero); verdict:
``reference``, or the word of :func:`whichteacher.conclusions.judge_gap`. Differences are in points of pass@1.

``conclusions``: :func:`whichteacher.conclusions.conclude_study`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.conclusions import REFERENCE, conclude_study, judge_gap
from whichteacher.outcomes import ALL
from whichteacher.resampling import Interval, PairedChange, generator, nested_bootstrap
from whichteacher.rule import Progress
from whichteacher.scores import read_samples
from whichteacher.students import Groups, by_students, pair_scores
from whichteacher.tables import write_text

COLUMNS = ("teacher_a", "teacher_b", "benchmark", "control", "kind", "problems", "seeds")


def reference_control(controls: Mapping[str, str]) -> str:
    """The control that others are held against: the first of kind ``parallel``, which is the paper's, else the first."""
    return next((name for name, kind in controls.items() if kind == "parallel"), next(iter(controls)))


def paired_change(
    groups: Groups, pair: tuple[str, str], control: str, reference: str, benchmarks: Sequence[str]
) -> list[PairedChange]:
    """The differences of ``pair`` under both controls, on the same problems of each benchmark."""
    a, b = pair
    changes = []
    for benchmark in benchmarks:
        here, there = groups[control, a, benchmark], groups[reference, a, benchmark]
        pair_scores(here, there)  # raises where the two controls were not put the same problems
        changes.append(
            PairedChange(
                pair_scores(here, groups[control, b, benchmark]),
                pair_scores(there, groups[reference, b, benchmark]),
            )
        )
    return changes


def compare_controls(
    groups: Groups,
    comparison: pd.DataFrame,
    controls: Mapping[str, str],
    benchmarks: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """All rows of the table; ``controls`` maps names to kinds, in order, ``comparison`` holds the differences."""
    reference = reference_control(controls)
    others = [control for control in controls if control != reference]
    found = comparison.set_index(["control", "teacher_a", "teacher_b", "benchmark"]).sort_index()
    base = comparison[comparison["control"] == reference]
    rows = []
    with Progress("compare_controls", len(base), "pairs x benchmarks") as progress:
        for told in base.to_dict("records"):
            pair, benchmark = (told["teacher_a"], told["teacher_b"]), told["benchmark"]
            theirs = Interval(told["difference"], told["low"], told["high"])
            for control in (reference, *others):
                row = found.loc[(control, *pair, benchmark)]
                gap = Interval(row["difference"], row["low"], row["high"])
                change, verdict = Interval(np.nan, np.nan, np.nan), REFERENCE
                if control != reference:
                    chosen = benchmarks if benchmark == ALL else [benchmark]
                    pairs = paired_change(groups, pair, control, reference, chosen)
                    rng = generator(seed, control, *pair, benchmark)
                    change = Interval(*(100 * value for value in nested_bootstrap(pairs, resamples, confidence, rng)))
                    verdict = judge_gap(gap, theirs, change)
                about = (*pair, benchmark, control, controls[control], row["problems"], row["seeds"])
                rows.append(
                    dict(zip(COLUMNS, about, strict=True))
                    | _columns("", gap)
                    | _columns("reference_", theirs)
                    | _columns("change_", change)
                    | {"remaining": gap.value / theirs.value if theirs.excludes_zero else np.nan, "verdict": verdict}
                )
            progress.advance()
    return pd.DataFrame(rows).rename(columns={"change_difference": "change"})


def _columns(prefix: str, interval: Interval) -> dict[str, float]:
    names = ("difference", "low", "high")
    return {f"{prefix}{name}": value for name, value in zip(names, interval, strict=True)}


def main(
    scored: Sequence[str],
    comparison: str,
    gaps: str,
    conclusions: str,
    controls: Mapping[str, str],
    benchmarks: Sequence[str],
    statistics: Mapping[str, Any],
) -> None:
    """Read ``scored`` and ``comparison``, write ``gaps`` and ``conclusions``."""
    compared = pd.read_csv(comparison)
    found = compare_controls(by_students(read_samples(scored)), compared, controls, benchmarks, **statistics)
    write_text(gaps, found.to_csv(index=False))
    write_text(conclusions, conclude_study(compared, found, reference_control(controls)))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.scored,  # noqa: F821
            snakemake.input.comparison,  # noqa: F821
            snakemake.output.gaps,  # noqa: F821
            snakemake.output.conclusions,  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
