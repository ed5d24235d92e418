"""What a study takes on GPUs before anything of it has run: GPU-hours, hours, machines and disk per stage.

    .venv/bin/python tools/estimate_scale.py config/paper.yaml

Reads what the configuration says (teachers, rounds, judges, scorers, recipe, benchmarks, GPUs per job) and the paper's printed
numbers in config/published; everything else is an assumption, an option with its source. Once a pilot has run, `snakemake plan`
says from measurements what generation will take.

A Markdown table: what of the study, its jobs that can run side by side and the GPUs of each, GPU-hours, hours on `--gpus` GPUs
and the machines these hours keep busy, disk. Left out: what takes no GPU, the semantic check of the corpus, loading of models, jobs
that wait, retries, the second judges, who see a sample, and models evaluated beside the students.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from whichteacher.config import ConfigError, Study, check_config  # noqa: E402
from whichteacher.model_sizes import Size, size_of  # noqa: E402

PUBLISHED = ROOT / "config" / "published"
#: The paper's names of categories, and what of ours falls under each.
_CATEGORIES = {
    "math": ["math"],
    "code": ["code"],
    "science": ["science"],
    "if": ["instruction_following"],
    "general chat": ["multi_turn", "general"],
}
_BYTES_PER_GIB = 2**30


def _assumed(default: float, text: str) -> float:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Assumptions:
    """What the configuration does not say; the help of each says where its value is from."""

    queries: float = _assumed(
        1_890_700,
        "queries each teacher answers; what the paper kept of them (config/published/fig2_shares.csv), for it does "
        "not say how many were asked",
    )
    accepted: float = _assumed(
        0.7,
        "share of the open queries that each further attempt solves; assumed, the paper prints none, `snakemake plan` measures it",
    )
    prompt_tokens: float = _assumed(
        315,
        "tokens of a query with system prompt and template; what the steps of Figure 6 leave beside the tokens of Figure 2",
    )
    judge_tokens: float = _assumed(500, "tokens a judge writes for a question; assumed")
    peak_tflops: float = _assumed(
        989, "dense bfloat16 operations of one GPU, 10^12 a second; NVIDIA's data sheet of the H100 SXM"
    )
    decode_use: float = _assumed(
        0.05,
        "share of these that an engine reaches while it writes; assumed, 750 tokens a second and GPU of a dense 32B model",
    )
    prefill_use: float = _assumed(0.4, "share of these that an engine reaches while it reads; assumed")
    training_use: float = _assumed(
        0.35, "share of these that training reaches, counted as 6 operations per parameter and token (MFU); assumed"
    )
    bytes_per_token: float = _assumed(4, "bytes of text of a token; assumed")
    compression: float = _assumed(3, "how many times smaller text is in Parquet; assumed")
    gpus: float = _assumed(256, "GPUs at hand; yours")
    gpus_per_node: float = _assumed(8, "GPUs of one machine; as in a DGX H100")


class Line(NamedTuple):
    """One line of the table; ``jobs`` can run side by side, on ``devices`` GPUs each."""

    stage: str
    jobs: int
    devices: int
    gpu_hours: float
    disk: float


def known_size(model: str) -> Size:
    """The size of a model. Raises :class:`ConfigError` where neither its name nor its card tells it."""
    size = size_of(model)
    if size is None:
        raise ConfigError(
            f"model {model}: its name says no size: give it a name like org/model-32B, or add it to "
            "workflow/whichteacher/model_sizes.py"
        )
    return size


def attempts_per_query(rounds: Sequence[int], accepted: float) -> float:
    """Responses that a query is given in the mean, where each solves it with the chance ``accepted`` and only open queries come to
    the next round."""
    total, open_share = 0.0, 1.0
    for samples in rounds:
        total += samples * open_share
        open_share *= (1 - accepted) ** samples
    return total


def hours_of(operations: float, use: float, assumed: Assumptions) -> float:
    """GPU-hours of so many floating-point operations, where the GPU does the share ``use`` of what it could."""
    return operations / (use * assumed.peak_tflops * 1e12) / 3600


def answering(active: float, read: float, written: float, assumed: Assumptions) -> float:
    """GPU-hours in which a model with so many ``active`` parameters reads and writes so many tokens."""
    reading = hours_of(2 * active * read, assumed.prefill_use, assumed)
    return reading + hours_of(2 * active * written, assumed.decode_use, assumed)


def printed(name: str, item: str, statistic: str) -> dict[str, float]:
    """A number of config/published by teacher, as the paper's figures call them."""
    table = pd.read_csv(PUBLISHED / name)
    rows = table[(table["item"] == item) & (table["statistic"] == statistic)]
    return dict(zip(rows["teacher"], rows["value"], strict=True))


def of_teacher(numbers: dict[str, float], label: str) -> float:
    """The number of the teacher called ``label``; the mean of all of them for one that the paper does not have."""
    return numbers.get(label, sum(numbers.values()) / len(numbers))


def estimate(study: Study, assumed: Assumptions) -> list[Line]:
    """The lines of the table, in the order the data flows. Raises :class:`ConfigError` for a model that has no
    size in its name, and for a study without teachers."""
    if not study.teachers:
        raise ConfigError("the study has no teachers: name a configuration that has some")
    lengths = printed("fig2_shares.csv", "all", "output_tokens_per_instance")
    tokens = {name: of_teacher(lengths, teacher.label) for name, teacher in study.teachers.items()}
    attempts = {
        name: attempts_per_query(teacher.attempts, assumed.accepted)
        for name, teacher in study.teachers.items()
        if teacher.engine != "dataset"
    }
    return [
        *_generation(study, assumed, tokens, attempts),
        *_judges(study, assumed, tokens, attempts),
        *_curation(study, assumed, tokens),
        *_training(study, assumed, tokens),
        *_evaluation(study, assumed),
        Line("weights of all models", 0, 0, 0, sum(2 * known_size(model).parameters for model in _models(study))),
    ]


def _models(study: Study) -> set[str]:
    """What the engines load, whose weights must lie where the jobs run: two bytes a number, the most that is usual."""
    scorers = study.curation.perplexity.scorers if study.curation.perplexity else {}
    served = [*study.teachers.values(), *study.verification.judges.values()]
    base = [study.training.base] if study.training and study.training.base else []
    loaded = [model for model in served if model.engine in ("vllm", "reward")]
    return {model.model for model in [*loaded, *scorers.values(), *base]}


def _stored(tokens: float, assumed: Assumptions) -> float:
    """Bytes of so many tokens of text in Parquet."""
    return tokens * assumed.bytes_per_token / assumed.compression


def _generation(study: Study, assumed: Assumptions, tokens: dict[str, float], attempts: dict[str, float]) -> list[Line]:
    """A line per teacher that answers. A response lies in the store, in the table of its round and among all attempts."""
    lines = []
    for name, number in attempts.items():
        teacher, asked = study.teachers[name], assumed.queries * number
        hours = 0.0
        if teacher.engine == "vllm":
            active = known_size(teacher.model).active
            hours = answering(active, asked * assumed.prompt_tokens, asked * tokens[name], assumed)
        disk = 3 * _stored(asked * tokens[name], assumed)
        lines.append(Line(f"generation: {teacher.label}", study.corpus.shards, teacher.devices, hours, disk))
    return lines


def _judges(study: Study, assumed: Assumptions, tokens: dict[str, float], attempts: dict[str, float]) -> list[Line]:
    """A line per judge that runs here, as if it were asked about every attempt of its categories: the most it can be."""
    lines = []
    for name, judge in study.verification.judges.items():
        if judge.second or judge.engine == "openai":
            continue
        active = known_size(judge.model).active
        share = sum(
            printed("fig2_shares.csv", theirs, "instances_share")["all"] / 100
            for theirs, ours in _CATEGORIES.items()
            if set(ours) & set(judge.categories)
        )
        queries, hours = share * assumed.queries, 0.0
        if "instruction_following" in judge.categories:  # once for all teachers
            hours += answering(active, queries * assumed.prompt_tokens, queries * assumed.judge_tokens, assumed)
        else:
            for teacher, number in attempts.items():
                asked = queries * number
                if judge.engine == "reward":  # reads all and writes nothing
                    hours += answering(active, asked * (assumed.prompt_tokens + tokens[teacher]), 0, assumed)
                else:  # reads the query, the reference and the answer after the thinking
                    hours += answering(active, asked * 2 * assumed.prompt_tokens, asked * assumed.judge_tokens, assumed)
        lines.append(Line(f"verification: {name}", study.corpus.shards * len(attempts), judge.devices, hours, 0))
    return lines


def _curation(study: Study, assumed: Assumptions, tokens: dict[str, float]) -> list[Line]:
    """A line per scorer and one for what is stored: sketches of n-grams, traces, datasets, and the release, Parquet and JSON."""
    read = {name: assumed.queries * (assumed.prompt_tokens + length) for name, length in tokens.items()}
    scorers = study.curation.perplexity.scorers if study.curation.perplexity else {}
    jobs = study.corpus.shards * len(tokens)
    lines = [
        Line(
            f"curation: {name}",
            jobs,
            scorer.devices,
            answering(known_size(scorer.model).active, sum(read.values()), 0, assumed),
            0,
        )
        for name, scorer in scorers.items()
    ]
    written = sum(assumed.queries * length for length in tokens.values())
    controls = len(study.curation.controls)
    # A sketch takes a byte a token (docs/curation.md).
    disk = written + _stored(written, assumed) * (1 + 2 * controls) + written * assumed.bytes_per_token * controls
    return [*lines, Line("curation: tables", jobs, 0, 0, disk)]


def _training(study: Study, assumed: Assumptions, tokens: dict[str, float]) -> list[Line]:
    """One line: a student per teacher, control and seed, each on every query's trace."""
    if study.training is None or study.training.base is None:
        return []
    everything = known_size(study.training.base.model).parameters
    students = len(study.curation.controls) * len(study.training.seeds)
    seen = sum(
        study.training.recipe.epochs * assumed.queries * (assumed.prompt_tokens + each) for each in tokens.values()
    )
    hours = students * hours_of(6 * everything * seen, assumed.training_use, assumed)
    # The student in two bytes a number; while it trains, a checkpoint with three numbers of four bytes for AdamW besides.
    disk = students * len(tokens) * everything * (2 + 14)
    return [Line("training", students * len(tokens), study.training.recipe.devices, hours, disk)]


def _evaluation(study: Study, assumed: Assumptions) -> list[Line]:
    """One line: the samples of every student, as long as those of Table 2."""
    if study.training is None or study.training.base is None or study.evaluation is None:
        return []
    active = known_size(study.training.base.model).active
    students = len(study.curation.controls) * len(study.training.seeds)
    samples = written = 0.0
    for benchmark in study.evaluation.benchmarks.values():
        lengths = printed("table2_lengths.csv", benchmark.role, "student")
        for teacher in study.teachers.values():
            asked = students * benchmark.samples * (benchmark.expected_problems or 0)
            samples, written = samples + asked, written + asked * of_teacher(lengths, teacher.label)
    hours = answering(active, samples * assumed.prompt_tokens, written, assumed)
    devices = study.evaluation.tensor_parallel * study.evaluation.data_parallel
    # In the store, as they were sampled and as they were scored.
    return [Line("evaluation", students * len(study.teachers), devices, hours, 3 * _stored(written, assumed))]


def table(lines: Sequence[Line], assumed: Assumptions) -> str:
    """The lines as a Markdown table with their sum; hours are those with as many jobs side by side as there are GPUs for."""
    rows = [
        f"| what | jobs | GPUs a job | GPU-hours | hours on {assumed.gpus:.0f} GPUs | machines | disk, GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    whole = 0.0
    for line in lines:
        hours = machines = 0.0
        if line.devices and line.gpu_hours:
            at_once = min(line.jobs, max(1, assumed.gpus // line.devices))
            machines = math.ceil(at_once * line.devices / assumed.gpus_per_node)
            hours = line.gpu_hours / (at_once * line.devices)
        whole += hours
        cells = [line.jobs, line.devices, line.gpu_hours, hours, machines, line.disk / _BYTES_PER_GIB]
        rows.append(f"| {line.stage} | " + " | ".join(f"{cell:,.0f}" if cell else "" for cell in cells) + " |")
    gpu_hours, disk = sum(line.gpu_hours for line in lines), sum(line.disk for line in lines) / _BYTES_PER_GIB
    return "\n".join([*rows, f"| **all, one after the other** | | | {gpu_hours:,.0f} | {whole:,.0f} | | {disk:,.0f} |"])


def main(arguments: Sequence[str]) -> None:
    """Print the table for the command line ``arguments``."""
    parser = argparse.ArgumentParser(
        prog="estimate_scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="the configuration of a study")
    for option in fields(Assumptions):
        told = f"{option.metadata['help']} (%(default)g)".replace("% ", "%% ")
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=float, default=option.default, help=told)
    given = vars(parser.parse_args(arguments))
    try:
        study = check_config(yaml.safe_load(given.pop("config").read_text(encoding="utf-8")), folders=False)
        assumed = Assumptions(**given)
        if wrong := next((name for name, value in given.items() if not value > 0), None):
            raise ConfigError(f"--{wrong.replace('_', '-')} (value {given[wrong]:g}): give a number above zero")
        print(table(estimate(study, assumed), assumed))
    except (ConfigError, OSError) as error:
        sys.exit(f"estimate_scale: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
