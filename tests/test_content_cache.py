"""What Snakemake's cache between studies may hold, and what an edit or a move of the project runs again."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from study_runs import ROOT, load_rules, planned

#: Downloads, and the miniature's teachers; responses, perplexities and students are the store's.
CACHED = {"import_source", "import_benchmark", "import_task", "train_teacher"}


@pytest.fixture(scope="module")
def rules() -> dict[str, dict]:
    return load_rules()


def test_downloads_and_teachers_are_cached_and_nothing_else(rules):
    assert {name for name, rule in rules.items() if rule["cached"]} == CACHED


@pytest.mark.parametrize("name", sorted(CACHED))
def test_a_cached_rule_uses_nothing_but_its_inputs_and_parameters(name, rules):
    """The cache's key has inputs, parameters and the rule's own script or command; whatever else is used would be taken from
    another study's file without a word."""
    rule = rules[name]
    assert "code" in rule["inputs"] and rule["params"] and not rule["benchmark"]
    assert rule["outputs"][0] == rule["outputs"][1], "each output needs a name"
    if rule["shell"]:
        assert "script" in rule["inputs"]
        assert set(re.findall(r"\{(\w+)", rule["shell"].replace("{{", ""))) <= {"input", "output", "params", "log"}
    else:
        script = (ROOT / "workflow" / "scripts" / f"{name}.py").read_text(encoding="utf-8")
        assert set(re.findall(r"snakemake\.(\w+)", script)) <= {"input", "output", "params"}


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--configfile", "config/test.yaml"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def test_the_cache_is_for_runs_that_know_their_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path))
    run = snakemake(ROOT, "-n", "corpus", "--cache", "import_source")
    assert run.returncode == 1
    assert "does not know by which packages a file was made: add --sdm conda" in run.stdout + run.stderr


def test_a_project_that_is_moved_or_copied_has_nothing_to_do_and_one_that_is_edited_little(tmp_path):
    project = tmp_path / "here"
    project.mkdir()
    for name in ("workflow", "config", "envs", "resources"):
        shutil.copytree(ROOT / name, project / name, symlinks=True)
    shutil.copy2(ROOT / "Snakefile", project)
    run = snakemake(project, "corpus")
    assert run.returncode == 0, run.stderr[-4000:]

    def to_do(where: Path) -> dict[str, int]:
        told = snakemake(where, "-n", "corpus")
        assert told.returncode == 0, told.stderr[-4000:]
        return planned(told.stdout + told.stderr)

    moved = project.rename(tmp_path / "moved elsewhere")
    assert to_do(moved) == {}
    # As rsync -a brings it to another machine: with its times.
    copied = tmp_path / "another machine"
    shutil.copytree(moved, copied, symlinks=True)
    assert to_do(copied) == {}

    script = copied / "workflow" / "scripts" / "decontaminate_queries.py"
    script.write_text(script.read_text(encoding="utf-8") + "# A comment.\n", encoding="utf-8")
    assert set(to_do(copied)) == {"decontaminate_queries", "shard_corpus", "corpus"}

    # Without conda environments Snakemake knows of no packages.
    lock = moved / "envs" / "cpu" / "corpus.yaml"
    lock.write_text(lock.read_text(encoding="utf-8") + "# other packages\n", encoding="utf-8")
    assert to_do(moved) == {}
