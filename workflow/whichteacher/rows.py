"""Rows of a source, wherever they lie: JSON lines, CSV or Parquet files, or a data set of the hub.

A row that cannot be used is a :class:`Fault` with a reason and a place, never an exception that ends a whole file. What
is wrong with the file as a whole (missing, unreadable, a column no row has) is the user's to mend: an
:class:`~whichteacher.rule.InputError`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

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
_BATCH_ROWS = 10_000
_CSV_FIELD_LIMIT = 2**30
_LISTED_COLUMNS = 30

Turns = list[dict[str, str]]


class Fault(ValueError):
    """Why one row cannot be used: ``reason`` is counted in the ledger, ``detail`` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Row(NamedTuple):
    """One row as found. ``location`` is ``file:line``; ``values`` is None where ``fault`` says why."""

    location: str
    number: int
    values: dict[str, Any] | None
    fault: Fault | None


def read_rows(source: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of a source block (``path``, or ``hub`` with ``revision``, ``file``, ``subset``, ``split``; ``columns``, ``limit``).

    Raises :class:`InputError` where the file or data set cannot be opened or breaks off.
    """
    rows = _hub_rows(source) if source.get("hub") else file_rows(Path(source["path"]), _mapped(source))
    return itertools.islice(rows, source.get("limit"))


def file_rows(
    path: Path,
    columns: Collection[str],
    optional: Collection[str] = (),
    name: str | None = None,
    batch_rows: int = _BATCH_ROWS,
) -> Iterator[Row]:
    """The rows of one file, one after the other.

    ``columns`` are those that are used, ``optional`` those that a file may lack: of Parquet nothing else is read, and
    ``batch_rows`` at a time. ``name`` is what locations call the file; without one, its own name. Raises
    :class:`InputError` where the file cannot be opened or breaks off.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file: correct the path in the config")
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


def _json_rows(name: str, lines: Iterator[bytes]) -> Iterator[Row]:
    for number, raw in enumerate(lines, start=1):
        line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if not line.strip():
            continue
        location = f"{name}:{number}"
        try:
            values = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield Row(location, number, None, Fault("invalid_text", f"not UTF-8 at byte {error.start}"))
            continue
        except (ValueError, RecursionError) as error:
            yield Row(location, number, None, Fault("invalid_json", str(error)))
            continue
        if isinstance(values, dict):
            yield Row(location, number, values, None)
        else:
            yield Row(location, number, None, Fault("wrong_type", f"a JSON {type(values).__name__}, not an object"))


def _csv_rows(path: Path, name: str) -> Iterator[Row]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    # Bytes that are no UTF-8 become lone surrogates, which drop the row that holds them and no other.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        for number, cells in enumerate(reader, start=1):
            if not cells:
                continue
            location = f"{name}:{reader.line_num}"
            if len(cells) == len(header):
                yield Row(location, number, {k: v or None for k, v in zip(header, cells, strict=True)}, None)
            else:
                detail = f"{len(cells)} cells under {len(header)} column names"
                yield Row(location, number, None, Fault("wrong_columns", detail))


def _parquet_rows(
    path: Path, name: str, columns: Collection[str], optional: Collection[str], batch_rows: int
) -> Iterator[Row]:
    file = pq.ParquetFile(path)
    names = file.schema_arrow.names
    wanted = {column if column in names else column.split(".")[0] for column in columns}
    # Only what is used is read, except where something is missing: the message then lists what there is.
    read = sorted(wanted | (set(optional) & set(names))) if wanted <= set(names) else None
    number = 0
    for batch in file.iter_batches(batch_size=batch_rows, columns=read):
        for values, fault in _batch_values(batch):
            number += 1
            yield Row(f"{name}:{number}", number, values, fault)


def _batch_values(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any] | None, Fault | None]]:
    try:
        yield from ((values, None) for values in batch.to_pylist())
    except UnicodeDecodeError as error:  # Parquet promises UTF-8, and readers do not check it
        if batch.num_rows == 1:
            yield None, Fault("invalid_text", f"not UTF-8: {error.reason}")
            return
        for row in range(batch.num_rows):
            yield from _batch_values(batch.slice(row, 1))


def _mapped(source: Mapping[str, Any]) -> list[str]:
    return [column for column in source["columns"].values() if column]


def _hub_rows(source: Mapping[str, Any]) -> Iterator[Row]:
    from datasets import load_dataset

    hub, revision = source["hub"], source["revision"]
    if source.get("file"):
        yield from file_rows(_hub_file(hub, revision, source["file"]), _mapped(source))
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


def _hub_file(hub: str, revision: str, file: str) -> Path:
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
    """Takes mapped columns out of rows, and knows afterwards which of them no row had."""

    def __init__(self, columns: Mapping[str, str | None], config_key: str) -> None:
        self.columns = {key: column for key, column in columns.items() if column is not None}
        self._config_key = config_key
        self._seen: set[str] = set()
        self._present: dict[str, None] = {}
        self._rows = 0

    def take(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The mapped values by their own names (``prompt``, ``answer``, ...); None where the row lacks one."""
        self._rows += 1
        self._present.update(dict.fromkeys(values))
        taken = {}
        for key, column in self.columns.items():
            found, value = _reach(values, column)
            if found:
                self._seen.add(key)
            taken[key] = value
        return taken

    def check(self, name: str) -> None:
        """Raise :class:`InputError` if no row had a mapped column; ``name`` is the file or data set."""
        for key, column in self.columns.items():
            if self._rows and key not in self._seen:
                there = ", ".join(list(self._present)[:_LISTED_COLUMNS])
                raise InputError(
                    f"{name}: no column {column!r}; the columns are: {there}; correct config key "
                    f"{self._config_key}.columns.{key}"
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
        raise Fault("wrong_type", f"{name} is {_kind(value)}, not text")
    if "\0" in value:
        raise Fault("invalid_text", f"{name} holds a NUL character")
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
        raise Fault("wrong_type", f"turns is {_kind(found)}, not a list")
    turns = [_turn(turn, number) for number, turn in enumerate(found, start=1)]
    while turns and turns[-1]["role"] != "user":
        turns.pop()
    spoken = [turn["role"] for turn in turns[turns[:1] != [] and turns[0]["role"] == "system" :]]
    if not spoken or spoken != [("user", "assistant")[i % 2] for i in range(len(spoken))]:
        raise Fault("wrong_turns", f"roles {', '.join(spoken) or 'none'}: user and assistant do not alternate")
    return turns


def _turn(turn: Any, number: int) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise Fault("wrong_type", f"turn {number} is {_kind(turn)}, not an object")
    speaker = turn.get("role", turn.get("from"))
    if not isinstance(speaker, str) or speaker not in _ROLES:
        raise Fault("wrong_turns", f"turn {number} is said by {speaker!r}, none of {', '.join(_ROLES)}")
    return {"role": _ROLES[speaker], "content": text_of(turn.get("content", turn.get("value")), f"turn {number}")}


def code_tests_of(value: Any) -> str | None:
    """Tests of a code query as canonical JSON text; None where there are none. Raises :class:`Fault`.

    Either ``{"call_type": "assert", "assert_case": [code, ...]}`` or ``{"call_type": "std", "inputs": [...],
    "outputs": [...]}`` with as many outputs as inputs; both may name the function under test in ``fn_name``.
    """
    if value is None:
        return None
    tests = _object(value, "tests", "wrong_tests")
    name = tests.get("fn_name")
    if name is not None and not isinstance(name, str):
        raise Fault("wrong_tests", f"fn_name is {_kind(name)}, not text")
    if tests.get("call_type") == "assert":
        kept = {"assert_case": _texts(tests.get("assert_case"), "assert_case")}
    elif tests.get("call_type") == "std":
        inputs, outputs = tests.get("inputs"), tests.get("outputs")
        if name is None:
            inputs, outputs = _texts(inputs, "inputs"), _texts(outputs, "outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs or len(inputs) != len(outputs):
            raise Fault("wrong_tests", "inputs and outputs are not two lists of the same length, at least one long")
        kept = {"inputs": inputs, "outputs": outputs}
    else:
        raise Fault("wrong_tests", f"call_type is {tests.get('call_type')!r}, neither 'assert' nor 'std'")
    return _canonical({"call_type": tests["call_type"], **kept, **({"fn_name": name} if name else {})}, "tests")


def constraints_of(value: Any) -> str | None:
    """IFEval constraints as canonical JSON text; None where there are none. Raises :class:`Fault`.

    ``{"instruction_id_list": [name, ...], "kwargs": [{...}, ...]}``, one set of arguments per name; arguments that are
    null say nothing and are left out.
    """
    if value is None:
        return None
    constraints = _object(value, "constraints", "wrong_constraints")
    names, arguments = constraints.get("instruction_id_list"), constraints.get("kwargs")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise Fault("wrong_constraints", "instruction_id_list is no list of names")
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise Fault("wrong_constraints", "kwargs is no list of as many objects as instruction_id_list has names")
    if not all(isinstance(argument, Mapping) for argument in arguments):
        raise Fault("wrong_constraints", "kwargs holds something that is no object")
    given = [{key: item for key, item in argument.items() if item is not None} for argument in arguments]
    return _canonical({"instruction_id_list": names, "kwargs": given}, "constraints")


def _object(value: Any, name: str, reason: str) -> Mapping[str, Any]:
    found = decoded(value, name)
    if not isinstance(found, Mapping):
        raise Fault(reason, f"{name} is {_kind(found)}, not an object")
    return found


def _texts(value: Any, name: str) -> Sequence[str]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise Fault("wrong_tests", f"{name} is no list of texts, at least one long")
    return value


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


def _canonical(value: Any, name: str) -> str:
    return text_of(json.dumps(value, sort_keys=True, ensure_ascii=False), name)


def _kind(value: Any) -> str:
    return {type(None): "null", dict: "an object", list: "a list", str: "text"}.get(
        type(value), f"a {type(value).__name__}"
    )
