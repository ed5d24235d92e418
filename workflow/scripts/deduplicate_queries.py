"""Keep one of every set of equal queries.

Reads the selection of cleaned queries and, of the imported tables, what a choice among equal ones needs. Two queries are
equal if their normalised turns are, that is their ``query_id``. Writes the selection (SELECTED) of the survivors, the pairs of
kept and dropped rows (DUPLICATES), the ledger and the dropped rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from whichteacher.ledger import Ledger
from whichteacher.queries import id_numbers
from whichteacher.schemas import DUPLICATES, SELECTED
from whichteacher.selection import selected_batches
from whichteacher.tables import read_table, write_table

_CHECKED_BY = ("reference", "tests", "constraints")


def repeated(identifiers: pa.ChunkedArray) -> np.ndarray:
    """Which rows have a ``query_id`` that another row has too."""
    numbers = id_numbers(identifiers)
    order = np.lexsort(numbers.T)
    same = (numbers[order[1:]] == numbers[order[:-1]]).all(axis=1)
    mask = np.zeros(len(numbers), dtype=bool)
    mask[order[1:][same]] = mask[order[:-1][same]] = True
    return mask


def candidates(imported: Sequence[str], selected: pa.Table) -> pl.DataFrame:
    """What the choice of a survivor needs to know of the selected rows: ``source``, ``row``, ``query_id``, ``source_row``, and
    whether the row is ``checked``: it has a reference, tests or constraints, so that answers to it can be verified."""
    found = [
        pl.from_arrow(batch).select(
            *SELECTED.names,
            "source_row",
            checked=pl.any_horizontal(pl.col(name).is_not_null() for name in _CHECKED_BY),
        )
        for batch in selected_batches(imported, selected, ["query_id", "source_row", *_CHECKED_BY])
    ]
    return pl.concat(found) if found else pl.DataFrame(schema=_CANDIDATES)


_CANDIDATES = {
    "source": pl.String,
    "row": pl.Int64,
    "query_id": pl.String,
    "source_row": pl.String,
    "checked": pl.Boolean,
}


def by_merit(rows: pl.DataFrame, sources: Sequence[str]) -> pl.DataFrame:
    """``rows`` of :func:`candidates`, those first that survive their equals.

    First comes a row that can be verified, then one of an earlier source in the order of the config, then the first id there
    (shorter ids first, so that numbers sort as numbers): so the choice does not depend on the order of rows in the files.
    """
    rank = {source: position for position, source in enumerate(sources)}
    return rows.sort(
        ~pl.col("checked"),
        pl.col("source").replace_strict(rank, return_dtype=pl.Int64),
        pl.col("source_row").str.len_chars(),
        "source_row",
        "row",
    )


def find_duplicates(rows: pl.DataFrame, sources: Sequence[str]) -> pl.DataFrame:
    """The rows that an equal one survives, in the order of ``rows``, with ``kept_source`` and ``kept_source_row`` of that one."""
    survivors = by_merit(rows, sources).unique("query_id", keep="first", maintain_order=True)
    kept = survivors.select("query_id", kept_source="source", kept_row="row", kept_source_row="source_row")
    joined = rows.join(kept, on="query_id", how="left", maintain_order="left")
    return joined.filter((pl.col("source") != pl.col("kept_source")) | (pl.col("row") != pl.col("kept_row")))


def deduplicate(
    imported: Sequence[str], selected: pa.Table, sources: Sequence[str]
) -> tuple[pa.Table, list[dict[str, Any]], Ledger]:
    """The selection of the survivors, the pairs (rows of DUPLICATES), and the ledger."""
    several = repeated(selected["query_id"])
    gone = find_duplicates(candidates(imported, selected.filter(pa.array(several))), sources)
    marked = pl.from_arrow(selected).join(
        gone.select("source", "row", gone=pl.lit(True)), on=["source", "row"], how="left", maintain_order="left"
    )
    kept = selected.filter(marked["gone"].is_null().to_arrow())
    ledger = Ledger("deduplicate_queries", "all", selected.num_rows)
    ledger.keep(kept.num_rows)
    pairs = []
    for row in gone.iter_rows(named=True):
        place, survivor = (f"{row[f'{side}source']}/{row[f'{side}source_row']}" for side in ("", "kept_"))
        ledger.drop(row["query_id"], "duplicate", f"{place}: equal to {survivor}")
        pairs.append(
            {
                "kept": row["query_id"],
                "kept_source": row["kept_source"],
                "kept_source_row": row["kept_source_row"],
                "dropped": row["query_id"],
                "dropped_source": row["source"],
                "dropped_source_row": row["source_row"],
            }
        )
    return kept, pairs, ledger


def main(
    imported: Sequence[str],
    cleaned: str,
    sources: Sequence[str],
    table: str,
    duplicates: str,
    ledger: str,
    dropped: str,
) -> None:
    """Deduplicate the selection ``cleaned`` of the tables ``imported``; ``sources`` are the sources in the order of the config."""
    kept, pairs, counts = deduplicate(imported, read_table(cleaned, SELECTED), sources)
    write_table(table, kept, SELECTED, {"sources": list(sources)})
    write_table(duplicates, pairs, DUPLICATES)
    counts.write(ledger, dropped)
    print(f"{counts.rows_in} queries, {counts.kept} kept, {len(pairs)} duplicates")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            list(snakemake.input.imported),  # noqa: F821
            snakemake.input.cleaned,  # noqa: F821
            snakemake.params.sources,  # noqa: F821
            **dict(snakemake.output.items()),  # noqa: F821
        )
