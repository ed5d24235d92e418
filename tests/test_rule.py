"""Logs, progress and last words of a rule."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from whichteacher import rule
from whichteacher.rule import Progress, explain
from whichteacher.schemas import DUPLICATES, LEDGER
from whichteacher.tables import TableError, atomic_path, read_provenance, read_table, write_table, write_text

_SCRIPT = """
import sys
from types import SimpleNamespace
from whichteacher.rule import InputError, logged
with logged(SimpleNamespace(log=[sys.argv[1]], rule="do_things", wildcards=dict(shard="3"))):
    print("chatter")
    raise {error}
"""


@pytest.mark.parametrize(("error", "traced"), [("InputError('row 7 is odd: drop it')", False), ("KeyError('k')", True)])
def test_a_failing_rule_ends_with_one_line_and_its_log(tmp_path, error, traced):
    log = tmp_path / "rule.log"
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(error=error), str(log)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "workflow")},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("ERROR in do_things (shard=3): ") and second == f"  log: {log}"
    text = log.read_text()
    assert "chatter" in text and ("Traceback" in text) is traced


def test_ctrl_c_is_one_word_in_the_log_and_no_error(tmp_path):
    log = tmp_path / "rule.log"
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(error="KeyboardInterrupt"), str(log)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "workflow")},
    )
    assert done.returncode == 130 and done.stdout == done.stderr == ""
    assert log.read_text() == "chatter\ndo_things: interrupted\n"


def test_a_full_disk_says_what_to_do():
    assert "make room" in explain(OSError(errno.ENOSPC, "No space left on device"))
    assert "make room" in explain(OSError("Error writing bytes. Detail: [errno 28] No space left on device"))
    assert explain(ValueError()) == "ValueError"


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "table.parquet"
    rows = [{"step": "s", "scope": "all", "reason": "in", "rows": 1}]
    write_table(target, rows, LEDGER)
    before = target.read_bytes()
    with pytest.raises(OSError, match="No space"), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_bytes() == before and list(tmp_path.iterdir()) == [target]


_WRITER = """
import os, sys
from types import SimpleNamespace
from whichteacher.rule import logged
from whichteacher.schemas import LEDGER
from whichteacher.tables import write_table
folder = sys.argv[1]
with logged(SimpleNamespace(log=[f"{folder}/rule.log"], rule="do_things", wildcards={})):
    print("chatter")
    rows = [{"step": "s", "scope": "all", "reason": os.urandom(64).hex(), "rows": i} for i in range(20_000)]
    write_table(f"{folder}/table.parquet", rows, LEDGER)
"""


@pytest.mark.parametrize("free", [500, 0])
def test_a_rule_on_a_full_disk_ends_with_one_line_and_no_litter(tmp_path, on_small_disk, free):
    """With no room at all not even the log can be written, and the terminal still says why."""
    done, files = on_small_disk(free, sys.executable, "-c", _WRITER, tmp_path / "disk")
    assert done.returncode != 0 and done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith(
        "ERROR in do_things: the disk is full: make room and start again, nothing that was finished"
    )
    assert second == f"  log: {tmp_path}/disk/rule.log"
    assert files == {"rule.log"}


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    program = (
        "import os, signal\nfrom whichteacher.tables import atomic_path\n"
        f"with atomic_path({str(tmp_path / 'table')!r}) as temporary:\n"
        "    temporary.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "workflow")}
    subprocess.run([sys.executable, "-c", program], check=False, env=environment)
    (left,) = tmp_path.iterdir()
    others = tmp_path / f"{left.name[:-8]}d.12345678"
    others.touch()
    write_text(tmp_path / "table", "whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "table", others}


def test_progress_tells_rows_rate_note_and_time_left(capsys, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(rule.time, "monotonic", lambda: clock.now)
    with Progress("step", 30) as progress:
        clock.now += 10
        progress.advance(10, "3 tokens/s")
        assert progress.line() == "step: 10/30 rows, 1.0 rows/s, 3 tokens/s, 20 s left"
        assert capsys.readouterr().err == ""
        clock.now += 60
        progress.advance(5)
        assert capsys.readouterr().err.count("\n") == 1
    assert capsys.readouterr().err.startswith("step: 15/30")
    with Progress("step", 0) as progress:
        clock.now += 10
        progress.advance(5)
    assert capsys.readouterr().err == "step: 5 rows, 0.5 rows/s\n"


def test_a_table_that_does_not_fit_is_refused(tmp_path):
    good = {"step": "s", "scope": "all", "reason": "in", "rows": 1}
    write_table(tmp_path / "t.parquet", [good], LEDGER, {"setting": 1})
    assert read_provenance(tmp_path / "t.parquet") == {"setting": 1}
    with pytest.raises(TableError, match=r"row 1 has no reason"):
        write_table(tmp_path / "u.parquet", [good, good | {"reason": None}], LEDGER)
    with pytest.raises(TableError, match="does not fit"):
        write_table(tmp_path / "u.parquet", [good | {"rows": "many"}], LEDGER)
    assert not (tmp_path / "u.parquet").exists()
    with pytest.raises(TableError, match="column 'kept' is missing"):
        read_table(tmp_path / "t.parquet", DUPLICATES)


def test_equal_rows_are_equal_bytes(tmp_path):
    rows = [{"step": "s", "scope": "all", "reason": str(i), "rows": i} for i in range(100)]
    write_table(tmp_path / "a.parquet", rows, LEDGER, {"b": 1, "a": 2})
    write_table(tmp_path / "b.parquet", rows, LEDGER, {"a": 2, "b": 1})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
