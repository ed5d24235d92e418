"""What scoring costs beside the engine, and how near it comes to transformers: each against a baseline of the same run.

    .venv/bin/python benchmarks/perplexity.py engine [--rows 2000] [--repeats 3]
    .venv/bin/python benchmarks/perplexity.py cached [--rows 30000] [--characters 13000]
    .venv/bin/python benchmarks/perplexity.py agreement [--rows 300]

`engine`: tokens read per second by a job of score_perplexity (prompts rendered, rows stored, the table written; imports are left
out, starting the engine is listed apart) against a bare `LLM.generate` of the same token ids, with the engine's and the request's settings of the job
(`bare`), and with vLLM's own way of handing log-probabilities over, an object for every token (`objects`). Each repeat is one
process for each, in turn, with a new store; the ratios are those of the medians, by the clock and by processor time, which other
work on the machine disturbs less.

`cached`: a job whose rows are all in the store, as a process of its own: its time and peak memory, against reading the texts and
hashing them. Fails if the job imports vLLM. The texts are random letters.

`agreement`: relative differences of the perplexities to those of transformers in float32, row by row: of vLLM in float32 and in
bfloat16, and of transformers in bfloat16.

The scorer is the miniature's, the rows are program-written traces. Everything lies in a temporary folder (TMPDIR says where)
that is removed at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "workflow" / "scripts")]

import pyarrow.parquet as pq  # noqa: E402

from whichteacher.miniature.problems import CATEGORIES, draw_problem  # noqa: E402
from whichteacher.miniature.styles import STYLES, write_trace  # noqa: E402
from whichteacher.responses import join_response  # noqa: E402
from whichteacher.schemas import COLLECTED, PERPLEXITIES, QUERIES  # noqa: E402
from whichteacher.tables import read_table, write_table  # noqa: E402

SCORER = {"model": "./resources/teachers/scorer", "revision": None, "dtype": "float32", "quantization": None}
PERPLEXITY = {"scope": "response", "max_length": 1023, "overlong": "first_tokens"}
RUNNING = {"tensor_parallel": 1, "pipeline_parallel": 1, "data_parallel": 1, "vllm_arguments": {}}
STEP = "score_perplexity"


def make_rows(folder: Path, count: int, characters: int | None = None) -> dict[str, str]:
    """Write ``count`` queries, each with an accepted response: a trace, or ``characters`` random letters."""
    rng = random.Random("benchmark")
    pool = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz   ", k=2**22)) if characters else ""
    queries, attempts = [], []
    for number in range(count):
        problem = draw_problem(rng.choice(CATEGORIES), rng)
        turns = [{"role": role, "content": text} for role, text in problem.turns]
        # A number no other query has: a row that occurs twice is read once.
        turns[-1]["content"] += f" ({number})"
        place = rng.randrange(2**22 - characters) if characters else 0
        text = (
            pool[place : place + characters] if characters else join_response(*write_trace(problem, rng.choice(STYLES)))
        )
        row = {"query_id": f"{number:032x}", "category": problem.category}
        queries.append(dict.fromkeys(QUERIES.names, "") | row | {"turns": turns})
        blank = dict.fromkeys(COLLECTED.names, "") | dict.fromkeys(
            ("shard", "round", "attempt", "prompt_tokens", "output_tokens", "devices", "seconds", "score"), 0
        )
        attempts.append(blank | row | {"attempt_id": f"{number:064x}", "text": text, "accepted": True})
    paths = {"queries": str(folder / "queries.parquet"), "attempts": str(folder / "attempts.parquet")}
    write_table(paths["queries"], queries, QUERIES)
    write_table(paths["attempts"], attempts, COLLECTED)
    return paths


def rendered_rows(queries: str, attempts: str) -> Iterator[tuple[str, str, str | None, str]]:
    """The rows that a job scores."""
    from score_perplexity import accepted_rows

    from whichteacher.rounds import template

    turns = {row["query_id"]: row["turns"] for row in read_table(queries, QUERIES, ["query_id", "turns"]).to_pylist()}
    return accepted_rows(attempts, turns, template(SCORER))


def spec_of(dtype: str = "float32") -> Any:
    """The scorer's spec, as the job's."""
    import score_perplexity

    return score_perplexity.spec_of(SCORER | {"dtype": dtype}, PERPLEXITY, RUNNING)


def peak_memory() -> float:
    """Peak resident memory of this process, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# --- what runs in a process of its own: prints one line of JSON at the end -------------------------------------------------


def run_bare(queries: str, attempts: str, objects: bool) -> dict[str, Any]:
    """`LLM.generate` on the rows of a job; ``objects`` takes vLLM's own way of handing log-probabilities over."""
    from vllm import SamplingParams

    from whichteacher.engines.vllm import _load

    began = time.monotonic()
    served = spec_of().served()
    llm = _load(served)
    start = time.monotonic() - began
    rows = list(rendered_rows(queries, attempts))
    began, worked = time.monotonic(), time.process_time()
    tokenizer = llm.get_tokenizer()
    inputs = [
        {
            "prompt_token_ids": (
                tokenizer.encode(prompt, add_special_tokens=False) + tokenizer.encode(text, add_special_tokens=False)
            )[: PERPLEXITY["max_length"]]
        }
        for _, _, prompt, text in rows
    ]
    params = SamplingParams(**served.sampling, detokenize=objects, flat_logprobs=not objects)
    llm.generate(inputs, params, use_tqdm=False)
    return {
        "tokens": sum(len(each["prompt_token_ids"]) for each in inputs),
        "seconds": time.monotonic() - began,
        "cpu": time.process_time() - worked,
        "start": start,
    }


def run_job(queries: str, attempts: str, store: str, output: str, dtype: str = "float32") -> dict[str, Any]:
    """One job of score_perplexity; its engine's start is timed apart."""
    import score_perplexity

    from whichteacher.engines import vllm

    # Imports transformers before the clock starts, as run_bare does.
    score_perplexity.template(SCORER)
    starts, start_work = [0.0], [0.0]
    scorer = vllm.VllmScorer

    def timed(spec: Any) -> Any:
        began, worked = time.monotonic(), time.process_time()
        engine = scorer(spec)
        starts.append(time.monotonic() - began)
        start_work.append(time.process_time() - worked)
        return engine

    vllm.VllmScorer = timed
    began, worked = time.monotonic(), time.process_time()
    scored = SCORER | {"dtype": dtype}
    score_perplexity.main(attempts, queries, output, "scorer", scored, PERPLEXITY, RUNNING, store, STEP)
    seconds = time.monotonic() - began - sum(starts)
    cpu = time.process_time() - worked - sum(start_work)
    lengths = read_table(output, PERPLEXITIES, ["length"])["length"].to_pylist()
    return {
        "tokens": sum(min(length, PERPLEXITY["max_length"]) for length in lengths),
        "seconds": seconds,
        "cpu": cpu,
        "start": sum(starts),
        "memory": peak_memory(),
        "engine": "vllm" in sys.modules,
        "rows": len(lengths),
    }


def run_fill(queries: str, attempts: str, store: str) -> dict[str, Any]:
    """Store a score of every row without reading any."""
    from whichteacher.engines.specs import content_digest, score_keys
    from whichteacher.store import Store

    spec = spec_of()
    shelf = Store(store, "perplexities", spec.owner())
    key_of = score_keys(shelf.owner, spec.settings())
    common = {
        "length": 900, "query_tokens": 99, "query_nll": 99.0, "response_tokens": 800, "response_nll": 400.0, "seconds": 0.1,
        "model": spec.model, "model_digest": shelf.owner, "engine": "vllm", "engine_version": "0", "hardware": "none",
        "devices": 1, "settings": json.dumps(spec.settings(), sort_keys=True),
    }  # fmt: skip
    contents = [content_digest(prompt or "", text) for _, _, prompt, text in rendered_rows(queries, attempts)]
    random.Random(0).shuffle(contents)
    for start in range(0, len(contents), 512):
        shelf.append([{"key": key_of(each), "content": each, **common} for each in contents[start : start + 512]])
    shelf.consolidate()
    return {}


def run_floor(queries: str, attempts: str) -> dict[str, Any]:
    """Read the texts of the accepted responses and hash them."""
    began = time.monotonic()
    for batch in pq.ParquetFile(attempts).iter_batches(1024, columns=["text"]):
        for text in batch["text"].to_pylist():
            hashlib.sha256(text.encode()).hexdigest()
    return {"seconds": time.monotonic() - began}


def run_transformers(queries: str, attempts: str, dtype: str) -> dict[str, Any]:
    """Perplexities by transformers, a row at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from whichteacher.perplexity import perplexity
    from whichteacher.places import locate

    tokenizer = AutoTokenizer.from_pretrained(locate(SCORER["model"]))
    model = AutoModelForCausalLM.from_pretrained(locate(SCORER["model"]), dtype=dtype).eval()
    found = []
    for _, _, prompt, text in rendered_rows(queries, attempts):
        before = tokenizer.encode(prompt, add_special_tokens=False)
        ids = (before + tokenizer.encode(text, add_special_tokens=False))[: PERPLEXITY["max_length"]]
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0].float()
        loss = torch.nn.functional.cross_entropy(logits[len(before) - 1 : -1], torch.tensor(ids[len(before) :]))
        count = len(ids) - len(before)
        found.append(perplexity(loss.item() * count, count))
    return {"perplexities": found}


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


def engine(folder: Path, rows: int, repeats: int) -> None:
    """See the module's docstring."""
    shard = make_rows(folder, rows)
    rates: dict[tuple[str, str], list[float]] = {}
    for repeat in range(repeats):
        for name, objects in (("bare", False), ("job", None), ("objects", True)):
            if objects is None:
                store, output = str(folder / f"store{repeat}"), str(folder / f"{repeat}.parquet")
                found = in_process("job", **shard, store=store, output=output)
            else:
                found = in_process("bare", **shard, objects=objects)
            for by in ("seconds", "cpu"):
                rates.setdefault((name, by), []).append(found["tokens"] / found[by])
            print(
                f"{repeat + 1}. {name:7}: {found['tokens']:,} tokens in {found['seconds']:.1f} s ({found['cpu']:.1f} s of the "
                f"processor) = {found['tokens'] / found['seconds']:,.0f} tokens/s; engine started in {found['start']:.1f} s"
            )
    medians = {which: statistics.median(found) for which, found in rates.items()}
    for name in ("bare", "objects"):
        clock, work = (medians["job", by] / medians[name, by] for by in ("seconds", "cpu"))
        print(
            f"engine: job / {name} = {clock:.3f} by the clock, {work:.3f} by processor time "
            f"(medians of {repeats}, {rows:,} rows)"
        )


def cached(folder: Path, rows: int, characters: int) -> None:
    """See the module's docstring."""
    shard = make_rows(folder, rows, characters)
    in_process("fill", **shard, store=str(folder / "store"))
    job = in_process("job", **shard, store=str(folder / "store"), output=str(folder / "out.parquet"))
    if job["engine"] or job["rows"] != rows:
        sys.exit("cached: an engine was loaded, or rows are missing")
    floor = in_process("floor", **shard)
    print(
        f"cached: {rows:,} rows of {characters:,} characters: {job['seconds']:.1f} s (process {job['wall']:.1f} s), "
        f"{job['memory']:.2f} GiB at most, no engine; reading and hashing the texts takes {floor['seconds']:.1f} s: "
        f"{job['seconds'] / floor['seconds']:.1f} times"
    )


def agreement(folder: Path, rows: int) -> None:
    """See the module's docstring."""
    shard = make_rows(folder, rows)
    base = in_process("transformers", **shard, dtype="float32")["perplexities"]
    compared = {"transformers bfloat16": in_process("transformers", **shard, dtype="bfloat16")["perplexities"]}
    for dtype in ("float32", "bfloat16"):
        output = str(folder / f"{dtype}.parquet")
        in_process("job", **shard, store=str(folder / "store"), output=output, dtype=dtype)
        compared[f"vLLM {dtype}"] = read_table(output, PERPLEXITIES, ["perplexity"])["perplexity"].to_pylist()
    for name, values in compared.items():
        apart = sorted(abs(value / true - 1) for value, true in zip(values, base, strict=True))
        print(f"agreement: {name}: median {apart[len(apart) // 2]:.1e}, largest {apart[-1]:.1e} of {rows} rows")


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--run"]:
        runs = {
            "bare": run_bare, "job": run_job, "fill": run_fill, "floor": run_floor, "transformers": run_transformers
        }  # fmt: skip
        print("\n" + json.dumps(runs[sys.argv[2]](**json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, defaults in (
        ("engine", {"rows": 2000, "repeats": 3}),
        ("cached", {"rows": 30_000, "characters": 13_000}),
        ("agreement", {"rows": 300}),
    ):
        command = commands.add_parser(name)
        for option, default in defaults.items():
            command.add_argument(f"--{option}", type=int, default=default)
    told = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="benchmark.") as folder:
        {"engine": engine, "cached": cached, "agreement": agreement}[told.pop("command")](Path(folder), **told)


if __name__ == "__main__":
    main()
