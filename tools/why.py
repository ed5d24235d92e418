"""Print the life of one query: where it came from, and what every step that has run did with it.

    .venv/bin/python tools/why.py QUERY [--config config/config.yaml] [--results FOLDER]

QUERY is a `query_id` or its first digits (six at least), a row of a source (`SOURCE/ROW`: the source's own id of the row, or its
number), or, of a row that the import dropped, its place (`FILE:LINE`). The results lie where the configuration says, or in
FOLDER, where they were copied to. Steps that have not run yet are said to be missing, and nothing is run: only files are
read, and of a large table one column and the part that holds this query.

Ends with status 1 where nothing, or more than one query, is found.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from whichteacher.config import ConfigError, Study, check_config  # noqa: E402
from whichteacher.places import locate  # noqa: E402
from whichteacher.queries import shard_of  # noqa: E402

#: Fewer digits say little in a corpus of millions.
_LEAST_DIGITS = 6
#: Characters of a text, and lines of a list, that are shown.
_SHOWN_CHARACTERS, _SHOWN_LINES = 160, 12
_STEP_WIDTH, _KEY_WIDTH = 23, 12
_ORIGIN = (
    "query_id",
    "source_row",
    "category",
    "licence",
    "turns",
    "reference",
    "reference_type",
    "tests",
    "constraints",
)
_DUPLICATES = [
    *(f"{side}{name}" for side in ("kept", "dropped") for name in ("", "_source", "_source_row")),
    *("method", "similarity"),
]
_ATTEMPTS = ["attempt_id", "round", "attempt", "finish_reason", "output_tokens"]
_VERDICTS = ["attempt_id", "verdict", "score", "reason"]

Row = dict[str, Any]


class Place(NamedTuple):
    """A row of a source: ``row`` is its position in the imported table, None where that table is not there."""

    source: str
    row: int | None
    values: Row  # _ORIGIN

    @property
    def label(self) -> str:
        """As details of the ledger name it."""
        return f"{self.source}/{self.values['source_row']}"


class Fate(NamedTuple):
    """What a step did with a row: ``state`` is kept, dropped, or unknown to it."""

    state: str
    reason: str = ""
    detail: str = ""


# --- tables ----------------------------------------------------------------------------------------------------------


def rows_where(path: Path, key: str, value: str, columns: Sequence[str], prefix: bool = False) -> list[tuple[int, Row]]:
    """(position, ``columns``) of the rows whose ``key`` is ``value`` or, with ``prefix``, begins with it.

    Row groups whose statistics exclude it are not read, and of the others first the key alone. Columns that the file lacks
    are left out; where there is no file there are no rows.
    """
    if not path.exists():
        return []
    found, start = [], 0
    with pq.ParquetFile(path) as file:
        leaves = [file.metadata.schema.column(number).path for number in range(file.metadata.num_columns)]
        present = [name for name in columns if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            described = file.metadata.row_group(group)
            held = described.column(leaves.index(key)).statistics
            if held is None or not held.has_min_max or held.min[: len(value)] <= value <= held.max:
                keys = file.read_row_group(group, columns=[key])[key]
                same = pc.starts_with(keys, value) if prefix else pc.equal(keys, value)
                places = np.flatnonzero(pc.fill_null(same, False).to_numpy())
                if len(places):
                    rows = file.read_row_group(group, columns=present).take(pa.array(places)).to_pylist()
                    found += zip((start + places).tolist(), rows, strict=True)
            start += described.num_rows
    return found


class Results:
    """The files of a study's results, under the names that the rules give them."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self.study = folder, study

    def path(self, name: str) -> Path:
        """A file or folder of the results."""
        return self.folder / name

    def rows(self, name: str, query: str, columns: Sequence[str], key: str = "query_id") -> list[Row]:
        """The rows of one query."""
        return [row for _, row in rows_where(self.path(name), key, query, columns)]

    def imported(self, key: str, value: str, source: str | None = None, prefix: bool = False) -> list[Place]:
        """The rows of one source, or of all, whose ``key`` is or begins with ``value``."""
        places = []
        for name in [source] if source else self.study.corpus.sources:
            path = self.path(f"corpus/imported/{name}.parquet")
            places += [Place(name, row, values) for row, values in rows_where(path, key, value, _ORIGIN, prefix)]
        return places

    def sharded(self, digits: str) -> list[Place]:
        """The rows of the shards whose ``query_id`` begins with ``digits``."""
        shards = self.study.corpus.shards
        first, last = (shard_of(digits.ljust(32, end), shards) for end in "0f")
        return [
            Place(values["source"], None, values)
            for shard in range(first, last + 1)
            for _, values in rows_where(
                self.path(f"corpus/shards/{shard}.parquet"), "query_id", digits, ("source", *_ORIGIN), prefix=True
            )
        ]

    def places(self, digits: str) -> list[Place]:
        """Every row whose ``query_id`` begins with ``digits``."""
        imported = self.imported("query_id", digits, prefix=True)
        known = {place.values["query_id"] for place in imported}
        return imported + [place for place in self.sharded(digits) if place.values["query_id"] not in known]

    def fate(self, stem: str, place: Place) -> Fate | None:
        """What the step that writes the selection ``corpus/{stem}.parquet`` did with a row; None where it has not run."""
        selection, dropped = self.path(f"corpus/{stem}.parquet"), f"corpus/{stem}.dropped.parquet"
        query = place.values["query_id"]
        for row in self.rows(f"corpus/{stem}.parquet", query, ["source", "row"]):
            if row["source"] == place.source and place.row in (None, row["row"]):
                return Fate("kept")
        for row in self.rows(dropped, query, ["reason", "detail"]):
            detail = row["detail"] or ""
            if not detail or detail.startswith(f"{place.label}: "):
                return Fate("dropped", row["reason"], detail.removeprefix(f"{place.label}: "))
        return Fate("unknown") if selection.exists() else None


# --- words -----------------------------------------------------------------------------------------------------------


def shown(text: str, characters: int = _SHOWN_CHARACTERS) -> str:
    """``text`` on one line, cut, and without what would steer a terminal."""
    line = " ".join(text.split())
    cut = line if len(line) <= characters else f"{line[:characters]}… ({len(text):,} characters)"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in cut)


def listed(words: Sequence[str]) -> str:
    """The first of some words, and how many more there are."""
    more = len(words) - _SHOWN_LINES
    return ", ".join(words[:_SHOWN_LINES]) + (f" and {more:,} more" if more > 0 else "")


def told(step: str, state: str, *details: str) -> str:
    """A line of the story: step, what it did, and why."""
    return f"  {step:<{_STEP_WIDTH}}{state:<9}{': '.join(detail for detail in details if detail)}".rstrip()


def tests_in_brief(text: str) -> str:
    """How many tests, and of which kind."""
    try:
        tests = json.loads(text)
        cases = tests.get("assert_case") or tests.get("inputs") or []
        return f"{len(cases)} of kind {tests['call_type']}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return shown(text)


def constraints_in_brief(text: str) -> str:
    """The names of the constraints."""
    try:
        return shown(", ".join(json.loads(text)["instruction_id_list"]))
    except (ValueError, TypeError, KeyError):
        return shown(text)


# --- the story -------------------------------------------------------------------------------------------------------


def origin(place: Place, others: Sequence[Place]) -> Iterator[str]:
    """What the query is and where it came from."""
    values = place.values
    yield f"query {values['query_id']}"
    facts = {
        "source": f"{place.source}, row {shown(values['source_row'])}",
        "same text": listed([shown(other.label) for other in others]),
        "category": values["category"],
        "licence": shown(values["licence"]),
    }
    turns = values["turns"]
    if len(turns) > 1:
        facts["turns"] = f"{len(turns)}, the last of them:"
    facts["asks"] = shown(turns[-1]["content"]) if turns else ""
    if values["reference"] is not None:
        kind = f" ({values['reference_type']})" if values["reference_type"] else ""
        facts["reference"] = shown(values["reference"]) + kind
    if values["tests"] is not None:
        facts["tests"] = tests_in_brief(values["tests"])
    if values["constraints"] is not None:
        facts["constraints"] = constraints_in_brief(values["constraints"])
    for key, fact in facts.items():
        if fact:
            yield f"  {key:<{_KEY_WIDTH}}{fact}"


def duplicates(results: Results, place: Place) -> Iterator[str]:
    """The rows that a row stands for, or the one that stands for it."""
    query = place.values["query_id"]
    mine = (query, place.source, place.values["source_row"])
    for side, other, words in (("kept", "dropped", "stands for"), ("dropped", "kept", "is stood for by")):
        pairs = [
            row
            for row in results.rows("corpus/duplicates.parquet", query, _DUPLICATES, key=side)
            if (row[side], row[f"{side}_source"], row[f"{side}_source_row"]) == mine
        ]
        for row in pairs[:_SHOWN_LINES]:
            label = shown(f"{row[f'{other}_source']}/{row[f'{other}_source_row']}")
            near = row.get("method") == "near"
            how = f"close, {row['similarity']:.2f}, query {row[other]}" if near else "equal"
            yield f"      {words} {label} ({how})"
        if len(pairs) > _SHOWN_LINES:
            yield f"      and {len(pairs) - _SHOWN_LINES:,} more"


def contamination(results: Results, query: str) -> Iterator[str]:
    """The benchmark problems that a query is close to."""
    columns = ["benchmark", "problem_id", "method", "score", "dropped", "problem"]
    pairs = results.rows("corpus/contamination.parquet", query, columns)
    for row in pairs[:_SHOWN_LINES]:
        problem = shown(f"{row['benchmark']}/{row['problem_id']}")
        falls = "falls for it" if row["dropped"] else "does not fall for it"
        yield f"      close to {problem} by {row['method']}, {row['score']:.3f}, {falls}: {shown(row['problem'])}"
    if len(pairs) > _SHOWN_LINES:
        yield f"      and {len(pairs) - _SHOWN_LINES:,} more"


def corpus(results: Results, place: Place) -> tuple[list[str], bool]:
    """The lines of the corpus stage, and whether the row may have gone through it to the end."""
    source = results.study.corpus.sources.get(place.source)
    origin = (
        (source.path or f"{source.hub} at {source.revision}") if source else "a source that the configuration lacks"
    )
    lines = ["corpus", told("import_source", "kept", f"from {origin}")]
    query = place.values["query_id"]
    for step, stem, more in (
        ("clean_queries", "cleaned", lambda: ()),
        ("deduplicate_queries", "deduplicated", lambda: duplicates(results, place)),
        ("decontaminate_queries", "decontaminated", lambda: contamination(results, query)),
    ):
        fate = results.fate(stem, place)
        if fate is None:
            lines.append(told(step, "-", "has not run, or its tables are not here"))
            continue
        if fate.state == "unknown":
            fate = fate._replace(reason="not in its tables, which were made from other inputs: run the study again")
        lines += [told(step, fate.state, fate.reason, shown(fate.detail)), *more()]
        if fate.state == "dropped":
            return lines, False
    shard = shard_of(query, results.study.corpus.shards)
    path = f"corpus/shards/{shard}.parquet"
    if not results.path(path).exists():
        return [*lines, told("shard_corpus", "-", "has not run, or its tables are not here")], True
    (kept,) = results.rows(path, query, ["source", "source_row"]) or [None]
    if kept is None:
        return [*lines, told("shard_corpus", "unknown", f"not in {path}: run the study again")], False
    if (kept["source"], kept["source_row"]) != (place.source, place.values["source_row"]):
        return [*lines, told("shard_corpus", "unknown", f"{path} has it from another row: run the study again")], False
    return [*lines, told("shard_corpus", "kept", path)], True


def attempts(results: Results, teacher: str, query: str) -> tuple[list[Row], bool]:
    """The attempts of a teacher with what is known of their verdicts, and whether they have been collected."""
    shard = shard_of(query, results.study.corpus.shards)
    collected = f"verification/{teacher}/{shard}/attempts.parquet"
    if results.path(collected).exists():
        return results.rows(collected, query, [*_ATTEMPTS, *_VERDICTS[1:], "accepted"]), True
    found = []
    for round_ in range(results.study.teachers[teacher].rounds):
        decided = results.study.verification.table(f"verification/{teacher}/{shard}/round{round_}")
        verdicts = {row["attempt_id"]: row for row in results.rows(decided, query, _VERDICTS)}
        for row in results.rows(f"generation/{teacher}/{shard}/round{round_}.parquet", query, _ATTEMPTS):
            found.append(row | verdicts.get(row["attempt_id"], {}))
    return found, False


def attempt_line(row: Row) -> str:
    """One attempt."""
    verdict = f"{row['verdict']} {row['score']:.2f}: {shown(row['reason'])}" if "verdict" in row else "no verdict yet"
    accepted = " (accepted)" if row.get("accepted") else ""
    place = f"round {row['round']}, attempt {row['attempt']}"
    return f"    {place:<{_STEP_WIDTH - 2}}{row['finish_reason']}, {row['output_tokens']:,} tokens, {verdict}{accepted}"


def of_teacher(results: Results, teacher: str, place: Place) -> Iterator[str]:
    """The lines of one teacher: attempts, curation, datasets, export, students."""
    query = place.values["query_id"]
    settings = results.study.teachers[teacher]
    yield f"teacher {teacher} ({settings.label})"
    if settings.engine == "dataset":
        for row in results.rows(f"generation/{teacher}/traces.dropped.parquet", query, ["reason", "detail"]):
            yield told("import_traces", "dropped", row["reason"], shown(row["detail"] or ""))
    found, collected = attempts(results, teacher, query)
    yield from map(attempt_line, sorted(found, key=lambda row: row["attempt"]))
    if not collected:
        yield told("collect_attempts", "-", "has not run: " + ("more may follow" if found else "not asked yet"))
        return
    accepted = next((row for row in found if row["accepted"]), None)
    if accepted is None:
        yield told("collect_attempts", "dropped", "give_up", f"no attempt of {len(found)} was accepted")
        return
    yield told("collect_attempts", "kept", f"attempt {accepted['attempt']}")
    yield from after_acceptance(results, teacher, place, accepted["attempt_id"])


def after_acceptance(results: Results, teacher: str, place: Place, attempt_id: str) -> Iterator[str]:
    """What became of the accepted attempt."""
    query = place.values["query_id"]
    shard = shard_of(query, results.study.corpus.shards)
    perplexity = results.study.curation.perplexity
    for scorer in perplexity.scorers if perplexity else ():
        scores = f"curation/{teacher}/{shard}/{scorer}.perplexities.parquet"
        for row in results.rows(scores, attempt_id, ["perplexity", "state"], key="attempt_id"):
            value = row["perplexity"]
            yield told("score_perplexity", "-" if value is None else f"{value:.3f}", row["state"], f"scorer {scorer}")
    traces = f"curation/{teacher}/{shard}/traces"
    if not results.path(f"{traces}.parquet").exists():
        yield told("curate_traces", "-", "has not run")
        return
    if not results.rows(f"{traces}.parquet", query, ["query_id"]):
        yield from lost(results, "curate_traces", traces, query)
        return
    yield told("curate_traces", "kept")
    for control in results.study.curation.controls:
        dataset = f"datasets/{control}/{teacher}"
        if not results.path(f"{dataset}.parquet").exists():
            yield told("match_datasets", "-", f"{control}: has not run")
        elif not results.rows(f"{dataset}.parquet", query, ["query_id"]):
            yield from lost(results, "match_datasets", dataset, query, control)
        else:
            yield told("match_datasets", "kept", f"{dataset}.parquet")
            export = f"export/{control}/{teacher}"
            done = results.path(export).is_dir()
            yield told("export_dataset", "kept" if done else "-", export if done else f"{control}: has not run")
            yield from students(results, control, teacher, query)


def lost(results: Results, step: str, stem: str, query: str, control: str = "") -> Iterator[str]:
    """Why a step did not keep a trace."""
    found = results.rows(f"{stem}.dropped.parquet", query, ["reason", "detail"])
    for row in found:
        yield told(step, "dropped", control, row["reason"], shown(row["detail"] or ""))
    if not found:
        yield told(
            step, "unknown", control, "not in its tables, which were made from other inputs: run the study again"
        )


def students(results: Results, control: str, teacher: str, query: str) -> Iterator[str]:
    """The students that were given a dataset, and whether they were trained on a query's trace."""
    for seed in results.study.training.seeds if results.study.training else ():
        student = f"{control}/{teacher}/{seed}"
        if results.path(f"training/{student}/summary.json").exists():
            left_out = results.rows(f"training/{student}/rows.dropped.parquet", query, ["reason", "detail"])
            for row in left_out:
                yield told("train_student", "dropped", student, row["reason"], shown(row["detail"] or ""))
            if not left_out:
                yield told("train_student", "kept", student)


def story(results: Results, place: Place, others: Sequence[Place]) -> Iterator[str]:
    """The whole life of the query of one row; ``others`` are the other rows with the same text."""
    yield from origin(place, others)
    lines, went_through = corpus(results, place)
    yield from lines
    asked = results.path("generation").is_dir() or results.path("verification").is_dir()
    if not went_through or not asked:
        return
    for teacher in results.study.teachers:
        yield from of_teacher(results, teacher, place)


# --- finding it ------------------------------------------------------------------------------------------------------


def first_kept(results: Results, places: Sequence[Place]) -> Place:
    """Of rows with one text the one that went furthest."""
    for stem in ("decontaminated", "deduplicated", "cleaned"):
        for place in places:
            if (fate := results.fate(stem, place)) and fate.state == "kept":
                return place
    return places[0]


def dropped_at_import(results: Results, location: str) -> list[str]:
    """The story of the rows at ``FILE:LINE`` that the import dropped."""
    lines = []
    for source in results.study.corpus.sources:
        path = results.path(f"corpus/imported/{source}.dropped.parquet")
        for _, row in rows_where(path, "detail", f"{location}: ", ["reason", "detail"], prefix=True):
            detail = shown(row["detail"].removeprefix(f"{location}: "))
            lines += [
                f"{location} of source {source}",
                "corpus",
                told("import_source", "dropped", row["reason"], detail),
            ]
    return lines


def find(results: Results, wanted: str) -> list[str]:
    """The story of what the user named. Raises :class:`SystemExit` where it is nothing, or several queries."""
    source, _, row = wanted.partition("/")
    places: list[Place] = []
    if source in results.study.corpus.sources and row:
        places = results.imported("source_row", row, source)
    elif re.fullmatch(r"[0-9a-f]{1,32}", wanted.lower()):
        if len(wanted) < _LEAST_DIGITS:
            sys.exit(f"why: {wanted}: give at least {_LEAST_DIGITS} digits")
        places = results.places(wanted.lower())
    if not places and ":" in wanted and (lines := dropped_at_import(results, wanted)):
        return lines
    if not places:
        sys.exit(
            f"why: {shown(wanted)}: nothing of that name in {results.folder}: give a query_id or its first {_LEAST_DIGITS} "
            "digits, SOURCE/ROW, or FILE:LINE of a row that the import dropped"
        )
    by_query: dict[str, list[Place]] = {}
    for place in places:
        by_query.setdefault(place.values["query_id"], []).append(place)
    if len(by_query) > 1:
        known = [f"  {query}  {shown(found[0].label)}" for query, found in sorted(by_query.items())]
        more = [f"  and {len(known) - _SHOWN_LINES:,} more"] if len(known) > _SHOWN_LINES else []
        sys.exit("\n".join([f"why: {wanted} is {len(known):,} queries:", *known[:_SHOWN_LINES], *more]))
    ((query, found),) = by_query.items()
    # A row that was named is told of, whatever became of rows with the same text.
    alike = found if row == "" else results.places(query)
    place = first_kept(results, found)
    return list(story(results, place, [other for other in alike if other[:2] != place[:2]]))


def read_config(path: Path) -> Study:
    """The study of a configuration file. Raises :class:`SystemExit` saying what is wrong with it."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"why: {path}: {getattr(error, 'strerror', None) or error}: name a configuration file with --config")
    except yaml.YAMLError as error:
        sys.exit(f"why: {path} is no YAML: {' '.join(str(error).split())}")
    if not isinstance(raw, dict):
        sys.exit(f"why: {path} holds no keys: see config/README.md")
    try:
        # What a study has made is told where its models are no more, too.
        return check_config(raw, folders=False)
    except ConfigError as error:
        sys.exit(str(error))


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", metavar="QUERY")
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "config.yaml")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where they lie, if not where the config says")
    asked = parser.parse_args(arguments)
    study = read_config(asked.config)
    folder = asked.results or Path(locate(study.results))
    if not (folder / "corpus").is_dir():
        sys.exit(f"why: {folder}: no results of a study: run it, or name the folder with --results")
    try:
        lines = find(Results(folder, study), asked.query)
    except (OSError, pa.ArrowException) as error:
        sys.exit(f"why: {folder}: a table cannot be read: {error}")
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know fewer letters than the queries
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
