"""The store: content-addressed rows that survive runs, because their tokens were paid for.

A store is a folder of immutable Parquet segments, one sub-folder per kind of row and model. A segment is written beside
its final name and renamed into place, so a killed job loses at most its last flush, and any number of writers may share a
folder on a network file system without locks or a server. Every row knows when it was written: where two writers stored
the same key, the row written first is the one everybody reads, wherever it has been copied or joined since.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from whichteacher.places import locate
from whichteacher.tables import append_spool, atomic_path, read_spool, write_text

RESPONSES = pa.schema(
    [
        pa.field("key", pa.string(), False),
        pa.field("written", pa.int64(), False),  # nanoseconds since 1970, set by append
        pa.field("prompt", pa.string(), False),
        pa.field("text", pa.string(), False),
        pa.field("reasoning", pa.string()),  # what an endpoint handed over apart from the text
        pa.field("finish_reason", pa.string(), False),
        pa.field("prompt_tokens", pa.int64(), False),
        pa.field("output_tokens", pa.int64(), False),
        pa.field("seconds", pa.float64(), False),
        pa.field("model", pa.string(), False),
        pa.field("model_digest", pa.string(), False),
        pa.field("engine", pa.string(), False),
        pa.field("engine_version", pa.string(), False),
        pa.field("hardware", pa.string(), False),
        pa.field("devices", pa.int64()),  # that worked at the same time; null: nobody here can know
        pa.field("settings", pa.string(), False),
    ]
)

SCORES = pa.schema(
    [
        pa.field("key", pa.string(), False),
        pa.field("written", pa.int64(), False),
        pa.field("content", pa.string(), False),  # digest of the rendered query and the response
        pa.field("length", pa.int64(), False),  # their tokens, read or not
        # Sums over the tokens that were read and have a prediction. None are read of a row that is left unscored.
        pa.field("query_tokens", pa.int64(), False),
        pa.field("query_nll", pa.float64(), False),  # negative log-likelihood, in nats
        pa.field("response_tokens", pa.int64(), False),
        pa.field("response_nll", pa.float64(), False),
        pa.field("seconds", pa.float64(), False),
        pa.field("model", pa.string(), False),
        pa.field("model_digest", pa.string(), False),
        pa.field("engine", pa.string(), False),
        pa.field("engine_version", pa.string(), False),
        pa.field("hardware", pa.string(), False),
        pa.field("devices", pa.int64()),
        pa.field("settings", pa.string(), False),
    ]
)

#: Kinds of row a store holds, by the name of their folder.
KINDS = {"responses": RESPONSES, "perplexities": SCORES}

#: Files of a model folder that decide what it answers; cards, logs and optimizer states do not.
_MODEL_FILES = (
    "*.safetensors",
    "*.bin",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "*.model",
    "vocab*",
    "merges*",
)
#: A file this large has its digest remembered.
_LARGE_BYTES = 2**28
#: A folder's name holds so many digits of its model's digest.
_OWNER_DIGITS = 16
#: Segments are joined up to this size on disk. Text unpacks to about four times as much, which readers hold in memory.
_SEGMENT_BYTES = 32 * 2**20
#: Rows of the store that are looked up at a time.
_SEARCH_ROWS = 2**18
_PLACE = "place"


class StoreError(RuntimeError):
    """Rows that should be in the store are not; the message says how many and of what."""


class Found(NamedTuple):
    """Where the rows of some keys lie: ``segments`` by number, and per key the segment's number (-1: nowhere) and its row."""

    segments: list[Path]
    segment: np.ndarray
    row: np.ndarray


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON value in its canonical form: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def model_digest(model: str, revision: str | None) -> str:
    """What a model is, for the store's keys: its hub id and revision, or the contents of a local folder.

    A retrained model under an unchanged path has another digest. Raises :class:`FileNotFoundError` for a folder without
    weights.
    """
    if revision is not None:
        return digest({"hub": model, "revision": revision})
    folder = Path(locate(model))
    files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})
    if not any(path.suffix in (".safetensors", ".bin") for path in files):
        raise FileNotFoundError(f"{model}: no weights (*.safetensors) in this folder")
    return digest({path.name: file_digest(path) for path in files})


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file. That of a large one is remembered in the user's cache, until its size or time changes: every
    job asks, and hundreds of gigabytes of weights take minutes."""
    told = path.stat()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "whichteacher" / "digests"
    note = cache / hashlib.sha256(f"{path.resolve()} {told.st_size} {told.st_mtime_ns}".encode()).hexdigest()
    if told.st_size >= _LARGE_BYTES and note.exists():
        return note.read_text(encoding="utf-8")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if told.st_size >= _LARGE_BYTES:
        # Other jobs may be writing the same note, and not every home can be written to.
        with suppress(OSError):
            write_text(note, found)
    return found


class Store:
    """Rows of one kind and model.

    ``folder`` is the store's root, ``kind`` the kind of row (:data:`KINDS`), ``owner`` the digest of the model.
    """

    def __init__(self, folder: str | os.PathLike[str], kind: str, owner: str) -> None:
        self.owner = owner
        self.folder = Path(folder) / kind / owner[:_OWNER_DIGITS]
        self.schema = KINDS[kind]
        self._own: list[Path] = []

    def segments(self) -> list[Path]:
        """The segments, by name: those written first come first."""
        return sorted(self.folder.glob("*.parquet"))

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Make ``rows`` durable as one new segment."""
        if rows:
            now = time.time_ns()
            stamped = [{**row, "written": now} for row in rows]
            self._own.append(self._write(now, [pa.Table.from_pylist(stamped, schema=self.schema)]))

    def consolidate(self) -> None:
        """Join the small segments that this object wrote: a store of many files is slow to search.

        The joined segment is there before the others go, so whoever reads meanwhile misses nothing.
        """
        groups: list[list[Path]] = [[]]
        size = 0
        for path in self._own:
            bytes_ = path.stat().st_size
            if size + bytes_ > _SEGMENT_BYTES:
                groups.append([])
                size = 0
            size += bytes_
            groups[-1].append(path)
        self._own = []
        for group in groups:
            if len(group) > 1:
                self._write(int(group[0].name[:20]), map(pq.read_table, group))
                for path in group:
                    path.unlink()

    def _write(self, stamp: int, tables: Iterable[pa.Table]) -> Path:
        path = self.folder / f"{stamp:020d}-{uuid.uuid4().hex[:12]}.parquet"
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(temporary, self.schema, compression="zstd", write_page_checksum=True) as writer,
        ):
            for table in tables:
                writer.write_table(table)
        return path

    def _each(self, columns: Sequence[str] | None = None) -> Iterator[tuple[Path, pa.Table]]:
        """Every segment with its table. One that another job has joined to others meanwhile is found again in the joined
        one; a torn or corrupt one is set aside."""
        seen: set[Path] = set()
        while new := [path for path in self.segments() if path not in seen]:
            for path in new:
                seen.add(path)
                table = self._read(path, columns)
                if table is not None:
                    yield path, table

    def _read(self, path: Path, columns: Sequence[str] | None) -> pa.Table | None:
        """One segment, or None where it is gone or damaged; a damaged one is renamed ``*.corrupt`` and never read again."""
        try:
            return pq.read_table(path, columns=columns, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            if path.exists():
                aside = path.with_suffix(".corrupt")
                path.rename(aside)
                print(f"store: {path.name} is damaged ({error}); set aside as {aside.name}", file=sys.stderr)
            return None

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The segments as tables. A torn or corrupt one is set aside as ``*.corrupt`` and never read."""
        for _, table in self._each(columns):
            yield table

    def find(self, keys: pa.Array) -> Found:
        """Where the rows of ``keys`` (distinct strings) lie. Reads the key columns alone."""
        segment, row = np.full(len(keys), -1), np.full(len(keys), -1)
        first = np.full(len(keys), np.iinfo(np.int64).max)
        paths: list[Path] = []
        waiting: list[pa.Table] = []

        def search() -> None:
            """Look the waiting tables up together: hashing ``keys`` for each of many small segments would take longest."""
            table = pa.concat_tables(waiting).combine_chunks()
            place = pc.index_in(table["key"].combine_chunks(), value_set=keys)
            here = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
            # By place, and of one place by age: numpy keeps the last of several values assigned to one place.
            at, written = place.drop_null().to_numpy(), table["written"].to_numpy()[here]
            order = np.lexsort((-written, at))
            here, at, written = here[order], at[order], written[order]
            older = written < first[at]
            here, at = here[older], at[older]
            first[at] = written[older]
            segment[at], row[at] = table["segment"].to_numpy()[here], table["row"].to_numpy()[here]
            waiting.clear()

        for path, table in self._each(["key", "written"]):
            table = table.append_column("segment", pa.repeat(len(paths), table.num_rows))
            waiting.append(table.append_column("row", pa.array(np.arange(table.num_rows))))
            paths.append(path)
            if sum(map(len, waiting)) >= _SEARCH_ROWS:
                search()
        if waiting:
            search()
        return Found(paths, segment, row)

    def ordered(
        self, keys: Sequence[str], rows: int, scratch: Path, unstored: Sequence[Mapping[str, Any]] = ()
    ) -> Iterator[pa.Table]:
        """The rows of ``keys`` (distinct), in their order, as tables of ``rows`` rows (the last may be shorter).

        A key that is not stored is taken from the rows ``unstored``. Every segment is read once, and no more than one
        segment and one such table are in memory: what is read early waits in the folder ``scratch``, which is made and
        removed. Raises :class:`StoreError`, before the first table, where a key is nowhere or its segment damaged.
        """
        found = self.find(pa.array(keys, pa.string()))
        spare = {row["key"]: row for row in unstored}
        absent = np.flatnonzero(found.segment < 0)
        lost = sum(keys[place] not in spare for place in absent)
        if lost:
            raise StoreError(f"{lost} of {len(keys)} rows are not in {self.folder.name}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            for places, table in self._located(found):
                _spread(table, places, rows, scratch)
            if len(absent):
                told = [{**spare[keys[place]], "written": 0} for place in absent]
                _spread(pa.Table.from_pylist(told, schema=self.schema), absent, rows, scratch)
            for start in range(0, len(keys), rows):
                part = scratch / f"{start // rows}.arrow"
                table = pa.concat_tables(read_spool(part))
                part.unlink()
                yield table.sort_by(_PLACE).drop_columns(_PLACE)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _located(self, found: Found) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """The rows of ``found``, segment by segment, with their places among the keys."""
        order = np.argsort(found.segment, kind="stable")
        bounds = np.searchsorted(found.segment[order], np.arange(len(found.segments) + 1))
        for number, path in enumerate(found.segments):
            places = order[bounds[number] : bounds[number + 1]]
            if len(places):
                table = self._read(path, None)
                if table is None:
                    raise StoreError(f"{len(places)} rows of {path.name} are lost")
                yield places, table.take(pa.array(found.row[places])).cast(self.schema)

    def lookup(self, keys: Collection[str]) -> dict[str, dict[str, Any]]:
        """The stored rows of ``keys`` by key; keys that are not stored are absent. For as many as fit into memory."""
        wanted = pa.array(sorted(set(keys)), pa.string())
        found = self.find(wanted)
        rows: dict[str, dict[str, Any]] = {}
        for number in np.unique(found.segment[found.segment >= 0]):
            places = np.flatnonzero(found.segment == number)
            table = self._read(found.segments[number], None)
            if table is None:
                # Joined to others meanwhile, and found again; or damaged, and set aside.
                rows |= self.lookup(wanted.take(pa.array(places)).to_pylist())
            else:
                rows |= {row["key"]: row for row in table.take(pa.array(found.row[places])).to_pylist()}
        return rows


def _spread(table: pa.Table, places: np.ndarray, rows: int, scratch: Path) -> None:
    """Add the rows of ``table``, with their ``places``, to the spools in ``scratch``, one for every ``rows`` places."""
    table = table.append_column(pa.field(_PLACE, pa.int64(), False), pa.array(places, pa.int64()))
    for part in np.unique(places // rows):
        append_spool(scratch / f"{part}.arrow", table.filter(pa.array(places // rows == part)))
