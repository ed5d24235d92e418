"""Time and memory of the steps from curation to statistics at the paper's size, beside what their rules ask for.

    .venv/bin/python benchmarks/paper_size.py FOLDER [--queries 1890000] [--shards 64] [--steps STEP ...]

Makes, in FOLDER and once, what the steps read: three teachers' attempts and traces of 13,000 characters in 64 shards, 1.89 million
queries; some 20 GB, and the steps write as much again. Each step then runs through its script in a process of its own. Printed: CPU
seconds (user and system, imports included), those by the clock, the peak of resident memory, and ``mem_mb`` of the rule. The benchmark
fails where a peak is above it.

The first steps, down to ``measure_traces``, work on one shard, of words that a tokenizer has to work for; it is one of Qwen's kind, trained
here. ``read`` is their baseline: no more than reading that shard's text from Parquet. The others work on all shards of a teacher, or of
all three; their text is 1,500 sentences over and over, which pack eightfold (traces pack some fourfold), and attempts hold no thinking
there, which no such step reads. ``read_all`` is their baseline, for one teacher's text; ``export_dataset`` writes 200,000 traces, and
``match_datasets`` runs twice, as ``parallel`` and matched on cells of length and perplexity.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "workflow" / "scripts"), str(ROOT / "benchmarks")]

from curation import train_tokenizer, vocabulary  # noqa: E402

from whichteacher.config import CATEGORIES, Decontaminate  # noqa: E402
from whichteacher.schemas import (  # noqa: E402
    BENCHMARK_PROBLEMS,
    COLLECTED,
    CONTAMINATED_RESPONSES,
    CONTAMINATION,
    DUPLICATES,
    INSPECTED,
    LAYOUTS_FOUND,
    LEDGER,
    PERPLEXITIES,
    PERPLEXITY_LIMITS,
    QUERIES,
    TRACE_MEASURES,
    TRACES,
)
from whichteacher.tables import atomic_folder, read_parts, read_table, write_batches, write_table  # noqa: E402

#: Each teacher's chance to pass at an attempt; four attempts at most.
TEACHERS = {"one": 0.75, "two": 0.7, "three": 0.65}
ATTEMPTS = 4
CHARACTERS = 13_000
PROBLEMS = 1_400
#: Rows that are exported.
EXPORTED = 200_000
BATCH = 1024
NGRAMS = {"size": 20, "max_count": 20, "action": "drop_row"}
CURATION = {
    "structure": {"leaks": True, "loops": True, "max_foreign_share": 0.5},
    "repetition": {"min_tokens": 10, "min_times": 5},
}
TEACHER = {"engine": "vllm", "system_prompt": "", "answer_format": "tags"}
PRICES = {name: {"price_per_million_tokens": None, "price_per_device_hour": 2.0} for name in TEACHERS}
#: resamples, confidence, seed
STATISTICS = (1000, 0.95, 1)
_FILL = {pa.string(): "", pa.int64(): 0, pa.float64(): 1.0, pa.bool_(): False}


# --- input -----------------------------------------------------------------------------------------------------------


def _words(count: int, seed: int) -> list[str]:
    """``count`` words of a Zipf distribution, with numbers and formulas among them."""
    words = np.array(vocabulary(np.random.default_rng(0)), object)
    share = np.cumsum(1 / np.arange(1, len(words) + 1))
    return words[np.searchsorted(share / share[-1], np.random.default_rng(seed).random(count))].tolist()


def _varied(responses: int, seed: int) -> Iterator[str]:
    """Thinking of about :data:`CHARACTERS`, no two alike; one in 300 holds a sentence that many say."""
    rng = np.random.default_rng(seed)
    said = [" ".join(_words(26, seed + 1 + number)) for number in range(4)]
    length = CHARACTERS // 6
    for start in range(0, responses, 256):
        words = _words(min(256, responses - start) * length, seed + 100 + start)
        for place in range(0, len(words), length):
            sentence = said[rng.integers(len(said))] if rng.random() < 1 / 300 else ""
            yield f"{' '.join(words[place : place + length])} {sentence}"


def _pool() -> pa.Array:
    """:data:`BATCH` texts of :data:`CHARACTERS`, of 1,500 sentences."""
    words = _words(1500 * 16, 7)
    sentences = [" ".join(words[start : start + 16]) + "." for start in range(0, len(words), 16)]
    rng = np.random.default_rng(7)
    chosen = rng.integers(0, len(sentences), (BATCH, CHARACTERS // 60))
    return pa.array([" ".join(sentences[place] for place in row)[:CHARACTERS] for row in chosen])


def _table(schema: pa.Schema, rows: int, **columns: object) -> pa.Table:
    """A table of ``rows``; columns that are not given are empty, or one and the same."""
    made = []
    for field in schema:
        value = columns.get(field.name)
        if value is None:
            value = pa.nulls(rows, field.type) if field.nullable else pa.array([_FILL[field.type]] * rows, field.type)
        elif isinstance(value, str):
            value = pa.array([value] * rows)
        made.append(pa.array(value, field.type) if not isinstance(value, pa.Array | pa.ChunkedArray) else value)
    return pa.table(made, schema=schema)


def _queries(start: int, rows: int) -> pa.Table:
    """The queries with these numbers; their ids are in no order."""
    names = [f"{number * 2654435761 % 2**64:032x}" for number in range(start, start + rows)]
    turns = [[{"role": "user", "content": f"What is number {n}? {'Think of it. ' * 20}"}] for n in range(rows)]
    categories = np.random.default_rng(start).choice(CATEGORIES, rows)
    return _table(
        QUERIES,
        rows,
        query_id=names,
        category=categories.tolist(),
        source="made",
        licence="none",
        turns=turns,
        reference=[str(n % 1000) for n in range(rows)],
        reference_type="number",
    )


def _drawn(rows: int, chance: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each attempt the place of its query, its number, and whether it was accepted."""
    needed = np.random.default_rng(seed).geometric(chance, rows)
    drawn = np.minimum(needed, ATTEMPTS)
    owner = np.repeat(np.arange(rows), drawn)
    attempt = np.arange(len(owner)) - np.repeat(drawn.cumsum() - drawn, drawn)
    return owner, attempt, attempt + 1 == needed[owner]


def _attempts(queries: pa.Table, chance: float, seed: int, texts: Callable[[int], dict[str, object]]) -> pa.Table:
    """COLLECTED of one shard; ``texts`` gives the columns of text for so many attempts."""
    owner, attempt, accepted = _drawn(queries.num_rows, chance, seed)
    tokens = np.random.default_rng(seed).lognormal(8, 0.8, len(owner)).astype(np.int64)
    return _table(
        COLLECTED,
        len(owner),
        query_id=queries["query_id"].take(pa.array(owner)).combine_chunks(),
        attempt_id=[f"{seed:x}-{place:x}" for place in range(len(owner))],
        attempt=attempt,
        accepted=accepted,
        verdict=np.where(accepted, "pass", "fail").tolist(),
        finish_reason="stop",
        prompt_tokens=np.full(len(owner), 100),
        output_tokens=tokens,
        seconds=tokens / 1000,
        devices=np.ones(len(owner), np.int64),
        **texts(len(owner)),
    )


def make_shard(folder: Path, rows: int) -> None:
    """One shard of the first teacher with all that the steps on a shard read."""
    queries = _queries(0, rows)
    write_table(folder / "queries.parquet", queries, QUERIES)

    def texts(count: int) -> dict[str, object]:
        thinking = list(_varied(count, 1))
        answers = [f"It is \\boxed{{{place % 1000}}}." for place in range(count)]
        text = [f"<think>{a}</think><answer>{b}</answer>" for a, b in zip(thinking, answers, strict=True)]
        return {"text": text, "thinking": thinking, "answer": answers}

    attempts = _attempts(queries, TEACHERS["one"], 1, texts)
    write_batches(folder / "attempts.parquet", _cut(attempts), COLLECTED)
    train_tokenizer(attempts["text"][:200].to_pylist(), folder / "tokenizer")
    perplexity = np.random.default_rng(3).lognormal(0.6, 0.2, attempts.num_rows)
    columns = {"attempt_id": attempts["attempt_id"], "query_id": attempts["query_id"], "state": "scored"}
    scores = _table(PERPLEXITIES, attempts.num_rows, **columns, perplexity=perplexity)
    write_table(folder / "perplexities.parquet", scores.filter(attempts["accepted"]), PERPLEXITIES)
    write_table(
        folder / "limits.parquet",
        _table(PERPLEXITY_LIMITS, 1, teacher="one", scorer="first", threshold="4.0", limit=[4.0]),
        PERPLEXITY_LIMITS,
    )
    words = _words(PROBLEMS * 40, 11)
    problems = [" ".join(words[place * 40 : place * 40 + 40]) for place in range(PROBLEMS)]
    columns = {"problem_id": [str(place) for place in range(PROBLEMS)], "benchmark": "made", "category": "math"}
    write_table(
        folder / "problems.parquet",
        _table(BENCHMARK_PROBLEMS, PROBLEMS, **columns, prompt=problems),
        BENCHMARK_PROBLEMS,
    )
    write_table(folder / "contamination.parquet", [], CONTAMINATION)


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    return (table.slice(start, BATCH) for start in range(0, table.num_rows, BATCH))


def make_study_shard(folder: Path, shard: int, start: int, rows: int) -> None:
    """One shard of the whole study: queries, and each teacher's attempts and traces. Only the first teacher's attempts hold text."""
    pool = _pool()
    queries = _queries(start, rows)
    write_table(folder / f"queries.{shard:02}.parquet", queries, QUERIES)
    for number, (teacher, chance) in enumerate(TEACHERS.items()):
        seed = shard * len(TEACHERS) + number
        attempts = _attempts(queries, chance, seed, lambda count: {"answer": ["It is \\boxed{1}."] * count})

        def told(part: pa.Table, seed: int = seed) -> pa.Array:
            """A text for every attempt of a part, each different by its beginning."""
            places = np.random.default_rng(seed).permutation(BATCH)[: part.num_rows]
            return pc.binary_join_element_wise(part["attempt_id"], pool.take(pa.array(places)), " ")

        def with_text(part: pa.Table) -> pa.Table:
            return part.set_column(part.column_names.index("text"), "text", told(part))

        parts = map(with_text, _cut(attempts)) if not number else _cut(attempts)
        write_batches(folder / f"attempts.{teacher}.{shard:02}.parquet", parts, COLLECTED)
        accepted = attempts.filter(attempts["accepted"])
        asked = queries.take(pc.index_in(accepted["query_id"], queries["query_id"].combine_chunks()))
        count = accepted.num_rows
        rng = np.random.default_rng(seed)
        traces = _table(
            TRACES,
            count,
            **{name: asked[name] for name in QUERIES.names},
            attempt_id=accepted["attempt_id"],
            teacher=teacher,
            answer="It is \\boxed{1}.",
            attempts=pc.add(accepted["attempt"], 1),
            output_tokens=accepted["output_tokens"],
            perplexity=rng.lognormal(0.5 + number / 10, 0.3, count),
        )

        def thought(part: pa.Table) -> pa.Table:
            return part.set_column(part.column_names.index("thinking"), TRACES.field("thinking"), told(part))

        write_batches(folder / f"traces.{teacher}.{shard:02}.parquet", map(thought, _cut(traces)), TRACES)
        known = {name: traces[name] for name in ("query_id", "category", "attempts", "output_tokens", "perplexity")}
        measured = {
            field.name: pa.array(rng.gamma(2, 50, count)).cast(field.type, safe=False)
            for field in TRACE_MEASURES
            if field.name not in known and field.type != pa.string()
        }
        made = _table(TRACE_MEASURES, count, teacher=teacher, **known, **measured)
        write_table(folder / f"measures.{teacher}.{shard:02}.parquet", made, TRACE_MEASURES)


def make_study(folder: Path, queries: int, shards: int) -> None:
    """The whole study, two shards at a time."""
    bounds = [queries * shard // shards for shard in range(shards + 1)]
    jobs = [(folder, shard, bounds[shard], bounds[shard + 1] - bounds[shard]) for shard in range(shards)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(make_study_shard, jobs, chunksize=1)
    for teacher in TEACHERS:
        write_batches(
            folder / f"measures.{teacher}.parquet",
            read_parts(sorted(folder.glob(f"measures.{teacher}.[0-9]*")), TRACE_MEASURES),
            TRACE_MEASURES,
        )


def make_audit(folder: Path, study: Path) -> None:
    """What an audit of the three teachers' traces has of each trace, and the tables of a corpus without faults."""
    for path in sorted(study.glob("traces.*")):
        teacher, shard = path.name.split(".")[1:3]
        traces = read_table(path, TRACES, ["attempt_id", "query_id", "category", "output_tokens"])
        rng = np.random.default_rng(int(shard))
        columns = {name: traces[name].combine_chunks() for name in traces.column_names}
        made = _table(
            INSPECTED,
            traces.num_rows,
            **columns,
            location=[f"{shard}.jsonl:{line}" for line in range(traces.num_rows)],
            published_score=pa.array(np.ones(traces.num_rows)),
            verdict=np.where(rng.random(traces.num_rows) < 0.97, "pass", "fail").tolist(),
            repeated_share=pa.array(rng.beta(2, 20, traces.num_rows)),
            response=pa.array(rng.integers(0, 2**63, traces.num_rows, dtype=np.uint64)),
        )
        write_table(folder / f"inspected.{teacher}.{shard}.parquet", made, INSPECTED)
    for name, schema in (
        *(("quoted", CONTAMINATED_RESPONSES), ("layouts", LAYOUTS_FOUND), ("duplicates", DUPLICATES)),
        *(("contamination", CONTAMINATION), ("problems", BENCHMARK_PROBLEMS)),
    ):
        write_table(folder / f"{name}.parquet", [], schema)
    lines = [{"step": "import_traces", "scope": "one", "reason": reason, "rows": 1} for reason in ("in", "kept")]
    write_table(folder / "ledger.parquet", lines, LEDGER)


# --- steps -----------------------------------------------------------------------------------------------------------


def _script(step: str) -> ModuleType:
    """A rule's script; no process imports those of other steps."""
    return importlib.import_module(step)


def on_shard(folder: Path, shards: int) -> dict[str, Callable[[], object]]:
    """The steps on one shard, in the order in which they read each other's files."""
    place = {
        name: str(folder / f"{name}.parquet")
        for name in (
            *("attempts", "queries", "perplexities", "limits", "problems", "contamination"),
            *("sketch", "candidates", "tallies", "frequent", "quoted", "traces", "measures", "ledger", "dropped"),
        )
    }
    ngrams = NGRAMS | {"tokenizer": {"model": str(folder / "tokenizer"), "revision": None}}
    decontaminate = Decontaminate().model_dump()
    attempts, queries = place["attempts"], place["queries"]

    def curate() -> None:
        outputs = {"table": place["traces"], "ledger": place["ledger"], "dropped": place["dropped"]}
        _script("curate_traces").main(
            attempts, queries, [place["perplexities"]], [place["limits"]], place["frequent"], [], outputs, "one/0", TEACHER,
            CURATION | {"ngrams": ngrams}, place["quoted"],
        )  # fmt: skip

    def quote() -> None:
        problems = [place["problems"]]
        _script("find_contaminated_responses").main(
            attempts, queries, place["contamination"], problems, decontaminate, place["quoted"]
        )

    return {
        "read": lambda: sum(part.num_rows for part in read_parts(attempts, COLLECTED, ["query_id", "text"])),
        "count_ngrams": lambda: _script("count_ngrams").main(attempts, place["sketch"], ngrams, shards, "count_ngrams"),
        # Of one shard, where the rules have all: it is the sketch of a whole study in size.
        "find_candidate_ngrams": lambda: _script("find_candidate_ngrams").main(
            [place["sketch"]], place["candidates"], ngrams, "find_candidate_ngrams"
        ),
        "count_candidate_ngrams": lambda: _script("count_candidate_ngrams").main(
            attempts, place["candidates"], place["tallies"], ngrams, "count_candidate_ngrams"
        ),
        "find_frequent_ngrams": lambda: _script("find_frequent_ngrams").main(
            [place["tallies"]], place["frequent"], ngrams
        ),
        "find_contaminated_responses": quote,
        "curate_traces": curate,
        "measure_traces": lambda: _script("measure_traces").main([place["traces"]], place["measures"]),
    }


def on_study(folder: Path) -> dict[str, Callable[[], object]]:
    """The steps that read every shard of a teacher, or of all."""

    def files(kind: str, teacher: str) -> list[str]:
        return [str(path) for path in sorted(folder.glob(f"{kind}.{teacher}.[0-9]*"))]

    collected = {teacher: files("attempts", teacher) for teacher in TEACHERS}
    traces = {teacher: files("traces", teacher) for teacher in TEACHERS}
    measures = {teacher: str(folder / f"measures.{teacher}.parquet") for teacher in TEACHERS}
    queries = [str(path) for path in sorted(folder.glob("queries.*"))]
    csv = {
        name: str(folder / f"{name}.csv") for name in ("survival", "summary", "categories", "lengths", "boxes", "out")
    }
    common = (collected, queries)
    datasets = {teacher: str(folder / "parallel" / f"{teacher}.parquet") for teacher in TEACHERS}

    def named(kind: str, teachers: Iterable[str] = TEACHERS) -> dict[str, str]:
        return {teacher: str(folder / f"{kind}.{teacher}.table") for teacher in teachers}

    def matched(name: str, control: dict[str, object]) -> None:
        place = folder / name
        outputs = {
            kind: {teacher: str(place / f"{teacher}{kind}.parquet") for teacher in TEACHERS}
            for kind in ("", ".ledger", ".dropped")
        }
        _script("match_datasets").main(traces, *outputs.values(), str(place / "balance.csv"), name, control, {})

    def match_cells() -> None:
        matched("matched", {"kind": "length_perplexity_matched", "length_bins": None, "perplexity_bins": None})
        shutil.rmtree(folder / "matched")

    def duplicates() -> None:
        kinds = ("digests", "duplicates", "repeats")
        _script("find_duplicate_traces").main(collected["one"], {kind: named(kind)["one"] for kind in kinds}, "one")

    def all_duplicates() -> None:
        # Two teachers more that hold no text: as many rows, read from the first one's file.
        ours = {kind: dict.fromkeys(TEACHERS, named(kind)["one"]) for kind in ("digests", "duplicates", "repeats")}
        _script("summarise_duplicates").main(*ours.values(), csv["out"])

    def export() -> None:
        # A part: the whole would fill the disk with JSON, and no more of it than a few rows is ever in memory.
        part = folder / "part.parquet"
        rows = itertools.islice(read_parts(datasets["one"], TRACES), EXPORTED // BATCH)
        write_batches(part, rows, TRACES)
        with atomic_folder(folder / "export") as place:
            _script("export_dataset").write_files(str(part), place)
        shutil.rmtree(folder / "export")

    return {
        "read_all": lambda: sum(part.num_rows for part in read_parts(traces["one"], TRACES, ["query_id", "thinking"])),
        "find_duplicate_traces": duplicates,
        "summarise_duplicates": all_duplicates,
        "match_datasets": lambda: matched("parallel", {"kind": "parallel"}),
        "match_datasets by cells": match_cells,
        "export_dataset": export,
        "summarise_datasets": lambda: _script("summarise_datasets").main(
            list(measures.values()), list(datasets.values()), csv, list(TEACHERS), 2048, 16
        ),
        "summarise_teachers": lambda: _script("summarise_teachers").main(*common, measures, csv["out"], CATEGORIES),
        "summarise_attempts": lambda: _script("summarise_attempts").main(*common, csv, CATEGORIES, *STATISTICS),
        "summarise_costs": lambda: _script("summarise_costs").main(
            *common, csv["out"], CATEGORIES, PRICES, *STATISTICS
        ),
        "compare_teachers": lambda: _script("compare_teachers").main(
            *common, measures, {}, csv["out"], CATEGORIES, PRICES, *STATISTICS
        ),
    }


def on_audit(folder: Path, study: Path) -> dict[str, Callable[[], object]]:
    """The step of an audit that sees all releases at once."""
    place = {name: str(folder / f"{name}.parquet") for name in ("quoted", "layouts", "ledger", "problems")}
    common = {name: str(folder / f"{name}.parquet") for name in ("duplicates", "contamination")}

    def summarise() -> None:
        script = _script("summarise_audit")
        files = {
            teacher: {
                "inspected": [str(path) for path in sorted(folder.glob(f"inspected.{teacher}.*"))],
                "quoted": [place["quoted"]],
                "layouts": place["layouts"],
                "ledger": place["ledger"],
            }
            for teacher in TEACHERS
        }
        queries = [str(path) for path in sorted(study.glob("queries.*"))]
        script.main(
            {teacher: {"sources": ["made"], "model": teacher} for teacher in TEACHERS},
            files,
            {**common, "queries": queries, "benchmarks": [place["problems"]]},
            {"thresholds": dict.fromkeys(CATEGORIES, 0.9), "decontaminate": Decontaminate().model_dump()},
            {name: str(folder / f"{name}.csv") for name in script.TABLES},
        )

    return {"summarise_audit": summarise}


def asked_mib(step: str) -> float:
    """``mem_mb`` of a step's rule outside of the miniature, as its first attempt asks for it, in MiB."""
    rules = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    found = re.search(rf"rule {step}:.*?mem_mb=growing\((?:[^()]* else )?(\d+)\)", rules, re.DOTALL)
    if not found:
        raise SystemExit(f"no rule {step} with a number of mem_mb in workflow/rules")
    return int(found[1]) * 1e6 / 2**20


def main() -> None:
    """Make what is missing, run each step in a process of its own, print, and fail where one needs more than its rule asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=1_890_000)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--steps", nargs="*")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    given = parser.parse_args()
    shard, study, audit = (given.folder / name for name in ("shard", "study", "audit"))
    steps = {**on_shard(shard, given.shards), **on_study(study), **on_audit(audit, study)}
    if given.run:
        steps[given.run]()
        return
    for place, make in (
        (shard, lambda: make_shard(shard, given.queries // given.shards)),
        (study, lambda: make_study(study, given.queries, given.shards)),
        (audit, lambda: make_audit(audit, study)),
    ):
        if not (place / "made").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            # In another process: those that follow begin with the memory of this one.
            process = multiprocessing.get_context("fork").Process(target=make)
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"the input was not made: exit status {process.exitcode}")
            (place / "made").touch()
    print(
        f"{given.queries:,} queries in {given.shards} shards, {len(TEACHERS)} teachers, {CHARACTERS:,} characters a trace"
    )
    print(f"{'step':<28} {'CPU s':>8} {'by the clock':>12} {'peak MiB':>9} {'asked MiB':>10}")
    above = []
    for step in steps:
        if given.steps and step not in given.steps:
            continue
        start = time.monotonic()
        command = [sys.executable, __file__, str(given.folder), "--shards", str(given.shards), "--run", step]
        with open(given.folder / f"{step}.log", "w", encoding="utf-8") as log:
            # As Snakemake sets them for a rule of one thread.
            environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{step} failed: see {given.folder / f'{step}.log'}")
        asked = 0 if step.startswith("read") else asked_mib(step.split()[0])
        peak = used.ru_maxrss / 1024
        seconds = used.ru_utime + used.ru_stime
        told = f"{asked:>10.0f}" if asked else f"{'-':>10}"
        print(f"{step:<28} {seconds:>8.1f} {time.monotonic() - start:>12.1f} {peak:>9.0f} {told}", flush=True)
        if asked and peak > asked:
            above.append(step)
    if above:
        raise SystemExit(f"more memory than the rule asks for: {', '.join(above)}")


if __name__ == "__main__":
    main()
