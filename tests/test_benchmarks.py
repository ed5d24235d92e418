"""Every benchmark still runs: in small, for its code and not for its numbers. What starts an engine or plans the paper's study, which
takes minutes, and what needs other data than it makes is left out."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "comparison.py coverage --studies 2",
    "comparison.py summaries --queries 400 --traces 10",
    "corpus.py clean --rows 2000 --repeats 1 --without pandas datatrove",
    "corpus.py stage --rows 2000 --problems 20",
    "curation.py ngrams --tokens 40000 --repeats 1",
    "curation.py filters --tokens 40000 --repeats 1",
    "generation.py cached --rows 60",
    "generation.py compaction --rows 200",
    "near_duplicates.py --side ours --documents 500 --characters 400",
    "paper_size.py FOLDER --queries 600 --shards 2",
    "perplexity.py cached --rows 60 --characters 400",
    "sandbox.py --programs 4 --repeats 1 --tests 1",
    "trace_audit.py --rows 20 --problems 10 --characters 1000",
    "training.py packing --samples 300",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_benchmark_runs(command, tmp_path):
    words = [str(tmp_path) if word == "FOLDER" else word for word in command.split()]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / words[0], *words[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
