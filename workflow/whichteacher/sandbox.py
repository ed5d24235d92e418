"""Running model-written programs where they can do no harm.

Isolation is a tool's job: bubblewrap where it is installed, otherwise ``unshare`` and ``mount`` of util-linux. Both give a
program no network, its own process and mount namespaces, a read-only view of the system and the interpreter and nothing
else, an empty environment, a small scratch folder in memory, and an unprivileged user. Where a machine forbids namespaces, the
kernel's Landlock takes their place: programs can read the same and write nothing at all. :mod:`whichteacher.harness` runs inside, sets
limits on CPU time, address space, file size, open files and processes, and takes the system calls that no program needs
(:mod:`whichteacher.confine`); the runner outside kills what exceeds a wall time. :func:`open_sandbox` attacks the sandbox before
trusting it (:mod:`whichteacher.attacks`).

Each thread that runs programs has a sandbox of its own, which it uses for one program after another; see the harness for what is
done between two. Standard library only. Programs see the standard library of this interpreter, no installed packages, and cannot
start processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from whichteacher import attacks, confine, harness
from whichteacher.rule import InputError

Backend = Literal["bwrap", "unshare", "landlock", "none"]

#: What each kind of isolation needs, in the order of preference.
_TOOLS: dict[Backend, tuple[str, ...]] = {
    "bwrap": ("bwrap", "setpriv"),
    "unshare": ("unshare", "setpriv", "mount", "chroot"),
    "landlock": ("setpriv",),
}

#: The traditional user without rights ("nobody"), present in every passwd file and never owning files.
_NOBODY = 65534
#: Users nobody has, one per runner where root may take them: the kernel counts processes by user, and a fork bomb in one runner's sandbox
#: must not take those of another.
_FIRST_USER = 1_900_000_000
#: Size of the scratch folder, and of any file.
SCRATCH_MIB = 64
#: A blocked program is killed after this wall time: far above its CPU time, so that a busy machine fails nobody.
_WALL_FACTOR, _WALL_SECONDS = 5, 10
_START_SECONDS = 60
#: Output accepted beyond twice the expected one.
_OUTPUT_SLACK = 64 << 10
#: Processes and threads of all sandboxes that run at once: each needs a few.
_PROCESSES = 16
#: Where the new root is put together, in a mount namespace of its own: a folder every system has and no program needs.
_STAGE = "/sys"
_DEVICES = ("null", "urandom")
#: What programs see of an environment. With a fixed seed the order of a set of texts, and so a verdict, is the same in every run.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0"}


def _program() -> str:
    """The harness as text that needs no file: nothing of the project can be read inside."""
    texts = {module.__name__: Path(module.__file__).read_text(encoding="utf-8") for module in (confine, harness)}
    return (
        "import sys, types\n"
        "module = sys.modules['whichteacher.confine'] = types.ModuleType('whichteacher.confine')\n"
        f"exec(compile({texts['whichteacher.confine']!r}, '<confine>', 'exec'), module.__dict__)\n"
        f"exec(compile({texts['whichteacher.harness']!r}, '<harness>', 'exec'))\n"
    )


_HARNESS = _program()


@dataclass(frozen=True)
class Job:
    """One program and what to run it on: assert statements, or standard inputs with the length of the expected outputs."""

    program: str
    call_type: Literal["assert", "std"]
    cases: Sequence[str]
    expected_bytes: Sequence[int] = ()
    language: Literal["python", "cpp"] = "python"


@dataclass(frozen=True)
class Result:
    """What one test did; ``status`` is one of the harness's words, ``ran`` for a test that came to its end."""

    status: str
    error: str
    output: str


def _search_path() -> str:
    """Where tools are looked for: the system's folders, which a user's path may lack, then the user's."""
    return os.pathsep.join(["/usr/sbin", "/usr/bin", "/sbin", "/bin", os.environ.get("PATH", "")])


def _visible_folders(interpreter: str) -> list[str]:
    """Folders a program may read: the system's programs and libraries and the interpreter's own prefix."""
    probe = subprocess.run([interpreter, "-I", "-S", "-c", "import sys; print(sys.base_prefix)"], capture_output=True)
    prefix = os.path.realpath(probe.stdout.decode().strip() or sys.base_prefix)
    folders = ["/usr", *(f"/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64"))]
    return folders if prefix == "/usr" or prefix.startswith("/usr/") else [*folders, prefix]


def _unprivileged_user() -> int:
    """The user that programs run as where the runner is root."""
    spans = [line.split() for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()]
    user = _FIRST_USER + os.getpid()
    return user if any(int(first) <= user < int(first) + int(count) for first, _, count in spans) else _NOBODY


def _running_tasks() -> int:
    """Processes and threads of this user: without a namespace of its own, the limit counts these too."""
    if os.geteuid() == 0:
        return 0
    tasks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.geteuid():
                tasks += len(list((folder / "task").iterdir()))
    return tasks


class Sandbox:
    """A way to run programs under limits.

    ``cpu_seconds`` per test and ``memory_mb`` per process limit a program; ``jobs`` is how many sandboxes run at once;
    ``interpreter`` runs the programs.
    """

    def __init__(
        self, backend: Backend, cpu_seconds: int, memory_mb: int, jobs: int = 1, interpreter: str | None = None
    ) -> None:
        self.backend, self.cpu_seconds, self.memory_mb = backend, cpu_seconds, memory_mb
        self.processes = _PROCESSES + 2 * jobs
        # The real interpreter: a virtual environment's own folder stays invisible.
        self.interpreter = os.path.realpath(interpreter or getattr(sys, "_base_executable", None) or sys.executable)
        self.compiler = shutil.which("g++", path="/usr/bin")
        folders = _visible_folders(self.interpreter)
        self.readable = [*filter(os.path.isdir, folders), *map("/dev/{}".format, _DEVICES)]
        self._command = self._build(folders)
        self.has_namespaces = backend in ("bwrap", "unshare")
        self._thread = threading.local()

    def _build(self, folders: Sequence[str]) -> list[str]:
        # Not -I, which would not heed the seed; the environment is ours alone.
        python = [self.interpreter, "-P", "-s", "-S", "-c", _HARNESS]
        if self.backend == "none":
            return python
        root = os.geteuid() == 0
        # RLIMIT_NPROC does not bind root, so root becomes nobody; a user keeps the one identity a namespace maps.
        identity = [f"--reuid={_unprivileged_user()}", f"--regid={_NOBODY}", "--clear-groups"] if root else []
        setpriv = ["/usr/bin/setpriv", *identity, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        # Another user is no longer told of its parent's death, unless it asks again.
        setpriv += ["--pdeathsig", "KILL"]
        if self.backend == "landlock":
            return [*setpriv, *python]
        if self.backend == "bwrap":
            return [*self._bubblewrap(folders, root), *(setpriv if root else []), *python]
        namespaces = ["--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child"]
        if not root:
            namespaces = ["--user", "--map-root-user", *namespaces]
        environment = " ".join(f"{name}={value}" for name, value in _ENVIRONMENT.items())
        chroot = shutil.which("chroot", path=_search_path())
        script = self._mounts(folders) + f'\nexport HOME=/tmp {environment}\nexec {chroot} {_STAGE} "$@"'
        die_with_parent = ["setpriv", "--pdeathsig", "KILL"]
        return [*die_with_parent, "unshare", *namespaces, "--", "/bin/sh", "-ec", script, "sh", *setpriv, *python]

    @staticmethod
    def _bubblewrap(folders: Sequence[str], root: bool) -> list[str]:
        # The harness comes first in its namespace: no signal from inside can end it.
        command = ["bwrap", "--die-with-parent", "--new-session", "--clearenv", "--as-pid-1"]
        if root:
            command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
            command += ["--cap-drop", "ALL"]
            for capability in ("SETUID", "SETGID", "SETPCAP"):
                command += ["--cap-add", f"CAP_{capability}"]
        else:
            command += ["--unshare-all", "--uid", str(_NOBODY), "--gid", str(_NOBODY)]
        for folder in folders:
            if Path(folder).is_symlink():
                command += ["--symlink", str(Path(folder).readlink()), folder]
            elif Path(folder).is_dir():
                # bubblewrap makes missing parents private to root, who is not the one to run here.
                for parent in reversed(Path(folder).parents[:-1]):
                    command += ["--perms", "0755", "--dir", str(parent)]
                command += ["--ro-bind", folder, folder]
        command += ["--dev", "/dev", "--remount-ro", "/dev", "--perms", "1777", "--size", str(SCRATCH_MIB << 20)]
        command += ["--tmpfs", "/tmp", "--remount-ro", "/", "--setenv", "HOME", "/tmp"]
        for name, value in _ENVIRONMENT.items():
            command += ["--setenv", name, value]
        return [*command, "--"]

    @staticmethod
    def _mounts(folders: Sequence[str]) -> str:
        """Shell commands that put the new root together under the stage.

        The root is then entered by chroot, not pivot_root: without capabilities there is no way back, and the kernel
        refuses further user namespaces to a process in a chroot.
        """
        real = [folder for folder in folders if Path(folder).is_dir() and not Path(folder).is_symlink()]
        links = [folder for folder in folders if Path(folder).is_symlink()]
        made = " ".join(shlex.quote(_STAGE + folder) for folder in [*real, "/tmp", "/dev"])
        lines = [f"mount -t tmpfs -o size=1m,mode=755,nosuid tmpfs {_STAGE}", f"mkdir -p {made}"]
        if links:
            lines.append(f"cp -P {' '.join(links)} {_STAGE}")
        for folder in real:
            lines.append(f"mount --bind -o ro,nosuid,nodev {shlex.quote(folder)} {shlex.quote(_STAGE + folder)}")
        for device in _DEVICES:
            lines.append(f": > {_STAGE}/dev/{device}; mount --bind /dev/{device} {_STAGE}/dev/{device}")
        lines.append(f"mount -t tmpfs -o size={SCRATCH_MIB}m,mode=1777,nosuid,nodev tmpfs {_STAGE}/tmp")
        lines.append(f"mount -o remount,bind,ro,nosuid {_STAGE}")
        return "\n".join(lines)

    def run(self, job: Job) -> list[Result]:
        """Run ``job``; one result per test, fewer where one ran out of time and the rest was not tried.

        Raises :class:`OSError` where the sandbox itself does not start or is killed, and where a compiler is missing.
        """
        if job.language == "cpp" and self.compiler is None:
            raise FileNotFoundError("no C++ compiler: install g++")
        wall = _WALL_FACTOR * self.cpu_seconds + _WALL_SECONDS
        lengths = job.expected_bytes or [0] * len(job.cases)
        payload = {
            "language": job.language,
            "program": job.program,
            "call_type": job.call_type,
            "cases": list(job.cases),
            "output_bytes": [2 * length + _OUTPUT_SLACK for length in lengths],
            "cpu_seconds": self.cpu_seconds,
            "wall_seconds": wall,
            "memory_bytes": self.memory_mb << 20,
            "file_bytes": SCRATCH_MIB << 20,
            # A user's limit counts what runs outside too, unless the user is a namespace's own.
            "processes": self.processes + (0 if self.has_namespaces else _running_tasks()),
            "compiler": self.compiler,
            "landlock": self.backend == "landlock",
            "readable": self.readable,
        }
        inside: _Inside | None = getattr(self._thread, "inside", None)
        if inside is None:
            inside = self._thread.inside = _Inside(self._command, self.backend)
        try:
            report = inside.run(payload, _START_SECONDS + wall * len(job.cases))
        except OSError:
            self._thread.inside = None
            raise
        if inside.spent:
            self._thread.inside = None
        return [Result(**entry) for entry in report]


class _Inside:
    """A sandbox that runs, and ends with the thread that started it or when it is no longer used."""

    def __init__(self, command: Sequence[str], backend: Backend) -> None:
        self._backend, self.spent = backend, False
        self._scratch = tempfile.TemporaryDirectory(prefix="whichteacher-") if backend in ("landlock", "none") else None
        self._folder = self._scratch.name if self._scratch else "/tmp"
        if backend == "landlock" and os.geteuid() == 0:
            os.chown(self._folder, _unprivileged_user(), _NOBODY)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process that writes to it)
        environment = {"PATH": _search_path()} if backend in ("bwrap", "unshare") else _ENVIRONMENT
        self._process = subprocess.Popen(
            [*command, self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(pipe.fileno(), False)
        self.close = weakref.finalize(self, _end, self._process, self._scratch)

    def run(self, payload: dict[str, Any], seconds: float) -> list[dict[str, str]]:
        """The report on ``payload``, within so many seconds. Raises :class:`OSError`, after which this is no longer of use."""
        body = json.dumps({**payload, "scratch": self._folder}).encode()
        deadline = time.monotonic() + seconds
        try:
            self._send(len(body).to_bytes(harness.LENGTH_BYTES, "big") + body, deadline)
            length = int.from_bytes(self._receive(harness.LENGTH_BYTES, deadline), "big")
            report = json.loads(self._receive(length, deadline))
            self.spent = self._receive(len(harness.READY), deadline) != harness.READY
        except TimeoutError:
            self.close()
            raise TimeoutError(f"sandbox {self._backend}: killed after its wall time") from None
        except (OSError, EOFError):
            self.close()
            self._errors.seek(0)
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            detail = lines[-1] if lines else f"no report (status {self._process.returncode})"
            raise OSError(f"sandbox {self._backend}: {detail}") from None
        return report

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
            raise TimeoutError

    def _send(self, data: bytes, deadline: float) -> None:
        descriptor, view = self._process.stdin.fileno(), memoryview(data)
        while view:
            self._wait(descriptor, select.POLLOUT, deadline)
            view = view[os.write(descriptor, view) :]

    def _receive(self, length: int, deadline: float) -> bytes:
        descriptor, data = self._process.stdout.fileno(), bytearray()
        while len(data) < length:
            self._wait(descriptor, select.POLLIN, deadline)
            some = os.read(descriptor, length - len(data))
            if not some:
                raise EOFError
            data += some
        return bytes(data)


def _end(process: subprocess.Popen[bytes], scratch: tempfile.TemporaryDirectory[str] | None) -> None:
    """Kill what runs and remove the scratch folder."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        pipe.close()
    if scratch:
        scratch.cleanup()


def open_sandbox(cpu_seconds: int, memory_mb: int, accept_risk: bool = False, jobs: int = 1) -> Sandbox:
    """The first sandbox of this machine that passes the self-test, for ``jobs`` programs at once.

    With ``accept_risk`` the one that fails least is taken where none passes. Raises :class:`InputError` with the remedy
    otherwise.
    """
    weak: list[tuple[int, Sandbox]] = []
    faults: list[str] = []
    for backend in (*_TOOLS, *(["none"] if accept_risk else [])):
        missing = [tool for tool in _TOOLS.get(backend, ()) if shutil.which(tool, path=_search_path()) is None]
        if missing:
            faults.append(f"{backend}: {missing[0]} is not installed")
            continue
        sandbox = Sandbox(backend, cpu_seconds, memory_mb, jobs)
        try:
            # With a second of CPU time, lest those who burn it take long.
            broken = attacks.self_test(Sandbox(backend, 1, memory_mb, max(jobs, attacks.AT_ONCE)))
        except OSError as error:
            faults.append(str(error))
            continue
        if not broken:
            return sandbox
        faults.append(f"{backend} allows {', '.join(broken)}")
        weak.append((len(broken), sandbox))
    if accept_risk and weak:
        chosen = min(weak, key=lambda pair: pair[0])[1]
        print(
            f"sandbox: model-written code runs with {chosen.backend} at the user's risk: {'; '.join(faults)}",
            file=sys.stderr,
        )
        return chosen
    raise InputError(
        f"this machine gives no safe place to run model-written code ({'; '.join(faults)}): install bubblewrap and util-linux "
        "and allow user namespaces (sysctl user.max_user_namespaces; kernel.apparmor_restrict_unprivileged_userns=0; in a "
        "container, a seccomp profile that permits them), or set verification.sandbox.accept_risk: true on a throw-away machine"
    )
