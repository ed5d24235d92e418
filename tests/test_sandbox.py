"""The sandbox holds against what model-written code may do, and says so before it runs any."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from whichteacher import confine
from whichteacher import sandbox as module
from whichteacher.attacks import NAMES, self_test
from whichteacher.rule import InputError
from whichteacher.sandbox import Job, Sandbox, open_sandbox

BACKENDS = [
    pytest.param(
        name, marks=pytest.mark.skipif(any(map(lambda t: shutil.which(t) is None, tools)), reason=f"no {name}")
    )
    for name, tools in module._TOOLS.items()
]
ADD = "def f(x):\n    return x + 1\n"


@pytest.fixture(scope="module")
def safe():
    return open_sandbox(1, 256)


def statuses(sandbox, program, call_type, cases, **options):
    return [result.status for result in sandbox.run(Job(program, call_type, cases, **options))]


def interpreter_for(backend):
    """Without mounts, the user "nobody" cannot reach an interpreter in root's own folders."""
    system = "/usr/bin/python3"
    return system if backend == "landlock" and os.geteuid() == 0 and Path(system).exists() else None


@pytest.mark.parametrize("backend", BACKENDS)
def test_isolation_holds(backend):
    assert self_test(Sandbox(backend, 1, 256, interpreter=interpreter_for(backend))) == []


def test_landlock_of_an_older_kernel_is_enough(monkeypatch):
    old = f"    version = min(landlock_version(), {confine._NEEDED})"
    weaken(monkeypatch, "    version = landlock_version()", old)
    assert self_test(Sandbox("landlock", 1, 256, interpreter=interpreter_for("landlock"))) == []


def weaken(monkeypatch, text, other):
    """The harness with one protection taken out."""
    assert module._HARNESS.count(text) == 1
    monkeypatch.setattr(module, "_HARNESS", module._HARNESS.replace(text, other))


#: Per hole: what is taken out of the harness for it, and what the self-test must say then.
HOLES = {
    "no isolation": (
        (),
        [
            "writing outside its scratch folder",
            "reading files of the runner",
            "reading the memory of the runner",
            "reading the environment of the runner",
            "filling the disk",
            "privileges",
        ],
    ),
    "all system calls": (
        ("    deny_system_calls(", "    dict("),
        [
            "network",
            "signalling the runner",
            "reaching the harness",
            "ending the harness",
            "starting processes",
            "outliving its test",
            "leaving traces for the next program",
        ],
    ),
    "no limits": (
        ("resource.setrlimit(kind, (soft, hard))", "pass"),
        ["memory without limit", "time without limit"],
    ),
    "all output": (("out_read: output_bytes, said", "out_read: 1 << 62, said"), ["output without limit"]),
    "every end is a good one": (
        ("elif said[1:] == nonce or", "elif True or"),
        [name for name in NAMES if name.startswith("passing by")],
    ),
    "memory for all to read": (("    hide_memory()", "    pass"), ["reading the memory of the harness"]),
    "nothing removed": (("clean = _clear(scratch)", "clean = True"), ["leaving traces for the next program"]),
}


@pytest.mark.parametrize("hole", HOLES)
def test_the_self_test_finds_every_hole(hole, monkeypatch):
    change, named = HOLES[hole]
    if change:
        weaken(monkeypatch, *change)
    monkeypatch.setattr(module, "_WALL_FACTOR", 0)
    monkeypatch.setattr(module, "_WALL_SECONDS", 4)
    backend = "unshare" if hole == "nothing removed" else "none"
    assert set(named) <= set(self_test(Sandbox(backend, 1, 256)))


def test_every_attack_is_proved_to_be_noticed():
    assert {name for _, named in HOLES.values() for name in named} == set(NAMES)


def test_refusal_names_the_remedy(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda *_, **__: None)
    with pytest.raises(InputError, match=r"install bubblewrap.*accept_risk"):
        open_sandbox(1, 256)
    assert open_sandbox(1, 256, accept_risk=True).backend == "none"


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="needs root and a system Python")
@pytest.mark.parametrize("backend", BACKENDS)
def test_isolation_holds_for_an_ordinary_user(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("user") / "whichteacher"
    folder.mkdir()
    for name in ("__init__", "attacks", "confine", "harness", "sandbox", "rule"):
        shutil.copy(Path(module.__file__).with_name(f"{name}.py"), folder)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == 0 and path != Path("/") and not path.stat().st_mode & 0o5:
            path.chmod(0o755)
    program = f"from whichteacher.sandbox import *; from whichteacher.attacks import *; print(self_test(Sandbox({backend!r}, 1, 256)))"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd=folder.parent,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder.parent), "TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_tests_run_one_by_one(safe):
    results = safe.run(Job(ADD, "assert", ["assert f(1) == 2", "assert f(1) == 3", "assert g(1)"]))
    assert [(result.status, result.error) for result in results] == [
        ("ran", ""),
        ("error", "AssertionError"),
        ("error", "NameError"),
    ]


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("import os\nos._exit(0)\n" + ADD, "exited"),
        ("import sys\nsys.exit(0)\n" + ADD, "error"),
        ("def f(x):\n    import os\n    os._exit(0)", "exited"),
        ("def f(x):\n    while True: pass", "cpu_limit"),
        ("def f(x):\n    return [0] * 10**9", "memory_limit"),
        ("import ctypes\ndef f(x):\n    ctypes.string_at(0)", "exited"),
        ("def f(x) return x", "error"),
        ("def f(x):\n    print('!forged')\n    raise KeyError", "error"),
    ],
)
def test_only_a_test_that_came_to_its_end_counts(safe, program, status):
    assert statuses(safe, program, "assert", ["assert f(1) == 2"]) == [status]


def test_no_test_runs_after_one_that_ran_out_of_time(safe):
    program = "def f(x):\n    while x: pass\n    return 0"
    assert statuses(safe, program, "assert", ["assert f(0) == 0", "assert f(1) == 0", "assert f(0) == 0"]) == [
        "ran",
        "cpu_limit",
    ]


def test_waiting_is_cut_by_the_wall_limit(monkeypatch):
    sandbox = open_sandbox(1, 256)
    monkeypatch.setattr(module, "_WALL_FACTOR", 0)
    monkeypatch.setattr(module, "_WALL_SECONDS", 1)
    assert statuses(sandbox, "import time\ntime.sleep(60)", "std", [""]) == ["wall_limit"]


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("print(int(input()) * 2)", "14\n"),
        ("import sys\nfor line in sys.stdin:\n    print(int(line) * 2)", "14\n"),
        ("import sys\nsys.stdout.buffer.write(b'14')", "14"),
        ("import sys\nprint(14)\nsys.exit()", "14\n"),
        ("print(14)\nexit()", "14\n"),
        ("print(14)\nquit(0)", "14\n"),
        ("def main():\n    print(14)\nif __name__ == '__main__':\n    main()", "14\n"),
        ("import threading\nt = threading.Thread(target=lambda: print(14))\nt.start()", "14\n"),
        ("import atexit\natexit.register(lambda: print(14))", "14\n"),
        ("n = int(open(0).read())\nprint(n * 2, end='')", "14"),
        # Several threads at once, and a pool of them.
        (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(8) as pool:\n    print(sum(pool.map(lambda _: 1, range(14))))",
            "14\n",
        ),
    ],
)
def test_scripts_read_and_write_as_usual(safe, program, output):
    (result,) = safe.run(Job(program, "std", ["7\n"], [3]))
    assert (result.status, result.output) == ("ran", output)


def test_tests_do_not_see_each_other(safe):
    program = "import pathlib\ncount = []\ndef f(x):\n    count.append(x)\n    return len(count)"
    assert statuses(safe, program, "assert", ["assert f(1) == 1", "assert f(1) == 1"]) == ["ran", "ran"]


@pytest.mark.parametrize(
    "start",
    [
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "subprocess.run(['/bin/true'], check=True)",
        "multiprocessing.get_context('fork').Process(target=int).start()",
    ],
)
def test_a_program_has_one_process(safe, start):
    # Its limit on memory would be one of each process otherwise.
    (result,) = safe.run(Job(f"import multiprocessing, os, subprocess\n{start}", "std", [""]))
    assert (result.status, result.error) in {("error", "PermissionError"), ("error", "OSError")}


@pytest.mark.skipif(shutil.which("g++", path="/usr/bin") is None, reason="no C++ compiler")
def test_cpp(safe):
    program = "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << n + 1; return n == 3; }"
    results = safe.run(Job(program, "std", ["1", "2", "3"], [1, 1, 1], "cpp"))
    assert [(result.status, result.output) for result in results] == [("ran", "2"), ("ran", "3"), ("exited", "")]
    assert statuses(safe, "int main( {", "std", [""], language="cpp") == ["error"]


def test_the_runner_shows_no_environment(safe, monkeypatch):
    monkeypatch.setenv("WHICHTEACHER_PROBE", "secret")
    (result,) = safe.run(Job("import os\nprint(sorted(os.environ))", "std", [""]))
    assert "WHICHTEACHER_PROBE" not in result.output
    assert sys.executable not in result.output


def test_a_program_finds_nothing_of_the_one_before(safe):
    leave = "import os\nopen('left', 'w').write('secret')\nos.mkdir('shut')\nos.chmod('shut', 0)\nprint(os.getpid())"
    look = "import os\nprint(os.listdir('.'))"
    assert safe.run(Job(leave, "std", [""]))[0].status == "ran"
    assert safe.run(Job(look, "std", [""]))[0].output == "[]\n"


def test_a_sandbox_that_ends_gives_way_to_a_new_one():
    sandbox = Sandbox("unshare", 1, 256)
    assert statuses(sandbox, "print(1)", "std", [""]) == ["ran"]
    process = sandbox._thread.inside._process
    process.kill()
    process.wait()
    with pytest.raises(OSError, match=r"sandbox unshare: no report"):
        sandbox.run(Job("print(1)", "std", [""]))
    assert statuses(sandbox, "print(1)", "std", [""]) == ["ran"]


def test_neither_signals_nor_text_break_the_harness(safe):
    assert statuses(safe, "import os\nos.kill(os.getpid(), 40)", "std", [""]) == ["exited"]
    assert statuses(safe, "print('\\ud800')", "std", [""]) == ["error"]
    assert statuses(safe, "x = '\ud800'", "std", ["\ud800"]) == ["error"]
    loud = "import sys\nfor _ in range(100):\n    print('x' * 9999, file=sys.stderr)\nprint(1)"
    assert statuses(safe, loud, "std", [""]) == ["ran"]


@pytest.mark.skipif(shutil.which("g++", path="/usr/bin") is None, reason="no C++ compiler")
def test_cpp_out_of_memory_is_told_apart(safe):
    program = "#include <vector>\nint main() { std::vector<long> v(1L << 33); return v[5]; }"
    assert statuses(safe, program, "std", [""], language="cpp") == ["memory_limit"]
    loud = (
        "#include <iostream>\nint main() { for (int i = 0; i < 99999; i++) std::cerr << i << '\\n'; std::cout << 1; }"
    )
    assert statuses(safe, loud, "std", [""], language="cpp") == ["ran"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_runners_of_root_do_not_share_a_user(safe):
    (result,) = safe.run(Job("import os\nprint(os.getuid(), os.getgid())", "std", [""]))
    assert result.output == f"{module._unprivileged_user()} 65534\n"
    assert module._unprivileged_user() in (65534, module._FIRST_USER + os.getpid())


@pytest.mark.parametrize("backend", BACKENDS)
def test_sets_of_texts_keep_their_order_in_every_run(backend):
    job = Job("print(hash('some text'))", "std", [""])
    # One sandbox each: within one, all programs descend from one process.
    sandboxes = [Sandbox(backend, 1, 256, interpreter=interpreter_for(backend)) for _ in range(2)]
    results = [sandbox.run(job)[0] for sandbox in sandboxes]
    assert results[0].status == "ran" and results[0] == results[1]
