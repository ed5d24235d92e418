"""Keep one of every set of equal queries.

Reads the cleaned queries. Two queries are equal if their normalised turns are, that is their ``query_id``. Writes the
survivors in order, the pairs of kept and dropped rows, the ledger and the dropped rows.
"""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from whichteacher.ledger import Ledger
from whichteacher.schemas import DUPLICATES, QUERIES
from whichteacher.tables import read_table, write_table

_CHECKED_BY = ("reference", "tests", "constraints")


def find_survivors(queries: pa.Table, sources: Sequence[str]) -> pl.DataFrame:
    """Per query, in order: its ``query_id``, ``source`` and ``source_row``, whether it is ``kept``, and the ``survivor``
    (``source/source_row``) of its set.

    The survivor is a row that can be verified (it has a reference, tests or constraints), of the first source in the
    order of the config, with the first id there (shorter ids first, so that numbers sort as numbers); so it does not
    depend on the order of rows in the files.
    """
    columns = ["query_id", "source", "source_row", *_CHECKED_BY]
    rows = pl.from_arrow(queries.select(columns)).with_row_index("row")
    rank = {source: position for position, source in enumerate(sources)}
    checked = pl.any_horizontal(pl.col(name).is_not_null() for name in _CHECKED_BY)
    order = rows.select(
        "row",
        "query_id",
        unchecked=~checked,
        rank=pl.col("source").replace_strict(rank, return_dtype=pl.Int64),
        length=pl.col("source_row").str.len_chars(),
        source_row="source_row",
        place=pl.format("{}/{}", "source", "source_row"),
    ).sort("query_id", "unchecked", "rank", "length", "source_row", "row")
    first = order.unique("query_id", keep="first", maintain_order=True).select(
        "query_id", kept_row="row", survivor="place"
    )
    joined = rows.join(first, on="query_id", how="left", maintain_order="left")
    return joined.select("query_id", "source", "source_row", "survivor", kept=pl.col("row") == pl.col("kept_row"))


def deduplicate(queries: pa.Table, sources: Sequence[str]) -> tuple[pa.Table, list[dict[str, str]], Ledger]:
    """The survivors in order, the pairs (rows of DUPLICATES), and the ledger."""
    judged = find_survivors(queries, sources)
    kept = queries.filter(judged["kept"].to_arrow())
    ledger = Ledger("deduplicate_queries", "all", queries.num_rows)
    ledger.keep(kept.num_rows)
    pairs = []
    for row in judged.filter(~pl.col("kept")).iter_rows(named=True):
        identifier, place = row["query_id"], f"{row['source']}/{row['source_row']}"
        ledger.drop(identifier, "duplicate", f"{place}: equal to {row['survivor']}")
        pairs.append(
            {
                "kept": identifier,
                "dropped": identifier,
                "dropped_source": row["source"],
                "dropped_source_row": row["source_row"],
            }
        )
    return kept, pairs, ledger


def main(cleaned: str, sources: Sequence[str], table: str, duplicates: str, ledger: str, dropped: str) -> None:
    """Deduplicate the table ``cleaned``; ``sources`` are the sources in the order of the config."""
    kept, pairs, counts = deduplicate(read_table(cleaned, QUERIES), sources)
    write_table(table, kept, QUERIES, {"sources": list(sources)})
    write_table(duplicates, pairs, DUPLICATES)
    counts.write(ledger, dropped)
    print(f"{counts.rows_in} queries, {counts.kept} kept, {len(pairs)} duplicates")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.input.cleaned, snakemake.params.sources, **dict(snakemake.output.items()))  # noqa: F821
