"""Cut the corpus into shards.

Reads the queries that are left after decontamination. Writes one table per shard, sorted by ``query_id``: equal ranges
of the identifiers, so that the order of files and the presence of other queries never move a query.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from whichteacher.queries import shard_of
from whichteacher.schemas import QUERIES
from whichteacher.tables import read_table, write_table


def split(queries: pa.Table, shards: int) -> list[pa.Table]:
    """The rows of each shard, sorted by ``query_id``."""
    ordered = queries.sort_by("query_id")
    place = np.array([shard_of(identifier, shards) for identifier in ordered["query_id"].to_pylist()], dtype=np.int64)
    starts = np.searchsorted(place, np.arange(shards + 1))
    return [ordered.slice(starts[i], starts[i + 1] - starts[i]) for i in range(shards)]


def main(queries: str, outputs: Sequence[str]) -> None:
    """Write the shards of the table ``queries`` to ``outputs``, the first shard first."""
    tables = split(read_table(queries, QUERIES), len(outputs))
    for shard, (path, rows) in enumerate(zip(outputs, tables, strict=True)):
        write_table(path, rows, QUERIES, {"shard": shard, "shards": len(outputs)})
        print(f"shard {shard}: {rows.num_rows} queries")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.input.queries, list(snakemake.output.shards))  # noqa: F821
