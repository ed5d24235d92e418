"""Rows of a source, wherever they lie: JSON lines, CSV or Parquet files, or a data set of the hub.

A row that cannot be used is a :class:`Fault` with a reason and a place, never an exception that ends a whole file. What
is wrong with the file as a whole (missing, cut short, a quote that never closes, a column no row has) is the user's to
mend: an :class:`~whichteacher.rule.InputError`. No file is held in memory, nor a line beyond :data:`MAX_LINE`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from whichteacher.places import locate
from whichteacher.rule import InputError

SUFFIXES = (".jsonl", ".jsonl.zst", ".csv", ".parquet")
ANSWER_TYPES = ("number", "expression", "set", "interval", "choice", "text")

#: Who speaks, by the names found in {role, content} and in {from, value} dialogues.
_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "system": "system",
}
#: Bytes of a line of JSON, characters of a CSV cell: beyond any query, and read into memory without harm.
MAX_LINE = 64 * 2**20
_BATCH_ROWS = 10_000
#: Rows of Parquet that are in memory together, in bytes.
_BATCH_BYTES = 64 * 2**20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LISTED_COLUMNS = 30
_DETAIL_CHARACTERS = 300

Turns = list[dict[str, str]]


class Fault(ValueError):
    """Why one row cannot be used: ``reason`` is counted in the ledger, ``detail`` is for people.

    The detail may quote what is wrong: it is cut to some hundred characters, and what UTF-8 cannot hold is escaped.
    """

    def __init__(self, reason: str, detail: str) -> None:
        detail = printable(detail if len(detail) <= _DETAIL_CHARACTERS else f"{detail[:_DETAIL_CHARACTERS]}...")
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def printable(text: str) -> str:
    """``text`` with half surrogate pairs and NULs escaped."""
    return text.replace("\0", r"\0").encode("utf-8", "backslashreplace").decode("utf-8")


class Row(NamedTuple):
    """One row as found. ``location`` is ``file:line``; ``values`` is None where ``fault`` says why."""

    location: str
    number: int
    values: dict[str, Any] | None
    fault: Fault | None


def read_rows(source: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of a source block (``path``, or ``hub`` with ``revision``, ``file``, ``subset``, ``split``; ``columns``, ``where``).

    Raises :class:`InputError` where the file or data set cannot be opened or breaks off.
    """
    return _hub_rows(source) if source.get("hub") else file_rows(Path(source["path"]), _mapped(source))


def source_files(source: Mapping[str, Any]) -> dict[str, Path]:
    """The files of a source block whose ``path`` or ``file`` may be a list, by the name that locations call them."""
    if source.get("hub"):
        named = [source["file"]] if isinstance(source["file"], str) else source["file"]
        return {name: hub_file(source["hub"], source["revision"], name) for name in named}
    paths = [Path(locate(path)) for path in ([source["path"]] if isinstance(source["path"], str) else source["path"])]
    alone = len({path.name for path in paths}) == len(paths)
    return {path.name if alone else path.as_posix(): path for path in paths}


def file_rows(
    path: Path,
    columns: Collection[str],
    optional: Collection[str] = (),
    name: str | None = None,
    batch_rows: int = _BATCH_ROWS,
) -> Iterator[Row]:
    """The rows of one file, one after the other.

    ``columns`` are those that are used, ``optional`` those that a file may lack: of Parquet nothing else is read, and at
    most ``batch_rows`` at a time, fewer where they are long. ``name`` is what locations call the file; without one, its own name. Raises
    :class:`InputError` where the file cannot be opened or breaks off.
    """
    if not path.is_file():
        fault = "is a folder, not a file" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {fault}: correct the path in the config")
    name = name or path.name
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    try:
        if suffix == ".jsonl":
            with path.open("rb") as file:
                yield from _json_rows(name, file)
        elif suffix == ".jsonl.zst":
            with pa.input_stream(path, compression="zstd") as file:
                yield from _json_rows(name, io.BufferedReader(file))
        elif suffix == ".csv":
            yield from _csv_rows(path, name)
        elif suffix == ".parquet":
            yield from _parquet_rows(path, name, columns, optional, batch_rows)
        else:
            raise InputError(f"{path}: unknown kind of file: give one of {', '.join(SUFFIXES)}")
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read to its end: {error}: fetch or make the file again") from error


def _json_rows(name: str, file: io.BufferedReader) -> Iterator[Row]:
    number, loads = 0, json.loads
    for raw in iter(partial(file.readline, MAX_LINE), b""):
        number += 1
        location = f"{name}:{number}"
        if number == 1:
            _refuse_utf16(raw, location)
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        whole = raw.endswith(b"\n")
        if not whole and len(raw) >= MAX_LINE:
            _skip_line(file)
            yield Row(location, number, None, Fault("too_large", f"a line of more than {MAX_LINE >> 20} MiB"))
            continue
        if not raw.strip():
            continue
        try:
            values = loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield Row(location, number, None, Fault("invalid_text", f"not UTF-8 at byte {error.start}"))
            continue
        except (ValueError, RecursionError) as error:
            ended = "" if whole else "; the file ends here, without a line's end: is it whole?"
            yield Row(location, number, None, Fault("invalid_json", f"{error}{ended}"))
            continue
        if isinstance(values, dict):
            yield Row(location, number, values, None)
        else:
            yield Row(location, number, None, Fault("wrong_type", f"a JSON {type(values).__name__}, not an object"))


def _refuse_utf16(start: bytes, location: str) -> None:
    """Raise :class:`InputError` where a file starts as UTF-16 does, with a mark and a NUL in every other byte."""
    if start[:2] in _UTF16 and start.count(0) * 3 > len(start):
        raise InputError(f"{location}: the file is UTF-16: convert it to UTF-8, for example with iconv")


def _skip_line(file: io.BufferedReader) -> None:
    while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
        pass


def _csv_rows(path: Path, name: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE)
    with path.open("rb") as start:
        _refuse_utf16(start.read(1000), f"{path}:1")
    # Bytes that are no UTF-8 become lone surrogates, which drop the row that holds them and no other.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        # Strict: otherwise a quote that never closes takes the rest of the file into one cell, without a word.
        reader = csv.reader(file, strict=True)
        header, number, first_line = None, 0, 1
        while True:
            first_line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise InputError(
                    f"{path}:{first_line}: {error}, in the row that starts here: mend its quotes; the rows after it cannot "
                    "be told apart"
                ) from error
            if cells is None:
                return
            if header is None:
                header = cells
                continue
            number += 1
            if not cells:
                continue
            location = f"{name}:{first_line}"
            if len(cells) == len(header):
                yield Row(location, number, {k: v or None for k, v in zip(header, cells, strict=True)}, None)
            else:
                detail = f"{len(cells)} cells under {len(header)} column names"
                yield Row(location, number, None, Fault("wrong_columns", detail))


def _parquet_rows(
    path: Path, name: str, columns: Collection[str], optional: Collection[str], batch_rows: int
) -> Iterator[Row]:
    # Without read-ahead, or a row group of the largest files would be in memory as a whole.
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
    names = file.schema_arrow.names
    wanted = {column if column in names else column.split(".")[0] for column in columns}
    # Only what is used is read, except where something is missing: the message then lists what there is.
    read = sorted(wanted | (set(optional) & set(names))) if wanted <= set(names) else None
    batch_rows = min(batch_rows, max(1, _BATCH_BYTES // _row_bytes(file.metadata, read)))
    number = 0
    for batch in file.iter_batches(batch_size=batch_rows, columns=read):
        for values, fault in _batch_values(batch):
            number += 1
            yield Row(f"{name}:{number}", number, values, fault)


def _row_bytes(metadata: pq.FileMetaData, columns: Collection[str] | None) -> int:
    """Bytes of the longest row of a Parquet file, as far as it tells: the largest mean of a row group, at least one."""
    largest = 1
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        chunks = [group.column(number) for number in range(group.num_columns)]
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if columns is None or chunk.path_in_schema in columns or chunk.path_in_schema.split(".")[0] in columns
        )
        largest = max(largest, size // max(1, group.num_rows))
    return largest


def _batch_values(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any] | None, Fault | None]]:
    try:
        yield from ((values, None) for values in batch.to_pylist())
    except ValueError as error:
        # Parquet promises UTF-8, and readers do not check it; and dates beyond Python's are none of ours.
        if batch.num_rows == 1:
            text = isinstance(error, UnicodeDecodeError)
            detail = f"not UTF-8: {error.reason}" if text else str(error)
            yield None, Fault("invalid_text" if text else "wrong_type", detail)
            return
        for row in range(batch.num_rows):
            yield from _batch_values(batch.slice(row, 1))


def _mapped(source: Mapping[str, Any]) -> list[str]:
    return [*(column for column in source["columns"].values() if column), *(source.get("where") or {})]


def _hub_rows(source: Mapping[str, Any]) -> Iterator[Row]:
    from datasets import load_dataset

    hub, revision = source["hub"], source["revision"]
    if source.get("file"):
        yield from file_rows(hub_file(hub, revision, source["file"]), _mapped(source))
        return
    try:
        rows = load_dataset(hub, source.get("subset"), split=source["split"], revision=revision, streaming=True)
        for number, values in enumerate(rows, start=1):
            yield Row(f"{hub}:{number}", number, values, None)
    except Exception as error:
        raise InputError(
            f"hub data set {hub} at {revision}: {type(error).__name__}: {error}: check id, revision, subset and split, "
            "and the way to the hub; or fetch its files and give `path`"
        ) from error


def hub_file(hub: str, revision: str, file: str) -> Path:
    """A file of a hub data set, fetched into the hub's cache. Raises :class:`InputError` where that fails."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub, file, repo_type="dataset", revision=revision))
    except Exception as error:
        raise InputError(
            f"hub data set {hub} at {revision}, file {file}: {type(error).__name__}: {error}: check id, revision and "
            "file, and the way to the hub; or fetch the file and give `path`"
        ) from error


# --- columns ---------------------------------------------------------------------------------------------------------


class ColumnReader:
    """Takes mapped columns out of rows, and knows afterwards which of them no row had.

    ``columns`` maps the names used here (``prompt``, ``answer``, ...) to columns; ``where`` maps columns to the values that
    select a row; ``config_key`` is the block of the configuration that holds both, for messages.
    """

    def __init__(
        self, columns: Mapping[str, str | None], config_key: str, where: Mapping[str, Any] | None = None
    ) -> None:
        self._columns = [(name, column) for name, column in columns.items() if column is not None]
        self._where = list((where or {}).items())
        self._keys = {name: f"{config_key}.columns.{name}" for name, _ in self._columns}
        self._keys |= {f"where.{column}": f"{config_key}.where" for column, _ in self._where}
        self._missing = dict(self._columns) | {f"where.{column}": column for column, _ in self._where}
        self._present: dict[str, None] = {}
        self._rows = 0

    def selects(self, values: Mapping[str, Any]) -> bool:
        """Whether a row has what ``where`` asks of each column: the value, or one of a list of them.

        A value and its text count as equal, for CSV has texts alone.
        """
        selected = True
        for column, wanted in self._where:
            value = self._look(values, f"where.{column}", column)
            allowed = wanted if isinstance(wanted, list) else [wanted]
            selected = selected and value is not None and (value in allowed or str(value) in map(str, allowed))
        return selected

    def take(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The mapped values by their own names (``prompt``, ``answer``, ...); None where the row lacks one."""
        self._rows += 1
        if self._missing:
            return {name: self._look(values, name, column) for name, column in self._columns}
        return {
            name: values[column] if column in values else _reach(values, column)[1] for name, column in self._columns
        }

    def _look(self, values: Mapping[str, Any], name: str, column: str) -> Any:
        found, value = _reach(values, column)
        if found:
            self._missing.pop(name, None)
        elif name in self._missing:
            self._present.update(dict.fromkeys(values))
        return value

    def check(self, name: str) -> None:
        """Raise :class:`InputError` if no row had a mapped column; ``name`` is the file or data set."""
        there = printable(", ".join(list(self._present)[:_LISTED_COLUMNS]))
        for key, column in self._missing.items():
            # Where no row was selected, nobody looked for the other columns.
            if there and (self._rows or key.startswith("where.")):
                raise InputError(
                    f"{name}: no column {column!r}; the columns are: {there}; correct config key {self._keys[key]}"
                )


def _reach(values: Mapping[str, Any], column: str) -> tuple[bool, Any]:
    """Whether ``column`` is in ``values``, and its value.

    A dotted name reaches into objects and, by number, into lists, if no key is so named.
    """
    if column in values:
        return True, values[column]
    here: Any = values
    for part in column.split("."):
        if isinstance(here, list) and part.isdigit() and int(part) < len(here):
            here = here[int(part)]
        elif isinstance(here, Mapping) and part in here:
            here = here[part]
        else:
            return False, None
    return True, here


# --- values ----------------------------------------------------------------------------------------------------------


def text_of(value: Any, name: str) -> str:
    """``value`` as text that UTF-8 can hold. Raises :class:`Fault`."""
    if value is None:
        raise Fault("missing_column", f"no {name}")
    if not isinstance(value, str):
        raise Fault("wrong_type", f"{name} is {kind_of(value)}, not text")
    if "\0" in value:
        raise Fault("invalid_text", f"{name} holds a NUL character")
    if value.isascii():
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Fault("invalid_text", f"{name} holds half a surrogate pair at character {error.start}") from None
    return value


def label_of(value: Any, name: str) -> str:
    """Text, or a whole or decimal number as text. Raises :class:`Fault`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return str(value) if number else text_of(value, name)


def answer_of(value: Any) -> str | None:
    """A reference answer: text or a number; None where there is none. Raises :class:`Fault`."""
    return None if value is None else label_of(value, "answer")


def answer_type_of(value: Any) -> str | None:
    """One of :data:`ANSWER_TYPES`, or None. Raises :class:`Fault`."""
    if value is not None and value not in ANSWER_TYPES:
        raise Fault("wrong_type", f"answer type {value!r} is none of {', '.join(ANSWER_TYPES)}")
    return value


def turns_of(taken: Mapping[str, Any]) -> Turns:
    """The turns of a row up to the user's last message, from its ``turns`` or its ``prompt``. Raises :class:`Fault`.

    A system message may come first; then user and assistant take turns, the user first.
    """
    if "turns" not in taken:
        return [{"role": "user", "content": text_of(taken["prompt"], "prompt")}]
    found = decoded(taken["turns"], "turns")
    if not isinstance(found, list):
        raise Fault("wrong_type", f"turns is {kind_of(found)}, not a list")
    turns = [_turn(turn, number) for number, turn in enumerate(found, start=1)]
    while turns and turns[-1]["role"] != "user":
        turns.pop()
    spoken = [turn["role"] for turn in turns[turns[:1] != [] and turns[0]["role"] == "system" :]]
    if not spoken or spoken != [("user", "assistant")[i % 2] for i in range(len(spoken))]:
        raise Fault("wrong_turns", f"roles {', '.join(spoken) or 'none'}: user and assistant do not alternate")
    return turns


def _turn(turn: Any, number: int) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise Fault("wrong_type", f"turn {number} is {kind_of(turn)}, not an object")
    speaker = turn.get("role", turn.get("from"))
    if not isinstance(speaker, str) or speaker not in _ROLES:
        raise Fault("wrong_turns", f"turn {number} is said by {speaker!r}, none of {', '.join(_ROLES)}")
    return {"role": _ROLES[speaker], "content": text_of(turn.get("content", turn.get("value")), f"turn {number}")}


def constraints_of(value: Any, arguments: Any = None) -> str | None:
    """IFEval constraints as canonical JSON text; None where there are none. Raises :class:`Fault`.

    ``value`` says ``{"instruction_id_list": [name, ...], "kwargs": [{...}, ...]}``, one set of arguments per name;
    ``instruction_kwargs`` is another name of ``kwargs``. Or it is the list of names, and ``arguments`` that of the arguments.
    Arguments that are null say nothing and are left out.
    """
    if value is None:
        return None
    constraints = decoded(value, "constraints")
    if isinstance(constraints, list):
        constraints = {"instruction_id_list": constraints, "kwargs": decoded(arguments, "constraint_arguments")}
    if not isinstance(constraints, Mapping):
        raise Fault("wrong_constraints", f"constraints is {kind_of(constraints)}, not an object")
    names = constraints.get("instruction_id_list")
    arguments = constraints.get("kwargs", constraints.get("instruction_kwargs"))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise Fault("wrong_constraints", "instruction_id_list is no list of names")
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise Fault("wrong_constraints", "kwargs is no list of as many objects as instruction_id_list has names")
    if not all(isinstance(argument, Mapping) for argument in arguments):
        raise Fault("wrong_constraints", "kwargs holds something that is no object")
    given = [{key: item for key, item in argument.items() if item is not None} for argument in arguments]
    return canonical({"instruction_id_list": names, "kwargs": given}, "constraints")


def decoded(value: Any, name: str) -> Any:
    """What JSON text says; anything else as it is. Raises :class:`Fault`."""
    if value is None:
        raise Fault("missing_column", f"no {name}")
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Fault("invalid_json", f"{name}: {error}") from None


def canonical(value: Any, name: str) -> str:
    """``value`` as JSON text, equal for equal values. Raises :class:`Fault`."""
    try:
        return text_of(json.dumps(value, sort_keys=True, ensure_ascii=False), name)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, Fault):
            raise
        raise Fault("wrong_type", f"{name} cannot be written as JSON: {error}") from None


def kind_of(value: Any) -> str:
    """What ``value`` is, in words for people."""
    return {type(None): "null", dict: "an object", list: "a list", str: "text"}.get(
        type(value), f"a {type(value).__name__}"
    )
