"""Decide for each attempt of a teacher, shard and round whether it is right.

Reads the attempts (ATTEMPTS), the shard's queries (QUERIES) and, where a judge completes them, the constraints of queries without
any (CONSTRAINTS); writes one verdict per attempt (VERDICTS), in the same order.
"""

from typing import Any

import pandas as pd

from whichteacher.config import Verification
from whichteacher.schemas import ATTEMPTS, CONSTRAINTS, QUERIES, VERDICTS
from whichteacher.tables import read_frame, read_table, write_table
from whichteacher.verifiers.dispatch import verify_many

_REFERENCES = ["query_id", "category", "reference", "reference_type", "tests", "constraints"]


def rows_to_verify(attempts: pd.DataFrame, queries: pd.DataFrame, answer_format: str) -> list[dict[str, Any]]:
    """Attempts with the references of their queries, as the verifiers take them.

    Raises :class:`ValueError` for an attempt whose query is not in the shard.
    """
    rows = attempts.merge(queries, on="query_id", how="left", validate="many_to_one")
    unknown = rows.loc[rows["category"].isna(), "query_id"]
    if len(unknown):
        raise ValueError(f"attempts of query {unknown.iloc[0]}, which is not in this shard: generate the round again")
    rows = rows.astype(object).where(rows.notna(), None)
    return [{**row, "answer_format": answer_format} for row in rows.to_dict("records")]


def with_constraints(queries: pd.DataFrame, completed: pd.DataFrame) -> pd.DataFrame:
    """``queries`` with the constraints of ``completed`` (CONSTRAINTS) where they have none of their own."""
    found = queries["query_id"].map(completed.set_index("query_id")["constraints"])
    return queries.assign(constraints=queries["constraints"].where(queries["constraints"].notna(), found))


def main(
    attempts: str,
    shard: str,
    constraints: str | None,
    verdicts: str,
    settings: dict[str, Any],
    answer_format: str,
    jobs: int,
) -> None:
    """Verify one round and write its verdicts."""
    drawn = read_frame(attempts, ATTEMPTS, ["attempt_id", "query_id", "text", "finish_reason"])
    queries = read_table(shard, QUERIES, _REFERENCES).to_pandas()
    if constraints is not None:
        queries = with_constraints(queries, read_frame(constraints, CONSTRAINTS))
    rows = rows_to_verify(drawn, queries, answer_format)
    decided = verify_many(rows, Verification.model_validate(settings), jobs, "verify_responses")
    write_table(verdicts, decided, VERDICTS, {"settings": settings, "answer_format": answer_format})


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.attempts,  # noqa: F821
            snakemake.input.shard,  # noqa: F821
            snakemake.input.get("constraints") or None,  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.verification,  # noqa: F821
            snakemake.params.answer_format,  # noqa: F821
            snakemake.threads,  # noqa: F821
        )
