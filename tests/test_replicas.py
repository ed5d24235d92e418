"""vLLM for real, in one process and in several: every request answered once, and nothing left running."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from whichteacher.engines.respond import complete, shelf_of
from whichteacher.engines.specs import VllmSpec, request_keys
from whichteacher.engines.vllm import _llvm_hidden

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.study
SAMPLING = {"temperature": 0.8, "top_p": 1.0, "top_k": -1, "max_tokens": 24, "stop": None}


def spec_of(model, **changed) -> VllmSpec:
    return VllmSpec(**{"model": str(model), "revision": None, "dtype": "float32", "max_model_len": 64} | changed)


def prompts_by_key(spec, shelf, count: int) -> dict[str, str]:
    key_of = request_keys(shelf.owner, spec.settings())
    return {key_of(f"prompt {number}", 0): f"prompt {number}" for number in range(count)}


def test_one_engine_answers_every_request_and_stops_where_it_is_told(tiny_model, tmp_path):
    """A model of random weights says anything; with a byte's every token as a stop text it says one token."""
    stop = [chr(code) for code in range(32, 127)]
    spec = spec_of(tiny_model, sampling=SAMPLING | {"stop": stop})
    shelf = shelf_of(spec, tmp_path)
    missing = prompts_by_key(spec, shelf, 40)
    too_long = "x" * 64
    missing["f" * 64] = too_long
    assert complete(missing, spec, shelf, "test") == []
    rows = shelf.lookup(missing)
    assert rows.keys() == missing.keys()
    assert (rows["f" * 64]["finish_reason"], rows["f" * 64]["prompt_tokens"]) == ("prompt_too_long", 64)
    answered = [row for key, row in rows.items() if key != "f" * 64]
    assert {row["finish_reason"] for row in answered} <= {"stop", "length"}
    stopped = [row for row in answered if row["text"] and row["text"][-1] in stop]
    assert stopped and all(row["finish_reason"] == "stop" for row in stopped)
    assert {(row["engine"], row["devices"]) for row in answered} == {("vllm", 1)}
    assert sum(row["seconds"] for row in answered) > 0


def test_replicas_share_the_requests_and_end_with_them(tiny_model, tmp_path):
    spec = spec_of(tiny_model, sampling=SAMPLING, data_parallel=2)
    shelf = shelf_of(spec, tmp_path)
    missing = prompts_by_key(spec, shelf, 60)
    assert complete(missing, spec, shelf, "test") == []
    rows = [row for table in shelf.tables() for row in table.to_pylist()]
    assert sorted(row["key"] for row in rows) == sorted(missing)
    assert all(row["prompt"] == missing[row["key"]] and row["devices"] == 2 for row in rows)
    assert [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())] == []


_GREEDY = """
import json, sys
from whichteacher.engines.respond import complete, shelf_of
from whichteacher.engines.specs import VllmSpec
if __name__ == "__main__":
    sampling = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "max_tokens": 16, "stop": None}
    spec = VllmSpec(sys.argv[1], None, "float32", 64, sampling, tensor_parallel=int(sys.argv[3]))
    shelf = shelf_of(spec, sys.argv[2])
    missing = {f"{number:064d}": f"prompt {number}" for number in range(12)}
    complete(missing, spec, shelf, "test")
    print("\\n" + json.dumps({key: (row["text"], row["devices"]) for key, row in shelf.lookup(missing).items()}))
"""


def test_a_model_split_over_two_workers_says_what_it_says_in_one(tiny_model, tmp_path):
    script = tmp_path / "job.py"
    script.write_text(_GREEDY)
    # One node of memory holds both workers here, where vLLM would bind each to its own.
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    said = {}
    for workers in (1, 2):
        command = [sys.executable, script, tiny_model, tmp_path / f"store{workers}", str(workers)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        line = next(line for line in done.stdout.splitlines() if line.startswith('{"0000'))
        said[workers] = json.loads(line)
    assert {key: text for key, (text, _) in said[1].items()} == {key: text for key, (text, _) in said[2].items()}
    assert {devices for _, devices in said[2].values()} == {2}


_JOB = """
import sys
from whichteacher.engines.respond import complete, shelf_of
from whichteacher.engines.specs import VllmSpec
if __name__ == "__main__":
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "max_tokens": 900, "stop": None}
    spec = VllmSpec(sys.argv[1], None, "float32", 1024, sampling, data_parallel=2)
    missing = {f"{number:064d}": f"prompt {number}" for number in range(100_000)}
    complete(missing, spec, shelf_of(spec, sys.argv[2]), "test")
"""


@pytest.mark.parametrize("victim", ["job", "replica"])
def test_a_killed_job_or_replica_leaves_no_process_behind(tiny_model, tmp_path, victim):
    script = tmp_path / "job.py"
    script.write_text(_JOB)
    job = subprocess.Popen(
        [sys.executable, script, tiny_model, tmp_path / "store"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in job.stdout:
        if "the engine started" in line:
            break
    replicas = [
        child for child in psutil.Process(job.pid).children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(replicas) == 2
    os.kill(job.pid if victim == "job" else replicas[0].pid, signal.SIGKILL)
    _, told = job.communicate(timeout=120)
    _, alive = psutil.wait_procs(replicas, timeout=60)
    assert alive == []
    if victim == "replica":
        assert job.returncode == 1
        assert "a replica of vLLM died" in told


def test_an_engine_starts_beside_numba(tiny_model, tmp_path):
    """vLLM looks through all loaded modules, and the library behind numba answers to any name."""
    import llvmlite.binding.ffi as library

    assert type(library.lib.__dict__) is not dict, "what vLLM stumbles over"
    with _llvm_hidden():
        assert "llvmlite.binding.ffi" not in sys.modules
    assert sys.modules["llvmlite.binding.ffi"] is library
    test_one_engine_answers_every_request_and_stops_where_it_is_told(tiny_model, tmp_path)
