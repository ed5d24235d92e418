"""Give every reference of a shard to its own verifier as an answer: one that fails cannot be verified against.

Reads a shard (QUERIES), writes REFERENCE_CHECKS, one row per reference that rules compare. Unfit ones are shown, not dropped:
their answers come out undecided or wrong, and a judge may still decide them.
"""

from whichteacher.rule import Progress
from whichteacher.schemas import QUERIES, REFERENCE_CHECKS
from whichteacher.tables import read_table, write_table
from whichteacher.verifiers.fitness import references_fit

_COLUMNS = ["query_id", "category", "reference", "reference_type"]


def main(shard: str, output: str, deadline_seconds: int, jobs: int) -> None:
    """Write what becomes of each reference of the shard."""
    rows = read_table(shard, QUERIES, _COLUMNS).to_pylist()
    with Progress("check_references", len(rows)) as progress:
        fits = references_fit(rows, deadline_seconds, jobs, progress.advance)
    told = [
        {**row, "fit": found.fit, "reason": found.reason}
        for row, found in zip(rows, fits, strict=True)
        if found.fit is not None
    ]
    write_table(output, told, REFERENCE_CHECKS, {"deadline_seconds": deadline_seconds})


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.shard,  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.deadline_seconds,  # noqa: F821
            snakemake.threads,  # noqa: F821
        )
