"""LightEval as the driver of an evaluation: its tasks, prompts, pipeline and metrics around the project's engine and store.

LightEval renders the prompts, decides how many samples a problem gets, and scores them; the responses come from
:func:`whichteacher.engines.respond.respond`, so a sample that was drawn once is never drawn again. What LightEval 0.13.0 would
otherwise do to the numbers, and what stands against it here:

- sample counts hide in metrics: each task has one metric, whose n is the configured number of samples;
- its avg@n scores text with the reasoning still in it, and its tag removal needs both tags: metrics only ever see the
  answer part, cut out by :func:`whichteacher.responses.split_response`;
- gold answers come in many forms: the reference always stands in one ``\\boxed``;
- long prompts are cut from the left: here a prompt that leaves no room for ``max_tokens`` stops the evaluation;
- special tokens are added on top of the chat template: prompts are tokenised as rendered;
- its sample cache does not notice new weights under an old path: it is not used;
- building the registry imports every built-in task, and some download when imported: only our tasks are registered.

Importing this module takes seconds and needs the evaluation environment; :mod:`evaluate_student` sets its environment variables first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lighteval.logging.evaluation_tracker import EvaluationTracker
from lighteval.metrics.metrics import Metrics
from lighteval.metrics.metrics_sample import AvgAtN, SampleLevelComputation, SamplingMetric
from lighteval.metrics.utils.metric_utils import SampleLevelMetricGrouping
from lighteval.models.abstract_model import LightevalModel, ModelConfig
from lighteval.models.model_output import ModelResponse
from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.prompt_manager import PromptManager
from lighteval.tasks.registry import Registry
from lighteval.tasks.requests import Doc, SamplingMethod
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from whichteacher.chat import RENDERED, check_template, messages
from whichteacher.engines.respond import Request, Response, respond
from whichteacher.engines.specs import VllmSpec
from whichteacher.lighteval_tasks import find_task, metric_name, scorer, to_doc
from whichteacher.responses import split_response
from whichteacher.rule import InputError

#: The name in the samples where LightEval scores nothing.
UNSCORED = "none"


@dataclass(frozen=True)
class Task:
    """A benchmark as LightEval runs it: ``problems`` in ``BENCHMARK_PROBLEMS``, ``samples`` drawn for each."""

    name: str
    category: str
    samples: int
    suffix: str
    problems: pa.Table
    layout: str | None = None
    task: str | None = None

    def scoring(self) -> SampleLevelMetricGrouping:
        """The task's metric: LightEval's own of a named ``task``, that of mathematics, or none for programs."""
        if self.task is not None:
            config = find_task(self.task)
            return _each_sample(f"{metric_name(config)}:n={self.samples}", self.samples, scorer(config))
        if self.category == "math":
            score = Metrics.avg_at_n_math.value.sample_level_fn.compute_score
            return _each_sample(f"avg@n:n={self.samples}", self.samples, score)
        return _grouping([], _DrawOnly(self.samples))

    @property
    def metric(self) -> str:
        """LightEval's name of the task's metric."""
        return next(iter(self.scoring().metric_name), UNSCORED)


@dataclass(frozen=True)
class Sample:
    """One sample of a problem: the rendered prompt, the response, and LightEval's score (None where it gives none)."""

    prompt: str
    response: Response
    score: float | None


class _EachSample(AvgAtN):
    """LightEval's avg@n that reports the score of every sample, under its number, beside their mean under ``name``."""

    def __init__(self, name: str, n: int, score: Callable[[Doc, ModelResponse], float]) -> None:
        super().__init__(n=n, sample_scoring_function=score)
        self.name = name

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> dict[str, float]:
        if len(model_response.text) != self.n:
            raise ValueError(f"{len(model_response.text)} samples were drawn where the metric averages {self.n}")
        scores = [float(self.compute_score(doc, model_response[number])) for number in range(self.n)]
        return {self.name: float(np.mean(scores)), **{str(i): score for i, score in enumerate(scores)}}


class _DrawOnly(SamplingMetric, SampleLevelComputation):
    """Draws ``n`` samples and scores none: LightEval's code metric would run model-written programs unprotected."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def num_samples(self) -> int:
        return self.n

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> dict[str, float]:
        return {}


def _grouping(names: Sequence[str], compute: SampleLevelComputation) -> SampleLevelMetricGrouping:
    return SampleLevelMetricGrouping(
        metric_name=list(names),
        sample_level_fn=compute,
        category=SamplingMethod.GENERATIVE,
        corpus_level_fn={name: np.mean for name in names},
        higher_is_better={name: True for name in names},
    )


def _each_sample(name: str, samples: int, score: Callable[[Doc, ModelResponse], float]) -> SampleLevelMetricGrouping:
    return _grouping([name, *map(str, range(samples))], _EachSample(name, samples, score))


def _prompt_function(task: Task) -> Callable[[dict[str, Any], str], Doc]:
    """What turns a problem into LightEval's document: the prompt as it is, with the category's suffix after it.

    A prompt of LightEval's own has its instruction already, and gets no suffix.
    """

    def prompt(row: dict[str, Any], task_name: str) -> Doc:
        if task.task is not None:
            return to_doc(row)
        if task.category == "math" and row["reference"] is None:
            raise InputError(f"{task.name}: problem {row['problem_id']} has no reference: add it, or drop the problem")
        asked = _livecodebench_prompt(row) if task.layout == "livecodebench" else row["prompt"]
        return Doc(
            query=messages([{"role": "user", "content": asked}], suffix=task.suffix)[-1]["content"],
            choices=[f"$\\boxed{{{row['reference']}}}$"],
            gold_index=0,
            specific={"problem_id": row["problem_id"]},
        )

    return prompt


def _livecodebench_prompt(row: dict[str, Any]) -> str:
    """LightEval's prompt for a problem of LiveCodeBench, with the starter code where the problem has some."""
    from lighteval.tasks.tasks.lcb.main import prepare_prompt

    return prepare_prompt({"question_content": row["prompt"], "starter_code": row["starter_code"]})


def _register(tasks: Sequence[Task], folder: Path) -> ModuleType:
    """The tasks as a LightEval task module, their problems as local data sets in ``folder``."""
    module = ModuleType("whichteacher_tasks")
    module.TASKS_TABLE = []
    for task in tasks:
        (folder / task.name).mkdir()
        pq.write_table(task.problems, folder / task.name / "test.parquet")
        module.TASKS_TABLE.append(
            LightevalTaskConfig(
                name=task.name,
                prompt_function=_prompt_function(task),
                hf_repo=str(folder / task.name),
                hf_subset="default",
                hf_avail_splits=["test"],
                evaluation_splits=["test"],
                metrics=[task.scoring()],
            )
        )
    return module


class _NoCache:
    """Stands where LightEval's pipeline expects a model's sample cache."""

    def _init_registry(self, registry: Registry) -> None:
        """Nothing to key."""


class StudentModel(LightevalModel):
    """A student behind LightEval's model interface. ``drawn`` holds its responses by task name and problem."""

    def __init__(self, student: str, spec: VllmSpec, system_prompt: str, answer_format: str, store: str | Path) -> None:
        self.config = ModelConfig(model_name=student, system_prompt=system_prompt or None)
        self.spec, self.answer_format, self.store = spec, answer_format, store
        self.drawn: dict[tuple[str, str], tuple[str, list[Response]]] = {}
        self._cache = _NoCache()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(spec.model, revision=spec.revision)
        except (OSError, ValueError) as error:
            remedy = "check id and revision" if spec.revision else "train the student again"
            raise InputError(f"{spec.model}: no usable tokenizer there ({error}): {remedy}") from error
        if self._tokenizer.chat_template is None:
            raise InputError(
                f"{spec.model}: the tokenizer has no chat template: save the one the student was trained with"
            )
        trained = Path(spec.model) / RENDERED
        if spec.revision is None and trained.exists():
            check_template(self._tokenizer, trained)
        self.prompt_manager = PromptManager(True, self._tokenizer, self.config.system_prompt)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's tokenizer."""
        return self._tokenizer

    @property
    def add_special_tokens(self) -> bool:
        """False: the chat template has written them."""
        return False

    @property
    def max_length(self) -> int:
        """Longest prompt and response together, in tokens."""
        return self.spec.max_model_len

    def greedy_until(self, docs: list[Doc]) -> list[ModelResponse]:
        """The samples of ``docs``, all in one call of the engine. LightEval is given the answer parts alone.

        Raises :class:`InputError` where a prompt leaves less room than ``max_tokens``: the cap is the same for every
        problem, and no prompt is ever cut.
        """
        prompts = [self.prompt_manager.prepare_prompt(doc) for doc in docs]
        encoded = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
        longest = max(range(len(docs)), key=lambda index: len(encoded[index]))
        needed = len(encoded[longest]) + self.spec.sampling["max_tokens"]
        if needed > self.max_length:
            raise InputError(
                f"config key evaluation.max_model_len (value {self.max_length}): problem "
                f"{docs[longest].specific['problem_id']} of {docs[longest].task_name.partition('|')[0]} has "
                f"{len(encoded[longest])} tokens and needs {needed} with its response: raise it, or lower "
                "evaluation.sampling.max_tokens"
            )
        requests = [
            Request(prompt, number)
            for doc, prompt in zip(docs, prompts, strict=True)
            for number in range(doc.num_samples)
        ]
        responses = iter(respond(requests, self.spec, self.store, "evaluate_student"))
        given = []
        for doc, prompt in zip(docs, prompts, strict=True):
            drawn = [next(responses) for _ in range(doc.num_samples)]
            self.drawn[doc.task_name, doc.specific["problem_id"]] = prompt, drawn
            given.append(
                ModelResponse(input=prompt, text=[scored_text(response, self.answer_format) for response in drawn])
            )
        return given

    def loglikelihood(self, docs: list[Doc]) -> list[ModelResponse]:
        """Not offered: every task is generative."""
        raise NotImplementedError("this evaluation has no log-likelihood tasks")

    def loglikelihood_rolling(self, docs: list[Doc]) -> list[ModelResponse]:
        """Not offered: every task is generative."""
        raise NotImplementedError("this evaluation has no perplexity tasks")


def scored_text(response: Response, answer_format: str) -> str:
    """What a metric may see of a response: its answer part, or nothing where it is cut off or has none."""
    answer = split_response(response.text, answer_format).answer
    return answer if response.finish_reason == "stop" and answer is not None else ""


def run_tasks(
    tasks: Sequence[Task],
    student: str,
    spec: VllmSpec,
    system_prompt: str,
    answer_format: str,
    store: str | Path,
    folder: Path,
) -> dict[str, dict[str, list[Sample]]]:
    """Draw and score every sample of ``tasks``; ``folder`` is an empty scratch folder.

    Returns the samples by task name, then by problem id, in the order of their numbers.
    """
    Registry.load_all_task_configs = staticmethod(
        lambda custom_tasks, load_multilingual: Registry._extract_configs(custom_tasks)
    )
    # One warning per answer that holds no number would fill the log; the table says which ones scored 0.
    logging.getLogger("lighteval.metrics.dynamic_metrics").setLevel(logging.ERROR)
    model = StudentModel(student, spec, system_prompt, answer_format, store)
    tracker = EvaluationTracker(output_dir=str(folder / "tracker"), save_details=False)
    pipeline = Pipeline(
        # A bare name could be taken for a file of that name in the working directory.
        tasks=",".join(f"{task.name}|0" for task in tasks),
        pipeline_parameters=PipelineParameters(
            launcher_type=ParallelismManager.CUSTOM,
            custom_tasks_directory=_register(tasks, folder),
            remove_reasoning_tags=False,
            bootstrap_iters=0,
        ),
        evaluation_tracker=tracker,
        model=model,
    )
    pipeline.evaluate()
    samples: dict[str, dict[str, list[Sample]]] = {}
    for task in tasks:
        full_name = f"{task.name}|0"
        if task.metric != UNSCORED:
            mean = tracker.metrics_logger.metric_aggregated[full_name][task.metric]
            print(f"{student} {task.name}: LightEval {task.metric} {mean:.4f}")
        samples[task.name] = {}
        for detail in pipeline.get_details()[full_name]:
            problem = detail.doc.specific["problem_id"]
            prompt, drawn = model.drawn[full_name, problem]
            samples[task.name][problem] = [
                Sample(prompt, response, detail.metric.get(str(number))) for number, response in enumerate(drawn)
            ]
    return samples
