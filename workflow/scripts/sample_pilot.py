"""Choose the queries of the pilot, by which `snakemake plan` estimates what a study will take.

Reads the shards (QUERIES) and writes a table of as many queries as asked for, in the order of ``query_id``: those with the
smallest identifiers. Identifiers are hashes, so these are a random sample, and more queries add to it and take none away.
"""

from collections.abc import Sequence

import pyarrow as pa

from whichteacher.schemas import QUERIES
from whichteacher.tables import read_table, write_table


def main(shards: Sequence[str], output: str, queries: int) -> None:
    """Write the first ``queries`` queries of ``shards``, which are ranges of ``query_id`` in their order."""
    found = QUERIES.empty_table()
    for shard in shards:
        found = pa.concat_tables([found, read_table(shard, QUERIES).sort_by("query_id").slice(0, queries - len(found))])
        if len(found) == queries:
            break
    write_table(output, found, QUERIES, {"queries": queries})


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.input.shards, snakemake.output.table, snakemake.params.queries)  # noqa: F821
