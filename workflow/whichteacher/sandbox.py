"""Running model-written programs where they can do no harm.

Isolation is a tool's job: bubblewrap where it is installed, otherwise ``unshare`` and ``mount`` of util-linux. Both give a
program no network, its own process and mount namespaces, a read-only view of the system and the interpreter and nothing
else, an empty environment, a small scratch folder in memory, and an unprivileged user. Where a machine forbids namespaces, the
kernel's Landlock takes their place: programs can read the same and write nothing at all. :mod:`whichteacher.harness` runs inside, sets
limits on CPU time, address space, file size, open files and processes, and takes the system calls that no program needs
(:mod:`whichteacher.confine`); the runner outside kills what exceeds a wall time. :func:`open_sandbox` attacks the sandbox before
trusting it.

Standard library only. Programs see the standard library of this interpreter, no installed packages. Processes are limited in number
and each in memory, not all together: on a shared machine put the job in a cgroup as well (Slurm and containers do).
"""

from __future__ import annotations

import ast
import contextlib
import marshal
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from whichteacher import confine, harness
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


#: What runs inside, as text: nothing of the project can be read there.
_TEXTS = {module.__name__: Path(module.__file__).read_text(encoding="utf-8") for module in (confine, harness)}
#: Takes the compiled texts from standard input; the last one is the harness.
_BOOT = """
import marshal, sys
*modules, main = marshal.load(sys.stdin.buffer)
for name, code in modules:
    module = sys.modules[name] = type(sys)(name)
    exec(code, module.__dict__)
exec(main[1])
"""


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

    ``cpu_seconds`` per test and ``memory_mb`` per process limit a program; ``jobs`` is how many sandboxes run at once.
    """

    def __init__(self, backend: Backend, cpu_seconds: int, memory_mb: int, jobs: int = 1) -> None:
        self.backend, self.cpu_seconds, self.memory_mb = backend, cpu_seconds, memory_mb
        self.processes = _PROCESSES + 2 * jobs
        # The real interpreter: a virtual environment's own folder stays invisible.
        self.interpreter = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
        self.compiler = shutil.which("g++", path="/usr/bin")
        self.readable = _visible_folders(self.interpreter)
        # Compiled here, by the same interpreter: inside, that would take as long as starting it.
        self._code = marshal.dumps([(name, compile(text, name, "exec")) for name, text in _TEXTS.items()])
        self._command = self._build()

    def _build(self) -> list[str]:
        python = [self.interpreter, "-I", "-S", "-c", _BOOT]
        if self.backend == "none":
            return python
        root = os.geteuid() == 0
        # RLIMIT_NPROC does not bind root, so root becomes nobody; a user keeps the one identity a namespace maps.
        identity = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"] if root else []
        setpriv = ["/usr/bin/setpriv", *identity, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        folders = self.readable
        if self.backend == "landlock":
            return ["/usr/bin/setpriv", "--pdeathsig", "KILL", *setpriv, *python]
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
            "scratch": "/tmp",
            "landlock": self.backend == "landlock",
            "readable": [
                *(folder for folder in self.readable if Path(folder).is_dir()),
                *map("/dev/{}".format, _DEVICES),
            ],
        }
        if self.backend in _TOOLS and self.backend != "landlock":
            return self._report(payload, wall)
        with tempfile.TemporaryDirectory(prefix="whichteacher-") as scratch:
            payload["scratch"] = scratch
            if self.backend == "landlock":
                payload["processes"] += _running_tasks()
                if os.geteuid() == 0:
                    os.chown(scratch, _NOBODY, _NOBODY)
            return self._report(payload, wall)

    def _report(self, payload: dict[str, Any], wall: int) -> list[Result]:
        """Hand ``payload`` to a harness and read its report."""
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
                    self._code + marshal.dumps(payload),
                    timeout=_START_SECONDS + wall * len(payload["cases"]),
                )
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"sandbox {self.backend}: killed after its wall time") from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        try:
            return [Result(**entry) for entry in ast.literal_eval(out.decode("ascii"))]
        except (ValueError, SyntaxError):
            lines = error.decode("utf-8", "replace").strip().splitlines()
            detail = lines[-1] if lines else f"no report (status {process.returncode})"
            raise OSError(f"sandbox {self.backend}: {detail}") from None


# --- the self-test ---------------------------------------------------------------------------------------------------

# What a program may try, by what it would achieve. This one tries several things and prints those that it could do.
_LOOK_AROUND = r"""
import ctypes, os, socket, sys
secret, runner = sys.stdin.read().split()
libc, found = ctypes.CDLL(None), []
def attempt(name, *actions):
    for action in actions:
        try:
            if action():
                found.append(name)
                break
        except Exception:
            pass
def reaches_network():
    with socket.create_server(("127.0.0.1", 0)):
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
    return True
def writes(path):
    with open(path, "w"):
        pass
    os.unlink(path)
    return True
def follows_link(target, mode):
    link = "link-to-" + os.path.basename(target)
    os.symlink(target, link)
    with open(link, mode) as file:
        return mode == "r+" or file.read()
def leaves_root():
    os.makedirs("deeper", exist_ok=True)
    os.chroot("deeper")
    os.chdir("../" * 64)
    os.chroot(".")
    return open(secret).read()
def reads_memory(pid):
    with open("/proc/%s/mem" % pid, "rb"):
        return True
def reads_vector(pid):
    with open("/proc/%s/maps" % pid) as maps:
        start = int(maps.readline().split("-")[0], 16)
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    return libc.process_vm_readv(int(pid), local, 1, (ctypes.c_size_t * 2)(start, 8), 1, 0) == 8
def sees_environment():
    return bool(set(os.environ) - {"HOME", "PATH", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "container"})
folders = ("/", "/usr", "/etc", "/dev", "/proc", os.path.dirname(secret), sys.base_prefix)
attempt("network", reaches_network)
attempt(
    "writing outside its scratch folder",
    *(lambda folder=folder: writes(os.path.join(folder, "whichteacher-probe")) for folder in folders),
    lambda: follows_link(secret, "r+"),
    lambda: follows_link(sys.executable, "r+"),
)
attempt(
    "reading files of the runner",
    lambda: open(secret).read(),
    lambda: open("../" * 64 + secret).read(),
    lambda: open("/proc/%s/root%s" % (runner, secret)).read(),
    lambda: open("/proc/1/root" + secret).read(),
    lambda: follows_link(secret, "r"),
    leaves_root,
)
attempt("reading the memory of the runner", lambda: reads_memory(runner), lambda: reads_vector(runner))
attempt("reading the memory of the harness", lambda: reads_memory(os.getppid()), lambda: reads_vector(os.getppid()))
attempt("reading the environment of the runner", sees_environment, lambda: open("/proc/%s/environ" % runner).read())
attempt("signalling the runner", lambda: os.kill(int(runner), 0) is None)
attempt(
    "privileges",
    lambda: os.setgroups([]) is None,
    lambda: libc.unshare(0x10000000) == 0,
    lambda: libc.mount(b"none", b".", b"tmpfs", 0, None) == 0,
)
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
_FILL_DISK = f"""
import os
written = 0
try:
    for number in range({2 * _SCRATCH_MIB // 8}):
        with open("fill-%d" % number, "wb") as file:
            written += file.write(bytes(8 << 20))
except OSError:
    pass
print(written >> 20)
"""
# Started by the first test, looked for by the second.
_OUTLIVE = """
import os, time
if input() == "start":
    started = os.fork()
    if started == 0:
        try:
            os.setsid()
        except OSError:
            pass
        if os.fork():
            os._exit(0)
        for handle in (0, 1, 2):
            os.close(handle)
        time.sleep(20)
        os._exit(0)
    os.waitpid(started, 0)
else:
    seen = 0
    for pid in range(2, 300):
        try:
            os.kill(pid, 0)
            seen += pid != os.getpid()
        except OSError:
            pass
    print(seen)
"""
_KILL_HARNESS = """
import os
def f(x):
    for number in (9, 19, 15, 2):
        try:
            os.kill(os.getppid(), number)
        except OSError:
            pass
    return x
"""
#: So many attacks run side by side: most of them wait.
_ATTACKS_AT_ONCE = 4
_MEMORY = "data = bytearray(3 << 30)\nprint('allocated')"
_FLOOD = "while True:\n    print('x' * 4096)"
_IGNORE_SIGNALS = """
import signal
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True:
    pass
"""
_EARLY_ENDS = {
    "os._exit(0)": "import os\nos._exit(0)\ndef f(x):\n    return x",
    "sys.exit(0)": "import sys\nsys.exit(0)\ndef f(x):\n    return x",
    "an exit in the function": "import os\ndef f(x):\n    os._exit(0)",
    "its own end by signal": "import os\ndef f(x):\n    os.kill(os.getpid(), 9)",
}


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

    def counts(fault: str, program: str, most: int) -> str | None:
        (result,) = sandbox.run(Job(program, "std", [""]))
        return None if result.status == "ran" and int(result.output) <= most else fault

    def stopped(fault: str, program: str, allowed: str) -> str | None:
        (result,) = sandbox.run(Job(program, "std", [""]))
        return None if result.status == allowed else f"{fault} ({result.status})"

    def passes(how: str, program: str) -> str | None:
        (result,) = sandbox.run(Job(program, "assert", ["assert f(1) == 2"]))
        return f"passing by {how}" if result.status == "ran" else None

    # Alone: while it lasts, nobody else may have a process left.
    broken += filter(None, [counts("forking without limit", _FORK_BOMB, _FORKS - 1)])
    with ThreadPoolExecutor(_ATTACKS_AT_ONCE) as pool:
        attacks = [
            pool.submit(stopped, "time without limit, signals ignored", _IGNORE_SIGNALS, "cpu_limit"),
            pool.submit(stopped, "output without limit", _FLOOD, "output_limit"),
            pool.submit(stopped, "memory without limit", _MEMORY, "memory_limit"),
            pool.submit(counts, "filling the disk", _FILL_DISK, _SCRATCH_MIB),
            *(pool.submit(passes, how, program) for how, program in _EARLY_ENDS.items()),
            pool.submit(lambda: None if _harness_survives(sandbox) else "ending the harness"),
            pool.submit(lambda: "outliving its test" if _outlives(sandbox) else None),
        ]
        broken += filter(None, [attack.result() for attack in attacks])
    return broken


def _harness_survives(sandbox: Sandbox) -> bool:
    try:
        results = sandbox.run(Job(_KILL_HARNESS, "assert", ["assert f(1) == 1", "assert f(2) == 2"]))
    except OSError:
        return False
    return [result.status for result in results] == ["ran", "ran"]


def _outlives(sandbox: Sandbox) -> bool:
    """Whether a process that a test left behind is there in the next one, or after the sandbox."""
    mark = f"{sandbox.interpreter}\0"

    def left() -> set[str]:
        """Processes of the interpreter that were orphaned: only seen where the sandbox has no namespace of its own."""
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if parent == "1" and (folder / "cmdline").read_text().startswith(mark):
                    found.add(folder.name)
        return found

    before = left()
    results = sandbox.run(Job(_OUTLIVE, "std", ["start", "look"]))
    inside = sandbox.backend in ("bwrap", "unshare") and results[-1].output.strip() != "0"
    return len(results) < 2 or inside or bool(left() - before)


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
            broken = self_test(Sandbox(backend, 1, memory_mb, max(jobs, _ATTACKS_AT_ONCE)))
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
