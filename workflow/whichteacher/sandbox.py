"""Running model-written programs where they can do no harm.

Isolation is a tool's job: bubblewrap where it is installed, otherwise ``unshare`` and ``mount`` of util-linux. Both give a
program no network, its own process and mount namespaces, a read-only view of the system and the interpreter and nothing
else, an empty environment, a small scratch folder in memory, and an unprivileged user. :mod:`whichteacher.harness` runs inside
and sets limits on CPU time, address space, file size, open files and processes; the runner outside kills what exceeds a wall
time. :func:`open_sandbox` attacks the sandbox before trusting it.

Standard library only. Programs see the standard library of this interpreter, no installed packages. Processes are limited in number
and each in memory, not all together: on a shared machine put the job in a cgroup as well (Slurm and containers do).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whichteacher import harness
from whichteacher.rule import InputError

Backend = Literal["bwrap", "unshare", "none"]

#: What each kind of isolation needs, in the order of preference.
_TOOLS: dict[Backend, tuple[str, ...]] = {
    "bwrap": ("bwrap", "setpriv"),
    "unshare": ("unshare", "setpriv", "mount", "chroot"),
}

#: The traditional user without rights ("nobody"), present in every passwd file and never owning files.
_NOBODY = 65534
_SCRATCH_MIB = 64
#: A blocked program is killed after this wall time: far above its CPU time, so that a busy machine fails nobody.
_WALL_FACTOR, _WALL_SECONDS = 5, 10
_START_SECONDS = 60
#: Output accepted beyond twice the expected one.
_OUTPUT_SLACK = 64 << 10
#: Processes and threads of all sandboxes that run at once: each needs a few, and a fork bomb none.
_PROCESSES = 16
#: Where the new root is put together, in a mount namespace of its own: a folder every system has and no program needs.
_STAGE = "/sys"
_DEVICES = ("null", "urandom")
_HARNESS = Path(harness.__file__).read_text(encoding="utf-8")


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
        self._command = self._build()

    def _build(self) -> list[str]:
        python = [self.interpreter, "-I", "-S", "-c", _HARNESS]
        if self.backend == "none":
            return python
        root = os.geteuid() == 0
        # RLIMIT_NPROC does not bind root, so root becomes nobody; a user keeps the one identity a namespace maps.
        identity = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"] if root else []
        setpriv = ["/usr/bin/setpriv", *identity, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        folders = _visible_folders(self.interpreter)
        if self.backend == "bwrap":
            return [*self._bubblewrap(folders, root), *(setpriv if root else []), *python]
        namespaces = ["--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child"]
        if not root:
            namespaces = ["--user", "--map-root-user", *namespaces]
        chroot = shutil.which("chroot", path=_search_path())
        script = self._mounts(folders) + f'\nexport HOME=/tmp PATH=/usr/bin:/bin\nexec {chroot} {_STAGE} "$@"'
        die_with_parent = ["setpriv", "--pdeathsig", "KILL"]
        return [*die_with_parent, "unshare", *namespaces, "--", "/bin/sh", "-ec", script, "sh", *setpriv, *python]

    @staticmethod
    def _bubblewrap(folders: Sequence[str], root: bool) -> list[str]:
        command = ["bwrap", "--die-with-parent", "--new-session", "--clearenv"]
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
        command += ["--dev", "/dev", "--remount-ro", "/dev", "--perms", "1777", "--size", str(_SCRATCH_MIB << 20)]
        command += ["--tmpfs", "/tmp", "--remount-ro", "/", "--setenv", "HOME", "/tmp"]
        return [*command, "--setenv", "PATH", "/usr/bin:/bin", "--"]

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
        lines.append(f"mount -t tmpfs -o size={_SCRATCH_MIB}m,mode=1777,nosuid,nodev tmpfs {_STAGE}/tmp")
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
            "file_bytes": _SCRATCH_MIB << 20,
            "processes": self.processes,
            "compiler": self.compiler,
        }
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": _search_path()},
            start_new_session=True,
        ) as process:
            try:
                out, error = process.communicate(
                    json.dumps(payload).encode("utf-8", "replace"), timeout=_START_SECONDS + wall * len(job.cases)
                )
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"sandbox {self.backend}: killed after its wall time") from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        try:
            return [Result(**entry) for entry in json.loads(out)]
        except ValueError:
            lines = error.decode("utf-8", "replace").strip().splitlines()
            detail = lines[-1] if lines else f"no report (status {process.returncode})"
            raise OSError(f"sandbox {self.backend}: {detail}") from None


# --- the self-test ---------------------------------------------------------------------------------------------------

# Each attack prints what it achieved. All of them run as scripts inside the sandbox.
_LOOK_AROUND = r"""
import os, socket, sys
secret, parent = sys.stdin.read().split()
found = []
def attempt(name, action):
    try:
        if action():
            found.append(name)
    except Exception:
        pass
def reaches_network():
    with socket.create_server(("127.0.0.1", 0)):
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
    return True
def writes_outside():
    done = False
    for folder in ("/", "/usr", "/etc", "/dev", os.path.dirname(secret), sys.base_prefix):
        path = os.path.join(folder, "whichteacher-probe")
        try:
            with open(path, "w"):
                done = True
            os.unlink(path)
        except OSError:
            pass
    return done
def sees_environment():
    allowed = {"HOME", "PATH", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "container"}
    return bool(set(os.environ) - allowed) or os.path.exists("/proc/" + parent + "/environ")
attempt("network", reaches_network)
attempt("writing outside its scratch folder", writes_outside)
attempt("reading files of the runner", lambda: open(secret).read())
attempt("reading the environment of the runner", sees_environment)
attempt("signalling the runner", lambda: os.kill(int(parent), 0) is None)
attempt("privileges", lambda: os.setgroups([]) is None)
print(";".join(found))
"""
_FORKS = 300
_FORK_BOMB = f"""
import os, time
count = 0
for _ in range({_FORKS}):
    try:
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        count += 1
    except OSError:
        break
print(count)
"""
_MEMORY = "data = bytearray(3 << 30)\nprint('allocated')"
_LEAVE = "import os\nos._exit(0)\ndef f(x):\n    return x"
_FLOOD = "while True:\n    print('x' * 4096)"


def self_test(sandbox: Sandbox) -> list[str]:
    """What untrusted code could do in ``sandbox`` that it must not, in words; empty where it holds.

    Raises :class:`OSError` where not even a harmless program runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        secret = Path(folder) / "secret"
        secret.write_text("secret", encoding="utf-8")
        secret.chmod(0o644)
        (looked,) = sandbox.run(Job(_LOOK_AROUND, "std", [f"{secret} {os.getpid()}"]))
    if looked.status != "ran":
        raise OSError(f"a harmless program does not run ({looked.status} {looked.error})")
    broken = [name for name in looked.output.strip().split(";") if name]
    (forked,) = sandbox.run(Job(_FORK_BOMB, "std", [""]))
    if forked.status != "ran" or int(forked.output) >= _FORKS:
        broken.append("forking without limit")
    for fault, program, call_type, case, allowed in (
        ("memory without limit", _MEMORY, "std", "", "memory_limit"),
        ("passing by leaving early", _LEAVE, "assert", "assert f(1) == 2", "exited"),
        ("output without limit", _FLOOD, "std", "", "output_limit"),
    ):
        (result,) = sandbox.run(Job(program, call_type, [case]))
        if result.status != allowed:
            broken.append(f"{fault} ({result.status})")
    return broken


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
            broken = self_test(sandbox)
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
