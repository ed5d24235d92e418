"""What generation costs beside the engine: ratios against named baselines, each pair in the same run.

    .venv/bin/python benchmarks/generation.py engine [--prompts 2000] [--repeats 3]
    .venv/bin/python benchmarks/generation.py cached [--rows 100000] [--characters 1000]
    .venv/bin/python benchmarks/generation.py compaction [--rows 1000000] [--characters 1000]

`engine`: output tokens per second of a job of generate_responses (prompts rendered, responses stored, the table written;
starting the engine listed apart) against a bare `LLM.generate` of the same prompts, seeds and settings. Each repeat is one
process for either, in turn, each with a new store; the ratio is that of the medians.

`cached`: the same job where all its responses are in the store, as a process of its own from start to end, against reading
the same segments and writing the same columns with pyarrow alone. Fails if the job imports vLLM.

`compaction`: the peak memory (resident) of a job over that many stored attempts, four per query, in random order of
writing, against the size of the text it moves.

Texts of the last two are made up of random digits and letters in the project's format; `--characters` is their length.
Everything lies in a temporary folder (TMPDIR says where) that is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "workflow" / "scripts")]

from whichteacher.miniature.problems import CATEGORIES, draw_problem  # noqa: E402
from whichteacher.queries import query_id  # noqa: E402
from whichteacher.schemas import QUERIES  # noqa: E402
from whichteacher.tables import write_table  # noqa: E402

TEACHER = {
    "model": "./resources/teachers/steps",
    "revision": None,
    "dtype": "float32",
    "engine": "vllm",
    "endpoint": None,
    "answer_format": "tags",
    "system_prompt": "",
    "suffixes": {},
    "max_model_len": 1024,
    "quantization": None,
    "sampling": {"temperature": 0.8, "top_p": 1.0, "top_k": -1, "max_tokens": 512, "stop": None},
    "attempts": [1],
}
RUNNING = {
    "tensor_parallel": 1,
    "pipeline_parallel": 1,
    "data_parallel": 1,
    "vllm_arguments": {},
    "endpoint": None,
}


def make_queries(path: Path, count: int) -> None:
    """Write ``count`` distinct queries, drawn like the miniature's, as a shard."""
    rng = random.Random("benchmark")
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < count:
        problem = draw_problem(rng.choice(CATEGORIES), rng)
        # A number no other query has: there are fewer small problems than queries wanted here.
        turns = [{"role": role, "content": text} for role, text in problem.turns]
        turns[-1]["content"] += f" ({len(rows)})"
        row = dict.fromkeys(QUERIES.names) | {
            "query_id": query_id(turns),
            "source": "benchmark",
            "source_row": str(len(rows)),
            "category": problem.category,
            "licence": "Apache-2.0",
            "turns": turns,
        }
        rows[row["query_id"]] = row
    write_table(path, sorted(rows.values(), key=lambda row: row["query_id"]), QUERIES)


def peak_memory() -> float:
    """Peak resident memory of this process, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# --- what runs in a process of its own: prints one line of JSON at the end -------------------------------------------------


def run_bare(queries: str) -> dict[str, Any]:
    """`LLM.generate` on the prompts of the shard ``queries``, with the engine arguments and seeds of the job."""
    from vllm import SamplingParams

    from whichteacher.engines.specs import request_keys, request_seed
    from whichteacher.engines.vllm import _load
    from whichteacher.rounds import render_prompts, spec_of
    from whichteacher.tables import read_table

    started = time.monotonic()
    spec = spec_of(TEACHER, RUNNING)
    llm = _load(spec)
    start = time.monotonic() - started
    prompts = render_prompts(read_table(queries, QUERIES), TEACHER)
    key_of = request_keys(spec.owner(), spec.settings())
    params = [
        SamplingParams(**spec.sampling, seed=request_seed(key_of(prompt, 0)), skip_special_tokens=False)
        for prompt in prompts
    ]
    began = time.monotonic()
    tokenizer = llm.get_tokenizer()
    inputs = [{"prompt_token_ids": tokenizer.encode(prompt, add_special_tokens=False)} for prompt in prompts]
    outputs = llm.generate(inputs, params, use_tqdm=False)
    seconds = time.monotonic() - began
    return {"tokens": sum(len(each.outputs[0].token_ids) for each in outputs), "seconds": seconds, "start": start}


def run_job(queries: str, store: str, output: str, attempts: int) -> dict[str, Any]:
    """One job of generate_responses; its engine's start is timed apart."""
    import generate_responses

    from whichteacher.engines import respond
    from whichteacher.schemas import ATTEMPTS
    from whichteacher.tables import read_table

    starts = [0.0]
    start_engine = respond._start

    def timed(spec: Any) -> Any:
        began = time.monotonic()
        engine = start_engine(spec)
        starts.append(time.monotonic() - began)
        return engine

    respond._start = timed
    began = time.monotonic()
    teacher = TEACHER | {"attempts": [attempts]}
    generate_responses.main(queries, [], None, output, "steps", teacher, RUNNING, 0, 0, store)
    seconds = time.monotonic() - began - sum(starts)
    found = {"seconds": seconds, "start": sum(starts), "memory": peak_memory(), "engine": "vllm" in sys.modules}
    table = read_table(output, ATTEMPTS, ["output_tokens"])
    return found | {"tokens": sum(table["output_tokens"].to_pylist()), "rows": table.num_rows}


def run_floor(store: str, output: str) -> dict[str, Any]:
    """Read every column of every segment and write the ones that hold most of the table, with pyarrow alone."""
    import pyarrow.parquet as pq

    began = time.monotonic()
    with pq.ParquetWriter(output, pq.read_schema(next(Path(store).rglob("*.parquet"))), compression="zstd") as writer:
        for path in sorted(Path(store).rglob("*.parquet")):
            writer.write_table(pq.read_table(path))
    return {"seconds": time.monotonic() - began, "memory": peak_memory()}


def run_fill(queries: str, store: str, attempts: int, characters: int) -> dict[str, Any]:
    """Store a response of ``characters`` characters for each of ``attempts`` attempts at each query, in random order."""
    from whichteacher.engines.specs import request_keys
    from whichteacher.responses import join_response
    from whichteacher.rounds import render_prompts, spec_of
    from whichteacher.store import Store
    from whichteacher.tables import read_table

    spec = spec_of(TEACHER, RUNNING)
    shelf = Store(store, "responses", spec.owner())
    prompts = render_prompts(read_table(queries, QUERIES), TEACHER)
    key_of = request_keys(shelf.owner, spec.settings())
    wanted = [(prompt, attempt) for prompt in prompts for attempt in range(attempts)]
    rng = random.Random(0)
    rng.shuffle(wanted)
    # Texts are stretches of one long random one: making each anew would take longer than everything else here.
    pool = "".join(rng.choices("0123456789abcdefghijklmnopqrstuvwxyz   ", k=2**24))
    length = characters - len(join_response("", "\\boxed{1}"))
    common = {
        "finish_reason": "stop", "prompt_tokens": 50, "output_tokens": characters // 3, "seconds": 0.01, "reasoning": None,
        "model": spec.model, "model_digest": shelf.owner, "engine": "vllm", "engine_version": "0", "hardware": "none",
        "devices": 1, "settings": json.dumps(spec.settings(), sort_keys=True),
    }  # fmt: skip
    for start in range(0, len(wanted), 512):
        shelf.append(
            [
                {
                    "key": key_of(prompt, attempt),
                    "prompt": prompt,
                    "text": join_response(
                        pool[(place := rng.randrange(2**24 - length)) : place + length], "\\boxed{1}"
                    ),
                    **common,
                }
                for prompt, attempt in wanted[start : start + 512]
            ]
        )
    shelf.consolidate()
    return {"bytes": sum(path.stat().st_size for path in shelf.segments()), "segments": len(shelf.segments())}


def in_process(what: str, **arguments: Any) -> dict[str, Any]:
    """Run ``run_<what>`` in a new process on one thread and return what it found, with the process's whole time as ``wall``."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--run", what, json.dumps(arguments)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": time.monotonic() - began}


# --- the benchmarks ----------------------------------------------------------------------------------------------------------


def engine(folder: Path, prompts: int, repeats: int) -> None:
    """See the module's docstring."""
    queries = folder / "queries.parquet"
    make_queries(queries, prompts)
    rates: dict[str, list[float]] = {"bare": [], "job": []}
    for repeat in range(repeats):
        bare = in_process("bare", queries=str(queries))
        job = in_process(
            "job",
            queries=str(queries),
            store=str(folder / f"store{repeat}"),
            output=str(folder / f"round{repeat}.parquet"),
            attempts=1,
        )
        for name, found in (("bare", bare), ("job", job)):
            rates[name].append(found["tokens"] / found["seconds"])
            print(
                f"{repeat + 1}. {name:4}: {found['tokens']:,} tokens in {found['seconds']:.1f} s = {rates[name][-1]:,.0f} "
                f"tokens/s; engine started in {found['start']:.1f} s; process {found['wall']:.1f} s"
            )
    ratio = statistics.median(rates["job"]) / statistics.median(rates["bare"])
    print(f"engine: job / bare LLM.generate = {ratio:.3f} (medians of {repeats}, {prompts:,} prompts)")


def cached(folder: Path, rows: int, characters: int) -> None:
    """See the module's docstring."""
    queries, store = folder / "queries.parquet", folder / "store"
    make_queries(queries, rows)
    filled = in_process("fill", queries=str(queries), store=str(store), attempts=1, characters=characters)
    print(
        f"{rows:,} rows of {characters:,} characters: {filled['bytes'] / 2**20:.0f} MiB in {filled['segments']} segments"
    )
    job = in_process("job", queries=str(queries), store=str(store), output=str(folder / "out.parquet"), attempts=1)
    if job["engine"] or job["rows"] != rows:
        sys.exit("cached: an engine was loaded, or rows are missing")
    floor = in_process("floor", store=str(store), output=str(folder / "floor.parquet"))
    print(f"cached: the whole process took {job['wall']:.1f} s, {job['memory']:.2f} GiB at most, no engine; ", end="")
    print(
        f"reading and writing the segments with pyarrow {floor['seconds']:.1f} s: {job['wall'] / floor['seconds']:.1f} times"
    )


def compaction(folder: Path, rows: int, characters: int) -> None:
    """See the module's docstring."""
    queries, store = folder / "queries.parquet", folder / "store"
    make_queries(queries, rows // 4)
    filled = in_process("fill", queries=str(queries), store=str(store), attempts=4, characters=characters)
    job = in_process("job", queries=str(queries), store=str(store), output=str(folder / "out.parquet"), attempts=4)
    text = job["rows"] * characters / 2**30
    print(
        f"compaction: {job['rows']:,} attempts of {characters:,} characters ({text:.1f} GiB of text, {filled['segments']} "
        f"segments): {job['wall']:.0f} s, {job['memory']:.2f} GiB of memory at most, {job['memory'] / text:.2f} times the text"
    )


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--run"]:
        runs = {"bare": run_bare, "job": run_job, "floor": run_floor, "fill": run_fill}
        print("\n" + json.dumps(runs[sys.argv[2]](**json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, defaults in (
        ("engine", {"prompts": 2000, "repeats": 3}),
        ("cached", {"rows": 100_000, "characters": 1000}),
        ("compaction", {"rows": 1_000_000, "characters": 1000}),
    ):
        command = commands.add_parser(name)
        for option, default in defaults.items():
            command.add_argument(f"--{option}", type=int, default=default)
    told = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="benchmark.") as folder:
        {"engine": engine, "cached": cached, "compaction": compaction}[told.pop("command")](Path(folder), **told)


if __name__ == "__main__":
    main()
