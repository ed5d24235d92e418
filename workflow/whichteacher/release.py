"""The schema of the published distillations (AM-Thinking-v1-Distilled, AM-Qwen3-Distilled), and how it is written.

A record is ``{"system": text, "conversations": [{"from", "value", "info"}, ...]}`` with the ten keys of :data:`INFO` on every
turn. The cards leave open which turn carries which of them, so this is our choice:

* every turn: ``source`` and ``category``;
* the user's last message also what its answer is verified by: ``ground_truth``, ``test_case``, ``instruction_constrain``;
* the response, which is the last turn, all ten.

Everything else is null. ``verify_score`` and ``ppl`` are floats or null, all other values text or null: tests and constraints
are JSON text as the corpus has them, and numbers as references are text. So no key ever changes its type within a file, which
is what makes loaders fail that take the types from the first rows.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from whichteacher.responses import join_response

#: Names of the release's files and of its categories, by ours.
FILES = {
    "code": "code",
    "instruction_following": "if",
    "math": "math",
    "multi_turn": "multiturn",
    "general": "other",
    "science": "science",
}
INFO = (
    "source",
    "category",
    "ground_truth",
    "test_case",
    "instruction_constrain",
    "think_content",
    "answer_content",
    "verify_score",
    "model_name",
    "ppl",
)
NUMBERS = ("verify_score", "ppl")
#: The folder of the same rows as Parquet, one folder per category in it.
PARQUET = "parquet"
#: Columns of TRACES that a record is made of.
COLUMNS = (
    "source",
    "category",
    "turns",
    "reference",
    "tests",
    "constraints",
    "teacher",
    "system",
    "thinking",
    "answer",
    "verify_score",
    "perplexity",
)

RELEASED = pa.schema(
    [
        ("system", pa.string()),
        (
            "conversations",
            pa.list_(
                pa.struct(
                    [
                        ("from", pa.string()),
                        ("value", pa.string()),
                        (
                            "info",
                            pa.struct([(key, pa.float64() if key in NUMBERS else pa.string()) for key in INFO]),
                        ),
                    ]
                )
            ),
        ),
    ]
)

#: A shard is closed once it is this large, in bytes: what the hub shows and people download without trouble.
SHARD_BYTES = 256 * 2**20
#: A row group holds so much text, in characters: with six categories, a few hundred megabytes are in memory.
_GROUP_CHARACTERS = 16 * 2**20
_ZSTD_LEVEL = 3
#: What JSON leaves as it is and ``str.splitlines`` takes for a line's end.
_LINE_ENDS = {"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Written(NamedTuple):
    """A file of the release: its path in the folder, its category by the release's name, its rows."""

    path: str
    category: str
    rows: int


def released_row(trace: Mapping[str, Any]) -> dict[str, Any]:
    """One trace (:data:`COLUMNS`) as a released record. A number that JSON cannot say is null."""
    origin = {"source": trace["source"], "category": FILES[trace["category"]]}
    reference = origin | {
        "ground_truth": trace["reference"],
        "test_case": trace["tests"],
        "instruction_constrain": trace["constraints"],
    }
    outcome = reference | {
        "think_content": trace["thinking"],
        "answer_content": trace["answer"],
        "verify_score": _finite(trace["verify_score"]),
        "model_name": trace["teacher"],
        "ppl": _finite(trace["perplexity"]),
    }
    turns = [("human" if turn["role"] == "user" else "assistant", turn["content"], origin) for turn in trace["turns"]]
    turns[-1] = (*turns[-1][:2], reference)
    turns.append(("assistant", join_response(trace["thinking"], trace["answer"]), outcome))
    return {
        "system": trace["system"],
        "conversations": [
            {"from": role, "value": value, "info": {key: info.get(key) for key in INFO}} for role, value, info in turns
        ],
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def json_line(record: Mapping[str, Any]) -> str:
    """A record as one line of JSON, without its end.

    Characters that are no line's end in JSON but are one in Unicode are escaped, for readers that split at any of them.
    """
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    if not text.isascii():
        for character, escape in _LINE_ENDS.items():
            text = text.replace(character, escape)
    return text


def is_copy(name: str, names: Iterable[str]) -> bool:
    """Whether a file of a release holds rows that stand in JSON lines beside it: :data:`PARQUET` of our own exports."""
    parts = name.split("/")
    return (
        len(parts) == 3
        and parts[0] == PARQUET
        and parts[2].endswith(".parquet")
        and any(f"{parts[1]}{suffix}" in names for suffix in (".jsonl", ".jsonl.zst"))
    )


class Writer:
    """The files of one category in ``folder``: JSON lines, and Parquet shards of some :data:`SHARD_BYTES`.

    Where the files are cut depends on the records alone. ``close`` names the shards and says what was written.
    """

    def __init__(self, folder: Path, name: str, shard_bytes: int = SHARD_BYTES) -> None:
        self.name, self.rows = name, 0
        self._folder, self._shard_bytes = folder, shard_bytes
        self._lines = open(folder / f"{name}.jsonl", "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        self._shards: list[Written] = []
        self._file: pa.NativeFile | None = None
        self._held: list[dict[str, Any]] = []
        self._characters = 0
        (folder / PARQUET / name).mkdir(parents=True)

    def write(self, record: dict[str, Any]) -> str:
        """Write one record; returns its line."""
        line = json_line(record)
        self._lines.write(line)
        self._lines.write("\n")
        self.rows += 1
        self._held.append(record)
        self._characters += len(line)
        if self._characters >= _GROUP_CHARACTERS:
            self._flush()
        return line

    def close(self) -> list[Written]:
        """Finish the files and return them."""
        self._lines.close()
        self._flush()
        self._end_shard()
        count = len(self._shards)
        named = []
        for number, shard in enumerate(self._shards):
            path = f"{PARQUET}/{self.name}/train-{number:05d}-of-{count:05d}.parquet"
            (self._folder / shard.path).rename(self._folder / path)
            named.append(shard._replace(path=path))
        return [Written(f"{self.name}.jsonl", self.name, self.rows), *named]

    def _flush(self) -> None:
        if not self._held:
            return
        if self._file is None:
            path = f"{PARQUET}/{self.name}/{len(self._shards)}.parquet"
            self._shards.append(Written(path, self.name, 0))
            self._file = pa.OSFile(os.fspath(self._folder / path), "wb")
            self._writer = pq.ParquetWriter(
                self._file, RELEASED, compression="zstd", compression_level=_ZSTD_LEVEL, use_dictionary=False
            )
        self._writer.write_table(pa.Table.from_pylist(self._held, schema=RELEASED))
        self._shards[-1] = self._shards[-1]._replace(rows=self._shards[-1].rows + len(self._held))
        self._held, self._characters = [], 0
        if self._file.tell() >= self._shard_bytes:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._file is not None:
            self._writer.close()
            self._file.close()
            self._file = None


def shard_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a Parquet shard, a few at a time."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()
