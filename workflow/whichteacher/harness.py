"""What runs inside the sandbox: one program against its tests, each test in a process of its own.

Started by :mod:`whichteacher.sandbox` as ``python -I -S -c <text>`` with the standard library alone, and of that only with what the
interpreter holds already: importing json, contextlib, shutil and signal takes as long as starting it. Reads one job (marshal)
from standard input, writes one report (a Python literal) to standard output. A test's process gives up the system calls it does not need
(:mod:`whichteacher.confine`) before it runs the program. A test counts as run only where its process returned the
nonce that the harness drew for that test after starting it; an exit status proves nothing. Expected outputs never enter the
sandbox: the runner compares. A program written to cheat an assert in its own process can; one that merely exits cannot.
"""

import _signal as signal
import atexit
import marshal
import os
import resource
import select
import sys
import time

from whichteacher.confine import deny_system_calls, filter_program, hide_memory, restrict_files

_MIB = 1 << 20
#: Address space of a C++ compiler, which is ours and needs more than a program.
_COMPILER_BYTES = 2048 * _MIB
_COMPILER_SECONDS = 30
#: More orphans than a program may start.
_REAPED = 10_000


class _Ignoring:
    """What contextlib.suppress does."""

    def __init__(self, *errors: type[BaseException]) -> None:
        self.errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self.errors)


def _signal_name(number: int) -> str:
    """``SIGKILL`` for 9."""
    names = (name for name in dir(signal) if name.startswith("SIG") and not name.startswith("SIG_"))
    return next((name for name in names if getattr(signal, name) == number), str(number))


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
    """Give up what a program does not need: last of all before it runs, because there is no way back."""
    # Where no mounts say what can be seen, Landlock does.
    if job["landlock"]:
        restrict_files([*job["readable"], job["scratch"]], [*writable, os.devnull])
    deny_system_calls(job["filter"])


def _run_python(job: dict, case: str) -> None:
    """Run the program, then the assert statements of ``case`` (none for a script)."""
    script = job["call_type"] == "std"
    module = type(sys)("__main__" if script else "program")
    sys.modules[module.__name__] = module
    exec(compile(job["program"], "<program>", "exec", dont_inherit=True), module.__dict__)
    if not script:
        exec(compile(case, "<test>", "exec", dont_inherit=True), module.__dict__)


def _child(job: dict, case: str, stdin: int, stdout: int, nonce: int, status: int) -> None:
    """The test's own process: never returns."""
    say = b""
    # Held here, because a program may replace what the module holds.
    read, write = os.read, os.write
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for source, target in ((stdin, 0), (stdout, 1), (null, 2)):
            os.dup2(source, target)
        keep = sorted((nonce, status))
        for low, high in ((3, keep[0]), (keep[0] + 1, keep[1]), (keep[1] + 1, 256)):
            os.closerange(low, high)
        _confine(job)
        if job["language"] == "cpp":
            _limit(job, job["cpu_seconds"], job["memory_bytes"])
            os.set_inheritable(nonce, False)
            os.set_inheritable(status, False)
            os.execv(f"{job['scratch']}/program", ["program"])
        sys.stdin, sys.stdout = (
            os.fdopen(0, encoding="utf-8", closefd=False),
            os.fdopen(1, "w", encoding="utf-8", closefd=False),
        )
        sys.argv = ["program.py"]
        _limit(job, job["cpu_seconds"], job["memory_bytes"])
        try:
            _run_python(job, case)
        except SystemExit as end:
            if job["call_type"] != "std" or end.code not in (None, 0):
                raise
        # What the interpreter does at its end: threads finish, exit functions run, output is flushed.
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        with _Ignoring(ValueError, AttributeError):
            sys.stdout.flush()
        say = read(nonce, 64)
    except BaseException as error:
        say = b"!" + type(error).__name__.encode()[:60]
    finally:
        with _Ignoring(OSError):
            write(status, say)
        os._exit(say.startswith(b"!"))


def _kill_all(group: int) -> None:
    """End whatever a test has left running: nothing can leave its process group, see :mod:`whichteacher.confine`."""
    with _Ignoring(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    # Where this is the first process of a namespace, orphans are its children.
    with _Ignoring(ChildProcessError):
        for _ in range(_REAPED):
            os.waitpid(-1, 0)


def _finished(pid: int) -> tuple[int, float] | None:
    """Wait status and CPU seconds of the child, None while it runs."""
    done, status, usage = os.wait4(pid, os.WNOHANG)
    return (status, usage.ru_utime + usage.ru_stime) if done else None


def run_test(job: dict, case: str, output_bytes: int) -> dict:
    """One test: its ``status`` (ran, error, cpu_limit, wall_limit, memory_limit, output_limit, exited), ``error`` and ``output``."""
    memory = os.memfd_create("stdin")
    if job["call_type"] == "std":
        data = case.encode("utf-8", "replace")
        while data:
            data = data[os.write(memory, data) :]
        os.lseek(memory, 0, os.SEEK_SET)
    (out_read, out_write), (nonce_read, nonce_write), (said_read, said_write) = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(job, case, memory, out_write, nonce_read, said_write)
    for descriptor in (memory, out_write, nonce_read, said_write):
        os.close(descriptor)
    nonce = os.urandom(16).hex().encode()
    with _Ignoring(BrokenPipeError):
        os.write(nonce_write, nonce)
    os.close(nonce_write)

    read = {out_read: b"", said_read: b""}
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
        if len(read[out_read]) > output_bytes:
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
        with _Ignoring(BlockingIOError):
            while len(read[descriptor]) <= output_bytes and (data := os.read(descriptor, 1 << 16)):
                read[descriptor] += data
        os.close(descriptor)

    status, seconds = end
    said, output = read[said_read], read[out_read]
    if len(output) > output_bytes:
        verdict = "output_limit"
    ended_well = said == nonce or (job["language"] == "cpp" and status == 0)
    error = said[1:61].decode("utf-8", "replace") if said.startswith(b"!") else ""
    if not verdict:
        if ended_well:
            verdict = "ran"
        elif seconds >= job["cpu_seconds"] or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
            verdict = "cpu_limit"
        elif error == "MemoryError":
            verdict = "memory_limit"
        elif error:
            verdict = "error"
        else:
            verdict = "exited"
            error = _signal_name(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else ""
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


def _clear(folder: str, *kept: str) -> None:
    """Remove what a test left behind: the next one must not find it."""
    for entry in os.scandir(folder):
        with _Ignoring(OSError):
            if entry.is_dir(follow_symlinks=False):
                _clear(entry.path)
                os.rmdir(entry.path)  # noqa: PTH106 pathlib takes as long as json
            elif entry.name not in kept:
                os.unlink(entry.path)  # noqa: PTH108


def main() -> None:
    """Run the job on standard input; stop after the first test that ran out of time."""
    # The first process of a namespace is safe from signals of the others that it has no handler for.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    hide_memory()
    job = marshal.load(sys.stdin.buffer)
    job["filter"] = filter_program(os.uname().machine)
    os.chdir(job["scratch"])
    report = []
    fault = compile_cpp(job) if job["language"] == "cpp" else ""
    for case, output_bytes in zip(job["cases"], job["output_bytes"], strict=True):
        if fault:
            report.append({"status": "error", "error": fault, "output": ""})
            continue
        report.append(run_test(job, case, output_bytes))
        _clear(job["scratch"], "program", "program.cpp")
        if report[-1]["status"] in ("cpu_limit", "wall_limit"):
            break
    sys.stdout.write(ascii(report))


if __name__ == "__main__":
    main()
