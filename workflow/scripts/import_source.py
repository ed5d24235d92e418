"""Bring one source into the table of queries.

Reads the source's file, or its data set on the hub, through the column mapping of the config; or the queries and references of
published traces, in their layout. Writes the queries in the
order of the source, the ledger, and the rows that cannot be used with reason and place (``file:line``). A source may be
larger than memory: a part of it is held at a time, and becomes a row group.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from whichteacher.code_tests import code_tests_of
from whichteacher.ledger import Ledger
from whichteacher.published import LAYOUTS, OPTIONAL_COLUMNS, layout_of, read_query
from whichteacher.queries import query_ids
from whichteacher.references import infer_type
from whichteacher.rows import (
    ColumnReader,
    Fault,
    Row,
    Turns,
    answer_of,
    answer_type_of,
    constraints_of,
    file_rows,
    label_of,
    read_rows,
    source_files,
    turns_of,
)
from whichteacher.rule import InputError, Progress
from whichteacher.schemas import QUERIES, TURNS
from whichteacher.tables import as_table, write_batches

_CHUNK_ROWS = 50_000
#: Rows of Parquet that are read together where each holds a trace of some 13 kB.
_PARQUET_ROWS = 256
#: Characters of queries, references and tests that are held at a time.
_CHUNK_CHARACTERS = 32 * 2**20


class Query(NamedTuple):
    """A row of QUERIES without what all rows of a source share, and without its id."""

    source_row: str
    turns: Turns
    reference: str | None
    reference_type: str | None
    tests: str | None
    constraints: str | None

    @property
    def characters(self) -> int:
        """How much text it holds."""
        count = len(self.reference or "") + len(self.tests or "") + len(self.constraints or "")
        for turn in self.turns:
            count += len(turn["content"])
        return count


def to_query(taken: Mapping[str, Any], number: int, category: str) -> Query:
    """A query from the mapped values of row ``number``. Raises :class:`Fault` where they have not the right types."""
    reference = answer_of(taken.get("answer"))
    turns = turns_of(taken)
    return Query(
        source_row=label_of(taken["id"], "id") if "id" in taken else str(number),
        turns=turns,
        reference=reference,
        reference_type=answer_type_of(taken.get("answer_type")) or infer_type(reference, category),
        tests=code_tests_of(taken.get("tests"), taken.get("language"), taken.get("checker"), turns[-1]["content"]),
        constraints=constraints_of(taken.get("constraints"), taken.get("constraint_arguments")),
    )


def released_query(row: Row, layout: str, category: str) -> Query:
    """The query of a row of published traces. Raises :class:`Fault`; a reference that cannot be read is none."""
    turns, references = read_query(row.values, layout)
    return Query(
        source_row=row.location,
        turns=turns,
        reference=references.answer,
        reference_type=infer_type(references.answer, category),
        tests=references.tests,
        constraints=references.constraints,
    )


def released_rows(source: Mapping[str, Any]) -> Iterator[tuple[Row, str]]:
    """The rows of all files of published traces, each with the layout of its file."""
    for name, path in source_files(source).items():
        layout = layout_of(path, name, source["layout"]).layout
        for row in file_rows(path, [LAYOUTS[layout].dialogue], OPTIONAL_COLUMNS, name, _PARQUET_ROWS):
            yield row, layout


def as_queries(queries: Sequence[Query], name: str, source: Mapping[str, Any]) -> pa.Table:
    """Rows of QUERIES, built column by column: several times faster than row by row."""
    by_name = dict(zip(Query._fields, zip(*queries, strict=True), strict=True))
    dialogues = by_name.pop("turns")
    turns = [turn for dialogue in dialogues for turn in dialogue]
    said = pa.StructArray.from_arrays(
        [pa.array([turn[key] for turn in turns], pa.string()) for key in ("role", "content")],
        fields=list(TURNS.value_type),
    )
    ends = np.cumsum([0, *map(len, dialogues)], dtype=np.int32)
    shared = {"source": name, "category": source["category"], "licence": source["licence"]}
    listed = pa.ListArray.from_arrays(pa.array(ends), said, type=TURNS)
    columns = {
        "query_id": query_ids(listed),
        "turns": listed,
        **{key: pa.array(values, pa.string()) for key, values in by_name.items()},
        **{key: pa.repeat(value, len(queries)) for key, value in shared.items()},
    }
    return as_table(pa.table(columns), QUERIES, name)


def import_released(
    rows: Iterator[tuple[Row, str]], name: str, source: Mapping[str, Any], ledger: Ledger
) -> Iterator[pa.Table]:
    """The queries of published traces, in tables of at most 50,000; ``ledger`` takes in all rows.

    Raises :class:`InputError` if no row can be used.
    """
    held: list[Query] = []
    characters, first = 0, ""
    for row, layout in rows:
        ledger.rows_in += 1
        try:
            if row.fault:
                raise row.fault
            held.append(released_query(row, layout, source["category"]))
            characters += held[-1].characters
        except Fault as fault:
            first = first or f"; the first fault: {row.location}: {fault.detail}"
            ledger.drop("", fault.reason, f"{row.location}: {fault.detail}")
        if len(held) == _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
            ledger.keep(len(held))
            yield as_queries(held, name, source)
            held, characters = [], 0
    if held:
        ledger.keep(len(held))
        yield as_queries(held, name, source)
    if not ledger.kept:
        raise InputError(f"{name}: not one row to use of {ledger.rows_in}{first}; check the files and their layout")


def import_rows(rows: Iterator[Row], name: str, source: Mapping[str, Any], ledger: Ledger) -> Iterator[pa.Table]:
    """The usable rows in tables of at most 50,000; ``ledger`` takes in all rows.

    Stops after ``limit`` rows that ``where`` does not turn away. Raises :class:`InputError` if a mapped column is in no row,
    or no row can be used.
    """
    place = source.get("path") or source["hub"]
    reader = ColumnReader(source["columns"], f"corpus.sources.{name}", source.get("where"))
    left = source.get("limit") or float("inf")
    excluded = set(source.get("exclude") or [])
    held: list[Query] = []
    characters, first = 0, ""
    for row in rows:
        ledger.rows_in += 1
        try:
            if row.fault:
                raise row.fault
            if not reader.selects(row.values):
                ledger.drop("", "not_selected", row.location)
                continue
            query = to_query(reader.take(row.values), row.number, source["category"])
            if query.source_row in excluded:
                ledger.drop("", "excluded", f"{row.location}: id {query.source_row}")
            else:
                held.append(query)
                characters += query.characters
        except Fault as fault:
            first = first or f"; the first fault: {row.location}: {fault.detail}"
            ledger.drop("", fault.reason, f"{row.location}: {fault.detail}")
        if len(held) == _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
            ledger.keep(len(held))
            yield as_queries(held, name, source)
            held, characters = [], 0
        left -= 1
        if not left:
            break
    reader.check(place)
    if held:
        ledger.keep(len(held))
        yield as_queries(held, name, source)
    if not ledger.kept:
        raise InputError(
            f"{place}: not one row to use of {ledger.rows_in}{first}; check the file and config key corpus.sources.{name}"
        )


def main(name: str, source: Mapping[str, Any], table: str, ledger: str, dropped: str) -> None:
    """Import the source ``name`` with the settings ``source``."""
    named = source.get("hub") or source["path"]
    place = ", ".join(Path(path).name for path in ([named] if isinstance(named, str) else named))
    settings = {key: source.get(key) for key in ("revision", "columns", "layout", "where", "limit", "exclude")}
    scratch = Path(f"{ledger}.scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        counts = Ledger("import_source", name, 0, scratch / "dropped.arrow")
        # How many rows there are is known at the end alone.
        with Progress(f"import_source ({name})", source.get("limit") or 0) as progress:
            found = (
                import_released(released_rows(source), name, source, counts)
                if source.get("layout")
                else import_rows(read_rows(source), name, source, counts)
            )

            def told() -> Iterator[pa.Table]:
                for queries in found:
                    progress.advance(counts.rows_in - progress.done)
                    yield queries

            write_batches(table, told(), QUERIES, {"source": name, "from": place, **settings})
        counts.write(ledger, dropped)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{name}: {counts.rows_in} rows, {counts.kept} kept, {counts.reasons.total()} dropped")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.params.name, snakemake.params.source, **dict(snakemake.output.items()))  # noqa: F821
