"""Verify a sample of the attempts of all teachers once more, many at once, and grade it in another way as well.

Reads the attempts with their verdicts (COLLECTED), the queries (QUERIES) and completed constraints (CONSTRAINTS); writes REVERIFIED.
A verdict that changes under load was decided by the clock. The sample of a teacher are the attempts with the smallest identifiers:
these are hashes, so it is random, and a larger sample adds to a smaller one. What a judge decided is not in it.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.config import Verification
from whichteacher.outcomes import by_teacher
from whichteacher.schemas import COLLECTED, CONSTRAINTS, QUERIES, REVERIFIED
from whichteacher.tables import read_frame, select_rows, write_table
from whichteacher.verifiers.dispatch import REFERENCES, rows_to_verify, structure, verify_many, with_constraints
from whichteacher.verifiers.outcome import Outcome
from whichteacher.verifiers.pool import Task, run_rules
from whichteacher.verifiers.second import NAMES

_DECIDED = ("verdict", "score", "reason")
_COLUMNS = ["attempt_id", "query_id", "text", "finish_reason", *_DECIDED, "verifier"]


def draw(collected: Sequence[str], size: int) -> pd.DataFrame:
    """The sample of one teacher, from its shards: attempts that rules decided, by identifier."""
    found = [read_frame(path, COLLECTED, ["attempt_id", "verifier"]) for path in collected]
    by_rule = pd.concat([rows.loc[~rows["verifier"].str.startswith("judge_"), "attempt_id"] for rows in found])
    chosen = by_rule.sort_values().head(size)
    return select_rows(collected, COLLECTED, _COLUMNS, "attempt_id", chosen).to_pandas()


def second_opinions(rows: Sequence[Mapping[str, Any]], settings: Verification) -> list[dict[str, Any]]:
    """How each row is graded in another way: columns ``second`` and ``second_*`` of REVERIFIED."""
    code = [row for row in rows if row["category"] == "code"]
    all_tests = settings.model_copy(update={"max_tests": sys.maxsize})
    by_tests = {v["attempt_id"]: v for v in verify_many(code, all_tests, 1, "reverify_sample, all tests")}
    opinions: dict[int, Outcome] = {}
    tasks: dict[int, Task] = {}
    for place, row in enumerate(rows):
        name, name_of = NAMES[row["category"]], f"query {row['query_id']}"
        found = structure(row["text"], row["finish_reason"], row["answer_format"])
        if isinstance(found, Outcome):
            opinions[place] = found
        elif name == "whole_response":
            tasks[place] = Task("constraints", (row["text"], row["constraints"]), name_of)
        elif name != "all_tests":
            tasks[place] = Task(name, (found, row["reference"]), name_of)
    opinions |= dict(zip(tasks, run_rules(list(tasks.values()), settings.deadline_seconds), strict=True))
    told = []
    for place, row in enumerate(rows):
        if row["category"] == "code":
            decided = {name: by_tests[row["attempt_id"]][name] for name in _DECIDED}
        else:
            decided = opinions[place].decided(settings.threshold_of(row["category"]))
        told.append({"second": NAMES[row["category"]], **{f"second_{name}": value for name, value in decided.items()}})
    return told


def main(
    collected: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    constraints: Sequence[str],
    output: str,
    formats: Mapping[str, str],
    settings: dict[str, Any],
    sample: int,
    jobs: int,
) -> None:
    """Write the sample of all teachers. ``collected`` holds each teacher's files, ``formats`` is each teacher's answer format; ``jobs`` run at once."""
    verification = Verification.model_validate(settings)
    samples = {teacher: draw(files, sample) for teacher, files in collected.items()}
    ids = pd.concat([drawn["query_id"] for drawn in samples.values()]).drop_duplicates()
    asked = select_rows(queries, QUERIES, REFERENCES, "query_id", ids).to_pandas()
    if constraints:
        asked = with_constraints(asked, pd.concat([read_frame(path, CONSTRAINTS) for path in constraints]))
    told = []
    for teacher, drawn in samples.items():
        rows = rows_to_verify(drawn, asked, formats[teacher])
        again = verify_many(rows, verification, jobs, f"reverify_sample {teacher}")
        for row, loaded, second in zip(rows, again, second_opinions(rows, verification), strict=True):
            under_load = {f"loaded_{name}": loaded[name] for name in _DECIDED}
            told.append({**row, "teacher": teacher, **under_load, **second})
    write_table(
        output,
        [{name: row[name] for name in REVERIFIED.names} for row in told],
        REVERIFIED,
        {"settings": settings, "sample": sample, "jobs": jobs},
    )


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            by_teacher(list(snakemake.params.formats), snakemake.input.collected),  # noqa: F821
            list(snakemake.input.queries),  # noqa: F821
            list(snakemake.input.constraints),  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.formats,  # noqa: F821
            snakemake.params.verification,  # noqa: F821
            snakemake.params.sample,  # noqa: F821
            snakemake.params.load * snakemake.threads,  # noqa: F821
        )
