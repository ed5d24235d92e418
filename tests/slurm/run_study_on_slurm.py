"""The small study through profiles/slurm on a real Slurm of this machine, killed and resumed, against a local run.

    .venv/bin/python tests/slurm/run_study_on_slurm.py [SCRATCH]

As root, with Slurm's daemons installed (see sandbox.py) and the package index at hand. In this order:

1. The plugin of envs/cluster.txt is installed beside the packages of .venv, in an environment of the scratch folder.
2. The study starts through the profile. Once a teacher generates, Snakemake is killed (SIGKILL), then its Slurm jobs (scancel).
3. It is unlocked and started again. Once a student trains, its Slurm job is cancelled: Snakemake submits it again.
4. The study runs once more with this machine's own processors, on the same store without its students; tables must be equal.
5. A student is trained on both nodes of the sandbox, one process each, as `training.nodes` asks.
6. Jobs ask for GPUs as the rules do, on one node and on two, and say what they were given (gpus.smk).

Jobs take their packages from .venv, not from conda: on the command line `--software-deployment-method env-modules`, of which no
rule has any, stands in the profile's place. Prints what it found and took; ends with an error where something differs.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/slurm", "tests", "tools", "workflow")]

import sandbox  # noqa: E402
from study_runs import CONFIG, changed, snakemake, stored  # noqa: E402
from test_interruption import ENGINE, said, tables  # noqa: E402

#: Jobs at a time; the sandbox's nodes claim more processors than there are.
JOBS = "3"
STUDENT = "results/test/training/parallel/steps/0/summary.json"


def make_environment(folder: Path) -> Path:
    """The Python of a new environment that has the packages of this one and, beside them, the locked Slurm plugin.

    Of what the plugin's own environment holds, only the plugin and its job step are missing in .venv. They come without
    their dependencies, for numpy is older here than the lock wants.
    """
    here = Path(sys.executable).absolute()
    subprocess.run([here, "-m", "venv", folder], check=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    ours = next(here.parents[1].glob("lib/python*/site-packages"))
    (packages / "study.pth").write_text(f"import site; site.addsitedir({str(ours)!r})\n")
    blocks = re.split(r"\n(?=\S)", (ROOT / "envs" / "cluster.txt").read_text())
    plugin = folder / "plugin.txt"
    plugin.write_text("\n".join(block for block in blocks if block.startswith("snakemake-executor-plugin-slurm")))
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--requirement", plugin],
        check=True,
    )
    return python


def through_profile(python: Path, snakefile: Path, directory: Path, *arguments: str) -> list[str]:
    """Snakemake with the profile, and what is other here than on a cluster."""
    return [
        *(str(python), "-m", "snakemake", "--snakefile", str(snakefile), "--directory", str(directory)),
        *("--profile", str(ROOT / "profiles" / "slurm"), "--jobs", JOBS, "--software-deployment-method", "env-modules"),
        *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "15"),
        *arguments,
    ]


def command(python: Path, directory: Path, *arguments: str, config: Path = CONFIG) -> list[str]:
    """A study through the profile."""
    # Last, because it takes every argument up to the next option.
    return through_profile(python, ROOT / "Snakefile", directory, *arguments, "--configfile", str(config))


def start(line: list[str], output: Path) -> subprocess.Popen:
    """Start it in a process group of its own."""
    with output.open("w") as file:
        return subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def wait_for(run: subprocess.Popen, output: Path, logs: Path, begun: Callable[[Path], bool]) -> str:
    """The running Slurm job of the rule whose logs lie in ``logs``, once it has ``begun``, as its log or what lies elsewhere tells."""
    while run.poll() is None:
        for job, comment in sandbox.running().items():
            for log in logs.rglob("*.log"):
                named = "_".join(log.relative_to(logs).with_suffix("").parts).replace("round", "")
                if comment == f"rule_{logs.name}_wildcards_{named}" and begun(log):
                    return job
        time.sleep(0.2)
    sys.exit(f"the run ended before a job of {logs.name} had come far enough:\n{output.read_text()[-3000:]}")


def finish(run: subprocess.Popen, output: Path) -> None:
    """Wait for the end, which must be a good one."""
    if run.wait():
        sys.exit(f"Snakemake failed:\n{output.read_text()[-6000:]}")


def seconds(do: Callable[[], object]) -> float:
    """How long ``do`` takes."""
    began = time.monotonic()
    do()
    return time.monotonic() - began


def kill(line: list[str], results: Path, output: Path) -> None:
    """Step 2: start the study, and end it as a dying login node would."""

    def generates(log: Path) -> bool:
        return re.search(ENGINE, log.read_text(errors="replace")) is not None

    run = start(line, output)
    job = wait_for(run, output, results / "logs" / "generate_responses", generates)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    if job not in sandbox.running():
        sys.exit("the Slurm job ended together with Snakemake, which a cluster's does not")
    # What was submitted goes on without Snakemake, and would meet what the next start submits.
    sandbox.cancel_all()
    print(f"killed Snakemake and cancelled what it had submitted, with {len(stored(results))} responses in the store")


def resume(line: list[str], results: Path, output: Path) -> None:
    """Step 3: go on to the end, and lose the job of a student on the way."""
    subprocess.run([*line, "--unlock"], check=True)
    run = start(line, output)
    students = results / "store" / "students"
    job = wait_for(
        run, output, results / "logs" / "train_student", lambda log: any(students.glob("*/unfinished/samples.arrow"))
    )
    subprocess.run(["scancel", job], check=True)
    print(f"cancelled the training job {job}")
    finish(run, output)
    asked = re.findall(r"^rule train_student:.*?mem_mb=(\d+)", output.read_text(), re.MULTILINE | re.DOTALL)
    if sorted(asked) != ["2000", "2000", "2000", "3000"]:
        sys.exit(f"the cancelled job was not submitted again with more memory: {asked}")


def run_disturbed(python: Path, directory: Path, scratch: Path) -> None:
    """Steps 2 and 3."""
    line, results = command(python, directory), directory / "results" / "test"
    kill(line, results, scratch / "killed.txt")
    resume(line, results, scratch / "resumed.txt")


def compare(directory: Path, undisturbed: Path) -> int:
    """How many equal files both finished studies have; an error where any differs."""
    ours, theirs = tables(directory / "results" / "test"), tables(undisturbed / "results" / "test")
    if ours.keys() != theirs.keys():
        sys.exit(f"only one of the runs has {sorted(ours.keys() ^ theirs.keys())}")
    if differing := [name for name in ours if said(ours[name]) != said(theirs[name])]:
        sys.exit(f"the runs differ in {differing}")
    return len(ours)


def train_on_both_nodes(python: Path, directory: Path, scratch: Path) -> None:
    """Step 5, in the folder of the finished study."""

    def several(study: dict) -> None:
        study["training"]["nodes"] = 2
        study["training"]["recipe"] |= {"devices": 2, "batch_size": 4}

    output = scratch / "several.txt"
    finish(start(command(python, directory, STUDENT, config=changed(scratch, several)), output), output)
    if json.loads((directory / STUDENT).read_text())["devices"] != 2:
        sys.exit(f"{STUDENT}: not trained by two processes")


def count_gpus(python: Path, directory: Path, scratch: Path) -> None:
    """Step 6: the GPUs and the processors of each job, on each of its nodes."""
    line = through_profile(python, ROOT / "tests/slurm/gpus.smk", directory, "--workflow-profile", "none")
    directory.mkdir()
    finish(start(line, scratch / "gpus.txt"), scratch / "gpus.txt")
    given = [(directory / f"{name}.txt").read_text().splitlines() for name in ("one_node", "several_nodes")]
    if given[0] != ["0,1 16"] or [text.rsplit(" ", 1)[0] for text in given[1]] != ["0,1 16"] * 2:
        sys.exit(f"the jobs on GPUs were given {given}")


def main(scratch: Path) -> None:
    """Run all of it in ``scratch``."""
    if reason := sandbox.missing():
        sys.exit(f"run_study_on_slurm: {reason}")
    python = make_environment(scratch / "environment")
    directory, undisturbed = scratch / "slurm", scratch / "local"
    with sandbox.Sandbox(scratch / "sandbox"):
        took = seconds(lambda: run_disturbed(python, directory, scratch))
        text = (scratch / "resumed.txt").read_text()
        submitted = len(re.findall("has been submitted with SLURM jobid", text))
        print(f"Slurm: the study is finished after {took:.0f} s, the second start submitted {submitted} jobs")

        shutil.copytree(
            directory / "results/test/store",
            undisturbed / "results/test/store",
            ignore=shutil.ignore_patterns("students"),
        )
        took = seconds(lambda: snakemake(undisturbed))
        print(f"local, on what Slurm had generated: finished after {took:.0f} s")
        print(f"equal: {compare(directory, undisturbed)} files")

        took = seconds(lambda: train_on_both_nodes(python, directory, scratch))
        print(f"two nodes: a student is trained after {took:.0f} s")

        count_gpus(python, scratch / "gpus", scratch)
        print("GPUs: two on one node, and two on each of two nodes, with 16 processors")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
