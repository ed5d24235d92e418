"""Rules in processes of their own, which may be killed: a comparison that does not end costs its verdict, not the shard.

A process is a plain interpreter that reads batches of tasks and writes outcomes as JSON lines, so nothing of the parent (threads, the
script that Snakemake runs) is copied into it. Before each task it arms a timer of CPU time whose signal kills it: load on the machine
does not change a verdict. Nor does it matter how long a process waits for a processor: only one that sleeps where it should compute
is given up. What a rule can tell in microseconds is told in the calling process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from whichteacher.rule import InputError
from whichteacher.verifiers import constraints, math, science, second
from whichteacher.verifiers.outcome import Outcome, undecided

#: A process that has neither computed nor waited for a processor for so long is hung: rules never sleep.
_ASLEEP_SECONDS = 60.0
_MEMORY_BYTES = 4 << 30
#: Tasks per message at most. The last messages are shorter, so that the processes end together.
_BATCH = 64

RULES: dict[str, Callable[..., Outcome]] = {
    "math": math.check,
    "science": science.check,
    "constraints": constraints.check,
    "math_reference": math.check_reference,
    "science_reference": science.check_reference,
    "plain_math_verify": second.plain_math_verify,
    "same_text": second.same_text,
}
#: What a rule loads before its first task, on no task's time.
_LOAD: dict[str, Callable[[], Any]] = {"constraints": constraints.checkers}
#: What the same rules say where they need no process of their own, None where they do.
_QUICK: dict[str, Callable[..., Outcome | None]] = {"math": math.quick, "science": science.quick}


class Task(NamedTuple):
    """One comparison: ``RULES[rule](*arguments)``, which hold JSON values. ``name`` is what errors call it."""

    rule: str
    arguments: tuple[Any, ...]
    name: str = ""


class RuleProcess:
    """Runs tasks one after the other, in a process that is started when needed and replaced when it dies."""

    def __init__(self, deadline_seconds: float) -> None:
        self.deadline = deadline_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._read = b""
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "whichteacher.verifiers.pool", str(self.deadline)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "0"},
            )
        return self._process

    def run(self, rule: str, *arguments: Any) -> Outcome:
        """The outcome of ``RULES[rule](*arguments)``.

        Undecided with reason ``timeout`` beyond the deadline and ``verifier_died`` where the process died otherwise. Raises
        :class:`InputError` where the rule does.
        """
        (outcome,) = self.run_many([Task(rule, arguments)])
        return outcome

    def run_many(self, tasks: Sequence[Task]) -> list[Outcome]:
        """The outcomes of ``tasks``, each as :meth:`run` has it. Raises :class:`InputError` with the name of its task."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(tasks):
            for outcome in self._answers(tasks[len(outcomes) :]):
                if outcome.reason == "input_error":
                    self.close()
                    name = tasks[len(outcomes)].name
                    raise InputError(f"{name}: {outcome.evidence['error']}" if name else outcome.evidence["error"])
                outcomes.append(outcome)
        return outcomes

    def _answers(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Outcomes of ``tasks`` in their order, the last one that of the task the process died at, if it does."""
        process = self._started()
        message = json.dumps([[task.rule, task.arguments] for task in tasks]).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(message)
            process.stdin.flush()
        for _ in tasks:
            line = self._line(process)
            if line is None:
                yield self._obituary()
                return
            score, reason, evidence = json.loads(line)
            yield Outcome(score, reason, evidence)

    def _line(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """The next line that ``process`` writes; None where it ends, or sleeps, before."""
        descriptor, seen = process.stdout.fileno(), ""
        while b"\n" not in self._read:
            if not select.select([descriptor], [], [], _ASLEEP_SECONDS)[0]:
                state = _activity(process.pid)
                if state == seen:
                    process.kill()
                    return None
                seen = state
                continue
            part = os.read(descriptor, 1 << 16)
            if not part:
                return None
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _obituary(self) -> Outcome:
        """Why the process ended. The next task starts another.

        Raises :class:`InputError` where it ended by an error of its own: no task can end it so, and the next would fare no better.
        """
        process = self._started()
        self.close()
        if process.returncode == -signal.SIGPROF:
            return undecided("timeout")
        if process.returncode >= 0:
            raise InputError("the verifiers cannot run here: set the environment up anew; the log says what they lack")
        return undecided("verifier_died", status=process.returncode)

    def close(self) -> None:
        """End the process if there is one."""
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
            self._process = None


def _activity(pid: int) -> str:
    """Something that stays the same only while process ``pid`` sleeps or is stopped: its state and CPU time."""
    # The name may hold spaces; what follows is the state, ..., and as 12th and 13th the CPU time (man 5 proc_pid_stat).
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return " ".join(fields[:1] + fields[11:13]) if fields[0] in "STtZX" else os.urandom(8).hex()


def run_rules(
    tasks: Sequence[Task], deadline_seconds: float, jobs: int = 1, done: Callable[[int], None] = lambda count: None
) -> list[Outcome]:
    """The outcomes of ``tasks``, in their order, from ``jobs`` processes with ``deadline_seconds`` of CPU time a task.

    Equal tasks are run once, and those with equal arguments behind the answer one after the other, so that a reference is
    parsed once. ``done`` is told how many more tasks are done, from one thread at a time. Outcomes are as in
    :meth:`RuleProcess.run`; raises :class:`InputError` where the rule of a task does, with its name.
    """
    outcomes: dict[int, Outcome] = {}
    waiting: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        quick = _QUICK.get(task.rule)
        outcome = _attempt(quick, task.arguments) if quick else None
        if outcome is not None:
            outcomes[index] = outcome
        else:
            # References first: what is compared with one of them comes together.
            key = json.dumps([task.rule, task.arguments[1:], task.arguments[:1]])
            waiting.setdefault(key, []).append(index)
    done(len(outcomes))
    groups = [waiting[key] for key in sorted(waiting)]
    batches, lock = _batches(len(groups), jobs), threading.Lock()

    def work() -> None:
        process = RuleProcess(deadline_seconds)
        try:
            while True:
                with lock:
                    span = next(batches, None)
                if span is None:
                    return
                chosen = groups[span]
                found = process.run_many([tasks[group[0]] for group in chosen])
                with lock:
                    for group, outcome in zip(chosen, found, strict=True):
                        for index in group:
                            outcomes[index] = outcome
                    done(sum(map(len, chosen)))
        finally:
            process.close()

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work) for _ in range(min(jobs, len(groups)))]
        try:
            for future in futures:
                future.result()
        except BaseException:
            with lock:
                batches.close()
            raise
    return [outcomes[index] for index in range(len(tasks))]


def _batches(count: int, jobs: int) -> Iterator[slice]:
    """Spans of ``count`` tasks: long ones first."""
    start = 0
    while start < count:
        size = max(1, min(_BATCH, (count - start) // (4 * jobs)))
        yield slice(start, start + size)
        start += size


def _attempt(rule: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """The rule's outcome; what it raises becomes undecided, except for the user's own errors."""
    try:
        return rule(*arguments)
    except InputError as error:
        return undecided("input_error", error=str(error))
    except MemoryError:
        return undecided("memory")
    except Exception as error:
        # math-verify and sympy raise whatever they like on odd formulas.
        return undecided("verifier_error", error=type(error).__name__)


def serve(deadline: float) -> None:
    """Answer tasks from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        for rule, arguments in json.loads(line):
            if rule in _LOAD:
                _LOAD[rule]()
            signal.setitimer(signal.ITIMER_PROF, deadline)
            outcome = _attempt(RULES[rule], arguments)
            signal.setitimer(signal.ITIMER_PROF, 0)
            answers.write(json.dumps([outcome.score, outcome.reason, outcome.evidence]).encode() + b"\n")
            answers.flush()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
