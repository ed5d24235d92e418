"""What an audit of published traces costs on one core, beside reading the file as JSON.

    .venv/bin/python benchmarks/trace_audit.py [--rows 4000] [--characters 13000]

Makes a release of made-up traces and problems, then runs the steps of an audit one after the other in this process, but for
verification (see benchmarks/verification.py): ``import_source``, ``import_traces`` (which counts tokens with the miniature's
tokenizer), ``inspect_traces`` and ``find_contaminated_responses``. Prints CPU seconds, rows and megabytes of file per CPU second,
and how many times the baseline each takes: ``json.loads`` of every line. The peak of memory is that of the whole process.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "workflow" / "scripts")]

import find_contaminated_responses  # noqa: E402
import import_source  # noqa: E402
import import_traces  # noqa: E402
import inspect_traces  # noqa: E402
import pyarrow as pa  # noqa: E402

from whichteacher.config import CATEGORIES, Decontaminate  # noqa: E402
from whichteacher.schemas import BENCHMARK_PROBLEMS, COLLECTED, CONTAMINATION, PUBLISHED  # noqa: E402
from whichteacher.tables import read_table, write_table  # noqa: E402

_WORDS = [
    f"{a}{b}" for a in ("wa", "le", "mo", "tri", "se", "no") for b in ("ter", "ding", "ve", "gon", "ries", "ck", "l")
]


def text(rng: random.Random, characters: int) -> str:
    """Sentences of made-up words and numbers."""
    found, length = [], 0
    while length < characters:
        words = [rng.choice(_WORDS) if rng.random() < 0.9 else str(rng.randrange(1000)) for _ in range(12)]
        found.append(" ".join(words) + ".")
        length += len(found[-1]) + 1
    return " ".join(found)


def make_release(path: Path, rows: int, characters: int) -> None:
    """Traces in the layout ``messages``, with references and scores."""
    rng = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            response = f"<think>\n{text(rng, characters)}\n</think>\n\nIt is \\boxed{{{number}}}."
            turns = [{"role": "user", "content": f"{text(rng, 300)} What is number {number}?"}]
            turns.append({"role": "assistant", "content": response})
            file.write(json.dumps({"messages": turns, "answer": str(number), "verify_score": 1.0}) + "\n")


def collected(traces: str, path: str) -> None:
    """Attempts of the traces as if each had passed: a stand-in for verification."""
    rows = read_table(traces, PUBLISHED)
    made = {"query_id": rows["query_id"], "attempt": rows["attempt"], "text": rows["text"]}
    made["attempt_id"] = pa.array([f"{place:x}" for place in range(rows.num_rows)])
    fixed = {pa.string(): "", pa.int64(): 0, pa.float64(): 1.0, pa.bool_(): True}
    for field in COLLECTED:
        made.setdefault(field.name, pa.array([fixed[field.type]] * rows.num_rows, field.type))
    write_table(path, pa.table(made), COLLECTED)


def main() -> None:
    """Make, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--characters", type=int, default=13000)
    parser.add_argument("--problems", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release = folder / "traces.jsonl"
        make_release(release, given.rows, given.characters)
        megabytes = release.stat().st_size / 1e6
        rng = random.Random(2)
        problems = [
            {
                **dict.fromkeys(BENCHMARK_PROBLEMS.names),
                **{"problem_id": str(n), "benchmark": "made", "category": "math", "prompt": text(rng, 200)},
            }
            for n in range(given.problems)
        ]
        write_table(folder / "problems.parquet", problems, BENCHMARK_PROBLEMS)
        write_table(folder / "contamination.parquet", [], CONTAMINATION)
        at = {
            stem: str(folder / f"{stem}.parquet") for stem in ("queries", "traces", "attempts", "inspected", "quoted")
        }
        spare = [str(folder / f"{stem}.parquet") for stem in ("layouts", "ledger", "dropped")]
        source = {"path": str(release), "category": "math", "licence": "none", "layout": "auto"}
        teacher = {"traces": name, "traces_revision": None, "traces_files": ["traces.jsonl"], "traces_layout": "auto"}
        tokenizer = {"model": str(ROOT / "resources" / "teachers" / "tokenizer"), "revision": None}
        thresholds = dict.fromkeys(CATEGORIES, 0.9)
        quote = find_contaminated_responses.main

        def baseline() -> None:
            with release.open(encoding="utf-8") as file:
                for line in file:
                    json.loads(line)

        steps: dict[str, Callable[[], object]] = {
            "json.loads (baseline)": baseline,
            "import_source": lambda: import_source.main("made", source, at["queries"], *spare[1:]),
            "import_traces": lambda: import_traces.main(
                "made", [at["queries"]], teacher, tokenizer, [at["traces"]], *spare
            ),
            "": lambda: collected(at["traces"], at["attempts"]),
            "inspect_traces": lambda: inspect_traces.main(
                at["traces"], at["attempts"], at["queries"], thresholds, at["inspected"]
            ),
            "find_contaminated_responses": lambda: quote(
                at["attempts"],
                at["queries"],
                str(folder / "contamination.parquet"),
                [str(folder / "problems.parquet")],
                Decontaminate().model_dump(),
                at["quoted"],
            ),
        }
        print(f"{given.rows} traces, {megabytes:.0f} MB, {given.problems} problems")
        first = total = 0.0
        for step, work in steps.items():
            start = time.process_time()
            work()
            seconds = time.process_time() - start
            if step:
                first = first or seconds
                total += seconds if step != "json.loads (baseline)" else 0
                rate = f"{given.rows / seconds:8.0f} rows/s {megabytes / seconds:7.1f} MB/s"
                print(f"{step:<28} {seconds:7.2f} CPU s {rate} {seconds / first:6.1f} times the baseline")
        print(f"{'all steps':<28} {total:7.2f} CPU s {given.rows / total:8.0f} rows/s {megabytes / total:7.1f} MB/s")
        print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
