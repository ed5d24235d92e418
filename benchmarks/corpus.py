"""What the corpus stage costs on made-up queries: time, memory, and ratios against named baselines in the same run.

    python -m venv .venv-benchmarks
    .venv-benchmarks/bin/pip install --require-hashes -r envs/benchmarks.txt
    .venv-benchmarks/bin/python benchmarks/corpus.py clean [--rows 200000] [--repeats 3] [--without pandas datatrove]
    .venv-benchmarks/bin/python benchmarks/corpus.py stage [--rows 2000000] [--problems 1000]

`clean`: the cleaning rules and exact deduplication, each variant in a process of its own, in turn, on the same rows:

- ours: identities of all queries from the imported table (import_source computes them), then clean_queries and
  deduplicate_queries, with their selections, ledgers and dropped rows;
- polars: one lazy query on a plain text column that computes the same rows, with the fast form of the white-space pattern;
- pandas: the straightforward version, a vectorised string method per rule, then drop_duplicates;
- datatrove: its Parquet reader, a filter with the same rules, and its three steps of exact deduplication.

Every variant must keep the same rows, or the benchmark fails. CPU seconds are those of user and system in all threads after
the imports; ratios are those of the medians; the peak is resident memory. polars and pandas compare no Unicode normal forms,
and only ours tells for every dropped row why.

`stage`: clean_queries, deduplicate_queries, decontaminate_queries (exact and n-gram, no encoder) and shard_corpus one after the
other, each in a process of its own: wall time, CPU seconds and peak memory.

Texts are made of 20,000 made-up words, 65 to a query of some 440 characters, with line breaks, accents and Chinese among
them, and every kind of fault. Everything lies in a temporary folder (TMPDIR says where) that is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "workflow" / "scripts")]

_BATCH = 50_000
_WORDS = 65
_BASELINES = ("polars", "pandas", "datatrove")
_SHARDS = 64


# --- input -----------------------------------------------------------------------------------------------------------


def _vocabulary(rng: np.random.Generator) -> list[str]:
    letters = list("etaoinshrdlucmfwygpbvk")
    words = ["".join(rng.choice(letters, size=int(rng.integers(2, 10)))) for _ in range(20_000)]
    return words


def _spoil(text: str, kind: float) -> str:
    """One text in twenty-five gets a fault."""
    faults: tuple[Callable[[str], str], ...] = (
        lambda _: "",
        lambda _: "Why",
        lambda text: text + ", such that",
        lambda text: text + " See https://example.org/a?b=1 for it.",
        lambda text: text + "\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        lambda text: text + " as shown in the figure.",
        lambda text: text + " Itâ€™s that.",
        lambda text: "".join(c if i % 3 else "\ue000" for i, c in enumerate(text)),
        lambda text: text * 50,
    )
    return faults[int(kind * 25 * len(faults))](text) if kind * 25 < 1 else text


def make_texts(rows: int, problems: int) -> Iterator[list[str]]:
    """Texts in batches: six in a hundred repeat an earlier one, half of them with other white space; one in a thousand
    holds a benchmark problem."""
    rng = np.random.default_rng(0)
    words = np.array(_vocabulary(rng))
    weights = 1 / np.arange(1, len(words) + 1)
    cumulative = np.cumsum(weights / weights.sum())
    asked = make_problems(problems) if problems else []
    earlier: list[str] = []
    for start in range(0, rows, _BATCH):
        count = min(_BATCH, rows - start)
        drawn = words[np.searchsorted(cumulative, rng.random(count * _WORDS))].tolist()
        texts = [" ".join(drawn[i * _WORDS : (i + 1) * _WORDS]) for i in range(count)]
        chances = rng.random((count, 4)).tolist()
        for row, (fault, form, repeat, which) in enumerate(chances):
            text = texts[row]
            if form < 0.3:
                text = text.replace(" a", "\nA", 2) + "?"
            elif form < 0.35:
                text = text.replace("e", "é", 2).replace("u", "ü", 1)
            elif form < 0.38:
                text = "求所有满足条件的整数对，并说明理由。" * 8 + text[:40]
            if asked and which < 0.001:
                text = f"Here it is: {asked[int(which * 1000 * len(asked))]} Answer it, please."
            if repeat < 0.06 and earlier:
                text = earlier[int(which * len(earlier))]
                text = text if repeat < 0.03 else f" {text.replace(' ', '  ', 3)}\n"
            texts[row] = _spoil(text, fault)
        earlier = (earlier + texts[:1000])[-20_000:]
        yield texts


def make_problems(count: int) -> list[str]:
    """Benchmark problems of 25 to 80 words, of which the first eight are often the same."""
    rng = np.random.default_rng(1)
    words = _vocabulary(rng)
    frames = ("Find the number of positive integers such that", "Compute the sum of all real values of", "Let")
    return [
        f"{frames[i % 3]} {' '.join(words[int(j)] for j in rng.integers(0, len(words), int(rng.integers(20, 72))))} {i}."
        for i in range(count)
    ]


def make_input(folder: Path, rows: int, problems: int = 0) -> None:
    """The same rows as an imported table (`made.parquet`) and as plain text (`plain/plain.parquet`)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from whichteacher.queries import query_ids
    from whichteacher.schemas import BENCHMARK_PROBLEMS, QUERIES, TURNS
    from whichteacher.tables import write_batches, write_table

    (folder / "plain").mkdir()
    plain = pa.schema([("text", pa.string()), ("id", pa.string())])
    done = 0

    def imported(writer: pq.ParquetWriter) -> Iterator[pa.Table]:
        nonlocal done
        for texts in make_texts(rows, problems):
            ids = [str(row) for row in range(done, done + len(texts))]
            done += len(texts)
            writer.write_table(pa.table({"text": texts, "id": ids}, schema=plain))
            turns = pa.array([[{"role": "user", "content": text}] for text in texts], TURNS)
            columns = {name: pa.repeat("made", len(texts)) for name in ("source", "category", "licence", "reference")}
            columns |= {"query_id": query_ids(turns), "source_row": pa.array(ids), "turns": turns}
            empty = pa.nulls(len(texts), pa.string())
            yield pa.table({name: columns.get(name, empty) for name in QUERIES.names}, schema=QUERIES)

    with pq.ParquetWriter(folder / "plain" / "plain.parquet", plain, compression="zstd", compression_level=1) as writer:
        write_batches(folder / "made.parquet", imported(writer), QUERIES, {"source": "made"})
    asked = [
        dict.fromkeys(BENCHMARK_PROBLEMS.names)
        | {"problem_id": str(number), "benchmark": "made", "category": "math", "prompt": prompt}
        for number, prompt in enumerate(make_problems(problems))
    ]
    write_table(folder / "problems.parquet", asked, BENCHMARK_PROBLEMS)


# --- variants: each returns the ids of the rows it keeps ---------------------------------------------------------------


def ours(folder: Path) -> list[str]:
    """The project's rules, one after the other."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from whichteacher.queries import query_ids
    from whichteacher.schemas import SELECTED
    from whichteacher.tables import read_table

    imported = [str(folder / "made.parquet")]
    with pq.ParquetFile(imported[0]) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["turns", "query_id"])
            if not query_ids(table["turns"].combine_chunks()).equals(table["query_id"].combine_chunks()):
                raise SystemExit("identities differ from those of the import")
    run_step(folder, "clean_queries")
    run_step(folder, "deduplicate_queries")
    left = read_table(folder / "deduplicated.parquet", SELECTED)
    return pc.cast(left["row"], "string").to_pylist()


def run_step(folder: Path, step: str) -> None:
    """One rule's script on the tables in ``folder``."""
    imported = [str(folder / "made.parquet")]
    clean, exact, left = (str(folder / f"{name}.parquet") for name in ("cleaned", "deduplicated", "decontaminated"))
    sides = {kind: str(folder / f"{step}.{kind}.parquet") for kind in ("ledger", "dropped")}
    module = __import__(step)
    from whichteacher.config import Clean, Decontaminate, Deduplicate

    if step == "clean_queries":
        module.main(imported, Clean().model_dump(mode="json"), clean, **sides)
    elif step == "deduplicate_queries":
        settings = Deduplicate().model_dump(mode="json")
        module.main(imported, clean, ["made"], settings, exact, str(folder / "duplicates.parquet"), **sides)
    elif step == "decontaminate_queries":
        pairs, sweep = str(folder / "contamination.parquet"), str(folder / "sweep.parquet")
        settings = Decontaminate().model_dump(mode="json")
        module.main(imported, exact, [str(folder / "problems.parquet")], settings, left, pairs, sweep, **sides)
    else:
        module.main(imported, left, [str(folder / "shards" / f"{shard}.parquet") for shard in range(_SHARDS)])


def polars(folder: Path) -> list[str]:
    """One lazy query: lean patterns, a hash for the key."""
    import polars as pl
    from ftfy.badness import is_bad

    from whichteacher import patterns

    def misread(texts: pl.Series) -> pl.Series:
        beyond_ascii = texts.filter(texts.str.len_bytes() != texts.str.len_chars())
        found = [text for text in beyond_ascii if "\ufffd" in text or is_bad(text)]
        return texts.is_in(found)

    text = pl.col("text")
    stripped = text.str.strip_chars()
    chars = text.str.len_chars()
    fit = (
        ~text.str.contains(r"^[\s\p{Cf}\p{Zs}]*$")
        & (stripped.str.len_chars() >= 4)
        & ~stripped.str.tail(64).str.contains(patterns.ENDING)
        & (chars <= 20_000)
        & (text.str.count_matches(patterns.UNWANTED) <= 0.15 * chars)
        & ~text.str.contains(patterns.URL)
        & ~text.str.contains(patterns.TABLE)
        & ~text.str.contains(patterns.IMAGE)
        & ~text.map_batches(misread, return_dtype=pl.Boolean)
    )
    key = text.str.replace_all(r"[^\S ]\s*| \s+", " ").str.strip_chars().hash()
    kept = (
        pl.scan_parquet(folder / "plain" / "plain.parquet")
        .select("id", fit=fit, key=key)
        .filter("fit")
        .unique("key", keep="first", maintain_order=True)
        .select("id")
    )
    return kept.collect(engine="streaming")["id"].to_list()


def _python_class() -> str:
    """The characters of the rule `unicode_ratio`, spelled out for Python's `re`."""
    joiners, categories = "\u200c\u200d", {"Cc", "Cf", "Co", "Cn", "So"}
    wanted = [
        code
        for code in range(sys.maxunicode + 1)
        if (unicodedata.category(chr(code)) in categories or code == 0xFFFD or 0x300 <= code <= 0x36F)
        and chr(code) not in joiners
        and not chr(code).isspace()
    ]
    edges = [code for place, code in enumerate(wanted) if place == 0 or wanted[place - 1] != code - 1]
    ends = [code for place, code in enumerate(wanted) if place + 1 == len(wanted) or wanted[place + 1] != code + 1]
    spans = "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in zip(edges, ends, strict=True))
    return f"[{spans}]"


def pandas(folder: Path) -> list[str]:
    """A vectorised string method per rule."""
    import pandas as pd
    from ftfy.badness import is_bad

    from whichteacher import patterns

    frame = pd.read_parquet(folder / "plain" / "plain.parquet")
    text = frame["text"]
    stripped = text.str.strip()
    unwanted = re.compile(_python_class())
    unfit = (
        (stripped.str.len() < 4)
        | stripped.str[-64:].str.contains(re.compile(patterns.ENDING))
        | (text.str.len() > 20_000)
        | text.map(lambda value: "\ufffd" in value or is_bad(value))
        | (text.map(lambda value: len(unwanted.findall(value))) > 0.15 * text.str.len())
        | text.str.contains(re.compile(patterns.URL))
        | text.str.contains(re.compile(patterns.TABLE))
        | text.str.contains(re.compile(patterns.IMAGE))
    )
    fit = frame[~unfit]
    key = fit["text"].str.replace(r"\s+", " ", regex=True).str.strip()
    return fit.loc[~key.duplicated(), "id"].tolist()


def datatrove(folder: Path) -> list[str]:
    """Its reader, a filter with the rules, its exact deduplication."""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.exact_dedup import (
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
    )
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from ftfy.badness import is_bad

    from whichteacher import patterns

    found = [re.compile(pattern) for pattern in (patterns.URL, patterns.TABLE, patterns.IMAGE)]
    ending, unwanted = re.compile(patterns.ENDING), re.compile(_python_class())

    def fit(document: Document) -> bool:
        text = document.text
        stripped = text.strip()
        return not (
            len(stripped) < 4
            or len(text) > 20_000
            or ending.search(stripped[-64:])
            or "\ufffd" in text
            or is_bad(text)
            or len(unwanted.findall(text)) > 0.15 * len(text)
            or any(pattern.search(text) for pattern in found)
        )

    def content(document: Document) -> str:
        return re.sub(r"\s+", " ", document.text).strip()

    work = folder / "datatrove"
    config = ExactDedupConfig(content_getter=content)
    kept: list[str] = []

    def collect(data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            kept.append(document.id)
            yield document

    clean = work / "clean"
    steps: list[list[Any]] = [
        [ParquetReader(str(folder / "plain")), LambdaFilter(fit), ParquetWriter(str(clean))],
        [ParquetReader(str(clean)), ExactDedupSignature(str(work / "signatures"), config)],
        [ExactFindDedups(str(work / "signatures"), str(work / "duplicates"), config)],
        [ParquetReader(str(clean)), ExactDedupFilter(str(work / "duplicates"), config), collect],
    ]
    for number, step in enumerate(steps):
        LocalPipelineExecutor(step, tasks=1, workers=1, logging_dir=str(work / f"log{number}")).run()
    return kept


# --- measuring ---------------------------------------------------------------------------------------------------------


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``work`` returns, and its seconds, CPU seconds and the process's peak memory in MiB."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result, {"seconds": time.monotonic() - start, "cpu": cpu, "peak_mib": after.ru_maxrss / 1024}


def in_process(*arguments: str) -> dict[str, Any]:
    """Run one of the inner commands of this file; its last line is a JSON object."""
    run = subprocess.run([sys.executable, __file__, *arguments], check=False, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{run.stderr[-3000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def compare_clean(rows: int, repeats: int, without: list[str]) -> None:
    """Print the table of `clean`."""
    variants = ["ours", *(name for name in _BASELINES if name not in without)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        in_process("make", scratch, str(rows), "0")
        runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
        for _ in range(repeats):
            for variant in variants:
                runs[variant].append(in_process("variant", scratch, variant))
                # datatrove skips what it has finished.
                shutil.rmtree(folder / "datatrove", ignore_errors=True)
    kept = {variant: found[0]["digest"] for variant, found in runs.items()}
    if len(set(kept.values())) > 1:
        raise SystemExit(f"the variants keep different rows: {kept}")
    cpu = {variant: statistics.median(run["cpu"] for run in found) for variant, found in runs.items()}
    print(f"{rows:,} queries, {runs['ours'][0]['kept']:,} kept by every variant; medians of {repeats}")
    print(f"{'variant':<10} {'CPU s':>8} {'wall s':>8} {'peak MiB':>9}  CPU of the variant / CPU of ours")
    for variant, found in runs.items():
        wall = statistics.median(run["seconds"] for run in found)
        peak = max(run["peak_mib"] for run in found)
        print(f"{variant:<10} {cpu[variant]:8.1f} {wall:8.1f} {peak:9.0f}  {cpu[variant] / cpu['ours']:.2f}")


def measure_stage(rows: int, problems: int) -> None:
    """Print the table of `stage`."""
    steps = ("clean_queries", "deduplicate_queries", "decontaminate_queries", "shard_corpus")
    print(f"{rows:,} queries, {problems:,} benchmark problems")
    print(f"{'step':<22} {'wall s':>8} {'CPU s':>8} {'peak MiB':>9}")
    total = {"seconds": 0.0, "cpu": 0.0}
    with tempfile.TemporaryDirectory() as scratch:
        in_process("make", scratch, str(rows), str(problems))
        for step in steps:
            run = in_process("step", scratch, step)
            print(f"{step:<22} {run['seconds']:8.1f} {run['cpu']:8.1f} {run['peak_mib']:9.0f}", flush=True)
            total = {name: total[name] + run[name] for name in total}
    print(f"{'all':<22} {total['seconds']:8.1f} {total['cpu']:8.1f}")


def inner(command: str, folder: Path, *arguments: str) -> None:
    """The commands that the measuring process starts."""
    import hashlib

    if command == "make":
        make_input(folder, int(arguments[0]), int(arguments[1]))
        print("{}")
    elif command == "variant":
        variant = {"ours": ours, "polars": polars, "pandas": pandas, "datatrove": datatrove}[arguments[0]]
        import_all(arguments[0])
        kept, costs = measured(lambda: variant(folder))
        digest = hashlib.sha256("\n".join(sorted(kept)).encode()).hexdigest()[:16]
        print(json.dumps({"kept": len(kept), "digest": digest, **costs}))
    else:
        import_all("ours")
        __import__(arguments[0])
        print(json.dumps(measured(lambda: run_step(folder, arguments[0]))[1]))


def import_all(variant: str) -> None:
    """Import what a variant needs before the clock starts."""
    for module in {
        "ours": ("clean_queries", "deduplicate_queries", "whichteacher.config"),
        "polars": ("polars", "ftfy.badness", "whichteacher.patterns"),
        "pandas": ("pandas", "pyarrow.parquet", "ftfy.badness"),
        "datatrove": ("datatrove.executor", "datatrove.pipeline.dedup.exact_dedup", "datatrove.pipeline.readers"),
    }[variant]:
        __import__(module)


def main() -> None:
    """The command line."""
    if sys.argv[1:2] and sys.argv[1] in ("make", "variant", "step"):
        inner(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    clean = commands.add_parser("clean")
    clean.add_argument("--rows", type=int, default=200_000)
    clean.add_argument("--repeats", type=int, default=3)
    clean.add_argument("--without", nargs="*", choices=_BASELINES, default=[])
    stage = commands.add_parser("stage")
    stage.add_argument("--rows", type=int, default=2_000_000)
    stage.add_argument("--problems", type=int, default=1000)
    chosen = parser.parse_args()
    if chosen.command == "clean":
        compare_clean(chosen.rows, chosen.repeats, chosen.without)
    else:
        measure_stage(chosen.rows, chosen.problems)


if __name__ == "__main__":
    main()
