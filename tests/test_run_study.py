"""The command behind `make study`: its lock, its last lines, its exit status."""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import run_study

ROOT = Path(__file__).parents[1]
MEASURED = re.compile(r"^This run took \d+ s and at most (\d+\.\d) GiB of memory\.$", re.MULTILINE)

#: Allocates and touches 200 MiB, says so, and ends when its input does.
HOLD = "import os, sys; held = bytearray(b'x') * (200 << 20); {more}os.write(1, b'ready\\n'); sys.stdin.read()"


def run(directory: Path, *options: str, config: str = "config/test.yaml") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "run_study.py", ROOT / config, "--directory", directory, *options],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("options", "status"), [(["--version"], 0), (["--no-such-option"], 2)])
def test_it_ends_with_what_the_run_took_and_the_status_of_snakemake(tmp_path, options, status):
    done = run(tmp_path, *options)
    assert done.returncode == status, done.stdout + done.stderr
    assert MEASURED.search(done.stdout)
    assert (tmp_path / ".snakemake" / "study.lock").read_bytes() == b""


def test_the_meter_finds_the_memory_of_even_the_shortest_run():
    """Less than the line shows, so looked at in bytes: the first sample is taken at once."""
    meter = run_study.Meter()
    meter.start()
    assert re.fullmatch(r"This run took 0 s and at most \d+\.\d GiB of memory\.", meter.stop())
    assert meter.peak >= psutil.Process().memory_full_info().pss / 2


def test_two_studies_do_not_run_in_one_folder(tmp_path):
    lock = tmp_path / ".snakemake" / "study.lock"
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = run(tmp_path, "-n")
    assert done.returncode == 1
    assert done.stderr == "study: a study is running in this folder: wait for it, or stop it\n"


#: Says that it works, and what ended it.
ORPHAN = """
import time
try:
    print("works", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("stored", flush=True)
"""


def test_jobs_that_outlived_a_killed_run_are_ended_before_the_next(tmp_path):
    lock = tmp_path / ".snakemake" / "study.lock"
    lock.parent.mkdir()
    lock.write_text("running")
    orphans = [
        subprocess.Popen(
            [sys.executable, "-c", ORPHAN],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"WHICHTEACHER_STUDY": str(folder)},
        )
        for folder in (tmp_path, tmp_path / "another")
    ]
    try:
        assert [orphan.stdout.readline() for orphan in orphans] == ["works\n"] * 2
        done = run(tmp_path, "--version")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("the last run was killed: going on where it stopped\n")
        assert orphans[0].stdout.read() == "stored\n" and orphans[1].poll() is None
    finally:
        for orphan in orphans:
            orphan.kill()
            orphan.communicate()


@pytest.mark.parametrize("free", [0, 60])
def test_a_full_disk_is_named_where_the_lock_or_snakemake_meets_it_first(tmp_path, on_small_disk, free):
    """With no room at all the lock cannot be marked; with little, Snakemake cannot copy the script of a rule."""
    study = [
        sys.executable,
        ROOT / "tools" / "run_study.py",
        ROOT / "config/test.yaml",
        "--directory",
        tmp_path / "disk",
    ]
    done, _ = on_small_disk(free, *study, "--cores", "1", "results/test/corpus/imported/math.parquet")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("study: the disk is full: make room and start again, nothing that was finished is lost")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory: name a configuration file"),
        (b"a: [1", "is no YAML"),
        (b"- 1", "holds no keys"),
        (b"\xff", "name a configuration file"),
    ],
)
def test_a_wrong_configuration_file_is_one_clear_line(tmp_path, text, message):
    config = tmp_path / "my.yaml"
    if text is not None:
        config.write_bytes(text)
    with pytest.raises(SystemExit, match=message) as end:
        run_study.report_of(config, tmp_path)
    assert "\n" not in str(end.value)


def test_durations_are_spoken_to_the_second():
    assert [run_study.spoken(seconds) for seconds in (0.4, 59.6, 576, 7205)] == [
        "0 s",
        "1 min 0 s",
        "9 min 36 s",
        "2 h 0 min 5 s",
    ]


@pytest.mark.parametrize("more", ["", "os.fork(); "])
def test_memory_is_that_of_all_processes_and_shared_memory_counts_once(more):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD.format(more=more)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        for _ in range(2 if more else 1):
            assert child.stdout.readline() == "ready\n"
        used = run_study.memory_in_use(psutil.Process()) - psutil.Process().memory_full_info().pss
        child.stdin.close()
    assert 200 << 20 < used < 300 << 20


def test_where_the_kernel_does_not_tell_shared_memory_the_resident_one_counts(monkeypatch):
    def refuse(self):
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    this = psutil.Process(os.getpid())
    assert run_study.memory_in_use(this) == pytest.approx(this.memory_info().rss, rel=0.1)
