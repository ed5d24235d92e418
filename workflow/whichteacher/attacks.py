"""The self-test of a sandbox: what untrusted code would try, tried.

Each attack is a program that runs in the sandbox like any other. It tells what it could do; the runner looks at the outcome.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whichteacher.sandbox import Result, Sandbox

#: So many attacks run side by side: most of them wait.
AT_ONCE = 4

# What a program may try, by what it would achieve. This one tries several things and prints those that it could do.
_LOOK_AROUND = r"""
import ctypes, fcntl, os, resource, socket, sys
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
    with open("/proc/%s/mem" % pid, "r+b"):
        return True
def reads_vector(pid):
    with open("/proc/%s/maps" % pid) as maps:
        start = int(maps.readline().split("-")[0], 16)
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    return libc.process_vm_readv(int(pid), local, 1, (ctypes.c_size_t * 2)(start, 8), 1, 0) == 8
def sends_by_file():
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, os.getppid())
    return True
def changes_limits():
    return resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0)) is not None
def sees_environment():
    return bool(set(os.environ) - {"HOME", "PATH", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "container", "PYTHONHASHSEED"})
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
    "reaching the harness",
    lambda: os.kill(os.getppid(), 0) is None,
    lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 1) is None,
    sends_by_file,
    changes_limits,
)
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


def _fill_disk(mebibytes: int) -> str:
    """A program that tries to write twice as much, and says how much it wrote."""
    return f"""
import os
written = 0
try:
    for number in range({2 * mebibytes // 8}):
        with open("fill-%d" % number, "wb") as file:
            written += file.write(bytes(8 << 20))
except OSError:
    pass
print(written >> 20)
"""


# Processes that can be seen but are neither the first, the harness nor the program itself.
_OTHERS = """
def others():
    seen = 0
    for pid in range(2, 300):
        try:
            os.getpriority(os.PRIO_PROCESS, pid)
            seen += pid not in (os.getpid(), os.getppid())
        except OSError:
            pass
    return seen
"""
_DAEMON = """
def start_daemon():
    started = os.fork()
    if started == 0:
        try:
            os.setsid()
        except OSError:
            pass
        if os.fork():
            os._exit(0)
        for handle in range(16):
            try:
                os.close(handle)
            except OSError:
                pass
        time.sleep(20)
        os._exit(0)
    os.waitpid(started, 0)
"""
# Started by the first test, looked for by the second.
_OUTLIVE = f"""
import os, time
{_OTHERS}
{_DAEMON}
if input() == "start":
    start_daemon()
else:
    print(others())
"""
# Left by one program, looked for by the next.
_LEAVE_TRACES = f"""
import ctypes, os, time
{_DAEMON}
for action in (
    lambda: os.makedirs("trace/deep"),
    lambda: open("trace/file", "w").close(),
    lambda: os.chmod("trace", 0),
    lambda: ctypes.CDLL(None).shmget(77, 4096, 0o1600),
    start_daemon,
):
    try:
        action()
    except OSError:
        pass
"""
_FIND_TRACES = f"""
import ctypes, os
{_OTHERS}
print(len(os.listdir(".")) + others() + (ctypes.CDLL(None).shmget(77, 4096, 0) >= 0))
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
_MEMORY = "data = bytearray(3 << 30)\nprint('allocated')"
_FLOOD = "while True:\n    print('x' * 4096)"
_IGNORE_SIGNALS = """
import signal
everything = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}
for number in everything:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, everything)
while True:
    pass
"""
_EARLY_ENDS = {
    "os._exit(0)": "import os\nos._exit(0)\ndef f(x):\n    return x",
    "sys.exit(0)": "import sys\nsys.exit(0)\ndef f(x):\n    return x",
    "an exit in the function": "import os\ndef f(x):\n    os._exit(0)",
    "its own end by signal": "import os\ndef f(x):\n    os.kill(os.getpid(), 9)",
}
#: What :func:`self_test` may find.
NAMES = (
    "network",
    "writing outside its scratch folder",
    "reading files of the runner",
    "reading the memory of the runner",
    "reading the memory of the harness",
    "reading the environment of the runner",
    "signalling the runner",
    "reaching the harness",
    "ending the harness",
    "privileges",
    "starting processes",
    "time without limit",
    "output without limit",
    "memory without limit",
    "filling the disk",
    "outliving its test",
    "leaving traces for the next program",
    *(f"passing by {how}" for how in _EARLY_ENDS),
)


def self_test(sandbox: Sandbox) -> list[str]:
    """What untrusted code could do in ``sandbox`` that it must not, of :data:`NAMES`; empty where it holds.

    Raises :class:`OSError` where not even a harmless program runs.
    """
    from whichteacher.sandbox import SCRATCH_MIB, Job

    def run(program: str, *cases: str, call_type: str = "std") -> Sequence[Result]:
        return sandbox.run(Job(program, call_type, cases or [""]))

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        secret = Path(folder) / "secret"
        secret.write_text("secret", encoding="utf-8")
        secret.chmod(0o644)
        (looked,) = run(_LOOK_AROUND, f"{secret} {os.getpid()}")
    if looked.status != "ran":
        raise OSError(f"sandbox {sandbox.backend}: a harmless program does not run ({looked.status} {looked.error})")
    broken = [name for name in looked.output.strip().split(";") if name]

    def at_most(count: int, program: str) -> bool:
        (result,) = run(program)
        return result.status == "ran" and int(result.output) <= count

    def ends_with(program: str, status: str) -> bool:
        return run(program)[0].status == status

    attacks: list[tuple[str, Callable[[], bool]]] = [
        ("time without limit", lambda: ends_with(_IGNORE_SIGNALS, "cpu_limit")),
        ("output without limit", lambda: ends_with(_FLOOD, "output_limit")),
        ("memory without limit", lambda: ends_with(_MEMORY, "memory_limit")),
        ("filling the disk", lambda: at_most(SCRATCH_MIB, _fill_disk(SCRATCH_MIB))),
        ("ending the harness", lambda: _harness_survives(run)),
        *(
            (
                f"passing by {how}",
                lambda text=text: run(text, "assert f(1) == 2", call_type="assert")[0].status != "ran",
            )
            for how, text in _EARLY_ENDS.items()
        ),
    ]
    # Alone: while it lasts, nobody else may have a process left.
    if not at_most(0, _FORK_BOMB):
        broken.append("starting processes")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        broken += [
            name for (name, _), holds in zip(attacks, pool.map(lambda one: one[1](), attacks), strict=True) if not holds
        ]
    # Alone: they look for processes that were not there before.
    if _leaves_process(sandbox, lambda: run(_OUTLIVE, "start", "look")):
        broken.append("outliving its test")
    if _leaves_process(sandbox, lambda: [*run(_LEAVE_TRACES), *run(_FIND_TRACES)]):
        broken.append("leaving traces for the next program")
    return broken


def _harness_survives(run: Callable[..., Sequence[Result]]) -> bool:
    try:
        results = run(_KILL_HARNESS, "assert f(1) == 1", "assert f(2) == 2", call_type="assert")
    except OSError:
        return False
    return [result.status for result in results] == ["ran", "ran"]


def _leaves_process(sandbox: Sandbox, attack: Callable[[], Sequence[Result]]) -> bool:
    """Whether what the first part of ``attack`` left is seen by its second, or outside after both."""
    before = _orphans(sandbox.interpreter)
    results = attack()
    if len(results) < 2:
        return True
    if sandbox.has_namespaces:
        return results[-1].output.strip() != "0"
    # Without a namespace of its own a program sees strangers, and only the orphans count.
    return bool(_orphans(sandbox.interpreter) - before)


def _orphans(interpreter: str) -> set[str]:
    """Processes of the interpreter whose parent is gone; those of a namespace are not among them."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == "1" and (folder / "cmdline").read_text().startswith(f"{interpreter}\0"):
                found.add(folder.name)
    return found
