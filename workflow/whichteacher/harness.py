"""What runs inside the sandbox: programs against their tests, each test in a process of its own.

Started by :mod:`whichteacher.sandbox` as ``python -P -s -S -c <text>`` with the standard library alone. The first process only waits: it
reads the length of a job, starts a process that reads the job, runs it and reports, and then kills and removes whatever is left.
So it never holds a program, an input or an output, and the next program starts from the same state as the first.

A test's process gives up the system calls and files it does not need (:mod:`whichteacher.confine`) before it runs the program. A test
counts as run only where its process returned the nonce that was drawn for it after its start; an exit status proves nothing.
Expected outputs never enter the sandbox: the runner compares. A program written to cheat an assert in its own process can; one
that merely exits cannot.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

from whichteacher.confine import deny_system_calls, hide_memory, restrict_files

_MIB = 1 << 20
#: Address space of a C++ compiler, which is ours and needs more than a program.
_COMPILER_BYTES = 2048 * _MIB
_COMPILER_SECONDS = 30
#: Bytes of the length before a job and before a report.
LENGTH_BYTES = 8
#: What the first process says after a report: the sandbox is as new, or has to be thrown away.
READY, SPENT = b"+", b"-"
#: Whether nobody else's processes can be seen: kept from the first process, which alone has this number then.
_OWN_NAMESPACE = os.getpid() == 1
#: Signals that the first process and its children ignore, but a program does not.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: What a test's process says before its program runs.
_CONFINED = b"+"
#: Standard error of a C++ program that is kept, where it tells how the program ended.
_ERROR_BYTES = 1 << 16


def _limit(job: dict, cpu_seconds: int, memory: int) -> None:
    """Limits of this process, hard as well as soft."""
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, job["file_bytes"], job["file_bytes"]),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_NPROC, job["processes"], job["processes"]),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def _confine(job: dict, *writable: str) -> None:
    """Give up what a program does not need: last of all before it runs, because there is no way back.

    A program has one process, so that its limit on memory is that of all it does. A compiler, which writes in ``writable``,
    may start others.
    """
    # Where no mounts say what can be seen and changed, Landlock does. It does not guard attributes, which a linker has to set.
    if job["landlock"]:
        restrict_files([*job["readable"], job["scratch"]], [*writable, os.devnull])
    deny_system_calls(attributes=bool(writable) or not job["landlock"], processes=bool(writable))


def _run_python(job: dict, case: str) -> None:
    """Run the program, then the assert statements of ``case`` (none for a script)."""
    script = job["call_type"] == "std"
    module = ModuleType("__main__" if script else "program")
    sys.modules[module.__name__] = module
    # Two names that programs expect of Python, but which come from the site module.
    builtins.exit = builtins.quit = sys.exit
    exec(compile(job["program"], "<program>", "exec", dont_inherit=True), module.__dict__)
    if not script:
        exec(compile(case, "<test>", "exec", dont_inherit=True), module.__dict__)


def _child(job: dict, case: str, stdin: int, stdout: int, stderr: int, nonce: int, status: int) -> None:
    """The test's own process: never returns."""
    say = b""
    # Held here, because a program may replace what the module holds.
    read, write = os.read, os.write
    try:
        os.setsid()
        for number in (*_IGNORED, *([signal.SIGPIPE] if job["language"] == "cpp" else [])):
            signal.signal(number, signal.SIG_DFL)
        for source, target in ((stdin, 0), (stdout, 1), (stderr, 2)):
            os.dup2(source, target)
        keep = sorted((nonce, status))
        for low, high in ((3, keep[0]), (keep[0] + 1, keep[1]), (keep[1] + 1, 256)):
            os.closerange(low, high)
        _confine(job)
        _limit(job, job["cpu_seconds"], job["memory_bytes"])
        write(status, _CONFINED)
        if job["language"] == "cpp":
            os.set_inheritable(nonce, False)
            os.set_inheritable(status, False)
            os.execv(f"{job['scratch']}/program", ["program"])
        sys.stdin, sys.stdout = (
            os.fdopen(0, encoding="utf-8", closefd=False),
            os.fdopen(1, "w", encoding="utf-8", closefd=False),
        )
        sys.argv = ["program.py"]
        try:
            _run_python(job, case)
        except SystemExit as end:
            if job["call_type"] != "std" or end.code not in (None, 0):
                raise
        # What the interpreter does at its end: threads finish, exit functions run, output is flushed.
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        with contextlib.suppress(ValueError, AttributeError):
            sys.stdout.flush()
        say = read(nonce, 64)
    except BaseException as error:
        say = b"!" + f"{type(error).__name__}".encode("utf-8", "replace")[:60]
    finally:
        with contextlib.suppress(OSError):
            write(status, say)
        os._exit(say.startswith(b"!"))


def _kill_all(group: int) -> None:
    """End whatever a test has left running, and wait for its end."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    if _OWN_NAMESPACE:
        # This reaches every process but this one and the first, which collects them.
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(-1, signal.SIGKILL)
                time.sleep(0.001)


def _finished(pid: int) -> tuple[int, float] | None:
    """Wait status and CPU seconds of the child, None while it runs."""
    done, status, usage = os.wait4(pid, os.WNOHANG)
    return (status, usage.ru_utime + usage.ru_stime) if done else None


def _input(text: str) -> int:
    """A file in memory that holds ``text``."""
    memory = os.memfd_create("stdin")
    data = memoryview(text.encode("utf-8", "replace"))
    while data:
        data = data[os.write(memory, data) :]
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


def run_test(job: dict, case: str, output_bytes: int) -> dict:
    """One test: its ``status`` (ran, error, cpu_limit, wall_limit, memory_limit, output_limit, exited), ``error`` and ``output``.

    Raises :class:`OSError` where its process could not be confined.
    """
    stdin = _input(case if job["call_type"] == "std" else "")
    (out_read, out_write), (nonce_read, nonce_write), (said_read, said_write) = os.pipe(), os.pipe(), os.pipe()
    # What a C++ program complains of tells how it ended; where it says more than fits, the rest is lost and nobody is held up.
    cpp = job["language"] == "cpp"
    error_read, error_write = os.pipe2(os.O_NONBLOCK) if cpp else (-1, os.open(os.devnull, os.O_WRONLY))
    pid = os.fork()
    if pid == 0:
        _child(job, case, stdin, out_write, error_write, nonce_read, said_write)
    for descriptor in (stdin, out_write, error_write, nonce_read, said_write):
        os.close(descriptor)
    nonce = os.urandom(16).hex().encode()
    with contextlib.suppress(BrokenPipeError):
        os.write(nonce_write, nonce)
    os.close(nonce_write)

    read, most = {out_read: b"", said_read: b""}, {out_read: output_bytes, said_read: 128}
    poll = select.poll()
    for descriptor in read:
        poll.register(descriptor, select.POLLIN)
    deadline, verdict, closed, end = time.monotonic() + job["wall_seconds"], "", 0, None
    while end is None:
        # A closed pipe tells of the end at once; the wait status follows within a moment.
        for descriptor, _ in poll.poll(2 if closed else 200):
            data = os.read(descriptor, 1 << 16)
            read[descriptor] += data
            if not data:
                poll.unregister(descriptor)
                closed += 1
        if any(len(read[descriptor]) > most[descriptor] for descriptor in read):
            verdict = "output_limit"
        elif time.monotonic() > deadline:
            verdict = "wall_limit"
        end = _finished(pid)
        if verdict and end is None:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            end = status, usage.ru_utime + usage.ru_stime
    _kill_all(pid)
    for descriptor in read:
        os.set_blocking(descriptor, False)
        with contextlib.suppress(BlockingIOError):
            while len(read[descriptor]) <= most[descriptor] and (data := os.read(descriptor, 1 << 16)):
                read[descriptor] += data
        os.close(descriptor)
    complaint = b""
    if cpp:
        with contextlib.suppress(BlockingIOError):
            complaint = os.read(error_read, _ERROR_BYTES)
        os.close(error_read)

    said, output = read[said_read], read[out_read]
    if not said.startswith(_CONFINED):
        raise OSError(f"a test's process could not be confined: {said.decode('utf-8', 'replace')}")
    if len(output) > most[out_read]:
        verdict = "output_limit"
    status, seconds = end
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    error = said[2:62].decode("utf-8", "replace") if said[1:].startswith(b"!") else ""
    if verdict:
        error = ""
    elif said[1:] == nonce or (cpp and status == 0):
        verdict = "ran"
    elif seconds >= job["cpu_seconds"] or number == signal.SIGXCPU:
        verdict = "cpu_limit"
    elif error == "MemoryError" or (number == signal.SIGABRT and b"std::bad_alloc" in complaint):
        verdict = "memory_limit"
    elif error:
        verdict = "error"
    else:
        verdict = "exited"
        error = next((known.name for known in signal.Signals if known == number), f"signal {number}") if number else ""
    shown = output.decode("utf-8", "replace") if verdict == "ran" and job["call_type"] == "std" else ""
    return {"status": verdict, "error": error, "output": shown}


def compile_cpp(job: dict) -> str:
    """Compile the program in the scratch folder; the name of what went wrong, or nothing."""
    scratch = job["scratch"]
    source = f"{scratch}/program.cpp"
    with open(source, "w", encoding="utf-8", errors="replace") as file:
        file.write(job["program"])
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for target in (0, 1, 2):
                os.dup2(null, target)
            os.setpgid(0, 0)
            _confine(job, scratch)
            _limit(job, _COMPILER_SECONDS, _COMPILER_BYTES)
            os.environ["TMPDIR"] = scratch
            os.execv(job["compiler"], ["g++", "-std=c++17", "-O2", "-o", f"{scratch}/program", source])
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    _kill_all(pid)
    return "" if status == 0 else "CompileError"


def _clear(scratch: str, *keep: str) -> bool:
    """Remove what is in the scratch folder but for ``keep``; whether nothing else is left."""
    left = False
    for path in Path(scratch).iterdir():
        if path.name in keep:
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except (OSError, RecursionError):
            left = True
    return not left


def run_job(job: dict) -> list[dict]:
    """All tests of a program; the first that ran out of time is the last one tried."""
    report: list[dict] = []
    fault = compile_cpp(job) if job["language"] == "cpp" else ""
    for case, output_bytes in zip(job["cases"], job["output_bytes"], strict=True):
        if fault:
            report.append({"status": "error", "error": fault, "output": ""})
            continue
        report.append(run_test(job, case, output_bytes))
        _clear(job["scratch"], "program")
        if report[-1]["status"] in ("cpu_limit", "wall_limit"):
            break
    return report


def _read_exactly(length: int) -> bytes:
    """``length`` bytes of standard input, fewer where it ends."""
    data = bytearray()
    while len(data) < length and (some := os.read(0, min(length - len(data), 1 << 20))):
        data += some
    return bytes(data)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _serve_one(length: int) -> None:
    """Read a job of ``length`` bytes, run it and report. In a process of its own."""
    report = json.dumps(run_job(json.loads(_read_exactly(length)))).encode()
    _write(len(report).to_bytes(LENGTH_BYTES, "big") + report)


def main(scratch: str) -> None:
    """Run the jobs on standard input, one after another, until it ends; ``scratch`` is the one folder to write in.

    Before each job and each report stands its length. After a report comes :data:`READY` or, where something of the program
    could not be removed, :data:`SPENT`.
    """
    # The first process of a namespace is safe from signals of the others that it has no handler for.
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    hide_memory()
    os.chdir(scratch)
    gc.collect()
    # Children that collect their own garbage need not copy ours.
    gc.freeze()
    while len(head := _read_exactly(LENGTH_BYTES)) == LENGTH_BYTES:
        server = os.fork()
        if server == 0:
            status = 1
            try:
                _serve_one(int.from_bytes(head, "big"))
                status = 0
            except OSError as error:
                print(error, file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        ended = None
        while ended is None:
            # Orphans of a namespace come here as well.
            pid, status = os.waitpid(-1, 0)
            if pid == server:
                ended = status
        if ended != 0:
            sys.exit(1)
        clean = _clear(scratch)
        _write(READY if clean else SPENT)
        if not clean:
            break


if __name__ == "__main__":
    main(sys.argv[1])
