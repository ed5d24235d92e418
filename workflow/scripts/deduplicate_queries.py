"""Keep one of every set of equal queries and, if asked to, of nearly equal ones.

Reads the selection of cleaned queries and, of the imported tables, what a choice among equal ones needs. Two queries are
equal if their normalised turns are, that is their ``query_id``; near duplicates are found afterwards, among the survivors and
by :mod:`whichteacher.near_duplicates`, and of them the same row survives that would if they were equal. Writes the selection (SELECTED) of the survivors, the pairs of
kept and dropped rows (DUPLICATES), the ledger and the dropped rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from whichteacher.ledger import Ledger
from whichteacher.near_duplicates import find_near_duplicates
from whichteacher.queries import id_numbers
from whichteacher.schemas import DUPLICATES, SELECTED
from whichteacher.selection import selected_batches
from whichteacher.tables import read_table, write_table

_CHECKED_BY = ("reference", "tests", "constraints")
_COMPARED = ["turns", "reference", "constraints"]


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


def comparable(batch: pa.Table) -> pl.DataFrame:
    """What near duplicates are found by: the ``text`` of the last turn, the turns before it as its ``context``, and the
    reference or the constraints as its ``answer``.

    Queries whose earlier turns, references or constraints differ are different, however much their dialogues share. Tests
    tell less: another source tests the same task in its own way.
    """
    turns = pl.col("turns")
    said = pl.concat_str(pl.element().struct.field("role"), pl.element().struct.field("content"), separator="\n")
    return pl.from_arrow(batch.select(_COMPARED)).select(
        text=turns.list.last().struct.field("content"),
        context=turns.list.head(turns.list.len() - 1).list.eval(said).list.join("\n"),
        answer=pl.coalesce("reference", "constraints").str.strip_chars(),
    )


def find_near(
    imported: Sequence[str], selected: pa.Table, sources: Sequence[str], settings: Mapping[str, Any], folder: Path
) -> tuple[pl.DataFrame, int]:
    """Like :func:`find_duplicates` the rows that a near duplicate survives, with its ``kept`` (query_id) and the
    ``similarity`` of the two, and how many rows are ``crowded`` (see :class:`near_duplicates.NearDuplicates`).

    ``settings`` is the config block ``corpus.deduplicate``; a large temporary file lies in ``folder`` meanwhile.
    """
    rows = candidates(imported, selected).with_row_index("place")
    found = find_near_duplicates(
        map(comparable, selected_batches(imported, selected, _COMPARED)),
        by_merit(rows, sources)["place"].to_numpy().astype(np.int64),
        settings["similarity"],
        settings["ngram"],
        settings["same_numbers"],
        folder,
    )
    survivors = rows[found.kept].select(
        kept="query_id", kept_source="source", kept_row="row", kept_source_row="source_row"
    )
    gone = rows[found.dropped].drop("place").hstack(survivors)
    return gone.with_columns(similarity=pl.Series(found.similarity)), found.crowded


def without(selected: pa.Table, gone: pl.DataFrame) -> pa.Table:
    """The selection ``selected`` without the rows of ``gone``."""
    marked = pl.from_arrow(selected).join(
        gone.select("source", "row", gone=pl.lit(True)), on=["source", "row"], how="left", maintain_order="left"
    )
    return selected.filter(marked["gone"].is_null().to_arrow())


def record(gone: pl.DataFrame, method: str, ledger: Ledger | None) -> list[dict[str, Any]]:
    """Count the rows of ``gone`` in ``ledger``, unless they stay (None); their pairs (rows of DUPLICATES)."""
    pairs = []
    for row in gone.iter_rows(named=True):
        place, survivor = (f"{row[f'{side}source']}/{row[f'{side}source_row']}" for side in ("", "kept_"))
        if ledger is not None and method == "exact":
            ledger.drop(row["query_id"], "duplicate", f"{place}: equal to {survivor}")
        elif ledger is not None:
            ledger.drop(row["query_id"], "near_duplicate", f"{place}: {row['similarity']:.3f} similar to {survivor}")
        pairs.append(
            {
                "method": method,
                "similarity": row["similarity"],
                "kept": row["kept"],
                "kept_source": row["kept_source"],
                "kept_source_row": row["kept_source_row"],
                "dropped": row["query_id"],
                "dropped_source": row["source"],
                "dropped_source_row": row["source_row"],
            }
        )
    return pairs


def deduplicate(
    imported: Sequence[str], selected: pa.Table, sources: Sequence[str], settings: Mapping[str, Any], folder: Path
) -> tuple[pa.Table, list[dict[str, Any]], Ledger]:
    """The selection of the survivors, the pairs (rows of DUPLICATES), and the ledger; arguments as in :func:`find_near`."""
    ledger = Ledger("deduplicate_queries", "all", selected.num_rows)
    several = repeated(selected["query_id"])
    gone = find_duplicates(candidates(imported, selected.filter(pa.array(several))), sources)
    pairs = record(gone.with_columns(kept="query_id", similarity=1.0), "exact", ledger)
    kept = without(selected, gone)
    if settings["near"]:
        gone, crowded = find_near(imported, kept, sources, settings, folder)
        pairs += record(gone, "near", ledger if settings["drop"] else None)
        if settings["drop"]:
            kept = without(kept, gone)
        print(
            f"{len(gone)} near duplicates; {crowded} queries had too many look-alikes to be compared with all of them"
        )
    ledger.keep(kept.num_rows)
    return kept, pairs, ledger


def main(
    imported: Sequence[str],
    cleaned: str,
    sources: Sequence[str],
    settings: Mapping[str, Any],
    table: str,
    duplicates: str,
    ledger: str,
    dropped: str,
) -> None:
    """Deduplicate the selection ``cleaned`` of the tables ``imported``; ``sources`` are the sources in the order of the config,
    ``settings`` is its block ``corpus.deduplicate``."""
    kept, pairs, counts = deduplicate(imported, read_table(cleaned, SELECTED), sources, settings, Path(table).parent)
    write_table(table, kept, SELECTED, {"sources": list(sources), "deduplicate": dict(settings)})
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
            snakemake.params.deduplicate,  # noqa: F821
            **dict(snakemake.output.items()),  # noqa: F821
        )
