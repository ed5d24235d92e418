"""The workflow as a whole: style, plans of every shipped configuration, and what holds for every rule."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_environments import rules

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / "workflow"
CONFIGS = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))


def tool(*command: object, folder: Path = ROOT) -> subprocess.CompletedProcess:
    """Run a tool of this environment, without network and without GPU."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def plans(tmp_path_factory) -> dict[str, subprocess.Popen]:
    """Dry runs of every shipped configuration, started together, in folders with nothing in them."""
    running = {}
    for name in CONFIGS:
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "-s", ROOT / "Snakefile", "-d", folder]
        running[name] = subprocess.Popen(
            [*command, "--configfile", ROOT / "config" / name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
    return running


#: Jobs that a shipped configuration must plan, by rule.
EXPECTED = {
    "config.yaml": {"train_student": 6, "evaluate_student": 9, "generate_responses": 6, "import_source": 6},
    "test.yaml": {"train_student": 3, "evaluate_student": 4, "generate_responses": 6, "import_source": 6},
    "paper.yaml": {"train_student": 3, "evaluate_student": 3, "generate_responses": 768, "import_source": 38},
    "released.yaml": {"generate_responses": 128, "inspect_traces": 128, "import_source": 12, "import_traces": 2},
    "audit.yaml": {"generate_responses": 1, "inspect_traces": 1, "import_source": 1, "import_traces": 1},
    "reference.yaml": {"import_benchmark": 4, "evaluate_student": 1, "score_samples": 4, "score_models": 1},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_configurations_plan_their_whole_study(plans, name):
    told, _ = plans[name].communicate()
    assert plans[name].returncode == 0, told[-2000:]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", told, re.M)}
    assert EXPECTED[name].items() <= jobs.items()
    assert jobs.get("build_report") == (None if name == "reference.yaml" else 1)
    if name in ("released.yaml", "audit.yaml"):
        assert not {"train_student", "evaluate_student", "score_perplexity", "curate_traces"} & set(jobs)


RECIPES = sorted(path.name for path in (ROOT / "config" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_laid_over_a_study(name, tmp_path):
    study = yaml.safe_load((ROOT / "config" / "test.yaml").read_text())
    del study["training"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    files = (tmp_path / "study.yaml", ROOT / "config" / "recipes" / name)
    run = tool("snakemake", "-n", "--quiet", "rules", "-s", ROOT / "Snakefile", "-d", tmp_path, "--configfile", *files)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^train_student +3$", run.stdout + run.stderr, re.M)


def test_every_control_has_its_students(tmp_path):
    study = yaml.safe_load((ROOT / "config" / "test.yaml").read_text())
    study["curation"]["controls"] = ["parallel", "equal_rows", "equal_tokens"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    options = ("-s", ROOT / "Snakefile", "-d", tmp_path, "--configfile", tmp_path / "study.yaml")
    run = tool("snakemake", "-n", "--quiet", "rules", *options)
    assert re.search(r"^train_student +9$", run.stdout + run.stderr, re.M), run.stdout + run.stderr


def test_no_job_depends_on_where_the_project_lies():
    """A moved project has the same inputs and outputs as before: Snakemake would re-run everything otherwise."""
    run = tool("snakemake", "-n", "--forceall", "--configfile", "config/test.yaml")
    assert run.returncode == 0, run.stdout + run.stderr
    files = re.findall(r"^    (?:input|output|log): (.*)$", run.stdout + run.stderr, re.M)
    assert len(files) > 100
    assert [line for line in files if re.search(r"(^|, )/", line)] == []


def test_lint():
    run = tool("snakemake", "--lint", "--configfile", "config/test.yaml")
    assert run.returncode == 0, run.stdout + run.stderr


def test_format_and_style():
    for command in (
        ("ruff", "check", "benchmarks", "tests", "tools", "workflow"),
        ("ruff", "format", "--check", "benchmarks", "tests", "tools", "workflow"),
        ("snakefmt", "--check", "Snakefile", "workflow"),
    ):
        run = tool(*command)
        assert run.returncode == 0, run.stdout + run.stderr


def test_rules_and_scripts_belong_together():
    scripts = {path.stem for path in (WORKFLOW / "scripts").glob("*.py")}
    assert set(rules()) == scripts


@pytest.mark.parametrize("rule", rules())
def test_a_rule_is_complete(rule):
    text = rules()[rule]
    assert f'code("{rule}")' in text
    # What is planned depends on the store, and what a machine lacks on the machine, for which no file that Snakemake knows
    # stands: these run whenever they are asked for.
    for part in (
        "log:" if rule in ("plan", "doctor") else "output:",
        "log:",
        "conda:",
        "threads:",
        "mem_mb=",
        "runtime=",
    ):
        assert part in text, part
    assert f'"<logs>/{rule}' in text
    assert f"scripts/{rule}.py" in text or f'"{rule}.py"' in text
    assert not re.search(r"^\s+(run|shell):.*(config\[|wildcards\.)", text, re.M)
    assert "checkpoint" not in text


@pytest.mark.parametrize("script", sorted((WORKFLOW / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_says_what_it_does_and_imports_without_snakemake(script):
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__doc__, script


def test_every_rule_is_documented():
    text = "".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    assert [rule for rule in rules() if f"`{rule}`" not in text] == []


def test_no_program_hides_a_module_of_python():
    """A program's folder comes first on its path: benchmarks/statistics.py would stand in the place of Python's own."""
    folders = ("benchmarks", "tools", "workflow/scripts")
    names = {path.stem: path for folder in folders for path in (ROOT / folder).glob("*.py")}
    assert {name: path for name, path in names.items() if name in sys.stdlib_module_names} == {}
