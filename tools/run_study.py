"""Run Snakemake on one configuration file, after a killed run too, and say where the report is.

    .venv/bin/python tools/run_study.py CONFIG [options of snakemake]

Snakemake leaves its lock behind when it is killed (kill -9, power cut) and then refuses to start. The lock of this
script ends with the last process that was started here, so where it is free, a lock left by an earlier run is stale.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / ".snakemake" / "study.lock"


def fail(message: str) -> None:
    """End with one clear line."""
    sys.exit(f"study: {message}")


def report_of(config: Path) -> Path:
    """Where the study of ``config`` puts its report."""
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        fail(
            f"{config}: {getattr(error, 'strerror', None) or error}: name a configuration file, as in CONFIG=config/config.yaml"
        )
    except yaml.YAMLError as error:
        fail(f"{config} is no YAML: {' '.join(str(error).split())}")
    if not isinstance(settings, dict):
        fail(f"{config} holds no keys: see config/README.md")
    return ROOT / str(settings.get("results", "results")) / "report.html"


def main(config: Path, options: list[str]) -> int:
    """Run the study; the status is Snakemake's."""
    report = report_of(config)
    LOCK.parent.mkdir(exist_ok=True)
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail("a study is running in this folder: wait for it, or stop it")
    os.set_inheritable(lock, True)
    snakemake = [str(Path(sys.executable).parent / "snakemake"), "--configfile", str(config)]
    if os.read(lock, 1):
        print("the last run was killed: going on where it stopped", flush=True)
        subprocess.run([*snakemake, "--unlock", "--quiet"], cwd=ROOT, check=False)
    os.pwrite(lock, b"running", 0)
    # Ctrl-C reaches Snakemake too, which stops its jobs in good order.
    signal.signal(signal.SIGINT, lambda *_: None)
    status = subprocess.run([*snakemake, *options], cwd=ROOT, close_fds=False, check=False).returncode
    if status >= 0:
        os.ftruncate(lock, 0)
    if status == 0 and report.exists():
        print(f"The study is complete. Its report: {report}")
    return abs(status)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        fail("name a configuration file")
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
