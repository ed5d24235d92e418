"""Drop queries that no teacher should be asked.

Reads the imported queries. Writes the selection (SELECTED) of those that pass every rule of ``corpus.clean``, the ledger, and
the dropped rows with the first rule they break and what broke it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from whichteacher.cleaning import find_faults
from whichteacher.ledger import Ledger
from whichteacher.rule import Progress
from whichteacher.schemas import SELECTED
from whichteacher.selection import count_rows, selected_batches
from whichteacher.tables import versions, write_batches


def clean_queries(batches: Iterable[pa.Table], clean: Mapping[str, Any], ledger: Ledger) -> Iterator[pa.Table]:
    """The selection of the queries without fault, batch by batch; ``ledger`` takes what was kept and dropped.

    ``batches`` hold the columns of SELECTED, ``source_row`` and ``turns``; ``clean`` is ``corpus.clean``.
    """
    for batch in batches:
        faults = find_faults(batch["turns"].combine_chunks(), clean)
        good = np.ones(batch.num_rows, dtype=bool)
        good[list(faults)] = False
        left = batch.select(SELECTED.names).filter(pa.array(good))
        ledger.keep(left.num_rows)
        bad = batch.select(["query_id", "source", "source_row"]).filter(pa.array(~good)).to_pylist()
        for row, (reason, detail) in zip(bad, faults.values(), strict=True):
            ledger.drop(row["query_id"], reason, f"{row['source']}/{row['source_row']}: {detail}")
        yield left


def main(imported: Sequence[str], clean: Mapping[str, Any], table: str, ledger: str, dropped: str) -> None:
    """Clean the queries of the tables ``imported``, in their order."""
    rows = count_rows(imported)
    counts = Ledger("clean_queries", "all", rows)
    batches = selected_batches(imported, None, ["query_id", "source_row", "turns"])
    provenance = {"clean": dict(clean), "versions": versions("polars", "ftfy")}
    with Progress("clean_queries", rows, "queries") as progress:

        def told() -> Iterator[pa.Table]:
            for batch in batches:
                yield batch
                progress.advance(batch.num_rows)

        write_batches(table, clean_queries(told(), clean, counts), SELECTED, provenance)
    counts.write(ledger, dropped)
    print(f"{counts.rows_in} queries, {counts.kept} kept, {len(counts.dropped)} dropped")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(list(snakemake.input.imported), snakemake.params.clean, **dict(snakemake.output.items()))  # noqa: F821
