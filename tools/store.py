"""Look into a store, prove that it is whole, export it, merge stores.

    .venv/bin/python tools/store.py show results/store
    .venv/bin/python tools/store.py verify results/store
    .venv/bin/python tools/store.py export results/store responses.jsonl.zst [--kind KIND] [--model NAME]
    .venv/bin/python tools/store.py merge OTHER_STORE results/store

`show` prints a table: per kind of row and model the distinct rows, tokens (generated, or read for a perplexity), engine time,
size on disk, and when the first and the last were written; then the students, finished or not. `verify` reads every byte (pages carry checksums), compares each key with the row it stands
for, and ends with status 1 where anything is wrong; a damaged segment is set aside, so that its rows are generated again.
`export` writes each row of a kind (`responses`, or `perplexities`) once, as JSON lines (plain or zstd) or Parquet. `merge` adds the segments and finished students of one store to another:
they are copied whole and never changed, so it may be repeated or interrupted, and of two rows of one key the one
written first counts, as everywhere.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from whichteacher.engines.specs import request_keys, score_keys  # noqa: E402
from whichteacher.store import KINDS, Store, model_digest  # noqa: E402
from whichteacher.student_place import students  # noqa: E402
from whichteacher.tables import atomic_folder, atomic_path  # noqa: E402

#: A key holds the number of its attempt, a row does not: so many are tried before a key is called wrong.
_ATTEMPTS = 256
_EXPORTED_ROWS = 8192
#: The columns that hold what an engine worked on, by kind.
_TOKENS = {"responses": ["output_tokens"], "perplexities": ["query_tokens", "response_tokens"]}


def stores(folder: Path) -> Iterator[tuple[str, Store]]:
    """(kind, store) of every model in the store ``folder``."""
    for kind in KINDS:
        for owner in sorted(path.name for path in (folder / kind).glob("*") if path.is_dir()):
            yield kind, Store(folder, kind, owner)


def distinct(store: Store, columns: list[str]) -> pa.Table:
    """``columns`` of the row of each key that everybody reads: the one written first."""
    wanted = list(dict.fromkeys(["key", "written", *columns]))
    table = pa.concat_tables([store.schema.empty_table().select(wanted), *store.tables(wanted)])
    order = pc.sort_indices(table, [("key", "ascending"), ("written", "ascending")])
    keys = table["key"].take(order).combine_chunks()
    first = np.ones(len(keys), dtype=bool)
    if len(keys) > 1:
        first[1:] = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return table.take(order.filter(pa.array(first)))


def show(folder: Path) -> str:
    """The table of ``show``, one line per kind and model."""
    heads = ("kind", "model", "digest", "rows", "again", "tokens", "hours", "MiB", "segments", "first", "last")
    lines = [heads]
    for kind, store in stores(folder):
        rows = distinct(store, ["model", "seconds", *_TOKENS[kind]])
        held = sum(pq.read_metadata(path).num_rows for path in store.segments())
        size = sum(path.stat().st_size for path in store.segments()) / 2**20
        written = rows["written"].to_pylist()
        spans = [
            datetime.fromtimestamp(at(written) / 1e9, UTC).strftime("%Y-%m-%d %H:%M") for at in (min, max) if written
        ]
        lines.append(
            (
                kind,
                " ".join(sorted(set(rows["model"].to_pylist()))) or "-",
                store.owner,
                f"{rows.num_rows:,}",
                f"{held - rows.num_rows:,}",
                f"{sum(pc.sum(rows[name]).as_py() or 0 for name in _TOKENS[kind]):,}",
                f"{(pc.sum(rows['seconds']).as_py() or 0) / 3600:.2f}",
                f"{size:.1f}",
                f"{len(store.segments()):,}",
                *(spans or ("-", "-")),
            )
        )
    return _aligned(lines) + ("\n\n" + show_students(folder) if any(students(folder)) else "")


def _aligned(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def show_students(folder: Path) -> str:
    """The table of the students, one line each; of one that is not finished, what its checkpoints hold."""
    lines = [("student", "state", "steps", "tokens", "hours", "MiB")]
    for key, place, facts in students(folder):
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 2**20
        checkpoints = [int(path.name.rpartition("-")[2]) for path in place.glob("unfinished/checkpoint-*")]
        done = (
            ("finished", f"{facts['steps']:,}", f"{facts['tokens']:,}", f"{facts['seconds'] / 3600:.2f}")
            if facts
            else ("unfinished", f"{max(checkpoints, default=0):,}", "-", "-")
        )
        lines.append((key, *done, f"{size:.1f}"))
    return _aligned(lines)


def wrong_keys(table: pa.Table, kind: str) -> list[str]:
    """The keys of ``table`` (of the schema of ``kind``) that do not stand for the request, model and settings of their rows."""
    wrong = []
    makers = {}
    make, asked = (score_keys, "content") if kind == "perplexities" else (request_keys, "prompt")
    names = ("key", asked, "model_digest", "settings")
    for key, request, owner, settings in zip(*(table[name].to_pylist() for name in names), strict=True):
        key_of = makers.setdefault((owner, settings), make(owner, json.loads(settings)))
        right = (
            key_of(request) == key
            if kind == "perplexities"
            else any(key_of(request, attempt) == key for attempt in range(_ATTEMPTS))
        )
        if not right:
            wrong.append(key)
    return wrong


def verify(folder: Path) -> list[str]:
    """What is wrong with the store ``folder``, one line each; damaged segments are set aside."""
    found = []
    for kind, store in stores(folder):
        place = f"{kind}/{store.owner}"
        rows = 0
        for table in store.tables():
            rows += table.num_rows
            found += [f"{place}: key {key} does not belong to its row" for key in wrong_keys(table, kind)]
            others = [
                owner for owner in pc.unique(table["model_digest"]).to_pylist() if not owner.startswith(store.owner)
            ]
            found += [f"{place}: rows of another model, {owner}" for owner in others]
        print(f"{place}: {rows:,} rows in {len(store.segments()):,} segments read")
        found += [
            f"{place}: {path.name} is damaged: its rows will be made again, then it may be deleted"
            for path in sorted(store.folder.glob("*.corrupt"))
        ]
        found += [
            f"{place}: {path.name} was never finished: delete it where no job writes to this store"
            for path in sorted(store.folder.glob(".*"))
        ]
    for key, place, facts in students(folder):
        if facts and model_digest(str(place / "finished" / "model"), None) != facts["digest"]:
            found.append(f"students/{key}: the weights are not those that were trained: delete this folder")
    return found


def export(folder: Path, output: Path, model: str | None, kind: str = "responses") -> int:
    """Write every row of ``kind`` once to ``output`` and return how many there were; ``model`` takes one model's alone.

    The file's name says what it becomes: .jsonl, .jsonl.zst or .parquet. Raises :class:`SystemExit` for another one.
    """
    rows = 0
    chosen = [store for each, store in stores(folder) if each == kind]
    if not output.name.endswith((".jsonl", ".jsonl.zst", ".parquet")):
        sys.exit(f"store: {output.name}: give a name that ends in .jsonl, .jsonl.zst or .parquet")
    with atomic_path(output) as temporary:
        if output.suffix == ".parquet":
            writer = pq.ParquetWriter(temporary, KINDS[kind], compression="zstd")
            add = writer.write_table
        else:
            writer = pa.output_stream(temporary, compression="zstd" if output.suffix == ".zst" else None)

            def add(table: pa.Table) -> None:
                for row in table.to_pylist():
                    writer.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

        with writer:
            for store in chosen:
                keys = distinct(store, ["model"])
                if model is not None:
                    keys = keys.filter(pc.equal(keys["model"], model))
                scratch = output.with_name(f".{output.name}.scratch")
                for table in store.ordered(keys["key"].to_pylist(), _EXPORTED_ROWS, scratch):
                    add(table)
                    rows += table.num_rows
    return rows


def merge(source: Path, target: Path) -> int:
    """Copy the segments and finished students of the store ``source`` that ``target`` lacks, and return how many those were."""
    copied = 0
    for kind, store in stores(source):
        for path in store.segments():
            there = target / kind / store.owner / path.name
            if not there.exists():
                with atomic_path(there) as temporary:
                    shutil.copyfile(path, temporary)
                copied += 1
    for key, place, facts in students(source):
        there = target / "students" / key / "finished"
        if facts and not there.exists():
            with atomic_folder(there) as made:
                shutil.copytree(place / "finished", made, dirs_exist_ok=True)
            copied += 1
    return copied


def main(arguments: list[str] | None = None) -> int:
    """The command line; the status is 1 where `verify` finds something wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("show", "verify", "export"):
        commands.add_parser(name).add_argument("store", type=Path)
    commands.choices["export"].add_argument("output", type=Path)
    commands.choices["export"].add_argument("--kind", choices=list(KINDS), default="responses")
    commands.choices["export"].add_argument("--model", help="as the configuration names it")
    merging = commands.add_parser("merge")
    merging.add_argument("source", type=Path)
    merging.add_argument("store", type=Path)
    told = parser.parse_args(arguments)
    existing = told.source if told.command == "merge" else told.store
    if not any((existing / kind).is_dir() for kind in KINDS):
        sys.exit(f"store: {existing} is no store: name the folder of the configuration's key `store`")
    if told.command == "show":
        print(show(told.store))
    elif told.command == "export":
        print(f"{export(told.store, told.output, told.model, told.kind):,} rows written to {told.output}")
    elif told.command == "merge":
        print(f"{merge(told.source, told.store):,} segments and students copied to {told.store}")
    else:
        wrong = verify(told.store)
        print("\n".join(wrong) if wrong else "the store is whole")
        return int(bool(wrong))
    return 0


if __name__ == "__main__":
    sys.exit(main())
