"""Programs and environments that the study's rules need, and the sandbox."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from whichteacher.config import Study
from whichteacher.doctor.findings import Finding
from whichteacher.doctor.models import loaded_models
from whichteacher.rule import InputError
from whichteacher.sandbox import open_sandbox

_PROJECT = Path(__file__).resolve().parents[3]
#: Snakemake 9.27 takes no older one.
_CONDA = (24, 7, 1)
_PYTHONS = ((3, 11), (3, 13))
_BETTER = "install bubblewrap, or allow user namespaces (docs/sandbox.md)"


def runs_programs(study: Study) -> bool:
    """Whether the study runs programs that models wrote."""
    benchmarks = study.evaluation.benchmarks.values() if study.evaluation and not study.audit else ()
    return any(each.category == "code" for each in [*study.corpus.sources.values(), *benchmarks])


def may_run_cpp(study: Study) -> bool:
    """Whether some of them may be in C++: the data names the language."""
    return any(
        each.category == "code" and ((each.columns is not None and each.columns.language is not None) or each.layout)
        for each in study.corpus.sources.values()
    )


def check_python() -> Finding:
    """The interpreter of the rules outside conda."""
    version = sys.version.split()[0]
    low, high = (".".join(map(str, bound)) for bound in _PYTHONS)
    if _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        return Finding("python", "ok", version)
    return Finding("python", "fault", version, f"use Python {low} to {high}: make setup PYTHON=python{low}")


def check_programs(study: Study, conda: bool) -> list[Finding]:
    """make, conda, Slurm's programs and compilers, each where the study uses it."""
    findings = []
    if conda:
        findings.append(check_conda())
    elif shutil.which("make") is None:
        text = "not found; `make setup` keeps the environments up to date"
        findings.append(Finding("make", "warning", text, "install it"))
    if study.training and study.training.nodes > 1:
        lacking = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
        text = f"training.nodes is {study.training.nodes}"
        remedy = "start from a login node of the cluster, with --profile profiles/slurm, or set nodes to 1"
        findings.append(
            Finding("slurm", "fault", f"{text}, and there is no {lacking[0]}", remedy)
            if lacking
            else Finding("slurm", "ok", f"{text}; sbatch and srun are here")
        )
    if any(use.devices for use in loaded_models(study)):
        found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
        text = "Triton compiles kernels when engines start"
        findings.append(
            Finding("C compiler", "ok", f"{found}; {text}")
            if found
            else Finding("C compiler", "warning", f"none here; {text}", "install gcc where the engines run")
        )
    if may_run_cpp(study):
        # The sandbox shows programs the system's folders alone.
        found = shutil.which("g++", path="/usr/bin")
        findings.append(
            Finding("C++ compiler", "ok", found)
            if found
            else Finding(
                "C++ compiler", "warning", "no g++ in /usr/bin: programs in C++ would stay undecided", "install g++"
            )
        )
    return findings


def check_conda() -> Finding:
    """conda's version."""
    program = shutil.which("conda")
    if program is None:
        return Finding("conda", "fault", "not found, and --sdm conda asks for it", "install conda (miniforge)")
    wanted = ".".join(map(str, _CONDA))
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d+\.\d+", told)
    if found is None:
        return Finding("conda", "warning", f"{program} tells no version", f"see that it is {wanted} or newer")
    if tuple(map(int, found[0].split("."))) < _CONDA:
        return Finding("conda", "fault", f"{found[0]} is too old", f"update it to {wanted} or newer")
    return Finding("conda", "ok", found[0])


def check_environments(study: Study, evaluation_python: str, project: Path = _PROJECT) -> list[Finding]:
    """Without conda: whether the virtual environments were built from the locks as they are. ``evaluation_python`` is the
    interpreter that LightEval's rules start."""
    specification = importlib.util.spec_from_file_location("set_up", project / "tools" / "set_up.py")
    set_up = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(set_up)
    wanted = {}
    if Path(sys.prefix) == project / ".venv":
        wanted[".venv"] = sys.executable
    if study.evaluation and (study.training or study.evaluation.models):
        wanted[".venv-evaluation"] = evaluation_python
    findings = []
    for name, python in wanted.items():
        if shutil.which(python) is None:
            findings.append(Finding(f"environment {name}", "fault", f"no Python at {python}", "make setup"))
        elif Path(python) != project / name / "bin" / "python":
            findings.append(Finding(f"environment {name}", "ok", f"another one is used: {python}"))
        elif set_up.is_ready(project / name, set_up.ENVIRONMENTS[name][0]):
            findings.append(Finding(f"environment {name}", "ok", "built from its lock"))
        else:
            text = "not built from the lock as it is now, or for another place"
            findings.append(Finding(f"environment {name}", "warning", text, "make setup"))
    return findings


def check_sandbox(study: Study) -> list[Finding]:
    """The self-test of the sandbox, where model-written programs are run."""
    if not runs_programs(study):
        return []
    limits = study.verification.sandbox
    try:
        backend = open_sandbox(limits.cpu_seconds, limits.memory_mb).backend
    except InputError as error:
        if limits.accept_risk:
            return [Finding("sandbox", "warning", f"accept_risk is set, and {error}", _BETTER)]
        return [Finding("sandbox", "fault", *str(error).split("): ", 1))]
    if backend == "landlock":
        text = "Landlock passes the self-test; namespaces, which hide more, are not to be had"
        return [Finding("sandbox", "warning", text, _BETTER)]
    name = "bubblewrap" if backend == "bwrap" else "util-linux (unshare)"
    return [Finding("sandbox", "ok", f"{name} passes the self-test")]
