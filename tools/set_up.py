"""Set up the two virtual environments of a machine without conda: .venv and .venv-evaluation.

Each is built from its lock in envs/ (exact versions, checked hashes) and stamped with a digest of all that made it. A
stamped environment is left alone; a missing, outdated, moved or half-built one is built anew. Needs nothing but Python.

    python tools/set_up.py cpu/generation

installs the lock envs/cpu/generation.txt into the Python that runs this, and beside which uv is: the conda environments of machines
without a GPU are made so.
"""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        f"set-up: Python 3.11, 3.12 or 3.13 is needed, this is {sys.version.split()[0]} ({sys.executable}): "
        "name another one, as in `make setup PYTHON=python3.11`"
    )

import ast
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVS = ROOT / "envs"
#: Virtual environment -> its lock in envs/, and the space it takes with the packages' downloads, in GiB.
ENVIRONMENTS = {".venv": ("laptop", 6.0), ".venv-evaluation": ("laptop-evaluation", 2.0)}
STAMP = "set-up.sha256"


def fail(message: str) -> None:
    """End with one clear line."""
    sys.exit(f"set-up: {message}")


def pip_settings() -> dict[str, list[str]]:
    """pip's configured ``find-links`` and ``index-url`` (files and environment): uv does not read them."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found: dict[str, list[str]] = {"find-links": [], "index-url": []}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in found:
            found[key] += [word for word in ast.literal_eval(value).split() if word not in found[key]]
    return found


def uv_sources() -> list[str]:
    """pip's settings as uv options."""
    settings = pip_settings()
    options = [option for place in settings["find-links"] for option in ("--find-links", place)]
    return options + [option for place in settings["index-url"][:1] for option in ("--index-url", place)]


def pinned(requirements: str, package: str) -> str:
    """The ``package==version`` line of envs/``requirements``."""
    return re.search(rf"^{package}==\S+", (ENVS / requirements).read_text(encoding="utf-8"), re.M)[0]


def fingerprint(venv: Path, lock: str) -> str:
    """Digest of all that makes an environment: its lists, this script, the interpreter and the place."""
    digest = hashlib.sha256(f"{sys.version} {os.path.realpath(sys.executable)} {venv}".encode())
    for path in [*(ENVS / name for name in (f"{lock}.in", f"{lock}.txt", "build.txt", "uv.txt")), Path(__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_ready(venv: Path, lock: str) -> bool:
    """Whether ``venv`` was built to the end from what is here now."""
    stamp = venv / STAMP
    return (venv / "bin" / "python").exists() and stamp.is_file() and stamp.read_text() == fingerprint(venv, lock)


def check_platform() -> None:
    """Stop with one line where there are no packages for this machine."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        fail(
            f"the packages exist for Linux on x86_64, this is {sys.platform} on {platform.machine()}: "
            "use such a machine, virtual machine or container"
        )


def check_machine(needed_gib: float) -> None:
    """Stop with one line where this machine cannot hold the environments."""
    check_platform()
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        fail(f"Python's module {error.name} is missing: install it (Debian and Ubuntu: apt install python3-venv)")
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < needed_gib:
        fail(f"{free:.1f} GiB are free in {ROOT}, {needed_gib:.0f} GiB are needed: make room")


def run(what: str, *command: "str | Path", quiet: bool = False) -> bool:
    """Run a command and say what it took. False where it fails and ``quiet`` asks for no more than that."""
    started = time.monotonic()
    environment = {**os.environ, "UV_NO_PROGRESS": "1", "UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "hardlink")}
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT"):
        environment.pop(name, None)
    done = subprocess.run([str(part) for part in command], env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        print(f"  {what} ({time.monotonic() - started:.0f} s)", flush=True)
    elif not quiet:
        print((done.stdout + done.stderr).strip()[-4000:], file=sys.stderr)
        full = shutil.disk_usage(ROOT).free < 2**28
        fail(
            f"could not do this: {what}. "
            + ("The disk is full: make room" if full else "The lines above say why")
            + "; then run it again, it starts over by itself"
        )
    return done.returncode == 0


def build(venv: Path, lock: str) -> None:
    """Build one environment from nothing; the stamp comes last."""
    print(f"setting up {venv.name} from envs/{lock}.txt", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    python, uv = venv / "bin" / "python", ROOT / ".venv" / "bin" / "uv"
    if venv.name == ".venv":
        run("create the environment", sys.executable, "-m", "venv", venv)
        run(
            "install uv", python, "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:",
            "--requirement", ENVS / "uv.txt",
        )  # fmt: skip
    else:
        run("create the environment", uv, "venv", "--quiet", "--python", ROOT / ".venv" / "bin" / "python", venv)
    install(python, uv, lock)
    written = venv / f"{STAMP}.new"
    written.write_text(fingerprint(venv, lock))
    written.replace(venv / STAMP)


def install(python: Path, uv: Path, lock: str) -> None:
    """Install a lock, and the CPU build of torch, which is in none, into the environment of ``python``."""
    install = [uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--compile-bytecode"]
    torch, sources = pinned(f"{Path(lock).name}.in", "torch"), uv_sources()
    # The CPU build: from a folder pip is told of, else from PyTorch's own index. Never the CUDA build.
    if not (
        "--find-links" in sources
        and run(f"install {torch} from pip's find-links", *install, "--no-index", *sources, torch, quiet=True)
    ):
        run(f"install {torch} from PyTorch's CPU index", *install, "--torch-backend", "cpu", torch)
    if not list(python.parents[1].glob(f"lib/python3*/site-packages/{torch.replace('==', '-')}+cpu.dist-info")):
        fail(f"the {torch} that was found is not the CPU build: check pip's find-links")
    run(
        "install the locked packages", *install, "--require-hashes", "--build-constraints", ENVS / "build.txt",
        *sources, "--requirement", ENVS / f"{lock}.txt",
    )  # fmt: skip


def main(lock: str | None = None) -> None:
    """Build what is not ready, one set-up at a time; or install one lock into this Python."""
    if lock is not None:
        check_platform()
        install(Path(sys.executable), Path(sys.executable).with_name("uv"), lock)
        return
    folder = os.open(ENVS, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    todo = [(ROOT / name, lock, gib) for name, (lock, gib) in ENVIRONMENTS.items() if not is_ready(ROOT / name, lock)]
    if todo:
        check_machine(sum(gib for _, _, gib in todo))
    for venv, lock, _ in todo:
        build(venv, lock)


if __name__ == "__main__":
    main(*sys.argv[1:2])
