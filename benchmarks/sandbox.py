"""How fast tests run in the sandbox, beside a bare interpreter per test and bubblewrap per test.

    .venv/bin/python benchmarks/sandbox.py [--programs 40] [--repeats 3] [--workers 2]

Every way runs the same small programs on the same tests (standard input and output) and must give the same verdicts:

- bare: ``python program.py`` per test, without any isolation;
- bwrap: bubblewrap per test around ``python -I -S``, with the sandbox's mounts and, through prlimit, its limits;
- the sandbox's backends, each of which starts once per worker and forks per program and test.

Prints tests per second of wall time, and the ratios to the first two (of the medians). The ways take turns in each repeat, so that
load from elsewhere meets all of them. The first repeat of the sandbox holds its start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from whichteacher import sandbox as module  # noqa: E402
from whichteacher.attacks import self_test  # noqa: E402
from whichteacher.sandbox import Job, Sandbox  # noqa: E402

#: Every third program gives a wrong answer to every odd input.
RIGHT = "import sys\nn = int(sys.stdin.readline())\nprint(sum(i * i for i in range(n)))\n"
WRONG = RIGHT + "if n % 2:\n    print('and more')\n"
CPU_SECONDS, MEMORY_MB = 6, 512

Verdicts = list[bool]


def programs(count: int) -> list[str]:
    """The programs: each is another text, as answers of a model are."""
    return [f"# {number}\n{WRONG if number % 3 == 0 else RIGHT}" for number in range(count)]


def cases(tests: int) -> list[tuple[str, str]]:
    """Inputs and expected outputs."""
    return [(f"{100 + number}\n", f"{sum(i * i for i in range(100 + number))}\n") for number in range(tests)]


def run_bare(interpreter: str, folder: Path, program: str, tests: list[tuple[str, str]]) -> Verdicts:
    """A bare interpreter per test."""
    path = folder / f"{abs(hash(program))}.py"
    path.write_text(program, encoding="utf-8")
    runs = (subprocess.run([interpreter, str(path)], input=given, capture_output=True, text=True) for given, _ in tests)
    return [done.stdout == wanted for done, (_, wanted) in zip(runs, tests, strict=True)]


def run_bubblewrap(sandbox: Sandbox, program: str, tests: list[tuple[str, str]]) -> Verdicts:
    """Bubblewrap per test, with the sandbox's mounts and limits."""
    root = os.geteuid() == 0
    mounts = Sandbox._bubblewrap(module._visible_folders(sandbox.interpreter), root)
    limits = [f"--cpu={CPU_SECONDS}", f"--as={MEMORY_MB << 20}", f"--fsize={64 << 20}", "--nofile=64", "--core=0"]
    identity = ["--reuid=65534", "--regid=65534", "--clear-groups"] if root else []
    inside = ["/usr/bin/setpriv", *identity, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    command = [*mounts, *inside, "/usr/bin/prlimit", *limits, sandbox.interpreter, "-I", "-S", "-c", program]
    runs = (
        subprocess.run(command, input=given, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
        for given, _ in tests
    )
    return [done.stdout == wanted for done, (_, wanted) in zip(runs, tests, strict=True)]


def run_sandbox(sandbox: Sandbox, program: str, tests: list[tuple[str, str]]) -> Verdicts:
    """The sandbox: one start per program."""
    results = sandbox.run(Job(program, "std", [given for given, _ in tests], [len(wanted) for _, wanted in tests]))
    return [result.output == wanted for result, (_, wanted) in zip(results, tests, strict=True)]


def measure(way: Callable[[str], Verdicts], texts: list[str], pool: ThreadPoolExecutor) -> tuple[list[Verdicts], float]:
    """Verdicts and wall seconds of ``way`` on ``texts``."""
    start = time.perf_counter()
    verdicts = list(pool.map(way, texts))
    return verdicts, time.perf_counter() - start


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tests", type=int, nargs="+", default=[1, 3, 10])
    options = parser.parse_args()
    backends = {}
    for backend, tools in module._TOOLS.items():
        if all(shutil.which(tool, path=module._search_path()) for tool in tools):
            try:
                if not self_test(Sandbox(backend, 1, MEMORY_MB, options.workers)):
                    backends[backend] = Sandbox(backend, CPU_SECONDS, MEMORY_MB, options.workers)
            except OSError as error:
                print(f"{backend}: {error}", file=sys.stderr)
    if not backends:
        sys.exit("no sandbox passes its self-test here: see docs/sandbox.md")
    any_sandbox = next(iter(backends.values()))
    texts = programs(options.programs)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as pool:
        for tests in options.tests:
            asked = cases(tests)
            ways: dict[str, Callable[[str], Verdicts]] = {
                "bare": lambda text, asked=asked: run_bare(any_sandbox.interpreter, Path(folder), text, asked)
            }
            if shutil.which("bwrap"):
                ways["bwrap per test"] = lambda text, asked=asked: run_bubblewrap(any_sandbox, text, asked)
            for backend, sandbox in backends.items():
                ways[f"sandbox {backend}"] = lambda text, asked=asked, sandbox=sandbox: run_sandbox(
                    sandbox, text, asked
                )
            taken: dict[str, list[float]] = {name: [] for name in ways}
            expected = None
            for _ in range(options.repeats):
                for name, way in ways.items():
                    verdicts, wall = measure(way, texts, pool)
                    expected = expected or verdicts
                    if verdicts != expected:
                        sys.exit(f"{name} gives other verdicts")
                    taken[name].append(wall)
            count = tests * len(texts)
            medians = {name: statistics.median(walls) for name, walls in taken.items()}
            print(f"\n{len(texts)} programs, {tests} tests each, {options.workers} workers, {options.repeats} repeats")
            print("| way | tests/s | to bare | to bwrap per test |")
            print("| --- | ---: | ---: | ---: |")
            for name, wall in medians.items():
                ratios = [
                    f"{medians[base] / wall:.2f}" if base in medians else "-" for base in ("bare", "bwrap per test")
                ]
                print(f"| {name} | {count / wall:.0f} | {ratios[0]} | {ratios[1]} |")


if __name__ == "__main__":
    main()
