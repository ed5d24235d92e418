"""Resolve every envs/*.in anew and write its lock: exact versions with hashes, and no index, host or path.

    .venv/bin/python tools/lock_environments.py [--upgrade] [name ...]

Versions in an existing lock are kept as long as they fit; ``--upgrade`` takes the newest. A stage's lock is for its
conda environment (Linux, its own Python, CUDA builds); the others are for Linux on x86_64 and Python 3.11 to 3.13. The
stage's post-deploy script, which installs the lock, is written too.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.markers import Marker
from set_up import ENVS, uv_sources

STAGES = ("corpus", "generation", "verification", "curation", "statistics", "training", "evaluation", "figures")
PYTHONS = ("3.11", "3.12", "3.13")

POST_DEPLOY = """\
#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${{WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}}/{stage}.txt"
echo "{digest}  $requirements" | sha256sum --check --quiet
python -m pip install --no-deps --no-cache-dir --require-hashes --requirement "$requirements"
"""


def names() -> list[str]:
    """Every environment that has a list of direct requirements."""
    return sorted(path.stem for path in ENVS.glob("*.in"))


def uv_command(name: str, output: Path, upgrade: bool) -> list[str]:
    """The resolver's call for envs/``name``.in."""
    command = [shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv", "pip", "compile", f"{name}.in"]
    command += ["--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
    command += ["--output-file", str(output), *(["--upgrade"] if upgrade else [])]
    if name in STAGES:
        python = re.search(r"python =(\d+\.\d+)", (ENVS / f"{name}.yaml").read_text(encoding="utf-8"))[1]
        return [*command, "--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
    command += ["--universal", "--python-version", PYTHONS[0]]
    if name.startswith("laptop"):
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
    """Write envs/``name``.txt, and for a stage its post-deploy script."""
    target = ENVS / f"{name}.txt"
    scratch = target.with_suffix(".new")
    if target.exists():
        shutil.copy(target, scratch)
    try:
        subprocess.run(uv_command(name, scratch, upgrade), cwd=ENVS, check=True)
        entries = re.findall(r"^[A-Za-z0-9].*(?:\n    .*)*", scratch.read_text(encoding="utf-8"), re.M)
        kept = [entry for entry in map(for_us, entries) if entry]
        text = f"# Written by tools/lock_environments.py from {name}.in: edit that.\n" + "\n".join(kept) + "\n"
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    if name in STAGES:
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        (ENVS / f"{name}.post-deploy.sh").write_text(POST_DEPLOY.format(stage=name, digest=digest), encoding="utf-8")
    print(f"{target.relative_to(ENVS.parent)}: {len(kept)} packages")


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
