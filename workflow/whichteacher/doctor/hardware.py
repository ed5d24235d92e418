"""GPUs, memory, cores, shared memory and open files: what is here, against what the study asks for."""

from __future__ import annotations

import math
import os
import resource
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from whichteacher.config import Study
from whichteacher.doctor.findings import GIB, Finding, gib
from whichteacher.doctor.models import Use, loaded_models, training_bytes, weight_bytes

#: What README asks for the miniature, and what it was measured to use.
_MINIATURE_MEMORY, _MINIATURE_USED = 6 * GIB, 3.7 * GIB
#: Weights beyond this share of what an engine takes of a device leave little for the responses under way.
_TIGHT = 0.85
#: Docker gives 64 MiB; NCCL and vLLM's workers map more than that for each pair of processes.
_SHARED_MEMORY = GIB
_OPEN_FILES = 1024
_QUERY_SECONDS = 30
_CGROUP = Path("/sys/fs/cgroup")


class Gpu(NamedTuple):
    """A device; ``memory`` in bytes, infinite where it is not told."""

    name: str
    memory: float


class Machine(NamedTuple):
    """Where the study would run. ``slurm``: whether jobs can be sent to a cluster from here; ``cpu_build``: whether the engines at
    hand can use no GPU, and need none."""

    gpus: list[Gpu]
    memory: float
    cores: int
    slurm: bool
    cpu_build: bool


def read_machine() -> Machine:
    """This machine."""
    return Machine(
        gpus=read_gpus(),
        memory=read_memory(),
        cores=len(os.sched_getaffinity(0)),
        slurm=shutil.which("sbatch") is not None,
        cpu_build=has_cpu_build(),
    )


def read_gpus() -> list[Gpu]:
    """The devices that nvidia-smi tells of, without those that ``CUDA_VISIBLE_DEVICES`` hides."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = [[part.strip() for part in line.split(",")] for line in told.splitlines() if line.count(",") == 3]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        # Slices of a device have names of their own, and nvidia-smi does not tell how much memory each has.
        if any(name.startswith("MIG-") for name in names):
            return [Gpu("MIG slice", math.inf) for _ in names]
        found = [gpu for gpu in found if any(name == gpu[0] or gpu[1].startswith(name) for name in names)]
    # Where it shares the machine's memory none is told.
    return [Gpu(name, float(memory) * 2**20 if memory.isdigit() else math.inf) for _, _, name, memory in found]


def read_memory() -> float:
    """Bytes of main memory, or of the control group that this process lies in."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (_CGROUP / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():
            total = min(total, float(limit))
    return total


def has_cpu_build() -> bool:
    """Whether the PyTorch of this environment was built for CPUs alone; the engines of the others are then too."""
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def check_gpus(study: Study, machine: Machine) -> list[Finding]:
    """Whether there are the devices that the study's jobs ask for, and whether the models fit into their memory.

    Memory is reckoned: weights alone, from file sizes or the number in a hub id, spread evenly.
    """
    uses = loaded_models(study)
    training = study.training if study.training and study.training.base else None
    per_node = training.recipe.devices // training.nodes if training else 0
    asked = [*((use.devices, use.key) for use in uses), (per_node, "training.recipe.devices, on each node")]
    most, key = max(asked)
    if most == 0:
        if uses and not (machine.cpu_build or machine.gpus or machine.slurm):
            return [
                Finding(
                    "gpu",
                    "fault",
                    "none here, and the engines of these environments are built for GPUs",
                    "run in environments for CPUs, as those of `make setup` without --sdm conda",
                )
            ]
        return [Finding("gpu", "ok", "this study needs none")]
    needed = f"{most} per job ({key})"
    if machine.slurm and len(machine.gpus) < most:
        largest = max([_per_device(use) or 0.0 for use in uses] + [(training_bytes(study) or (0.0, 0))[0]])
        weight = f", with {gib(largest)} or more each (reckoned)" if largest else ""
        return [
            Finding(
                "gpu",
                "warning",
                f"{len(machine.gpus) or 'none'} here, where jobs can be sent to Slurm; the study needs {needed}",
                f"start it with --profile profiles/slurm, and see that the cluster's nodes have them{weight}",
            )
        ]
    if not machine.gpus or machine.cpu_build:
        return [_without_gpus(study, machine, uses, needed)]
    shown = f"{len(machine.gpus)} x {machine.gpus[0].name}, {gib(min(gpu.memory for gpu in machine.gpus))}"
    if len(machine.gpus) < most:
        return [
            Finding(
                "gpu",
                "fault",
                f"{shown}; the study needs {needed}",
                "lower that, or run where there are as many",
            )
        ]
    return [Finding("gpu", "ok", f"{shown}; needed: {needed}"), *_fits(study, machine.gpus, uses)]


def _without_gpus(study: Study, machine: Machine, uses: list[Use], needed: str) -> Finding:
    """The finding where the engines have no GPU: those that are built for CPUs run small models all the same."""
    here = "none here"
    remedy = "run where there are GPUs, with --sdm conda, or name smaller models"
    if machine.gpus:
        here = f"{len(machine.gpus)} here, and the engines of these environments are built for CPUs"
        remedy = "run in the conda environments for GPUs (--sdm conda)"
    weights = [weight_bytes(use) for use in uses if use.model]
    training = training_bytes(study)
    small = all(weight is not None and weight < machine.memory for weight in weights)
    trained = study.training is None or not study.training.base or (training and training[0] < machine.memory)
    kernels = study.training is not None and (study.training.recipe.liger or "flash" in study.training.recipe.attention)
    if machine.cpu_build and small and trained and not kernels:
        largest = max((weight for weight in weights if weight), default=0.0)
        return Finding(
            "gpu", "warning", f"{here}; models of up to {gib(largest)} (reckoned) would run on CPUs, slowly", remedy
        )
    return Finding("gpu", "fault", f"{here}; the study needs {needed}", remedy)


def _per_device(use: Use) -> float | None:
    weight = weight_bytes(use) if use.model else None
    return None if weight is None else weight / use.spread


def _fits(study: Study, gpus: list[Gpu], uses: list[Use]) -> list[Finding]:
    memory = min(gpu.memory for gpu in gpus)
    loads = [(use.key, _per_device(use), use.share * memory, use.spread) for use in uses if use.model and use.devices]
    if study.training and study.training.base:
        training = training_bytes(study)
        loads.append(("training", training[0] if training else None, memory, study.training.recipe.devices))
    findings = []
    for key, load, room, spread in loads:
        what = "weights, gradients and optimizer states" if key == "training" else "weights"
        name = f"memory of {key}"
        if load is None:
            text = f"neither files nor name tell how large the {what} are"
            findings.append(Finding(name, "warning", text, f"see that they fit into {spread} x {gib(room)}"))
            continue
        text = f"{what} of {gib(load)} on each of {spread} devices, {gib(room)} there (reckoned)"
        remedy = "spread it over more devices, or use larger ones"
        if load > room:
            findings.append(Finding(name, "fault", text, remedy))
        elif load > _TIGHT * room:
            findings.append(Finding(name, "warning", f"{text}: little is left for the tokens under way", remedy))
        else:
            findings.append(Finding(name, "ok", text))
    return findings


def check_memory(study: Study, machine: Machine, asked: Mapping[str, float]) -> Finding:
    """Main memory against the largest ``mem_mb`` of the study's rules (``asked``: bytes by rule), or what README asks for the
    miniature. The rules' figures are bounds for a cluster: falling short of them is a warning."""
    if study.miniature:
        text = f"{gib(machine.memory)}; the miniature asks for {gib(_MINIATURE_MEMORY)}"
        if machine.memory >= _MINIATURE_MEMORY:
            return Finding("memory", "ok", text)
        state = "warning" if machine.memory >= _MINIATURE_USED else "fault"
        return Finding("memory", state, text, "run it where there is more, or give the container more")
    rule, largest = max(asked.items(), key=lambda pair: pair[1])
    text = f"{gib(machine.memory)} here; the largest job ({rule}) asks for up to {gib(largest)}"
    if machine.memory >= largest:
        return Finding("memory", "ok", text)
    where = "see that the cluster's nodes have it" if machine.slurm else "watch the first job of that rule"
    return Finding("memory", "warning", text, where)


def check_cores(machine: Machine, asked: Mapping[str, int]) -> Finding:
    """Cores against the largest ``threads`` of the study's rules (``asked``, by rule): fewer ones make a job slower, except on a
    cluster, which has to have them."""
    rule, most = max(asked.items(), key=lambda pair: pair[1])
    text = f"{machine.cores} here; the largest job ({rule}) uses {most}"
    if machine.cores >= most:
        return Finding("cores", "ok", text)
    if machine.slurm:
        return Finding("cores", "warning", text, "see that the cluster's nodes have them")
    return Finding("cores", "ok", f"{text} where there are as many")


def has_workers(study: Study) -> bool:
    """Whether processes of one job talk to each other through shared memory."""
    recipe = study.training.recipe if study.training else None
    return any(use.devices > 1 for use in loaded_models(study)) or (recipe is not None and recipe.devices > 1)


def check_shared_memory(study: Study, place: str = "/dev/shm") -> list[Finding]:
    """The size of ``place``, where a job has several processes."""
    if not has_workers(study):
        return []
    try:
        size = shutil.disk_usage(place).total
    except OSError:
        size = 0
    text = f"{gib(size)} at {place}, which the processes of a job share"
    if size >= _SHARED_MEMORY:
        return [Finding("shared memory", "ok", text)]
    remedy = f"give it {gib(_SHARED_MEMORY)} or more (docker: --ipc=host or --shm-size; else mount -o remount,size=...)"
    return [Finding("shared memory", "warning", text, remedy)]


def check_open_files(study: Study) -> Finding:
    """The limit on open files against the connections to endpoints and what engines open."""
    endpoints = [each.endpoint for each in [*study.teachers.values(), *study.verification.judges.values()]]
    needed = max([_OPEN_FILES, *(endpoint.concurrency + 256 for endpoint in endpoints if endpoint)])
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = limit == resource.RLIM_INFINITY
    text = f"{'any number' if unlimited else f'{limit:,}'} allowed, {needed:,} needed at most"
    if unlimited or limit >= needed:
        return Finding("open files", "ok", text)
    return Finding("open files", "warning", text, f"ulimit -n {needed} before the start")
