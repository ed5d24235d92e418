"""The models and data sets of a study: what they weigh, whether they are pinned, at hand and readable."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from whichteacher.config import UNPINNED, Loaded, ModelRef, Study, unpinned_revisions
from whichteacher.doctor.findings import Finding
from whichteacher.model_sizes import size_of
from whichteacher.places import locate

#: Bytes of a parameter. ``auto`` takes what was saved: nearly always two bytes.
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "auto": 2.0}
#: Bytes of a parameter in training by DeepSpeed's stage and whether it offloads: those on every device, and those shared out.
_TRAINING_BYTES = {
    (None, False): (16, 0),
    ("zero2", False): (2, 14),
    ("zero2", True): (2, 2),
    ("zero3", False): (0, 16),
    ("zero3", True): (0, 2),
}
_SHOWN_KEYS = 6


class Use(NamedTuple):
    """A model that the study loads. ``spread`` is the number of devices that hold one copy of the weights, ``devices`` the GPUs
    of one job, ``share`` the part of a device's memory that its engine takes; ``templated``: whether its chat template writes
    the prompts."""

    key: str
    model: str
    revision: str | None
    dtype: str
    quantization: str | None = None
    spread: int = 1
    devices: int = 1
    share: float = 0.9
    templated: bool = True

    @property
    def is_local(self) -> bool:
        """Whether it is a folder."""
        return _is_local(self.model)


def _is_local(name: str) -> bool:
    return name.startswith(("./", "../", "/"))


def loaded_models(study: Study) -> list[Use]:
    """The models whose weights the study loads to generate, judge, score or evaluate, by their configuration keys; those of the
    miniature ask for no GPU. Students in training are not among them, nor is the :func:`encoder`."""
    uses = [
        *(_use(f"teachers.{name}", each) for name, each in study.teachers.items() if each.engine == "vllm"),
        *(
            _use(f"verification.judges.{name}", each)
            for name, each in study.verification.judges.items()
            if each.engine in ("vllm", "reward")
        ),
    ]
    perplexity = study.curation.perplexity if study.curation else None
    for name, scorer in perplexity.scorers.items() if perplexity else ():
        uses.append(_use(f"curation.perplexity.scorers.{name}", scorer))
    evaluation = study.evaluation
    for name, model in evaluation.models.items() if evaluation else ():
        parallel = {"spread": model.tensor_parallel, "devices": model.tensor_parallel * model.data_parallel}
        uses.append(Use(f"evaluation.models.{name}", model.model, model.revision, model.dtype, **parallel))
    if evaluation and study.training:
        base = study.training.base
        parallel = {
            "spread": evaluation.tensor_parallel,
            "devices": evaluation.tensor_parallel * evaluation.data_parallel,
        }
        # A student is its base model, trained; one from scratch weighs nothing to speak of.
        place = (base.model, base.revision) if base else ("", None)
        uses.append(Use("evaluation (students)", *place, evaluation.dtype, **parallel, templated=False))
    return [use._replace(devices=0) for use in uses] if study.miniature else uses


def encoder(study: Study) -> Use | None:
    """The model that compares queries with benchmark problems; it runs on CPUs as well."""
    decontaminate = study.corpus.decontaminate
    if not study.teachers or decontaminate.embedder in (None, "hashed_words"):
        return None
    key, revision = "corpus.decontaminate.embedder", decontaminate.embedder_revision
    return Use(key, decontaminate.embedder, revision, "auto", devices=0, templated=False)


def _use(key: str, model: Loaded) -> Use:
    return Use(
        key,
        model.model,
        model.revision,
        model.dtype,
        model.quantization,
        model.tensor_parallel * model.pipeline_parallel,
        model.devices,
        model.vllm_arguments.get("gpu_memory_utilization", 0.9),
    )


def templates(study: Study) -> list[Use]:
    """The models whose tokenizer and chat template the pipeline itself uses."""
    uses = [use for use in loaded_models(study) if use.templated]
    served = [(f"teachers.{name}", each) for name, each in study.teachers.items()]
    served += [(f"verification.judges.{name}", each) for name, each in study.verification.judges.items()]
    return uses + [_use(key, each) for key, each in served if each.engine == "openai" and each.is_loaded]


def tokenizers(study: Study) -> dict[str, ModelRef]:
    """The models of whom the tokenizer alone is needed, by configuration key."""
    return {"curation.ngrams.tokenizer": study.curation.ngrams.tokenizer} if study.curation else {}


def hub_weights(study: Study) -> set[tuple[str, str]]:
    """(hub id, commit) of every model of a hub whose weights are loaded."""
    loaded = [*loaded_models(study), *filter(None, [encoder(study), study.training and study.training.base])]
    return {(model.model, model.revision) for model in loaded if model.model and not model.is_local}


def hub_models(study: Study) -> set[tuple[str, str]]:
    """(hub id, commit) of every model of a hub of which anything is used."""
    named = [*templates(study), *tokenizers(study).values()]
    return hub_weights(study) | {(model.model, model.revision) for model in named if not model.is_local}


def hub_data(study: Study) -> set[tuple[str, str]]:
    """(hub id, commit) of every data set of a hub."""
    named = [(each.hub, each.revision) for each in study.corpus.sources.values()]
    named += [(each.hub, each.revision) for each in (study.evaluation.benchmarks.values() if study.evaluation else ())]
    named += [(each.traces, each.traces_revision) for each in study.teachers.values()]
    return {(name, revision) for name, revision in named if name and revision}


def weight_bytes(use: Use) -> float | None:
    """Bytes of the weights in memory, reckoned from the files of a local folder or the hub id; None where neither tells."""
    if use.is_local:
        return _local_bytes(use)
    size = size_of(use.model)
    return None if size is None else size.parameters * _bytes_of(use.dtype, use.quantization)


def _bytes_of(dtype: str, quantization: str | None) -> float:
    if quantization is None:
        return _BYTES[dtype]
    return 1.0 if "8" in quantization else 0.5


def _local_bytes(use: Use) -> float | None:
    folder = Path(locate(use.model))
    files = weight_files(folder)
    if not files:
        return None
    size = float(sum(path.stat().st_size for path in files))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return size
    saved = _BYTES.get(str(config.get("dtype") or config.get("torch_dtype")))
    if saved is None or "quantization_config" in config or (use.dtype == "auto" and use.quantization is None):
        return size
    return size / saved * _bytes_of(use.dtype, use.quantization)


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that hold weights: safetensors, or where there are none PyTorch's own."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))


def check_revisions(study: Study) -> list[Finding]:
    """Whether every model and data set of a hub is pinned to a commit (that it is one, the configuration's own check says)."""
    zeros = unpinned_revisions(study)
    if zeros:
        more = f" and {len(zeros) - _SHOWN_KEYS} more, named above" if len(zeros) > _SHOWN_KEYS else ""
        return [
            Finding(
                "revisions",
                "fault",
                f"{len(zeros)} commits are all zeros, which no hub has ({', '.join(zeros[:_SHOWN_KEYS])}{more})",
                "put in the commit that you use",
            )
        ]
    pinned = len(hub_models(study) | hub_data(study))
    return [Finding("revisions", "ok", f"{pinned} models and data sets of a hub, all pinned")] if pinned else []


def check_local_models(study: Study) -> list[Finding]:
    """Whether the folders of local models hold a configuration and weights that can be read."""
    loaded = [*loaded_models(study), *filter(None, [encoder(study)])]
    uses = {use.model: use for use in loaded if use.model and use.is_local}
    if study.training and study.training.base and study.training.base.is_local:
        base = study.training.base
        uses.setdefault(base.model, Use("training.base", base.model, None, base.dtype))
    findings = []
    for name, use in uses.items():
        folder = Path(locate(name))
        if not (folder / "config.json").is_file():
            fault = "no config.json"
        elif not (files := weight_files(folder)):
            fault = "no weights (*.safetensors)"
        elif locked := [path.name for path in [folder / "config.json", *files] if not os.access(path, os.R_OK)]:
            fault = f"{locked[0]} may not be read"
        elif empty := [path.name for path in files if path.stat().st_size < 8]:
            fault = f"{empty[0]} is empty"
        else:
            continue
        findings.append(
            Finding(f"model {use.key}", "fault", f"{name}: {fault}", "put the whole model there, readable by you")
        )
    if uses and not findings:
        findings.append(Finding("local models", "ok", f"{len(uses)} folders with weights, all readable"))
    return findings


def local_files(study: Study) -> dict[str, list[str]]:
    """The local files that queries, traces and problems come from, by configuration key; none for what the miniature makes."""
    if study.miniature:
        return {}
    found = {f"corpus.sources.{name}.path": each.files for name, each in study.corpus.sources.items() if each.files}
    for name, each in study.evaluation.benchmarks.items() if study.evaluation else ():
        if each.path:
            found[f"evaluation.benchmarks.{name}.path"] = [each.path]
    return found


def check_files(study: Study) -> list[Finding]:
    """Whether the local files of sources and benchmarks are there and can be read."""
    wanted = local_files(study)
    lacking = [
        Finding(f"files {key}", "fault", f"{path}: no such file, or not readable", "correct the path, or put it there")
        for key, paths in wanted.items()
        for path in paths
        if not os.access(locate(path), os.R_OK)
    ]
    if wanted and not lacking:
        return [Finding("files", "ok", f"{sum(map(len, wanted.values()))} local files of queries and problems")]
    return lacking


def check_remote_code(study: Study) -> list[Finding]:
    """Which models bring code of their own that the study runs."""
    return [
        Finding(
            f"code of verification.judges.{name}",
            "warning",
            f"trust_remote_code runs what lies beside the weights of {judge.model}",
            f"read it at commit {judge.revision}" if judge.revision else "read it",
        )
        for name, judge in study.verification.judges.items()
        if judge.trust_remote_code and judge.revision != UNPINNED
    ]


def training_bytes(study: Study) -> tuple[float, float] | None:
    """Bytes on each device that weights, gradients and optimizer states of one student take, and parameters of its base; reckoned
    without activations. None where there is no base or its size is not known.

    AdamW needs 16 bytes per parameter, however they are split: 4 for weights, gradients and each moment in float32, or under
    DeepSpeed 2 for weights and gradients and 12 for its states. Adapters train on a frozen base.
    """
    training = study.training
    if training is None or training.base is None:
        return None
    base, recipe = training.base, training.recipe
    whole = weight_bytes(Use("training.base", base.model, base.revision, "float32"))
    if whole is None:
        return None
    count = whole / 4
    if recipe.lora is not None:
        return count * (2 if recipe.bf16 else 4), count
    kept, shared = _TRAINING_BYTES[recipe.deepspeed, recipe.offload]
    return count * (kept + shared / recipe.devices), count


def queries_known(study: Study) -> float | None:
    """Queries of the corpus at most, as far as the configuration or the size of local files (a query per KiB) tells; None
    where a source of a hub has no limit."""
    if study.miniature:
        return float(sum(study.miniature.queries.values()))
    total = 0.0
    for source in study.corpus.sources.values():
        here = [Path(locate(path)) for path in source.files]
        size = sum(path.stat().st_size for path in here if path.is_file()) / 1024 if here else math.inf
        total += min(size, source.limit or math.inf)
    return None if math.isinf(total) else total


def students(study: Study) -> int:
    """How many students the study trains."""
    if not (study.training and study.curation):
        return 0
    return len(study.curation.controls) * len(study.teachers) * len(study.training.seeds)


def generating(study: Study) -> Iterator[tuple[int, int]]:
    """Attempts of the first round and longest response of each teacher that generates."""
    for teacher in study.teachers.values():
        if teacher.engine != "dataset":
            yield teacher.attempts[0], teacher.sampling.max_tokens
