"""Small made-up tables of a finished study, in the layout of a real run: what the statistics and figures are tested on.

Three teachers with known properties: ``steps`` is right most often and its length follows difficulty, ``recheck`` is
uniformly long, ``leaps`` is short and often wrong; students of ``steps`` pass more often than those of ``leaps``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from match_datasets import balance

from whichteacher.ledger import Ledger
from whichteacher.schemas import (
    COLLECTED,
    CONTAMINATION,
    CONTAMINATION_SWEEP,
    LABELLED_CASES,
    PERPLEXITIES,
    QUERIES,
    REFERENCE_CHECKS,
    REVERIFIED,
    SCORED_SAMPLES,
    TRACES,
    TRAINING_LOG,
)
from whichteacher.tables import write_json, write_table, write_text

TEACHERS = {
    "steps": {"label": "Steps", "colour": "#0072b2"},
    "recheck": {"label": "Recheck", "colour": "#d55e00"},
    "leaps": {"label": "Leaps", "colour": "#009e73"},
}
LABELS = {name: teacher["label"] for name, teacher in TEACHERS.items()}
BENCHMARKS = {
    "easy_math": {"label": "Easy mathematics", "role": "MATH500"},
    "hard_math": {"label": "Hard mathematics", "role": "AIME2024"},
    "code_tasks": {"label": "Code", "role": "LiveCodeBench"},
}
BENCHMARK_LABELS = {name: benchmark["label"] for name, benchmark in BENCHMARKS.items()}
CATEGORIES = ("math", "math", "math", "code", "science", "instruction_following", "multi_turn", "general")
RIGHT = {"steps": 0.9, "recheck": 0.75, "leaps": 0.6}
STUDENT = {"steps": 0.75, "recheck": 0.6, "leaps": 0.2}
SEEDS = (0, 1)
CONTROL = "parallel"
#: Evaluated beside the students.
MODELS = {"steps": TEACHERS["steps"] | {"expected": {"easy_math": [50, 100], "code_tasks": [0, 1]}}}
ATTEMPTS = 3


def trace_text(teacher: str, total: int, level: int) -> str:
    """A made-up thinking part that holds its answer once, or twice for ``recheck``."""
    step = " ".join(f"Take {digit} and carry it over to place {digit + 1}." for digit in range(level))
    if teacher == "leaps":
        return f"It is {total}."
    once = f"{step} So {total}."
    return f"{once} Wait, let me check again. {step} Yes, {total}." if teacher == "recheck" else once


def write_study(root: Path, queries: int = 160, shards: int = 2, problems: int = 40, samples: int = 4) -> Path:
    """Write the tables of a study below ``root`` and return it."""
    rng = np.random.default_rng(7)
    rows = []
    for number in range(queries):
        total = int(rng.integers(100, 999))
        rows.append(
            {
                "query_id": f"{number:032x}",
                "source": "made_up",
                "source_row": str(number),
                "category": CATEGORIES[number % len(CATEGORIES)],
                "licence": "CC0-1.0",
                "turns": [{"role": "user", "content": f"What is {total - 7} + 7?"}],
                "reference": str(total),
                "reference_type": "number",
                "tests": None,
                "constraints": None,
            }
        )
    level = {row["query_id"]: int(rng.integers(1, 8)) for row in rows}
    for shard in range(shards):
        write_table(root / f"corpus/shards/{shard}.parquet", rows[shard::shards], QUERIES)
    _write_corpus(root, queries)
    _write_audit(root, rows, shards)

    for teacher, kept in write_teachers(root, rows, level, shards, rng).items():
        for seed in SEEDS:
            _write_student(root, teacher, seed, kept, problems, samples, rng)
    return root


def write_teachers(
    root: Path, rows: list[dict], level: dict[str, int], shards: int, rng: np.random.Generator
) -> dict[str, int]:
    """Write attempts, traces and datasets of all teachers on the queries ``rows``; returns the rows of each dataset."""
    traces = {teacher: _write_teacher(root, teacher, rows, level, shards, rng) for teacher in TEACHERS}
    common = set.intersection(*({trace["query_id"] for trace in found} for found in traces.values()))
    for teacher, found in traces.items():
        kept = [trace for trace in found if trace["query_id"] in common]
        write_table(root / f"datasets/{CONTROL}/{teacher}.parquet", kept, TRACES)
        ledger = Ledger("match_datasets", f"{CONTROL}/{teacher}", len(found))
        ledger.keep(len(kept))
        for trace in found:
            if trace["query_id"] not in common:
                ledger.drop(trace["query_id"], "not_solved_by_all")
        _write_ledger(ledger, root / f"datasets/{CONTROL}/{teacher}")
    frames = {teacher: pd.DataFrame(found) for teacher, found in traces.items()}
    matched = {teacher: frame[frame["query_id"].isin(common)] for teacher, frame in frames.items()}
    write_text(root / f"datasets/{CONTROL}/balance.csv", balance(frames, matched).to_csv(index=False))
    return dict.fromkeys(traces, len(common))


def _write_ledger(ledger: Ledger, stem: Path) -> None:
    ledger.write(f"{stem}.ledger.parquet", f"{stem}.dropped.parquet")


def _write_corpus(root: Path, queries: int) -> None:
    for step, stem, rows_in, reasons in (
        ("import_source", "imported/made_up", queries + 9, {}),
        ("clean_queries", "cleaned", queries + 9, {"has_url": 2, "empty": 1}),
        ("deduplicate_queries", "deduplicated", queries + 6, {"exact_duplicate": 2}),
        ("decontaminate_queries", "decontaminated", queries + 4, {"contaminated": 4}),
    ):
        ledger = Ledger(step, "made_up" if step == "import_source" else "all", rows_in)
        ledger.keep(rows_in - sum(reasons.values()))
        for reason, count in reasons.items():
            for number in range(count):
                ledger.drop(f"{reason}{number}", reason)
        _write_ledger(ledger, root / f"corpus/{stem}")
    write_table(
        root / "corpus/contamination.parquet",
        [
            {
                "query_id": f"contaminated{number}",
                "source": "made_up",
                "benchmark": "hard_math",
                "problem_id": f"p{number}",
                "method": "exact" if number else "ngram",
                "score": 1.0,
                "dropped": True,
                "query": "What is 1 + 1?",
                "problem": "What is 1 + 1?",
            }
            for number in range(4)
        ],
        CONTAMINATION,
    )
    sweep = [("exact", 1.0, 3, 3), *(("ngram", step / 10, 40 - 4 * step, 20 - 2 * step) for step in range(1, 11))]
    sweep += [("embedding", 0.7 + 0.05 * step, 60 - 10 * step, 60 - 10 * step) for step in range(6)]
    write_table(
        root / "corpus/contamination_sweep.parquet",
        [dict(zip(CONTAMINATION_SWEEP.names, line, strict=True)) for line in sweep],
        CONTAMINATION_SWEEP,
    )


def _write_audit(root: Path, rows: list[dict], shards: int) -> None:
    """What checks the verdicts: in it one unfit reference, one false pass of four, and one verdict that load changes."""
    fit = [
        {**row, "fit": number > 0, "reason": "same_integer" if number else "part_ignored"}
        for number, row in enumerate(rows)
    ]
    for shard in range(shards):
        checks = [{name: row[name] for name in REFERENCE_CHECKS.names} for row in fit[shard::shards]]
        write_table(root / f"verification/references/{shard}.parquet", checks, REFERENCE_CHECKS)
    cases = [
        {
            **{"case_id": f"case{number}", "category": "math", "trap": "made_up", "text": "", "right": right},
            **{"expected": "pass" if right else "fail", "verdict": verdict, "score": 0.0, "reason": "told", "note": ""},
        }
        for number, (right, verdict) in enumerate(
            [(True, "pass"), (True, "fail"), (True, "unknown"), (False, "pass"), *[(False, "fail")] * 3]
        )
    ]
    write_table(root / "verification/audit/cases.parquet", cases, LABELLED_CASES)
    sample = []
    for number, row in enumerate(row for row in rows if row["category"] == "math"):
        verdicts = {"verdict": "pass", "loaded_verdict": "pass" if number else "unknown", "second_verdict": "fail"}
        sample.append(
            {
                **{name: row[name] for name in ("query_id", "category", "reference")},
                **{name: 0.0 for name in REVERIFIED.names if name.endswith("score")},
                **{name: "told" for name in REVERIFIED.names if name.endswith("reason")},
                **{
                    "teacher": "steps",
                    "attempt_id": f"a{number}",
                    "second": "plain_math_verify",
                    "text": "</think>It is 7.",
                },
                **verdicts,
            }
        )
    write_table(root / "verification/audit/sample.parquet", sample, REVERIFIED)


def _write_teacher(
    root: Path, teacher: str, rows: list[dict], level: dict[str, int], shards: int, rng: np.random.Generator
) -> list[dict]:
    traces = []
    for shard in range(shards):
        attempts, found = [], []
        ledger = Ledger("collect_attempts", f"{teacher}/{shard}", len(rows[shard::shards]))
        for query in rows[shard::shards]:
            solved = False
            for attempt in range(ATTEMPTS):
                if solved:
                    break
                solved = bool(rng.random() < RIGHT[teacher] - 0.04 * level[query["query_id"]])
                attempts.append(_attempt(teacher, shard, query, level[query["query_id"]], attempt, solved, rng))
            if solved:
                ledger.keep(1)
                found.append(_trace(attempts[-1], query, rng))
            else:
                ledger.drop(query["query_id"], "gave_up")
        write_table(root / f"verification/{teacher}/{shard}/attempts.parquet", attempts, COLLECTED)
        _write_ledger(ledger, root / f"verification/{teacher}/{shard}/attempts")
        curated = Ledger("curate_traces", f"{teacher}/{shard}", len(found))
        curated.keep(len(found))
        write_table(root / f"curation/{teacher}/{shard}/traces.parquet", found, TRACES)
        _write_ledger(curated, root / f"curation/{teacher}/{shard}/traces")
        traces += found
        _write_perplexities(root, teacher, shard, found)
    return traces


def _attempt(
    teacher: str, shard: int, query: dict, level: int, attempt: int, solved: bool, rng: np.random.Generator
) -> dict:
    thinking = trace_text(teacher, int(query["reference"]), level)
    answer = f"\\boxed{{{query['reference'] if solved else 0}}}"
    tokens = {"steps": 30 * level, "recheck": 220, "leaps": 20}[teacher] + int(rng.integers(1, 30))
    return {
        "attempt_id": f"{teacher}-{query['query_id']}-{attempt}",
        "query_id": query["query_id"],
        "teacher": teacher,
        "shard": shard,
        "round": attempt,
        "attempt": attempt,
        "prompt": query["turns"][0]["content"],
        "text": f"<think>{thinking}</think><answer>{answer}</answer>",
        "thinking": thinking,
        "answer": answer,
        "finish_reason": "stop",
        "prompt_tokens": 20,
        "output_tokens": tokens,
        "seconds": tokens / 1000,
        "model": f"./models/{teacher}",
        "model_digest": "0" * 32,
        "engine": "vllm",
        "engine_version": "0.1",
        "hardware": "none",
        "devices": 1,
        "conversion": "",
        "settings": json.dumps({"temperature": 0.6}),
        "verdict": "pass" if solved else "fail",
        "score": float(solved),
        "reason": "equal" if solved else "different",
        "verifier": "math_verify",
        "verifier_version": "0.9.0",
        "evidence": json.dumps({"answer": "0", "reference": query["reference"]}),
        "accepted": solved,
    }


def _write_perplexities(root: Path, teacher: str, shard: int, traces: list[dict]) -> None:
    """Perplexities of a shard's traces under a second scorer."""
    blank = {"scorer": "other", "scope": "response", "length": 20, "tokens": 10, "state": "scored"}
    rng = np.random.default_rng(11)
    rows = []
    for trace in traces:
        value = float(trace["perplexity"] * np.exp(rng.normal(0, 0.05)))
        about = {"attempt_id": trace["attempt_id"], "query_id": trace["query_id"]}
        rows.append(blank | about | {"nll": 10 * float(np.log(value)), "perplexity": value})
    write_table(root / f"curation/{teacher}/{shard}/other.perplexities.parquet", rows, PERPLEXITIES)


def _trace(attempt: dict, query: dict, rng: np.random.Generator) -> dict:
    perplexity = {"steps": 1.3, "recheck": 1.2, "leaps": 1.8}[attempt["teacher"]]
    return {
        **query,
        "attempt_id": attempt["attempt_id"],
        "teacher": attempt["teacher"],
        "system": "",
        "prompt": attempt["prompt"],
        "thinking": attempt["thinking"],
        "answer": attempt["answer"],
        "verify_score": 1.0,
        "attempts": attempt["attempt"] + 1,
        "output_tokens": attempt["output_tokens"],
        "cut_characters": 0,
        "perplexity": float(perplexity * np.exp(rng.normal(0, 0.15))),
    }


def _write_student(
    root: Path, teacher: str, seed: int, rows: int, problems: int, samples: int, rng: np.random.Generator
) -> None:
    student = f"{CONTROL}/{teacher}/{seed}"
    steps = 200
    floor = {"steps": 0.2, "recheck": 0.1, "leaps": 0.6}[teacher]
    write_table(
        root / f"training/{student}/log.parquet",
        [
            {
                "step": step,
                "epoch": 2 * step / steps,
                "loss": float(floor + 2.5 * np.exp(-step / 30) + rng.normal(0, 0.04)),
                "learning_rate": 1e-3,
                "gradient_norm": 1.0,
                "tokens": 4096 * step,
                "loss_tokens": 3000 * step,
                "seconds": 0.2 * step,
            }
            for step in range(1, steps + 1)
        ],
        TRAINING_LOG,
    )
    write_json(
        root / f"training/{student}/summary.json",
        {
            "rows": rows,
            "excluded": 1,
            "excluded_tokens": 9000,
            "samples": rows - 1,
            "tokens_per_epoch": 4096 * steps // 2,
            "loss_tokens_per_epoch": 3000 * steps // 2,
            "packed_rows": 300,
            "fill": 0.98,
            "tokens": 4096 * steps,
            "loss_tokens": 3000 * steps,
            "steps": steps,
            "seconds": 40.0 + seed,
            "devices": 1,
            "device_hours": None,
            "peak_memory": 2**30,
            "parameters": 250_000,
            "digest": "1" * 32,
        },
    )
    texts = [("prompt", "<|im_start|>user\nWhat is 1 + 1?"), ("response", "<think>2</think>"), ("end", "<|im_end|>")]
    batch = [[{"kind": kind, "tokens": 9, "text": text} for kind, text in texts]] * 2
    preflight = {
        "isolation": {"neighbour": 0.0, "own": 0.02},
        "accumulation": {"together": 2.0, "apart": 2.000002},
        "repetition": {"loss": (2.0, 2.0), "gradient norm": (0.5, 0.5)},
        "batch": batch,
    }
    write_json(root / f"training/{student}/preflight.json", preflight)
    ledger = Ledger("train_student", student, rows)
    ledger.keep(rows - 1)
    ledger.drop("f" * 32, "too_long", "9000 tokens")
    _write_ledger(ledger, root / f"training/{student}/rows")
    for benchmark in BENCHMARKS:
        scored = []
        for problem in range(problems):
            chance = np.clip(STUDENT[teacher] + 0.2 * np.sin(problem) - 0.3 * (benchmark == "hard_math"), 0, 1)
            for sample in range(samples):
                passed = bool(rng.random() < chance)
                scored.append(
                    {
                        "sample_id": f"{student}-{benchmark}-{problem}-{sample}",
                        "student": student,
                        "benchmark": benchmark,
                        "problem_id": f"p{problem:03d}",
                        "sample": sample,
                        "difficulty": 1,
                        "prompt": "What is 1 + 1?",
                        "reference": "2",
                        "text": "...",
                        "thinking": "...",
                        "answer": "\\boxed{2}" if sample else None,
                        "finish_reason": "length" if sample == 3 else "stop",
                        "output_tokens": int(rng.integers(20, 300)),
                        "lighteval_metric": "pass@1",
                        "lighteval_score": float(passed),
                        "verdict": "pass" if passed else "fail",
                        "score": float(passed),
                        "reason": "equal" if passed else "different",
                    }
                )
        write_table(root / f"evaluation/{student}/{benchmark}.scored.parquet", scored, SCORED_SAMPLES)
        if student == f"{CONTROL}/steps/0":
            # The model beside the students answers as this one does.
            beside = [{**row, "student": "models/steps/0"} for row in scored]
            write_table(root / f"evaluation/models/steps/0/{benchmark}.scored.parquet", beside, SCORED_SAMPLES)
