"""Rules in a process of their own, which may be killed: a comparison that does not end costs its verdict, not the shard.

The process is a plain interpreter that reads tasks and writes outcomes as JSON lines, so nothing of the parent (threads, the script
that Snakemake runs) is copied into it. Before each task it arms a timer of CPU time whose signal kills it: load on the machine does not
change a verdict. A wall limit far above that catches what waits instead of computing.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whichteacher.rule import InputError
from whichteacher.verifiers import constraints, math, science, second
from whichteacher.verifiers.outcome import Outcome, undecided

_WALL_FACTOR, _WALL_SECONDS = 10, 60
_MEMORY_BYTES = 4 << 30

RULES: dict[str, Callable[..., Outcome]] = {
    "math": math.check,
    "science": science.check,
    "constraints": constraints.check,
    "plain_math_verify": second.plain_math_verify,
    "same_text": second.same_text,
}


class RuleProcess:
    """Runs tasks one after the other, in a process that is started when needed and replaced when it dies."""

    def __init__(self, deadline_seconds: float) -> None:
        self.deadline = deadline_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
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
        process = self._started()
        try:
            process.stdin.write(json.dumps([rule, arguments]).encode() + b"\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], _WALL_FACTOR * self.deadline + _WALL_SECONDS)
            line = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            line, ready = b"", [None]
        if not line.endswith(b"\n"):
            self.close()
            if not ready or process.returncode == -signal.SIGPROF:
                return undecided("timeout")
            return undecided("verifier_died", status=process.returncode)
        score, reason, evidence = json.loads(line)
        if reason == "input_error":
            raise InputError(evidence["error"])
        return Outcome(score, reason, evidence)

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


def outcome_of(rule: str, arguments: list[Any]) -> Outcome:
    """The rule's outcome; what it raises becomes undecided, except for the user's own errors."""
    try:
        return RULES[rule](*arguments)
    except InputError as error:
        return undecided("input_error", error=str(error))
    except MemoryError:
        return undecided("memory")
    except Exception as error:
        # math-verify and sympy raise whatever they like on odd formulas.
        return undecided("verifier_error", error=type(error).__name__)


def serve(deadline: float) -> None:
    """Answer tasks from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        rule, arguments = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, deadline)
        outcome = outcome_of(rule, arguments)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps([outcome.score, outcome.reason, outcome.evidence]) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
