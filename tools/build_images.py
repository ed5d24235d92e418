"""Build the images of stages from envs/Dockerfile (docker, podman) or envs/apptainer.def (apptainer), with the engine that is here.

    .venv/bin/python tools/build_images.py [--engine NAME] [environment ...]

Environments are those of envs/: `generation`, and `cpu/generation` for machines without a GPU; none builds all. Images are called
whichteacher-generation and whichteacher-generation-cpu; those of apptainer are files (.sif) in the folder envs/images.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys

from lock_environments import STAGES, names
from set_up import ENVS, ROOT

ENGINES = ("docker", "podman", "apptainer")


def command(engine: str, environment: str) -> list[str]:
    """The call of ``engine`` that builds the image of ``environment``, from the project's folder."""
    name = "-".join(["whichteacher", *reversed(environment.split("/"))])
    if engine == "apptainer":
        image = ENVS / "images" / f"{name}.sif"
        return [engine, "build", "--force", "--build-arg", f"STAGE={environment}", str(image), "envs/apptainer.def"]
    return [engine, "build", "--build-arg", f"STAGE={environment}", "--tag", name, "--file", "envs/Dockerfile", "."]


def main() -> None:
    """Command line."""
    known = [name for name in names() if name in STAGES or name.startswith("cpu/")]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", choices=ENGINES, help="the first that is installed if none is named")
    parser.add_argument("environment", nargs="*", help=f"none builds all: {', '.join(known)}")
    told = parser.parse_args()
    if unknown := set(told.environment) - set(known):
        parser.error(f"no such environment: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    engine = told.engine or next((name for name in ENGINES if shutil.which(name)), None)
    if engine is None or shutil.which(engine) is None:
        sys.exit(f"images: no {engine or ', no '.join(ENGINES)} here: install one of them")
    (ENVS / "images").mkdir(exist_ok=True)
    for environment in told.environment or known:
        print(f"== {environment}", flush=True)
        if subprocess.run(command(engine, environment), cwd=ROOT, check=False).returncode:
            sys.exit(f"images: {engine} could not build {environment}: the lines above say why")


if __name__ == "__main__":
    main()
