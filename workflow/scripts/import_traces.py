"""Published traces of one teacher as attempts: one table per shard, and the ledger of every published row.

Reads the files of a release (a folder, or a hub data set at a commit) row by row and the ids of the corpus's queries. Writes
which layout each file has (LAYOUTS_FOUND), and PUBLISHED, ordered by query and attempt, for the rows that answer a query of the corpus: the answers to one query are
numbered in the order of file names and lines, exact repeats of an answer dropped. The ledger counts rows in, kept and
dropped by reason; a dropped row's detail says where it stands (``file:line``).

A release is larger than memory: rows wait on disk in buckets of neighbouring query ids, each small enough to be sorted.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from whichteacher.chat import messages
from whichteacher.ledger import Ledger
from whichteacher.places import locate
from whichteacher.published import LAYOUTS, OPTIONAL_COLUMNS, layout_of, read_trace
from whichteacher.queries import query_id, shard_of
from whichteacher.release import is_copy
from whichteacher.rows import Fault, file_rows, hub_file
from whichteacher.rule import InputError, Progress
from whichteacher.schemas import LAYOUTS_FOUND, PUBLISHED, QUERIES
from whichteacher.tables import append_spool, read_spool, read_table, write_batches, write_table
from whichteacher.tokens import Tokenizer, load_tokenizer

#: Kinds of file that hold traces, with how much larger than the file its rows are, at most, for the size of the buckets.
_GROWTH = {".jsonl": 1, ".jsonl.zst": 6, ".parquet": 6}
#: Rows that are sorted together, in bytes: twice that is in memory while they are.
_BUCKET_BYTES = 128 * 2**20
#: Rows read before they are written to their buckets, in characters.
_HELD_CHARACTERS = 32 * 2**20
_PARQUET_ROWS = 256
_ROW_GROUP = 4096
_NAMED = 6

#: A row that waits: PUBLISHED without what is known only once all are there. Large strings, for Arrow to sort over 2 GB.
_WAITING = pa.schema(
    [
        pa.field("order", pa.int64(), False),
        *(
            field.with_type(pa.large_string()) if field.type == pa.string() else field
            for field in PUBLISHED
            if field.name not in ("attempt", "prompt_tokens", "output_tokens")
        ),
    ]
)


class Buckets:
    """Rows on disk, in ``count`` buckets: equal ranges of query ids, as shards are."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._held: list[dict[str, Any]] = []
        self._characters = 0
        self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a row (the columns of PUBLISHED that are known, without ``order``)."""
        self._held.append({**row, "order": self.rows})
        self.rows += 1
        self._characters += len(row["prompt"]) + len(row["text"])
        if self._characters >= _HELD_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Write what is held; to be called after the last row."""
        places = np.array([shard_of(row["query_id"], self.count) for row in self._held], dtype=np.int64)
        table = pa.Table.from_pylist(self._held, schema=_WAITING)
        for bucket in np.unique(places).tolist():
            append_spool(self.folder / f"{bucket}.arrow", table.filter(pa.array(places == bucket)))
        self._held, self._characters = [], 0

    def take(self, bucket: int) -> pa.Table:
        """The rows of a bucket by query and order; its file is removed."""
        path = self.folder / f"{bucket}.arrow"
        table = pa.concat_tables([_WAITING.empty_table(), *read_spool(path)])
        path.unlink(missing_ok=True)
        return table.sort_by([("query_id", "ascending"), ("order", "ascending")])


def trace_files(traces: str, revision: str | None, named: Sequence[str] | None = None) -> dict[str, Path]:
    """The files of a release by the name that locations call them, in the order of names: those ``named``, or all, without the
    Parquet files of an export that hold the rows of the JSON lines beside them once more.

    With a ``revision`` the hub data set is fetched, into the hub's cache. Raises :class:`InputError` where that fails and
    where there is no file of traces.
    """
    kinds = ", ".join(_GROWTH)
    if named is not None:
        folder = Path(locate(traces))
        return {name: hub_file(traces, revision, name) if revision else folder / name for name in sorted(named)}
    if revision is None:
        folder = Path(locate(traces))
    else:
        from huggingface_hub import snapshot_download

        patterns = [f"*{suffix}" for suffix in _GROWTH]
        try:
            folder = Path(snapshot_download(traces, repo_type="dataset", revision=revision, allow_patterns=patterns))
        except Exception as error:
            raise InputError(
                f"hub data set {traces} at {revision}: {type(error).__name__}: {error}: check id and revision, and the way "
                "to the hub; or fetch its files and name their folder"
            ) from error
    files = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path.name.endswith(tuple(_GROWTH))
    }
    files = {name: path for name, path in files.items() if not is_copy(name, files)}
    if not files:
        raise InputError(
            f"{traces}: no {kinds} file: point the teacher's `traces` at the folder of the published files"
        )
    return dict(sorted(files.items()))


def known_queries(shards: Sequence[str]) -> np.ndarray:
    """The ids of the corpus's queries, as sorted bytes."""
    ids = [read_table(shard, QUERIES, ["query_id"])["query_id"].to_numpy().astype("S32") for shard in shards]
    return np.sort(np.concatenate(ids))


def read_release(
    files: Mapping[str, Path], layout: str, known: np.ndarray, buckets: Buckets, ledger: Ledger, step: str
) -> list[dict[str, Any]]:
    """Put every row that answers a query of ``known`` into ``buckets``; the ledger takes in all rows and drops the others.

    Returns rows of LAYOUTS_FOUND. Raises :class:`InputError` where a file breaks off, and where not one row answers a query.
    """
    first, found = "", []
    with Progress(f"{step}: reading", len(files), "files") as progress:
        for name, path in files.items():
            told = layout_of(path, name, layout)
            before, unreadable = ledger.rows_in, 0
            for row in file_rows(path, [LAYOUTS[told.layout].dialogue], OPTIONAL_COLUMNS, name, _PARQUET_ROWS):
                ledger.rows_in += 1
                try:
                    if row.fault:
                        raise row.fault
                    trace = read_trace(row.values, told.layout)
                except Fault as fault:
                    unreadable += 1
                    ledger.drop("", fault.reason, f"{row.location}: {fault.detail}")
                    first = first or f"; the first that cannot be read is {row.location}: {fault.detail}"
                    continue
                identifier = query_id(trace.turns)
                place = np.searchsorted(known, identifier.encode())
                if place == len(known) or known[place] != identifier.encode():
                    ledger.drop(identifier, "no_query", row.location)
                    continue
                buckets.add(
                    {
                        "query_id": identifier,
                        "prompt": json.dumps(messages(trace.turns, trace.system), ensure_ascii=False),
                        "text": trace.text,
                        "conversion": trace.conversion,
                        "finish_reason": trace.finish_reason,
                        "location": row.location,
                        "published_score": trace.score,
                        "published_perplexity": trace.perplexity,
                        "finish_stated": trace.finish_stated,
                        "oddities": " ".join(trace.oddities),
                    }
                )
                progress.advance(0, f"{name}: {ledger.rows_in} rows, {buckets.rows} of them answer a query")
            found.append(
                {
                    "file": name,
                    "layout": told.layout,
                    "why": told.why,
                    "rows": ledger.rows_in - before,
                    "unreadable": unreadable,
                }
            )
            progress.advance()
    buckets.flush()
    if not buckets.rows:
        raise InputError(
            f"none of the {ledger.rows_in} rows in {', '.join(list(files)[:_NAMED])} answers a query of the corpus: "
            f"{ledger.reasons['no_query']} answer other queries{first}; check the teacher's traces_layout ({layout}), and "
            "that the corpus has the release's queries"
        )
    return found


def number_answers(table: pa.Table, ledger: Ledger) -> pa.Table:
    """The rows of a bucket with their ``attempt``, without repeats: ``duplicate_answer`` in the ledger, the rest kept."""
    kept, attempts = [], []
    current, answers = None, set()
    identifiers, locations = table["query_id"].to_pylist(), table["location"].to_pylist()
    for row, (identifier, text) in enumerate(zip(identifiers, table["text"], strict=True)):
        if identifier != current:
            current, answers = identifier, set()
        answer = text.as_py()
        if answer in answers:
            ledger.drop(identifier, "duplicate_answer", locations[row])
            continue
        kept.append(row)
        attempts.append(len(answers))
        answers.add(answer)
    ledger.keep(len(kept))
    return table.take(pa.array(kept, pa.int64())).append_column("attempt", pa.array(attempts, pa.int64()))


def shard_tables(
    shard: int, shards: int, buckets: Buckets, ledger: Ledger, tokenizer: Tokenizer, progress: Progress
) -> Iterator[pa.Table]:
    """The PUBLISHED rows of a shard, in order, in tables of at most some thousand rows."""
    each = buckets.count // shards
    for bucket in range(shard * each, (shard + 1) * each):
        waiting = buckets.take(bucket)
        rows = number_answers(waiting, ledger)
        progress.advance(waiting.num_rows - rows.num_rows)
        del waiting
        for start in range(0, rows.num_rows, _ROW_GROUP):
            part = rows.slice(start, _ROW_GROUP)
            asked = ["\n".join(turn["content"] for turn in json.loads(prompt.as_py())) for prompt in part["prompt"]]
            part = part.append_column("prompt_tokens", pa.array(tokenizer.count(asked), pa.int64()))
            said = tokenizer.count(part["text"].to_pylist())
            yield part.append_column("output_tokens", pa.array(said, pa.int64()))
            progress.advance(part.num_rows)


def main(
    name: str,
    shards: Sequence[str],
    traces: Mapping[str, Any],
    reference: Mapping[str, Any],
    tables: Sequence[str],
    layouts: str,
    ledger: str,
    dropped: str,
) -> None:
    """Import the traces of teacher ``name``; see the module's docstring.

    ``shards`` are tables of queries and ``tables`` the outputs, in the same order; ``traces`` holds the teacher's keys
    ``traces``, ``traces_revision``, ``traces_files`` and ``traces_layout``, ``reference`` the study's tokenizer.
    """
    step = f"import_traces {name}"
    tokenizer = load_tokenizer(reference)
    files = trace_files(traces["traces"], traces["traces_revision"], traces["traces_files"])
    size = sum(
        path.stat().st_size * next(growth for suffix, growth in _GROWTH.items() if path.name.endswith(suffix))
        for path in files.values()
    )
    scratch = Path(f"{ledger}.scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        counts = Ledger("import_traces", name, 0, scratch / "dropped.arrow")
        buckets = Buckets(scratch, len(shards) * (1 + size // (len(shards) * _BUCKET_BYTES)))
        found = read_release(files, traces["traces_layout"], known_queries(shards), buckets, counts, step)
        with Progress(f"{step}: sorting and counting tokens", buckets.rows) as progress:
            for shard, table in enumerate(tables):
                rows = shard_tables(shard, len(shards), buckets, counts, tokenizer, progress)
                write_batches(table, rows, PUBLISHED, {**traces, "tokenizer": dict(reference)})
        write_table(layouts, found, LAYOUTS_FOUND)
        counts.write(ledger, dropped)
        print(f"{step}: {counts.rows_in} rows, {counts.kept} kept, {counts.reasons.total()} dropped")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if "snakemake" in globals():
    import os

    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["RAYON_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        main(
            snakemake.wildcards.teacher,  # noqa: F821
            list(snakemake.input.shards),  # noqa: F821
            snakemake.params.traces,  # noqa: F821
            snakemake.params.tokenizer,  # noqa: F821
            list(snakemake.output.tables),  # noqa: F821
            snakemake.output.layouts,  # noqa: F821
            snakemake.output.ledger,  # noqa: F821
            snakemake.output.dropped,  # noqa: F821
        )
