"""A job of generation that dies again and again, shares its store, or runs out of disk: nothing finished is paid for twice.

The jobs are processes of their own; the model is a server on the loopback interface that counts what it was asked for.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from endpoint_server import EndpointServer, write_text

from whichteacher.engines.respond import shelf_of
from whichteacher.queries import query_id
from whichteacher.rounds import spec_of
from whichteacher.schemas import ATTEMPTS, QUERIES
from whichteacher.tables import read_table, write_table

ROOT = Path(__file__).parents[1]
ATTEMPTS_PER_QUERY = 2
CONCURRENCY = 4
FLUSH_ROWS = 8
#: The flush that is being written, an answer of each worker that nobody has taken yet, and each one's next request.
LOST_AT_MOST = FLUSH_ROWS + 2 * CONCURRENCY
TEACHER = {
    "model": "a-model",
    "revision": None,
    "engine": "openai",
    "endpoint": {"api": "chat", "served_model": None, "extra_body": {}},
    "answer_format": "tags",
    "system_prompt": "Think.",
    "suffixes": {},
    "sampling": {"temperature": 0.5, "top_p": 1.0, "top_k": -1, "max_tokens": 99, "stop": None},
    "attempts": [ATTEMPTS_PER_QUERY],
}
#: What a job's process runs: the script as its rule runs it, with a smaller flush.
PROGRAM = f"""
import json, sys
from types import SimpleNamespace
import generate_responses
from whichteacher.engines import respond
from whichteacher.rule import logged
respond.FLUSH_ROWS = {FLUSH_ROWS}
job = json.loads(sys.argv[1])
with logged(SimpleNamespace(rule="generate_responses", log=[job.pop("log")], wildcards={{}})):
    generate_responses.main(**job)
"""


def start(server: EndpointServer, folder: Path, queries: Path, store: Path, name: str = "job") -> subprocess.Popen:
    """A job on ``queries`` that writes ``<folder>/<name>.parquet``."""
    running = {
        "base_url": server.url,
        "api_key_env": None,
        "concurrency": CONCURRENCY,
        "requests_per_minute": None,
        "retries": 3,
        "timeout_seconds": 60.0,
    }
    job = {
        "queries": str(queries),
        "verdicts": [],
        "traces": None,
        "output": str(folder / f"{name}.parquet"),
        "name": "t",
        "teacher": TEACHER,
        "running": {"endpoint": running},
        "shard": 0,
        "round_": 0,
        "store": str(store),
        "log": str(folder / f"{name}.log"),
    }
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'workflow'}:{ROOT / 'workflow' / 'scripts'}"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(job)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(job: subprocess.Popen) -> None:
    assert job.wait() == 0, job.stderr.read()


def shard(path: Path, count: int) -> Path:
    """A table of ``count`` queries."""
    rows = []
    for number in range(count):
        turns = [{"role": "user", "content": f"question {number}"}]
        blank = dict.fromkeys(QUERIES.names, "")
        rows.append(blank | {"query_id": query_id(turns), "category": "math", "turns": turns})
    write_table(path, sorted(rows, key=lambda row: row["query_id"]), QUERIES)
    return path


def stored_keys(store: Path) -> list[str]:
    """The key of every row in the store, those that are there twice included."""
    endpoint = {"base_url": "http://unused/v1", "api_key_env": None, "concurrency": 1, "requests_per_minute": None}
    spec = spec_of(TEACHER, {"endpoint": endpoint | {"retries": 0, "timeout_seconds": 1.0}})
    return [key for table in shelf_of(spec, store).tables(["key"]) for key in table["key"].to_pylist()]


def slow_text(prompt: str, seed: int) -> str:
    time.sleep(0.01)
    return write_text(prompt, seed)


def test_killed_at_twenty_moments_every_query_has_exactly_its_attempts(tmp_path):
    queries, store = shard(tmp_path / "queries.parquet", 150), tmp_path / "store"
    wanted = 150 * ATTEMPTS_PER_QUERY
    rng = random.Random(20)
    kills = 0
    with EndpointServer(write=slow_text) as server:
        while kills < 20:
            before, stored = len(server.completed), len(stored_keys(store))
            job = start(server, tmp_path, queries, store)
            if kills % 4 == 3:
                time.sleep(rng.uniform(0, 2))  # anywhere, starting and ending included
            else:
                goal = min(before + rng.randrange(40), before + wanted - stored)
                server.wait_until(lambda goal=goal: len(server.completed) >= goal, 60)
            job.send_signal(signal.SIGKILL)
            job.communicate()
            kills += 1
            now = len(stored_keys(store))
            assert now >= stored, "a kill lost what was stored"
            # What was under way when it died is still being answered to nobody.
            server.wait_until(lambda: server.under_way == 0)
            assert len(server.completed) - before - (now - stored) <= LOST_AT_MOST
        finish(start(server, tmp_path, queries, store))
        keys = stored_keys(store)
        assert len(keys) == len(set(keys)) == wanted
        assert len(server.completed) <= wanted + kills * LOST_AT_MOST
        table = read_table(tmp_path / "job.parquet", ATTEMPTS)
        pairs = list(zip(table["query_id"].to_pylist(), table["attempt"].to_pylist(), strict=True))
        assert pairs == sorted(pairs) and len(set(pairs)) == wanted

        # From the same store the same bytes, without a request; from an empty one the same table but for the time it took.
        asked = len(server.seen)
        finish(start(server, tmp_path, queries, store, "again"))
        assert len(server.seen) == asked
        assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "job.parquet").read_bytes()
        finish(start(server, tmp_path, queries, tmp_path / "other", "undisturbed"))
        undisturbed = read_table(tmp_path / "undisturbed.parquet", ATTEMPTS)
        assert undisturbed.drop_columns("seconds") == table.drop_columns("seconds")
    assert not [path.name for path in tmp_path.iterdir() if "scratch" in path.name]


def test_two_jobs_may_write_to_one_store_at_once(tmp_path):
    queries, store = shard(tmp_path / "queries.parquet", 60), tmp_path / "store"
    with EndpointServer(write=slow_text) as server:
        server.gate.clear()
        jobs = [start(server, tmp_path, queries, store, name) for name in ("one", "two")]
        server.wait_until(lambda: server.under_way == 2 * CONCURRENCY, 60)  # both have looked into the empty store
        server.gate.set()
        for job in jobs:
            finish(job)
        one, two = (read_table(tmp_path / f"{name}.parquet", ATTEMPTS) for name in ("one", "two"))
        assert one.num_rows == 60 * ATTEMPTS_PER_QUERY
        assert one.drop_columns("seconds") == two.drop_columns("seconds")
        assert set(stored_keys(store)) == set(one["attempt_id"].to_pylist())
        asked = len(server.seen)
        finish(start(server, tmp_path, queries, store, "three"))
        assert len(server.seen) == asked


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets us mount nothing")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_ends_the_job_and_costs_nothing_that_was_stored(tmp_path, small_disk):
    queries, store = shard(tmp_path / "queries.parquet", 60), small_disk / "store"
    wanted = 60 * ATTEMPTS_PER_QUERY

    def long_text(prompt: str, seed: int) -> str:
        noise = random.Random(seed)
        return f"<think>{''.join(noise.choices('0123456789abcdefgh', k=8000))}</think><answer>1</answer>"

    with EndpointServer(write=long_text) as server:
        job = start(server, tmp_path, queries, store)
        assert job.wait() == 1
        told = job.stderr.read()
        assert told.count("ERROR in generate_responses") == 1
        assert "the disk is full: make room and start again, nothing that was finished is lost" in told
        stored = len(stored_keys(store))
        assert 0 < stored < wanted
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        before = len(server.completed)
        finish(start(server, tmp_path, queries, store))
        assert len(server.completed) - before == wanted - stored
        assert read_table(tmp_path / "job.parquet", ATTEMPTS).num_rows == wanted
        assert not list(small_disk.rglob("*.corrupt"))
