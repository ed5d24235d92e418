"""Decide for each attempt of a teacher, shard and round whether it is right.

Reads the attempts (ATTEMPTS), the shard's queries (QUERIES) and, where a judge completes them, the constraints of queries without
any (CONSTRAINTS); writes one verdict per attempt (VERDICTS), in the same order.
"""

from typing import Any

from whichteacher.config import Verification
from whichteacher.schemas import ATTEMPTS, CONSTRAINTS, QUERIES, VERDICTS
from whichteacher.tables import read_frame, read_table, write_table
from whichteacher.verifiers.dispatch import REFERENCES, rows_to_verify, verify_many, with_constraints


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
    queries = read_table(shard, QUERIES, REFERENCES).to_pandas()
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
