"""Run Snakemake on one configuration file, after a killed run too, and say where the report is.

    .venv/bin/python tools/run_study.py CONFIG [--directory FOLDER] [options of snakemake]

Snakemake leaves its lock behind when it is killed (kill -9, power cut) and then refuses to start. The lock of this
script ends with itself and Snakemake, so where it is free, a lock left by an earlier run is stale. Jobs that went on
without their Snakemake are ended first: it would start them again beside themselves.

At the end it says how long the run took and how much memory it and all its jobs used at most.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from whichteacher.rule import explain  # noqa: E402

#: With less than this Snakemake cannot even note what it has done, and its own words do not say why.
_FULL_BYTES = 1 << 20
#: Stands in the environment of every process of a study and names the folder that it runs in.
_MARK = "WHICHTEACHER_STUDY"
_SAMPLE_SECONDS = 2.0
#: Looking through the memory of very large processes takes time: at most this share of it.
_SAMPLE_SHARE = 0.05


def fail(message: str) -> None:
    """End with one clear line."""
    sys.exit(f"study: {message}")


def report_of(config: Path, directory: Path) -> Path:
    """Where the study of ``config`` puts its report when it runs in ``directory``."""
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
    return directory / str(settings.get("results", "results")) / "report.html"


def memory_in_use(process: psutil.Process) -> int:
    """Bytes that ``process`` and everything it started use now; memory that several of them share counts once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            try:
                total += each.memory_full_info().pss
            except (psutil.AccessDenied, AttributeError):  # another user's process, or a kernel that does not tell
                total += each.memory_info().rss
    return total


class Meter(threading.Thread):
    """Measures time and memory of this process and all below it, from :meth:`start` until :meth:`stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.started, self.peak, self._stopped = time.monotonic(), 0, threading.Event()

    def run(self) -> None:
        """Sample the memory."""
        this = psutil.Process()
        while True:
            begin = time.monotonic()
            self.peak = max(self.peak, memory_in_use(this))
            if self._stopped.wait(max(_SAMPLE_SECONDS, (time.monotonic() - begin) / _SAMPLE_SHARE)):
                return

    def stop(self) -> str:
        """End the measurement and say in one line what it found."""
        self._stopped.set()
        self.join()
        seconds = time.monotonic() - self.started
        return f"This run took {spoken(seconds)} and at most {self.peak / 2**30:.1f} GiB of memory."


def spoken(seconds: float) -> str:
    """A duration as people say it, to the second."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number} {unit}" for number, unit in parts)


def take_lock(directory: Path) -> int:
    """The lock of ``directory``, as an open file that processes started from now on inherit."""
    path = directory / ".snakemake" / "study.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail("a study is running in this folder: wait for it, or stop it")
    os.set_inheritable(lock, True)
    return lock


def works(process: psutil.Process) -> bool:
    """Whether ``process`` still does something; one that has ended and that nobody waited for does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def end_orphans(directory: Path) -> None:
    """End what is left of a killed run in ``directory``, by Ctrl-C first: a generation then stores what it has."""
    orphans = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == str(directory):
                orphans.append(process)
    for sent, seconds in ((signal.SIGINT, 30.0), (signal.SIGKILL, 10.0)):
        for process in orphans:
            with contextlib.suppress(psutil.Error):
                process.send_signal(sent)
        deadline = time.monotonic() + seconds
        while (orphans := [process for process in orphans if works(process)]) and time.monotonic() < deadline:
            time.sleep(0.1)


def main(config: Path, directory: Path, options: list[str]) -> int:
    """Run the study of ``config`` in ``directory``; the status is Snakemake's."""
    report = report_of(config, directory)
    lock = take_lock(directory)
    snakemake = [
        str(Path(sys.executable).parent / "snakemake"),
        *("--snakefile", str(ROOT / "Snakefile"), "--configfile", str(config)),
    ]
    if os.read(lock, 1):
        print("the last run was killed: going on where it stopped", flush=True)
        end_orphans(directory)
        subprocess.run([*snakemake, "--unlock", "--quiet"], cwd=directory, check=False)
    os.pwrite(lock, b"running", 0)
    # Ctrl-C reaches Snakemake too, which stops its jobs in good order.
    stopped = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stopped.set())
    meter = Meter()
    meter.start()
    environment = os.environ | {_MARK: str(directory)}
    status = subprocess.run(
        [*snakemake, *options], cwd=directory, env=environment, close_fds=False, check=False
    ).returncode
    print(meter.stop(), flush=True)
    if status >= 0:
        os.ftruncate(lock, 0)
    if status and (free := shutil.disk_usage(directory).free) < _FULL_BYTES:
        full = OSError(errno.ENOSPC, f"{free >> 10} KiB are free", str(directory))
        print(f"study: {explain(full)}", file=sys.stderr)
    elif status and stopped.is_set():
        print("study: stopped: start it again, and it goes on where it stopped", file=sys.stderr)
    elif status == 0 and report.exists():
        print(f"The study is complete. Its report: {report}")
    return abs(status)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        fail("name a configuration file")
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--directory", "-d", type=Path, default=ROOT)
    told, rest = parser.parse_known_args(sys.argv[2:])
    try:
        sys.exit(main(Path(sys.argv[1]).resolve(), told.directory.resolve(), rest))
    except OSError as error:
        fail(explain(error))
