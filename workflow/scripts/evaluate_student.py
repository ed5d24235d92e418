"""Draw and score a student's samples on every benchmark, with LightEval and one engine start; or another model's.

Reads the student's model folder and a table of ``BENCHMARK_PROBLEMS`` per benchmark; writes a table of ``SAMPLES`` per
benchmark, ordered by problem and sample. A command of its own, because LightEval needs its own environment: it pins an
older math-verify than verification uses.

``lighteval_score`` is LightEval's verdict on one sample of a mathematics benchmark. On code benchmarks it is empty:
LightEval's code metric runs model-written programs without a sandbox, so only ``score_samples`` runs them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from whichteacher.responses import split_response
from whichteacher.rule import InputError, logged
from whichteacher.schemas import BENCHMARK_PROBLEMS, SAMPLES
from whichteacher.tables import read_table, versions, write_table

if TYPE_CHECKING:
    from whichteacher.lighteval_backend import Sample

#: Set before LightEval is imported: no data of an evaluation comes from a network, so nothing may wait for one.
ENVIRONMENT = {
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "GIT_PYTHON_REFRESH": "quiet",  # else a machine without git cannot import LightEval
    "TOKENIZERS_PARALLELISM": "false",
}


def read_problems(paths: Mapping[str, Path]) -> dict[str, pa.Table]:
    """The problems of each benchmark. Raises :class:`InputError` where one has none or a problem id twice."""
    tables = {}
    for name, path in paths.items():
        table = read_table(path, BENCHMARK_PROBLEMS)
        if not table.num_rows:
            raise InputError(f"{path}: benchmark {name} has no problems: check its entry in the config")
        ids = table["problem_id"].to_pylist()
        if len(set(ids)) != len(ids):
            twice = next(problem for problem in ids if ids.count(problem) > 1)
            raise InputError(f"{path}: problem {twice} of benchmark {name} is there twice: problem ids are unique")
        tables[name] = table
    return tables


def sample_rows(
    student: str,
    benchmark: str,
    problems: pa.Table,
    metric: str,
    samples: Mapping[str, Sequence[Sample]],
    answer_format: str,
) -> list[dict[str, Any]]:
    """Rows of ``SAMPLES`` for one benchmark, in the order of its problems; ``samples`` by problem id."""
    rows = []
    for problem in problems.to_pylist():
        for number, sample in enumerate(samples[problem["problem_id"]]):
            response = sample.response
            parts = split_response(response.text, answer_format)
            rows.append(
                {
                    "sample_id": response.key,
                    "student": student,
                    "benchmark": benchmark,
                    "problem_id": problem["problem_id"],
                    "sample": number,
                    "difficulty": problem["difficulty"],
                    "prompt": sample.prompt,
                    "reference": problem["reference"],
                    "text": response.text,
                    "thinking": parts.thinking,
                    "answer": parts.answer,
                    "finish_reason": response.finish_reason,
                    "output_tokens": response.output_tokens,
                    "lighteval_metric": metric,
                    "lighteval_score": sample.score,
                }
            )
    return rows


def main(
    student: str,
    model: str,
    problems: Sequence[Path],
    outputs: Sequence[Path],
    settings: dict[str, Any],
    store: Path,
) -> None:
    """Evaluate ``student``, whose weights lie in ``model``: a folder, or a hub id where the settings hold a ``revision``.

    ``settings`` is the evaluation block of the configuration with ``answer_format`` and, per benchmark, its category,
    samples and layout; ``problems`` and ``outputs`` are in the order of its benchmarks.
    """
    tables = read_problems(dict(zip(settings["benchmarks"], problems, strict=True)))
    with tempfile.TemporaryDirectory(prefix="evaluate_student.") as scratch:
        os.environ.update(ENVIRONMENT, HF_DATASETS_CACHE=f"{scratch}/datasets")
        if settings["revision"] is None:
            os.environ["HF_HUB_OFFLINE"] = "1"
        from whichteacher.engines.specs import VllmSpec
        from whichteacher.lighteval_backend import Task, run_tasks

        spec = VllmSpec(
            model=model,
            revision=settings["revision"],
            dtype=settings["dtype"],
            max_model_len=settings["max_model_len"],
            tensor_parallel=settings["tensor_parallel"],
            data_parallel=settings["data_parallel"],
            sampling=settings["sampling"],
        )
        tasks = [
            Task(
                name,
                each["category"],
                each["samples"],
                settings["suffixes"].get(each["category"], ""),
                tables[name],
                each["layout"],
                each["task"],
            )
            for name, each in settings["benchmarks"].items()
        ]
        prompting = settings["system_prompt"], settings["answer_format"]
        samples = run_tasks(tasks, student, spec, *prompting, store, Path(scratch))
    for task, output in zip(tasks, outputs, strict=True):
        rows = sample_rows(
            student, task.name, task.problems, task.metric, samples[task.name], settings["answer_format"]
        )
        drawn = [sample.response for each in samples[task.name].values() for sample in each]
        write_table(
            output,
            rows,
            SAMPLES,
            {
                "settings": {**settings, "benchmarks": {task.name: settings["benchmarks"][task.name]}},
                "model_digest": drawn[0].model_digest,
                "engines": sorted({response.engine_version for response in drawn}),
                "packages": versions("lighteval", "latex2sympy2_extended", "transformers", "datasets"),
            },
        )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Evaluate one student on all benchmarks.")
    parser.add_argument("--student", required=True, help="its name, control/teacher/seed")
    parser.add_argument("--model", required=True, help="folder of its weights and tokenizer, or a hub id")
    parser.add_argument("--problems", required=True, type=Path, nargs="+", help="tables of BENCHMARK_PROBLEMS")
    parser.add_argument(
        "--samples", required=True, type=Path, nargs="+", help="tables of SAMPLES to write, as --problems"
    )
    parser.add_argument("--settings", required=True, type=json.loads, help="evaluation settings, as JSON")
    parser.add_argument("--store", required=True, type=Path, help="folder of the store")
    parser.add_argument("--log", required=True, type=Path, help="file for everything this prints")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    told = parse_arguments()
    control, teacher, seed = told.student.split("/")
    job = SimpleNamespace(
        rule="evaluate_student",
        log=[told.log],
        wildcards={"control": control, "teacher": teacher, "seed": seed},
    )
    with logged(job):
        main(told.student, told.model, told.problems, told.samples, told.settings, told.store)
