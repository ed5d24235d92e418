"""Close a teacher and shard: every attempt with its verdict, the accepted one marked, the queries given up counted.

Reads the attempts (ATTEMPTS) and verdicts (VERDICTS) of all rounds and the shard's queries (QUERIES); writes them as one table
(COLLECTED), by query and attempt, and a ledger of the queries: a query with an accepted attempt is kept, every other one dropped
as ``give_up``, with the reason of its last verdict.
"""

from collections.abc import Sequence

import pandas as pd

from whichteacher.ledger import Ledger
from whichteacher.schemas import ATTEMPTS, COLLECTED, QUERIES, VERDICTS
from whichteacher.tables import read_frame, write_table


def collect(attempts: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Attempts and verdicts side by side, ordered by query and attempt, with ``accepted``: the first pass of each query.

    Raises :class:`ValueError` where attempts and verdicts are not of the same rows.
    """
    added = [name for name in VERDICTS.names if name not in ATTEMPTS.names]
    table = attempts.merge(verdicts[["attempt_id", *added]], on="attempt_id", how="outer", validate="one_to_one")
    odd = table.loc[table["verdict"].isna() | table["query_id"].isna(), "attempt_id"]
    if len(odd):
        raise ValueError(f"attempt {odd.iloc[0]} is in the attempts or the verdicts only: verify the round again")
    table = table.sort_values(["query_id", "attempt"], ignore_index=True)
    passed = table["verdict"] == "pass"
    return table.assign(accepted=passed & (passed.groupby(table["query_id"]).cumsum() == 1))


def account(table: pd.DataFrame, queries: Sequence[str], scope: str) -> Ledger:
    """The ledger over ``queries``: solved ones kept, the others given up."""
    ledger = Ledger("collect_attempts", scope, len(queries))
    solved = set(table.loc[table["accepted"], "query_id"])
    last = table.groupby("query_id")["reason"].last()
    for query in queries:
        if query not in solved:
            ledger.drop(query, "give_up", last.get(query))
    ledger.keep(len(solved))
    return ledger


def main(
    attempts: Sequence[str], verdicts: Sequence[str], shard: str, outputs: tuple[str, str, str], scope: str
) -> None:
    """Write table, ledger and dropped queries (``outputs``) of one teacher and shard."""
    table = collect(read_frame(attempts, ATTEMPTS), read_frame(verdicts, VERDICTS))
    queries = read_frame(shard, QUERIES, ["query_id"])["query_id"].tolist()
    write_table(outputs[0], table, COLLECTED)
    account(table, queries, scope).write(*outputs[1:])


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.attempts,  # noqa: F821
            snakemake.input.verdicts,  # noqa: F821
            snakemake.input.shard,  # noqa: F821
            (snakemake.output.table, snakemake.output.ledger, snakemake.output.dropped),  # noqa: F821
            f"{snakemake.wildcards.teacher}/{snakemake.wildcards.shard}",  # noqa: F821
        )
