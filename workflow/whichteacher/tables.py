"""Parquet tables between rules: checked against their schema, written atomically, provenance inside the file."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# Whoever hands over a frame has imported pandas; the others need not wait for it.
if TYPE_CHECKING:
    import pandas as pd

#: Text columns compress about fourfold at level 3 while reading at 0.75 GB/s; higher levels cost much more than they save.
_ZSTD_LEVEL = 3
#: For the largest tables: a third faster to write, an eighth larger.
_FAST_ZSTD_LEVEL = 1
#: Rows of :func:`read_parts`: some 30 MB of traces, of 13 kB of text each, which the attempts hold twice.
PART_ROWS = 1024
_READ_BUFFER = 2**20
_PROVENANCE = b"whichteacher"
#: How many characters :func:`tempfile.mkstemp` adds.
_RANDOM_CHARACTERS = 8


class TableError(ValueError):
    """A table does not fit its schema; the message names file, column and row."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to that takes the place of ``path`` in one step when the block ends without an error.

    The temporary file lies beside ``path``, so the rename never crosses a file system; it is removed on error, and the
    next writer of ``path`` removes what a killed one left.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{glob.escape(target.name)}.{'?' * _RANDOM_CHARACTERS}"):
        left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder that takes the place of ``path`` when the block ends without an error.

    A folder that was there is moved aside first, for no file system replaces one that is not empty; what a killed writer
    left is removed. What is in the folder is the caller's to flush to disk.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{glob.escape(target.name)}.{'?' * _RANDOM_CHARACTERS}"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    before = temporary / "before"
    made = temporary / "made"
    made.mkdir()
    try:
        yield made
        if target.exists():
            target.rename(before)
        made.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON (two-space indent, keys as given) atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def digest_file(path: str | os.PathLike[str]) -> str:
    """sha256 (hex) of a file, which is on disk after that."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of ``packages``, for provenance."""
    return {package: metadata.version(package) for package in packages}


def as_table(
    rows: pa.Table | pd.DataFrame | Iterable[Mapping[str, Any]], schema: pa.Schema, name: str = "table"
) -> pa.Table:
    """``rows`` as a table of exactly ``schema``. Raises :class:`TableError` on a missing column, type or forbidden null."""
    try:
        if isinstance(rows, pa.Table):
            table = rows.select(schema.names).cast(schema)
        elif "pandas" in sys.modules and isinstance(rows, sys.modules["pandas"].DataFrame):
            table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
        else:
            table = pa.Table.from_pylist(list(rows), schema=schema)
    except (KeyError, pa.ArrowException) as error:
        raise TableError(f"{name}: does not fit its schema: {error}") from error
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            row = table.column(field.name).is_null().to_pylist().index(True)
            raise TableError(f"{name}: row {row} has no {field.name}")
    return table


def write_table(
    path: str | os.PathLike[str],
    rows: pa.Table | pd.DataFrame | Iterable[Mapping[str, Any]],
    schema: pa.Schema,
    provenance: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Write ``rows`` as Parquet in ``schema`` and return the table written.

    ``provenance`` (settings, input digests, package versions; JSON values only) is stored in the file's metadata, where
    :func:`read_provenance` finds it. It must not hold times or host names: equal inputs give equal bytes.
    """
    table = as_table(rows, schema, str(path))
    table = table.replace_schema_metadata({_PROVENANCE: json.dumps(dict(provenance or {}), sort_keys=True).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=_ZSTD_LEVEL)
    return table


def write_batches(
    path: str | os.PathLike[str],
    batches: Iterable[pa.Table],
    schema: pa.Schema,
    provenance: Mapping[str, Any] | None = None,
) -> int:
    """:func:`write_table` for more rows than fit into memory: each table of ``batches`` becomes a row group.

    Returns the number of rows. Equal rows in equal batches give equal bytes.
    """
    rows = 0
    described = schema.with_metadata({_PROVENANCE: json.dumps(dict(provenance or {}), sort_keys=True).encode()})
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, described, compression="zstd", compression_level=_FAST_ZSTD_LEVEL) as writer,
    ):
        for batch in batches:
            writer.write_table(as_table(batch, schema, str(path)).replace_schema_metadata(described.metadata))
            rows += batch.num_rows
    return rows


def read_table(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Read one table, or several of the same schema one after the other. Raises :class:`TableError` on a missing column."""
    names = list(columns or schema.names)
    files = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    tables = []
    for file in files:
        present = pq.read_schema(file).names
        missing = [name for name in names if name not in present]
        if missing:
            raise TableError(
                f"{file}: column {missing[0]!r} is missing: make the file again with the rule that writes it"
            )
        tables.append(pq.read_table(file, columns=names).replace_schema_metadata(None))
    wanted = pa.schema([schema.field(name) for name in names])
    return pa.concat_tables([table.cast(wanted) for table in tables]) if tables else wanted.empty_table()


def read_batches(path: str | os.PathLike[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """:func:`read_table` for a table that does not fit into memory: one row group after the other."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield as_table(file.read_row_group(group), schema, str(path))


def read_parts(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    rows: int | None = None,
) -> Iterator[pa.Table]:
    """:func:`read_table` for tables of text, whose row groups may not fit into memory either: at most ``rows`` rows at a
    time, :data:`PART_ROWS` unless said otherwise.

    No part spans two files. Raises :class:`TableError` on a missing column.
    """
    names = list(columns or schema.names)
    wanted = pa.schema([schema.field(name) for name in names])
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        # Without a buffer of its own the reader fetches whole columns of a row group.
        with pq.ParquetFile(path, buffer_size=_READ_BUFFER, pre_buffer=False) as file:
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                raise TableError(
                    f"{path}: column {missing[0]!r} is missing: make the file again with the rule that writes it"
                )
            for batch in file.iter_batches(rows or PART_ROWS, columns=names):
                yield as_table(pa.Table.from_batches([batch]).replace_schema_metadata(None), wanted, str(path))


def select_rows(
    paths: Sequence[str | os.PathLike[str]], schema: pa.Schema, columns: Sequence[str], key: str, wanted: Iterable[str]
) -> pa.Table:
    """``columns`` (``key`` among them) of the rows whose ``key`` is wanted, in its order. Of the others no more than a part is
    in memory."""
    values = pa.array(wanted, pa.string())
    parts = (part.filter(pc.is_in(part[key], value_set=values)) for part in read_parts(paths, schema, columns))
    empty = pa.schema([schema.field(column) for column in columns]).empty_table()
    return pa.concat_tables([empty, *parts]).sort_by(key)


def read_rows(
    path: str | os.PathLike[str], schema: pa.Schema, columns: Sequence[str], rows: int = 256
) -> Iterator[dict[str, Any]]:
    """The rows of a table one after the other, ``rows`` in memory at a time however large its row groups are."""
    for part in read_parts(path, schema, columns, rows):
        yield from part.to_pylist()


def read_frame(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """:func:`read_table` as a pandas frame."""
    return read_table(paths, schema, columns).to_pandas()


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What :func:`write_table` was told about ``path``."""
    stored = pq.read_schema(path).metadata or {}
    return json.loads(stored.get(_PROVENANCE, b"{}"))


def append_spool(path: str | os.PathLike[str], table: pa.Table) -> None:
    """Add ``table`` to a file of tables that wait on disk while a job runs; :func:`read_spool` reads them again.

    Each is an Arrow stream of its own, so no file stays open in between, however many there are.
    """
    options = pa.ipc.IpcWriteOptions(compression="lz4")  # halves text at little cost; these files do not stay
    with open(path, "ab") as file, pa.ipc.new_stream(file, table.schema, options=options) as stream:
        stream.write_table(table)


def read_spool(path: str | os.PathLike[str]) -> Iterator[pa.Table]:
    """The tables of :func:`append_spool`, in their order; none where nothing was added."""
    if not Path(path).exists():
        return
    with pa.OSFile(os.fspath(path)) as file:
        while file.tell() < file.size():
            yield pa.ipc.open_stream(file).read_all()
