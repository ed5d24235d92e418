"""The store: content-addressed rows that survive runs, because their tokens were paid for.

A store is a folder of immutable Parquet segments, one sub-folder per kind of row and model. A segment is written beside
its final name and renamed into place, so a killed job loses at most its last flush, and any number of writers may share a
folder on a network file system without locks or a server. Segments are named by the time they were written: where two
writers stored the same key, the row written first is the one everybody reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from whichteacher.places import locate
from whichteacher.tables import atomic_path

RESPONSES = pa.schema(
    [
        pa.field("key", pa.string(), False),
        pa.field("prompt", pa.string(), False),
        pa.field("text", pa.string(), False),
        pa.field("finish_reason", pa.string(), False),
        pa.field("prompt_tokens", pa.int64(), False),
        pa.field("output_tokens", pa.int64(), False),
        pa.field("seconds", pa.float64(), False),
        pa.field("model", pa.string(), False),
        pa.field("model_digest", pa.string(), False),
        pa.field("engine", pa.string(), False),
        pa.field("engine_version", pa.string(), False),
        pa.field("hardware", pa.string(), False),
        pa.field("settings", pa.string(), False),
    ]
)

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
    contents = {}
    for path in files:
        with open(path, "rb") as file:
            contents[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest(contents)


class Store:
    """Rows of one kind and model.

    ``folder`` is the store's root, ``kind`` the kind of row (``responses``), ``owner`` the digest of the model.
    """

    def __init__(self, folder: str | os.PathLike[str], kind: str, owner: str, schema: pa.Schema = RESPONSES) -> None:
        self.folder = Path(folder) / kind / owner[:16]
        self.schema = schema

    def segments(self) -> list[Path]:
        """The segments, oldest first."""
        return sorted(self.folder.glob("*.parquet"))

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Make ``rows`` durable as one new segment."""
        if rows:
            name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.parquet"
            table = pa.Table.from_pylist(list(rows), schema=self.schema)
            with atomic_path(self.folder / name) as temporary:
                pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The segments as tables, oldest first. A torn or corrupt one is set aside as ``*.corrupt`` and never read."""
        for path in self.segments():
            try:
                table = pq.read_table(path, columns=columns, page_checksum_verification=True)
            except (pa.ArrowException, OSError) as error:
                if not path.exists():
                    continue
                aside = path.with_suffix(".corrupt")
                path.rename(aside)
                print(f"store: {path.name} is damaged ({error}); set aside as {aside.name}", file=sys.stderr)
                continue
            yield table

    def lookup(self, keys: Collection[str]) -> dict[str, dict[str, Any]]:
        """The stored rows of ``keys`` by key; keys that are not stored are absent."""
        wanted = pa.array(sorted(set(keys)), pa.string())
        found: dict[str, dict[str, Any]] = {}
        for table in self.tables():
            for row in table.filter(pc.is_in(table["key"], value_set=wanted)).to_pylist():
                found.setdefault(row["key"], row)
        return found
