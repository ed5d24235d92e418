"""Bring one source into the table of queries.

Reads the source's file, or its data set on the hub, through the column mapping of the config. Writes the queries in the
order of the source, the ledger, and the rows that cannot be used with reason and place (``file:line``).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from whichteacher.ledger import Ledger
from whichteacher.queries import query_id
from whichteacher.rows import (
    ColumnReader,
    Fault,
    Row,
    answer_of,
    answer_type_of,
    code_tests_of,
    constraints_of,
    label_of,
    read_rows,
    turns_of,
)
from whichteacher.rule import InputError
from whichteacher.schemas import QUERIES
from whichteacher.tables import as_table, write_table

_CHUNK_ROWS = 50_000


def to_query(taken: Mapping[str, Any], number: int, source: str, category: str, licence: str) -> dict[str, Any]:
    """One row of QUERIES from the mapped values of a row. Raises :class:`Fault` where they have not the right types."""
    turns = turns_of(taken)
    return {
        "query_id": query_id(turns),
        "source": source,
        "source_row": label_of(taken["id"], "id") if "id" in taken else str(number),
        "category": category,
        "licence": licence,
        "turns": turns,
        "reference": answer_of(taken.get("answer")),
        "reference_type": answer_type_of(taken.get("answer_type")),
        "tests": code_tests_of(taken.get("tests")),
        "constraints": constraints_of(taken.get("constraints")),
    }


def import_rows(rows: Iterator[Row], name: str, source: Mapping[str, Any]) -> tuple[pa.Table, Ledger]:
    """The usable rows as a table, and the ledger of all of them.

    Raises :class:`InputError` if a mapped column is in no row, or no row can be used.
    """
    place = source.get("path") or source["hub"]
    reader = ColumnReader(source["columns"], f"corpus.sources.{name}")
    ledger = Ledger("import_source", name, 0)
    chunks, queries = [], []
    for row in rows:
        ledger.rows_in += 1
        try:
            if row.fault:
                raise row.fault
            queries.append(to_query(reader.take(row.values), row.number, name, source["category"], source["licence"]))
        except Fault as fault:
            ledger.drop("", fault.reason, f"{row.location}: {fault.detail}")
            continue
        if len(queries) == _CHUNK_ROWS:
            chunks.append(as_table(queries, QUERIES, name))
            queries = []
    reader.check(place)
    table = pa.concat_tables([*chunks, as_table(queries, QUERIES, name)])
    if not table.num_rows:
        first = f"; the first of {ledger.rows_in}: {ledger.dropped[0]['detail']}" if ledger.dropped else ""
        raise InputError(f"{place}: not one row to use{first}; check the file and config key corpus.sources.{name}")
    ledger.keep(table.num_rows)
    return table, ledger


def main(name: str, source: Mapping[str, Any], table: str, ledger: str, dropped: str) -> None:
    """Import the source ``name`` with the settings ``source``."""
    queries, counts = import_rows(read_rows(source), name, source)
    place = Path(source["path"]).name if source.get("path") else source["hub"]
    write_table(
        table,
        queries,
        QUERIES,
        {"source": name, "from": place, "revision": source.get("revision"), "columns": source["columns"]},
    )
    counts.write(ledger, dropped)
    print(f"{name}: {counts.rows_in} rows, {counts.kept} kept, {len(counts.dropped)} dropped")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.wildcards.source, snakemake.params.source, **dict(snakemake.output.items()))  # noqa: F821
