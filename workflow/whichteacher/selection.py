"""Which imported queries are left: the text stays where the import wrote it, and later steps pass on rows of it.

A selection (SELECTED) names rows of the imported tables, source after source in the order of the config, each source's rows
in their order. Two million queries are 0.8 GB of text and 0.03 GB of selection.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from whichteacher.schemas import QUERIES, SELECTED
from whichteacher.tables import TableError, as_table, read_provenance

Path = str | os.PathLike[str]


def count_rows(imported: Sequence[Path]) -> int:
    """Rows of all imported tables together."""
    return sum(pq.read_metadata(path).num_rows for path in imported)


def selected_batches(imported: Sequence[Path], selected: pa.Table | None, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The selected rows of the imported tables, one row group after the other, in the order of the selection.

    Columns: ``source``, ``row`` and the wanted ``columns`` of QUERIES. ``selected`` is a table of SELECTED; None takes every
    row. Row groups without a selected row are not read. Raises :class:`TableError` where the selection names a source or
    row that ``imported`` has not: it belongs to other tables.
    """
    wanted = pa.schema([QUERIES.field(name) for name in columns if name != "source"])
    taken = 0
    for path in imported:
        source = read_provenance(path)["source"]
        rows = None
        if selected is not None:
            rows = selected.filter(pc.equal(selected["source"], source))["row"].to_numpy()
            taken += len(rows)
        with pq.ParquetFile(path) as file:
            if rows is not None and len(rows) and rows[-1] >= file.metadata.num_rows:
                raise TableError(f"{path}: has no row {rows[-1]}, which the selection names: make the selection again")
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                here = np.arange(start, start + count) if rows is None else _between(rows, start, start + count)
                if len(here):
                    found = as_table(file.read_row_group(group, columns=wanted.names), wanted, str(path))
                    if len(here) < count:
                        found = found.take(pa.array(here - start))
                    yield found.append_column(SELECTED.field("source"), pa.repeat(source, len(here))).append_column(
                        SELECTED.field("row"), pa.array(here, pa.int64())
                    )
                start += count
    if selected is not None and taken != selected.num_rows:
        raise TableError(f"the selection names {selected.num_rows - taken} rows of sources that are not there")


def _between(rows: np.ndarray, start: int, end: int) -> np.ndarray:
    return rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)]
