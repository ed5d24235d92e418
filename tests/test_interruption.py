"""The small study, interrupted while models run, ends as if nothing had happened and pays for no response twice."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
import run_study
import stage_times
from study_runs import CONFIG, ROOT, snakemake, stored

pytestmark = pytest.mark.study

#: What a job of each rule writes last, by the part of its log's path that names the job.
PRODUCTS = {
    "generate_responses": "generation/{}.parquet",
    "train_student": "training/{}/summary.json",
    "evaluate_student": "evaluation/{}/code_tasks.parquet",
}

#: vLLM's words for an engine that is ready, ours for a training that begins its first step.
ENGINE, BEGUN = "init engine .* took", "preflight passed"


@dataclass(frozen=True)
class Moment:
    """When a run is interrupted, and how: a job of ``rule`` has logged ``sign``, and has since computed for this ``share`` of the
    time that it had needed to get there, on whatever machine."""

    rule: str
    signal: signal.Signals
    sign: str
    share: float


#: In the order of the study, so that every run comes further than the one before. Where it counts that some responses are
#: finished and others are not: the first ends at a share of about 0.14, the last at 0.55 (of the teacher with long traces).
MOMENTS = (
    Moment("generate_responses", signal.SIGINT, ENGINE, 0.22),
    Moment("generate_responses", signal.SIGKILL, ENGINE, 0.1),
    Moment("train_student", signal.SIGINT, BEGUN, 0.1),
    Moment("train_student", signal.SIGKILL, BEGUN, 0.1),
    Moment("evaluate_student", signal.SIGKILL, ENGINE, 0.0),
)

#: Columns and keys that are measurements of the machine; everything else that follows the stored text is the same to the byte.
MEASURED = {
    "log.parquet": ["seconds"],
    "summary.json": ["seconds", "peak_memory"],
    "training.csv": ["seconds", "tokens_per_second", "peak_memory"],
}


def start(directory: Path, output: Path) -> subprocess.Popen:
    """Start the study as `make study` does, in a process group of its own."""
    program = [sys.executable, ROOT / "tools" / "run_study.py", CONFIG, "--directory", directory, "--cores", "2"]
    with output.open("w") as file:
        return subprocess.Popen(program, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def jobs(run: subprocess.Popen, rule: str) -> Iterator[tuple[psutil.Process, Path]]:
    """The processes of ``run`` that work for ``rule`` now, with their logs."""
    for process in psutil.Process(run.pid).children(recursive=True):
        with suppress(psutil.Error, OSError):
            if any(part.endswith(f"{rule}.py") for part in process.cmdline()):
                log = Path(f"/proc/{process.pid}/fd/1").readlink()
                if log.suffix == ".log":
                    yield process, log


def wait_for(moment: Moment, run: subprocess.Popen, output: Path) -> tuple[psutil.Process, Path]:
    """Watch ``run`` until ``moment`` has come; the job that it has come for, and its log."""
    since: dict[int, float] = {}
    while run.poll() is None:
        for process, log in jobs(run, moment.rule):
            if re.search(moment.sign, log.read_text(errors="replace")):
                with suppress(psutil.NoSuchProcess):
                    used = sum(process.cpu_times()[:2])
                    if used >= since.setdefault(process.pid, used) * (1 + moment.share):
                        return process, log
        time.sleep(0.05)
    pytest.fail(f"the run ended before {moment}:\n{output.read_text()[-3000:]}")


def leftovers(group: int, known: list[psutil.Process]) -> list[psutil.Process]:
    """Processes of an ended run that are still there after a while: of its group, or once seen below it."""
    psutil.wait_procs(known, timeout=20)
    found = [process for process in known if run_study.works(process)]
    for process in psutil.process_iter():
        with suppress(OSError):
            if os.getpgid(process.pid) == group and run_study.works(process):
                found.append(process)
    return found


def interrupt(moment: Moment, directory: Path, output: Path) -> None:
    """Start the study, interrupt it at ``moment``, and check what must hold after every interruption."""
    results = directory / "results" / "test"
    run = start(directory, output)
    try:
        process, log = wait_for(moment, run, output)
        before = dict(stored(results))
        # By this a later start knows jobs that outlive their Snakemake, which those of this test do not.
        assert process.environ()["WHICHTEACHER_STUDY"] == str(directory)
        processes = psutil.Process(run.pid).children(recursive=True)
        os.killpg(run.pid, moment.signal)
        status = run.wait(timeout=120)
    except BaseException:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        raise
    assert leftovers(run.pid, processes) == []
    assert status == (1 if moment.signal == signal.SIGINT else -signal.SIGKILL)

    job = log.relative_to(results / "logs" / moment.rule).with_suffix("")
    assert not (results / PRODUCTS[moment.rule].format(job)).exists(), f"{moment} came too late: {log} has ended"

    rows = stored(results)
    after = dict(rows)
    assert len(after) == len(rows), "a key is stored twice"
    assert before.items() <= after.items(), "stored rows are lost or changed"
    assert not list((results / "store").rglob("*.corrupt"))
    if moment.rule == "generate_responses" and moment.signal == signal.SIGINT:
        assert len(after) > len(before), "responses that were finished when Ctrl-C came are not stored"


def said(path: Path) -> bytes | str | dict:
    """What a file of results says, without measurements of the machine."""
    names = MEASURED.get(path.name)
    if names is None:
        return path.read_bytes()
    if path.suffix == ".json":
        return {key: value for key, value in json.loads(path.read_text()).items() if key not in names}
    read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
    return read(path).drop(columns=names).to_json()


def tables(results: Path) -> dict[str, Path]:
    """The files of a finished study by their place: all but the store, the logs and the report, which tells times."""
    paths = {str(path.relative_to(results)): path for path in sorted(results.rglob("*")) if path.is_file()}
    return {name: path for name, path in paths.items() if not name.startswith(("store/", "logs/", "report.html"))}


def test_interrupted_in_every_phase_it_ends_with_the_tables_of_a_run_that_was_not(tmp_path_factory, small_study):
    tmp_path = tmp_path_factory.mktemp("interruption")
    directory = tmp_path / "interrupted"
    results = directory / "results" / "test"
    outputs = [tmp_path / f"run{number}.txt" for number in range(len(MOMENTS) + 1)]
    for moment, output in zip(MOMENTS, outputs, strict=False):
        interrupt(moment, directory, output)
    assert start(directory, outputs[-1]).wait() == 0, outputs[-1].read_text()[-3000:]
    for moment, output, after in zip(MOMENTS, outputs, outputs[1:], strict=False):
        stopped = moment.signal == signal.SIGINT
        assert ("study: stopped: start it again" in output.read_text()) is stopped
        assert ("the last run was killed: going on where it stopped" in after.read_text()) is not stopped

    # Every stored response is one that the study uses: none was drawn for nothing.
    used = [key for path in results.glob("generation/*/*/*.parquet") for key in pd.read_parquet(path)["attempt_id"]]
    for path in results.glob("evaluation/*/*/*/*.parquet"):
        if not path.name.endswith(".scored.parquet"):
            used += list(pd.read_parquet(path)["sample_id"])
    rows = stored(results)
    assert sorted(key for key, _ in rows) == sorted(set(used))

    undisturbed = tmp_path / "undisturbed"
    (undisturbed / "results" / "test").mkdir(parents=True)
    # Its students are trained anew.
    shutil.copytree(
        results / "store", undisturbed / "results" / "test" / "store", ignore=shutil.ignore_patterns("students")
    )
    printed = snakemake(undisturbed)
    assert stored(undisturbed / "results" / "test") == rows
    ours, theirs = tables(results), tables(undisturbed / "results" / "test")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if said(ours[name]) != said(theirs[name])] == []

    # No job that had finished was done again.
    done = Counter(rule for output in outputs for rule, *_ in stage_times.jobs(output.read_text()))
    assert done == Counter(rule for rule, *_ in stage_times.jobs(printed))
    small_study["undisturbed"] = undisturbed
