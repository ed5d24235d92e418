"""Score a student's samples of a benchmark with the verifiers that accepted its training data.

Reads the samples (SAMPLES) and the benchmark's problems (BENCHMARK_PROBLEMS); writes the samples with their verdicts
(SCORED_SAMPLES), in the same order. A benchmark gives no part marks: every test of a program is run and all must pass.
Problems of category ``task`` have no verifier here: their verdict is that of LightEval's metric.
"""

import sys
from typing import Any

import pandas as pd

from whichteacher.config import Verification
from whichteacher.schemas import BENCHMARK_PROBLEMS, SAMPLES, SCORED_SAMPLES
from whichteacher.tables import read_frame, write_table
from whichteacher.verifiers.dispatch import verify_many


def rows_to_verify(samples: pd.DataFrame, problems: pd.DataFrame, answer_format: str) -> list[dict[str, Any]]:
    """Samples with the references of their problems, as the verifiers take them.

    Raises :class:`ValueError` for a sample whose problem is not in the benchmark.
    """
    columns = ["problem_id", "category", "reference", "reference_type", "tests"]
    drawn = samples[["sample_id", "problem_id", "text", "finish_reason"]]
    rows = drawn.merge(problems[columns], on="problem_id", how="left", validate="many_to_one")
    unknown = rows.loc[rows["category"].isna(), "problem_id"]
    if len(unknown):
        raise ValueError(f"samples of problem {unknown.iloc[0]}, which is not in the benchmark: evaluate again")
    rows = rows.rename(columns={"sample_id": "attempt_id", "problem_id": "query_id"})
    rows = rows.astype(object).where(rows.notna(), None)
    return [{**row, "answer_format": answer_format} for row in rows.to_dict("records")]


def verdicts_of_task(samples: pd.DataFrame) -> pd.DataFrame:
    """Verdicts by LightEval's metric alone: its full mark is a pass, and a response that did not end has none."""
    finished = samples["finish_reason"] == "stop"
    score = samples["lighteval_score"].where(finished, 0.0)
    reason = pd.Series("lighteval", index=samples.index).where(finished, "truncated")
    return pd.DataFrame({"verdict": (score >= 1).map({True: "pass", False: "fail"}), "score": score, "reason": reason})


def main(samples: str, problems: str, scored: str, settings: dict[str, Any], answer_format: str, jobs: int) -> None:
    """Score the samples of one student and benchmark."""
    table, asked = read_frame(samples, SAMPLES), read_frame(problems, BENCHMARK_PROBLEMS)
    if (asked["category"] == "task").all():
        verdicts = verdicts_of_task(table)
    else:
        verification = Verification.model_validate(
            {**settings, "threshold": 1.0, "thresholds": {}, "max_tests": sys.maxsize}
        )
        rows = rows_to_verify(table, asked, answer_format)
        found = verify_many(rows, verification, jobs, "score_samples")
        verdicts = pd.DataFrame(found, columns=["verdict", "score", "reason"])
    write_table(scored, table.join(verdicts), SCORED_SAMPLES, {"settings": settings})


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.samples,  # noqa: F821
            snakemake.input.problems,  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.verification,  # noqa: F821
            snakemake.params.answer_format,  # noqa: F821
            snakemake.threads,  # noqa: F821
        )
