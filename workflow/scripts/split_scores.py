"""Split the students' scores by whether the corpus or a response held the benchmark's problem.

Reads every student's scored samples (SCORED_SAMPLES), the flagged queries (CONTAMINATION) and the flagged responses of every
teacher (CONTAMINATED_RESPONSES); writes two CSV files. A problem is flagged where a query fell for it, or where a response
of any teacher holds it: the same problems for every teacher's students.

``scores``: one row per control, teacher and benchmark: problems_flagged (of these, by queries and by responses:
flagged_by_queries, flagged_by_responses) and problems_unflagged; pass_at_1 and se_problems (standard error over problems) on
either, as ``_flagged`` and ``_unflagged``, empty where there are none.

``comparison``: as ``comparison`` of compare_students, without its sentence, on the problems that are not flagged.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.resampling import holm
from whichteacher.schemas import CONTAMINATED_RESPONSES, CONTAMINATION
from whichteacher.scores import read_samples, shares, standard_error
from whichteacher.students import by_students, compare_pairs
from whichteacher.tables import read_frame, write_text

#: What names a problem.
PROBLEM = ["benchmark", "problem_id"]


def mark(samples: pd.DataFrame, queries: pd.DataFrame, responses: pd.DataFrame) -> pd.DataFrame:
    """``samples`` with what flags their problem: by_queries, by_responses, and flagged (either).

    ``queries`` and ``responses`` are rows of CONTAMINATION and CONTAMINATED_RESPONSES; of the former those count for which the
    query was dropped: a near match with other numbers is another problem.
    """
    asked = pd.MultiIndex.from_frame(samples[PROBLEM])
    by_queries = asked.isin(pd.MultiIndex.from_frame(queries.loc[queries["dropped"], PROBLEM]))
    by_responses = asked.isin(pd.MultiIndex.from_frame(responses[PROBLEM]))
    return samples.assign(by_queries=by_queries, by_responses=by_responses, flagged=by_queries | by_responses)


def split_score(samples: pd.DataFrame) -> dict[str, Any]:
    """The numbers of one teacher's students on one benchmark."""
    problems = samples.drop_duplicates("problem_id")
    found: dict[str, Any] = {
        "problems_flagged": int(problems["flagged"].sum()),
        "flagged_by_queries": int(problems["by_queries"].sum()),
        "flagged_by_responses": int(problems["by_responses"].sum()),
        "problems_unflagged": int((~problems["flagged"]).sum()),
    }
    for name, chosen in (
        ("flagged", samples[samples["flagged"]]),
        ("unflagged", samples[~samples["flagged"]]),
    ):
        by_problem = shares(chosen)[0].mean(axis=0).to_numpy() if len(chosen) else np.empty(0)
        found[f"pass_at_1_{name}"] = by_problem.mean() if len(by_problem) else np.nan
        found[f"se_problems_{name}"] = standard_error(by_problem)
    return found


def split_scores(
    samples: pd.DataFrame, controls: Sequence[str], teachers: Sequence[str], benchmarks: Sequence[str]
) -> pd.DataFrame:
    """One row per control, teacher and benchmark of samples that :func:`mark` marked."""
    groups = by_students(samples)
    rows = [
        {"control": control, "teacher": teacher, "benchmark": benchmark}
        | split_score(groups[control, teacher, benchmark])
        for control in controls
        for teacher in teachers
        for benchmark in benchmarks
    ]
    return pd.DataFrame(rows)


def main(
    scored: Sequence[str],
    contamination: str,
    contaminated: Sequence[str],
    scores: str,
    comparison: str,
    controls: Sequence[str],
    teachers: Sequence[str],
    benchmarks: Sequence[str],
    statistics: Mapping[str, Any],
) -> None:
    """Read the samples and what flags their problems, write ``scores`` and ``comparison``."""
    samples = mark(
        read_samples(scored),
        read_frame(contamination, CONTAMINATION, [*PROBLEM, "dropped"]),
        read_frame(contaminated, CONTAMINATED_RESPONSES, PROBLEM),
    )
    write_text(scores, split_scores(samples, controls, teachers, benchmarks).to_csv(index=False))
    compared = compare_pairs(samples[~samples["flagged"]], controls, teachers, benchmarks, **statistics)
    write_text(comparison, compared.assign(p_holm=holm(compared["p"].to_list())).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.scored,  # noqa: F821
            snakemake.input.contamination,  # noqa: F821
            snakemake.input.contaminated,  # noqa: F821
            snakemake.output.scores,  # noqa: F821
            snakemake.output.comparison,  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
