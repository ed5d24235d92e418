"""How long Snakemake takes to plan: each shipped study from nothing, and a finished one.

    .venv/bin/python benchmarks/planning.py [--finished FOLDER] [--repeats N]

The baseline is an empty workflow of one rule, planned in the same run: what Snakemake takes to start. ``--finished`` names a folder in
which the small study (config/test.yaml) has been run to its end.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EMPTY = 'rule all:\n    output:\n        "out",\n    shell:\n        "touch {output}"\n'


def plan(folder: Path, snakefile: Path, *arguments: str) -> tuple[float, float, int]:
    """Seconds, GiB at most, and jobs of one dry run in ``folder``."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--quiet",
        "rules",
        "--cores",
        "2",
        "--snakefile",
        str(snakefile),
    ]
    with tempfile.TemporaryFile() as told:
        started = time.monotonic()
        child = subprocess.Popen([*command, *arguments], cwd=folder, stdout=told, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started
        told.seek(0)
        text = told.read().decode()
    if status:
        sys.exit(text)
    jobs = re.search(r"^total +(\d+)", text, re.M)
    return seconds, usage.ru_maxrss / 2**20, int(jobs[1]) if jobs else 0


def main() -> None:
    """Plan everything, in turn, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--finished", type=Path, help="where the small study is finished")
    parser.add_argument("--repeats", type=int, default=3)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "Snakefile")
        empty.write_text(EMPTY, encoding="utf-8")
        studies = {"an empty workflow": (Path(folder), empty, ())}
        for name in ("test", "config", "released", "paper"):
            config = ROOT / "config" / f"{name}.yaml"
            studies[f"config/{name}.yaml"] = (Path(folder), ROOT / "Snakefile", ("--configfile", str(config)))
        if told.finished:
            config = ("--configfile", str(ROOT / "config" / "test.yaml"))
            studies["config/test.yaml, finished"] = (told.finished.resolve(), ROOT / "Snakefile", config)
        runs = {name: [] for name in studies}
        for _ in range(told.repeats):
            for name, study in studies.items():
                runs[name].append(plan(study[0], study[1], *study[2]))
    baseline = statistics.median(seconds for seconds, _, _ in runs["an empty workflow"])
    print("| study | jobs | seconds | times an empty workflow | GiB |\n| --- | ---: | ---: | ---: | ---: |")
    for name, found in runs.items():
        seconds = statistics.median(run[0] for run in found)
        memory, jobs = max(run[1] for run in found), found[0][2]
        print(f"| {name} | {jobs:,} | {seconds:.1f} | {seconds / baseline:.1f} | {memory:.2f} |")


if __name__ == "__main__":
    main()
