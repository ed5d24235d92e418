"""The sandbox holds against what model-written code may do, and says so before it runs any."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from whichteacher import sandbox as module
from whichteacher.confine import filter_program
from whichteacher.rule import InputError
from whichteacher.sandbox import Job, Sandbox, open_sandbox, self_test

BACKENDS = [
    pytest.param(
        name, marks=pytest.mark.skipif(any(map(lambda t: shutil.which(t) is None, tools)), reason=f"no {name}")
    )
    for name, tools in module._TOOLS.items()
]
HARNESS = "whichteacher.harness"
ADD = "def f(x):\n    return x + 1\n"


@pytest.fixture(scope="module")
def safe():
    return open_sandbox(1, 256)


def statuses(sandbox, program, call_type, cases, **options):
    return [result.status for result in sandbox.run(Job(program, call_type, cases, **options))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_isolation_holds(backend):
    if backend == "landlock" and os.geteuid() == 0 and sys.base_prefix.startswith("/root/"):
        pytest.skip("nobody may not read this interpreter")
    assert self_test(Sandbox(backend, 1, 256)) == []


#: Per hole: what is taken out of the harness for it, and what the self-test must say then.
HOLES = {
    "no isolation": (
        (),
        [
            "writing outside its scratch folder",
            "reading files of the runner",
            "reading the memory of the runner",
            "reading the environment of the runner",
            "signalling the runner",
            "filling the disk",
            "ending the harness",
        ],
    ),
    "all system calls": ((("    deny_system_calls(job", "    len(job"),), ["network", "outliving its test"]),
    "no limits": (
        (("resource.setrlimit(kind, (soft, hard))", "pass"),),
        ["forking without limit", "memory without limit", "time without limit, signals ignored"],
    ),
    "all output": (
        (("len(read[out_read]) > output_bytes", "False"), ("len(output) > output_bytes", "False")),
        ["output without limit"],
    ),
    "every end is a good one": (
        (("ended_well = ", "ended_well = True or "),),
        [f"passing by {how}" for how in module._EARLY_ENDS],
    ),
    "memory for all to read": ((("    hide_memory()", "    pass"),), ["reading the memory of the harness"]),
}


@pytest.mark.parametrize("hole", HOLES)
def test_the_self_test_finds_every_hole(hole, monkeypatch):
    changes, named = HOLES[hole]
    for change in changes:
        assert module._TEXTS[HARNESS].count(change[0]) == 1
        monkeypatch.setitem(module._TEXTS, HARNESS, module._TEXTS[HARNESS].replace(*change))
    monkeypatch.setattr(module, "_WALL_FACTOR", 0)
    monkeypatch.setattr(module, "_WALL_SECONDS", 4)
    broken = self_test(Sandbox("none", 1, 256))
    # What limits end comes with the limit that was met instead.
    assert [name for name in named if not any(found.split(" (")[0] == name for found in broken)] == []


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
    for name in ("__init__", "confine", "harness", "sandbox", "rule"):
        shutil.copy(Path(module.__file__).with_name(f"{name}.py"), folder)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == 0 and path != Path("/") and not path.stat().st_mode & 0o5:
            path.chmod(0o755)
    program = f"from whichteacher.sandbox import *; print(self_test(Sandbox({backend!r}, 1, 256)))"
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


def test_waiting_is_cut_by_the_wall_limit(safe, monkeypatch):
    monkeypatch.setattr(module, "_WALL_FACTOR", 0)
    monkeypatch.setattr(module, "_WALL_SECONDS", 1)
    assert statuses(safe, "import time\ntime.sleep(60)", "std", [""]) == ["wall_limit"]


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("print(int(input()) * 2)", "14\n"),
        ("import sys\nfor line in sys.stdin:\n    print(int(line) * 2)", "14\n"),
        ("import sys\nsys.stdout.buffer.write(b'14')", "14"),
        ("import sys\nprint(14)\nsys.exit()", "14\n"),
        ("def main():\n    print(14)\nif __name__ == '__main__':\n    main()", "14\n"),
        ("import threading\nt = threading.Thread(target=lambda: print(14))\nt.start()", "14\n"),
        ("import atexit\natexit.register(lambda: print(14))", "14\n"),
        ("n = int(open(0).read())\nprint(n * 2, end='')", "14"),
    ],
)
def test_scripts_read_and_write_as_usual(safe, program, output):
    (result,) = safe.run(Job(program, "std", ["7\n"], [3]))
    assert (result.status, result.output) == ("ran", output)


def test_tests_do_not_see_each_other(safe):
    program = "import pathlib\ncount = []\ndef f(x):\n    count.append(x)\n    return len(count)"
    assert statuses(safe, program, "assert", ["assert f(1) == 1", "assert f(1) == 1"]) == ["ran", "ran"]


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


def test_what_a_test_leaves_behind_is_gone(safe):
    program = "import os\nprint(sorted(os.listdir()))\nopen('left', 'w').close()\nos.makedirs('deep/er')"
    assert [result.output for result in safe.run(Job(program, "std", ["", ""]))] == ["[]\n", "[]\n"]


def test_a_program_that_cannot_be_started_has_not_run(monkeypatch):
    text = module._TEXTS[HARNESS].replace("os.execv(f", 'os.execv("/nowhere" + f')
    monkeypatch.setitem(module._TEXTS, HARNESS, text)
    sandbox = Sandbox("none", 1, 256)
    if sandbox.compiler:
        program = "int main() { return 0; }"
        assert statuses(sandbox, program, "std", [""], language="cpp") == ["error"]


def test_system_calls_are_listed_for_both_machines():
    for machine in ("x86_64", "aarch64"):
        program = filter_program(machine)
        assert len(program) % 8 == 0
        steps = list(struct.iter_unpack("HBBI", program))
        assert steps[-1] == (0x06, 0, 0, 0x7FFF0000), "what is not named is allowed"
        # Every jump stays inside.
        jumps = [(place, yes, no) for place, (code, yes, no, _) in enumerate(steps) if code in (0x15, 0x35, 0x45)]
        assert all(place + 1 + max(yes, no) < len(steps) for place, yes, no in jumps)
    with pytest.raises(OSError, match="no list of system calls for abacus"):
        filter_program("abacus")
