"""The workflow as a module of another one, as docs/reuse.md shows it."""

import re
import shutil
import subprocess
import sys

import yaml
from study_runs import CONFIG, ROOT, planned


def test_another_workflow_takes_the_study_as_a_module(tmp_path):
    """The Snakefile of the page, run down to the corpus, with a rule of its own that reads a table of the study."""
    shown = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "reuse.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    snakefile = shown.replace("whichteacher/Snakefile", str(ROOT / "Snakefile"))
    assert snakefile != shown
    (tmp_path / "Snakefile").write_text(snakefile, encoding="utf-8")
    (tmp_path / "config").mkdir()
    shutil.copy(CONFIG, tmp_path / "config" / "study.yaml")

    def snakemake(*arguments: str) -> str:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        return done.stdout + done.stderr

    jobs = planned(snakemake("-n"))
    assert {"study_train_student", "study_build_report", "all"} <= set(jobs)
    snakemake("count_queries")
    counted = (tmp_path / "results" / "queries_per_category.csv").read_text()
    results = yaml.safe_load(CONFIG.read_text())["results"]
    assert list((tmp_path / results / "corpus" / "shards").glob("*.parquet"))
    assert re.search(r"^math,[1-9]\d+$", counted, re.M), counted
    assert planned(snakemake("-n", "count_queries")) == {}
