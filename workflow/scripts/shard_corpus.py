"""Cut the corpus into shards.

Reads the imported queries that are left after decontamination. Writes one table per shard, sorted by ``query_id``: equal
ranges of the identifiers, so that the order of files and the presence of other queries never move a query. Rows wait on disk
until their shard is written, so that no more than one shard is in memory.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from whichteacher.queries import id_numbers
from whichteacher.rule import Progress
from whichteacher.schemas import QUERIES, SELECTED
from whichteacher.selection import selected_batches
from whichteacher.tables import append_spool, read_spool, read_table, write_table


def shards_of(identifiers: pa.ChunkedArray, shards: int) -> np.ndarray:
    """:func:`whichteacher.queries.shard_of` of every identifier."""
    # A shard begins with the first number that is not below its share of 2 ** 64.
    starts = np.array([-(-(number << 64) // shards) for number in range(shards)], dtype=np.uint64)
    return np.searchsorted(starts, id_numbers(identifiers)[:, 0], side="right") - 1


def split(batches: Iterable[pa.Table], shards: int, folder: Path) -> Iterator[pa.Table]:
    """The rows of each shard (QUERIES), sorted by ``query_id``, one shard after the other; ``folder`` holds them meanwhile."""
    for batch in batches:
        place = shards_of(batch["query_id"], shards)
        order = np.argsort(place, kind="stable")
        ends = np.searchsorted(place[order], np.arange(shards + 1))
        ordered = batch.select(QUERIES.names).take(pa.array(order))
        for shard in np.flatnonzero(np.diff(ends)).tolist():
            append_spool(folder / str(shard), ordered.slice(ends[shard], ends[shard + 1] - ends[shard]))
    for shard in range(shards):
        rows = pa.concat_tables([QUERIES.empty_table(), *read_spool(folder / str(shard))])
        (folder / str(shard)).unlink(missing_ok=True)
        yield rows.sort_by("query_id")


def main(imported: Sequence[str], queries: str, outputs: Sequence[str]) -> None:
    """Write the shards of the selection ``queries`` of the tables ``imported`` to ``outputs``, the first shard first."""
    selected = read_table(queries, SELECTED)
    folder = Path(outputs[0]).parent
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".sharding-*"):
        shutil.rmtree(left)  # of a job that was killed
    with (
        tempfile.TemporaryDirectory(prefix=".sharding-", dir=folder) as waiting,
        Progress("shard_corpus", selected.num_rows, "queries") as progress,
    ):
        shards = split(selected_batches(imported, selected, QUERIES.names), len(outputs), Path(waiting))
        for shard, (path, rows) in enumerate(zip(outputs, shards, strict=True)):
            write_table(path, rows, QUERIES, {"shard": shard, "shards": len(outputs)})
            progress.advance(rows.num_rows)
            print(f"shard {shard}: {rows.num_rows} queries")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(list(snakemake.input.imported), snakemake.input.queries, list(snakemake.output.shards))  # noqa: F821
