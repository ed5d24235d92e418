"""What may be said of a comparison of students, in words: every sentence comes from numbers, by the rules stated here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.resampling import Interval

#: Of a control beside the reference: what became of the gap there, see :func:`judge_gap`.
REFERENCE, STAYS, NARROWS, CLOSES, REVERSES, UNDECIDED = (
    "reference",
    "stays",
    "narrows",
    "closes",
    "reverses",
    "undecided",
)


def judge_gap(gap: Interval, reference: Interval, change: Interval) -> str:
    """What became of the gap between two teachers' students under a control, in a word.

    ``gap`` is the difference under the control, ``reference`` that under the reference, ``change`` the paired change from
    the reference to the control.

    * ``undecided`` wherever the reference's interval includes zero: there is no gap that could close.
    * ``reverses``: the gap's interval lies on the other side of zero.
    * ``narrows``: the gap's interval lies on the reference's side, and the change's on the other.
    * ``stays``: the gap's interval lies on the reference's side, and the change's does not lie on the other.
    * ``closes``: the gap's interval includes zero, the change's lies wholly on the side that closes the gap, and the
      gap's interval is narrow enough (half its width is less than the reference gap) to have shown a gap of that size.
    * ``undecided`` otherwise.

    That one interval excludes zero and another does not is no sign of a change (Gelman and Stern 2006, "The difference
    between 'significant' and 'not significant' is not itself statistically significant"): so a gap never closes without the
    interval of the change itself.
    """
    if not reference.excludes_zero:
        return UNDECIDED
    sign = np.sign(reference.value)
    towards_zero = change.excludes_zero and np.sign(change.low) == -sign
    if gap.excludes_zero:
        if np.sign(gap.low) != sign:
            return REVERSES
        return NARROWS if towards_zero else STAYS
    if towards_zero and (gap.high - gap.low) / 2 < abs(reference.value):
        return CLOSES
    return UNDECIDED


def conclude(row: Mapping[str, Any], labels: Mapping[str, str], confidence: float, comparisons: int) -> str:
    """One sentence on one row of the comparison, by these rules.

    A difference is claimed only where the interval excludes zero, and called settled only where Holm's p is also below
    1 - confidence; a single training seed is named as such; without a claim the sentence says what it would take. Where all
    samples of both passed, or none, an interval of no width would say more than is known: it is not told.
    """
    interval = Interval(row["difference"], row["low"], row["high"])
    a, b, where = (labels[row[name]] for name in ("teacher_a", "teacher_b", "benchmark"))
    sign = np.sign(interval.value) or 1
    ahead, behind = (a, b) if sign > 0 else (b, a)
    if np.isnan(interval.low):
        return f"On {where}, too few problems were scored to compare students of {a} and {b}."
    if row["score_a"] == row["score_b"] and row["score_a"] in (0, 100):
        what = "no sample passed" if row["score_a"] == 0 else "every sample passed"
        return f"On {where}, {what}: these problems tell nothing of students of {a} and {b} apart."
    low, high = sorted((sign * interval.low, sign * interval.high))
    bounds = f"{confidence * 100:g} % interval {low:.1f} to {high:.1f}"
    seeds = (
        "one training seed each, so other seeds may differ" if row["seeds"] == 1 else f"{row['seeds']} training seeds"
    )
    if not interval.excludes_zero:
        needed = row["problems_needed"]
        remedy = ""
        if pd.notna(needed) and needed > row["problems"]:
            more = needed - row["problems"]
            remedy = f"; about {more:,.0f} more problems would be needed to tell a difference of this size"
        return (
            f"On {where}, no difference between students of {ahead} and of {behind} is shown: "
            f"{abs(interval.value):.1f} points for {ahead} ({bounds}; {row['problems']} problems, {seeds}){remedy}."
        )
    doubt = ""
    if not row["p_holm"] < 1 - confidence:
        doubt = f", but not after correction for {comparisons} comparisons (p = {row['p_holm']:.2g})"
    return (
        f"On {where}, students of {ahead} score {abs(interval.value):.1f} points above students of {behind} "
        f"({bounds}; {row['problems']} problems, {seeds}){doubt}."
    )


def conclude_controls(verdicts: Mapping[str, str]) -> str:
    """One sentence on what became of a shown difference under the controls; ``verdicts`` are :func:`judge_gap`'s by control,
    the reference's among them.

    The difference holds in the reference, and wherever it stays or narrows.
    """
    if len(verdicts) == 1:
        return "No other control was run."
    holding = sum(verdict in (REFERENCE, STAYS, NARROWS) for verdict in verdicts.values())
    told = f"It holds in {holding} of {len(verdicts)} controls"
    for verdict, words in (
        (NARROWS, "narrows under"),
        (CLOSES, "closes under"),
        (REVERSES, "reverses under"),
        (UNDECIDED, "is undecided under"),
    ):
        names = [f"`{control}`" for control, found in verdicts.items() if found == verdict]
        if names:
            told += f"; it {words} {', '.join(names)}"
    return f"{told}."


def conclude_study(comparison: pd.DataFrame, gaps: pd.DataFrame, reference: str) -> str:
    """A Markdown list of what the study says, a line per pair of teachers and benchmark.

    ``comparison`` is student_comparison.csv, whose sentence of the control ``reference`` begins each line; where that claims
    a difference, a second sentence says what ``gaps`` (gap_by_control.csv) found under the controls.
    """
    verdicts: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in gaps.to_dict("records"):
        verdicts.setdefault(_about(row), {})[row["control"]] = row["verdict"]
    lines = []
    for row in comparison[comparison["control"] == reference].to_dict("records"):
        sentences = [row["conclusion"]]
        if Interval(row["difference"], row["low"], row["high"]).excludes_zero:
            sentences.append(conclude_controls(verdicts[_about(row)]))
        lines.append(f"- {' '.join(sentences)}\n")
    return "".join(lines)


def _about(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """The pair of teachers and the benchmark of a row."""
    return row["teacher_a"], row["teacher_b"], row["benchmark"]
