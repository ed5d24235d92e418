"""LightEval's own tasks as benchmarks: found by name, read into the table of problems, scored by their metric sample by sample.

Needs the evaluation environment. LightEval's registry imports all of its task modules, and some of them fetch data when imported; here
only the modules that name the task are.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lighteval.tasks.tasks
from datasets import load_dataset
from lighteval.metrics.metrics_sample import SamplingMetric
from lighteval.metrics.utils.metric_utils import Metric
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.lighteval_task import LightevalTask, LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod

from whichteacher.references import infer_type
from whichteacher.rule import InputError

_ROOT = Path(next(iter(lighteval.tasks.tasks.__path__)))
#: The one part of LightEval 0.13.0 that executes what a model wrote, in its own process.
_RUNS_PROGRAMS = f"{lighteval.tasks.tasks.__name__}.lcb."
#: What of a document its metric or prompt may need beside the query, which is the problem's prompt.
_KEPT = ("choices", "gold_index", "instruction", "specific")


def find_task(name: str) -> LightevalTaskConfig:
    """LightEval's configuration of the task ``name`` (``gsm8k``, ``mmlu:anatomy``), as ``lighteval tasks list`` prints it.

    Raises :class:`InputError` where there is none, or none whose metric scores written answers one by one.
    """
    for module in _modules(name):
        for config in getattr(module, "TASKS_TABLE", ()):
            if config.name == name:
                _metric(config)
                return config
    raise InputError(f"LightEval has no task {name!r}: `lighteval tasks list` has their names")


def _modules(name: str) -> Iterator[Any]:
    """The task modules whose source holds the name, or the part before its colon as the beginning of one."""
    family = re.escape(name.partition(":")[0])
    said = re.compile(rf"""["'](?:{re.escape(name)}["']|{family}:)""")
    for path in sorted(_ROOT.rglob("*.py")):
        if said.search(path.read_text(encoding="utf-8")):
            parts = path.relative_to(_ROOT).with_suffix("").parts
            try:
                yield importlib.import_module(".".join((lighteval.tasks.tasks.__name__, *parts)))
            except ImportError as error:
                raise InputError(f"LightEval's {'/'.join(parts)} needs a package that is not here: {error}") from error


def _metric(config: LightevalTaskConfig) -> Metric:
    """The task's first metric that scores one written answer. Raises :class:`InputError` where it has none, or runs programs."""
    for metric in config.metrics:
        if type(metric.sample_level_fn).__module__.startswith(_RUNS_PROGRAMS):
            raise InputError(
                f"LightEval's task {config.name!r} would run programs without a sandbox: name its problems with `hub` and `layout`"
            )
        if metric.category == SamplingMethod.GENERATIVE and not metric.batched_compute:
            return metric
    raise InputError(
        f"LightEval's task {config.name!r} scores no written answers one by one (it compares likelihoods, or asks a judge): "
        "choose a task with a generative metric"
    )


def metric_name(config: LightevalTaskConfig) -> str:
    """The name of the metric a task is scored by, the first where several are computed together."""
    name = _metric(config).metric_name
    return name if isinstance(name, str) else name[0]


def scorer(config: LightevalTaskConfig) -> Callable[[Doc, ModelResponse], float]:
    """What scores one sample by the task's metric: one that averages over samples scores each of them."""
    metric, name = _metric(config), metric_name(config)
    if isinstance(metric.sample_level_fn, SamplingMetric):
        return metric.sample_level_fn.compute_score

    def score(doc: Doc, response: ModelResponse) -> float:
        return float(metric.compute_sample(doc=doc, model_response=response)[name])

    return score


def read_problems(name: str, task: str, category: str, revision: str | None, path: str | None) -> list[dict[str, Any]]:
    """The problems of LightEval's ``task`` as rows of BENCHMARK_PROBLEMS for the benchmark ``name``.

    They are read from its data set on the hub at the commit ``revision``, or from the JSONL file ``path`` of the same columns.
    The prompt is the task's, without examples; the reference is its first correct choice. Raises :class:`InputError` where a row
    does not fit the task.
    """
    config = dataclasses.replace(find_task(task), hf_revision=revision, num_fewshots=0)
    loaded = LightevalTask(config)
    if path is not None:
        split, *more = config.evaluation_splits
        if more:
            raise InputError(f"LightEval's task {task!r} joins {len(more) + 1} splits: it cannot be read from one file")
        if not Path(path).stat().st_size:
            return []
        rows = load_dataset("json", data_files={split: path})
        loaded.dataset = rows.filter(config.hf_filter) if config.hf_filter else rows
    try:
        docs = loaded.eval_docs()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path or config.hf_repo}: not the columns LightEval's {task} reads ({error!r})") from error
    # LightEval numbers the documents of each split anew.
    many = len(config.evaluation_splits) > 1
    return [_problem(doc, str(n) if many else doc.id, name, category, task) for n, doc in enumerate(docs)]


def _problem(doc: Doc, identifier: str, name: str, category: str, task: str) -> dict[str, Any]:
    if doc.images:
        raise InputError(f"LightEval's task {task!r} shows images: choose a task of text")
    golds = doc.get_golds()
    reference = str(golds[0]).strip() if golds else None
    try:
        kept = json.dumps({key: getattr(doc, key) for key in _KEPT}, ensure_ascii=False)
    except TypeError as error:
        raise InputError(
            f"LightEval's task {task!r}: problem {identifier} cannot be kept in a table ({error})"
        ) from error
    return {
        "problem_id": identifier,
        "benchmark": name,
        "category": category,
        "prompt": doc.query,
        "reference": reference,
        "reference_type": infer_type(reference, "math") if category == "math" else None,
        "tests": None,
        "difficulty": None,
        "starter_code": None,
        "lighteval_doc": kept,
    }


def to_doc(problem: dict[str, Any]) -> Doc:
    """The document of a problem that :func:`read_problems` read."""
    kept = json.loads(problem["lighteval_doc"])
    specific = {**(kept.pop("specific") or {}), "problem_id": problem["problem_id"]}
    return Doc(query=problem["prompt"], specific=specific, **kept)
