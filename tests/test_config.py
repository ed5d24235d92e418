"""The configuration: its models, its messages, the generated files and the documentation."""

import copy
import functools
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import render_config
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from whichteacher import places
from whichteacher.cleaning import check_examples
from whichteacher.config import (
    UNPINNED,
    Clean,
    CleaningRule,
    ConfigError,
    Endpoint,
    Study,
    check_config,
    unpinned_revisions,
)
from whichteacher.places import locate

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))


@functools.cache
def shipped(name: str) -> dict:
    return yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))


def change(config: dict, path: str, value: object) -> dict:
    """A copy of ``config`` with ``value`` at the dotted ``path``; ``...`` removes the key."""
    changed = copy.deepcopy(config)
    *parents, last = path.split(".")
    block = changed
    for key in parents:
        block = block[key]
    if value is ...:
        del block[last]
    else:
        block[last] = value
    return changed


def complaint(config: dict, folders: bool = False) -> str:
    with pytest.raises(ConfigError) as error:
        check_config(config, folders=folders)
    return str(error.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_are_valid(name):
    assert check_config(shipped(name), folders=False).study


@pytest.mark.parametrize(("path", "text"), render_config.rendered().items())
def test_generated_files_are_up_to_date(path, text):
    assert (ROOT / path).read_text(encoding="utf-8") == text, "run `make config`"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_name_their_schema(name):
    first = (ROOT / "config" / name).read_text(encoding="utf-8").split("\n")[0]
    schema = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)[1]
    assert json.loads((ROOT / "config" / schema).read_text(encoding="utf-8"))["title"] == "Study"


def test_shipped_configurations_keep_their_results_apart():
    assert len({check_config(shipped(name), folders=False).results for name in SHIPPED}) == len(SHIPPED)


FAULTS = [
    ("figures.smothing", 3, "figures.smothing: unknown key (value 3): remove it or correct its spelling"),
    ("colour", "red", "colour: unknown key (value 'red')"),
    ("study", ..., "study: missing: add it"),
    ("corpus.shards", "many", "corpus.shards (value 'many'): Input should be a valid integer"),
    ("corpus.shards", 0, "corpus.shards (value 0): Input should be greater than or equal to 1"),
    ("teachers", {}, "teachers"),
    ("teachers.steps.colour", "blue", "teachers.steps.colour (value 'blue')"),
    ("teachers.steps.attempts", [1, 0], "teachers.steps.attempts.1 (value 0)"),
    ("teachers.steps.revision", "a" * 40, "teachers.steps: a local folder takes no revision: remove `revision`"),
    ("teachers.steps.model", "org/name", "teachers.steps: revision None of hub model 'org/name' is no commit: pin one"),
    ("teachers.steps.traces", "./traces", "teachers.steps: engine `vllm` reads no traces: remove `traces`"),
    ("teachers.steps.engine", "dataset", "teachers.steps: engine `dataset` needs `traces`"),
    ("teachers.steps.engine", "openai", "teachers.steps: engine `openai` and `endpoint` come together"),
    ("teachers.steps.endpoint", {"base_url": "example"}, "teachers.steps.endpoint.base_url (value 'example')"),
    (
        "teachers.steps.endpoint",
        {"base_url": "http://x/v1", "extra_body": {"seed": 1}},
        "teachers.steps.endpoint: extra_body sets 'seed', which every request has of its own: remove it",
    ),
    ("teachers.steps.quantisation", "fp8", "teachers.steps.quantisation: unknown key"),
    ("corpus.sources.math.hub", "org/data", "corpus.sources.math: name exactly one of `path` and `hub`"),
    (
        "corpus.sources.math.columns.prompt",
        "q",
        "corpus.sources.math.columns: name exactly one of `prompt` and `turns`",
    ),
    ("curation.perplexity.thresholds", {"nobody": 5.0}, "names 'nobody', which is no teacher: use one of"),
    ("curation.perplexity.scorers", {}, "curation.perplexity.scorers: "),
    (
        "curation.perplexity.scorers.all_styles.endpoint",
        {},
        "curation.perplexity.scorers.all_styles.endpoint: unknown key",
    ),
    ("training.seeds", [1, 1], "training.seeds"),
    ("evaluation", None, "`training` needs `evaluation`: say what the students are scored on"),
    ("evaluation.models.steps.expected", {"aime": [1, 2]}, "models.steps.expected names 'aime', which is no benchmark"),
    ("evaluation.models.steps.expected", {"easy_math": [2, 1]}, "models.steps.expected.easy_math is [2.0, 1.0]"),
    ("evaluation.benchmarks.easy_math.task", "gsm8k", "a `task` knows its data: remove columns"),
    ("evaluation.benchmarks.easy_math.category", "task", "category task is for LightEval's tasks: name a `task`"),
    (
        "evaluation.benchmarks.easy_math",
        {"label": "GSM8K", "task": "gsm8k", "category": "task", "revision": "1" * 40, "split": "train"},
        "a `task` knows its data: remove split",
    ),
    (
        "evaluation.benchmarks.easy_math",
        {"label": "GSM8K", "task": "gsm8k", "category": "task"},
        "revision None of the data set of LightEval's gsm8k is no commit",
    ),
    (
        "evaluation.benchmarks.easy_math",
        {"label": "Programs", "task": "lcb:codegeneration", "category": "code", "revision": "1" * 40},
        "LightEval would run programs without a sandbox",
    ),
    ("evaluation.benchmarks.code_tasks.layout", "livecodebench", "name exactly one of `layout` and `columns`"),
    ("curation", None, "`teachers` need `corpus.sources` to answer and `curation` for what they say"),
    ("evaluation.benchmarks.easy_math.role", "SAT", "evaluation.benchmarks.easy_math.role (value 'SAT')"),
]


@pytest.mark.parametrize(("path", "value", "expected"), FAULTS)
def test_a_fault_is_one_line_with_key_value_and_remedy(path, value, expected):
    if path == "training.seeds":
        expected = "training: seeds repeat"
    message = complaint(change(shipped("test.yaml"), path, value))
    assert "\n" not in message
    assert message.startswith("config key ")
    assert expected in message
    assert "config/README.md" in message


@pytest.mark.parametrize("key", ["tensor_parallel", "pipeline_parallel", "data_parallel", "vllm_arguments"])
def test_an_endpoint_takes_no_settings_of_vllm(key):
    endpoint = {"base_url": "http://127.0.0.1:1/v1"}
    config = change(
        change(shipped("test.yaml"), "teachers.steps.engine", "openai"), "teachers.steps.endpoint", endpoint
    )
    assert check_config(config).teachers["steps"].devices == 0
    message = complaint(change(config, f"teachers.steps.{key}", {"a": 1} if key == "vllm_arguments" else 2))
    assert "engine `openai` is not vLLM: remove the settings of vLLM" in message


def test_a_teacher_has_one_price_and_published_traces_no_schedule():
    prices = {"price_per_million_tokens": 1.0, "price_per_device_hour": 1.0}
    config = shipped("test.yaml")
    for key, value in prices.items():
        config = change(config, f"teachers.steps.{key}", value)
    assert "a teacher has one price" in complaint(config)
    published = {"engine": "dataset", "traces": "./traces", "traces_layout": "am"}
    for key, value in published.items():
        config = change(config if key != "engine" else shipped("test.yaml"), f"teachers.steps.{key}", value)
    assert "engine `dataset` holds the attempts that were published: remove `attempts`" in complaint(config)


def test_several_faults_are_all_told():
    config = change(change(shipped("test.yaml"), "figures.smothing", 3), "corpus.shards", 0)
    assert len(complaint(config).splitlines()) == 2


def test_a_missing_model_folder_is_told():
    config = change(shipped("test.yaml"), "teachers.steps.model", "./no/such/model")
    lines = complaint(config, folders=True).splitlines()
    assert "config key teachers.steps.model (value './no/such/model'): no such folder: " in lines[0]


@given(
    block=st.sampled_from(["", "corpus", "miniature", "teachers.leaps", "training.recipe", "evaluation.sampling"]),
    key=st.from_regex(r"x_[a-z_]{1,12}", fullmatch=True),
    value=st.one_of(st.integers(), st.text(max_size=20), st.lists(st.booleans(), max_size=3)),
)
def test_an_unknown_key_is_named_wherever_it_stands(block, key, value):
    path = f"{block}.{key}".lstrip(".")
    assert complaint(change(shipped("test.yaml"), path, value)).startswith(f"config key {path}: unknown key")


def test_unknown_commits_are_told_and_not_more():
    config = change(shipped("paper.yaml"), "teachers.deepseek_r1.revision", UNPINNED)
    told = unpinned_revisions(check_config(config, folders=False))
    assert "teachers.deepseek_r1.revision" in told
    assert "corpus.decontaminate.embedder_revision" not in told
    assert unpinned_revisions(check_config(shipped("config.yaml"), folders=False)) == []


def blocks(annotation: object) -> list[tuple[type[BaseModel], str]]:
    """The models of an annotation, with what stands between a key and their keys."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, "")]
    if str in typing.get_args(annotation):
        return []  # a text, or a block that stands for one
    inside = ".<name>" if typing.get_origin(annotation) is dict else ""
    return [(model, inside + more) for part in typing.get_args(annotation) for model, more in blocks(part)]


def keys(model: type[BaseModel], path: str = "") -> list[tuple[str, str]]:
    """(section, key) of every key of the configuration."""
    found = []
    if model is Endpoint:  # described once
        path = "teachers.<name>.endpoint"
    for key, field in model.model_fields.items():
        inner = blocks(field.annotation)
        shared = issubclass(model, CleaningRule) and key in CleaningRule.model_fields
        found += [] if inner else [("corpus.clean.<rule>" if shared else path, key)]
        for block, between in inner:
            found += keys(block, f"{path}.{key}{between}".lstrip("."))
    return found


def test_every_key_is_documented_and_nothing_else():
    documented, section = set(), ""
    for line in (ROOT / "config" / "README.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#+ (?:`(.+)`|The study)$", line):
            section = heading[1] or ""
        elif (row := re.match(r"\| `(\w+)` \|", line)) and (section or row[1] in Study.model_fields):
            documented.add((section, row[1]))
    documented = {
        (section, key) for section, key in documented if section != "" or key in ("study", "results", "store")
    }
    # A block of blocks has a row too (`columns`), which the models know as a section.
    sections = {section for section, _ in keys(Study)} | {f"corpus.clean.{rule}" for rule in Clean.model_fields}
    documented = {(section, key) for section, key in documented if f"{section}.{key}".lstrip(".") not in sections}
    assert documented == set(keys(Study))


def test_every_key_has_a_description():
    queue = [Study]
    while queue:
        for key, field in queue.pop().model_fields.items():
            assert field.description, key
            queue += [block for block, _ in blocks(field.annotation)]


def unwritten(model: BaseModel, path: str = "") -> list[str]:
    """Keys with a value that the writer left to its default."""
    found = []
    for key in type(model).model_fields:
        value, here = getattr(model, key), f"{path}.{key}".lstrip(".")
        if key not in model.model_fields_set:
            found += [] if value in (None, False, {}, [], "") else [here]
        elif isinstance(value, BaseModel):
            found += unwritten(value, here)
        elif isinstance(value, dict):
            for name, entry in value.items():
                found += unwritten(entry, f"{here}.{name}") if isinstance(entry, BaseModel) else []
    return found


def test_the_papers_settings_are_all_written_out():
    # But for the cleaning rules: the paper has none, so ours are the default.
    left = unwritten(check_config(shipped("paper.yaml"), folders=False))
    assert [key for key in left if not key.startswith("corpus.clean.")] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_the_cleaning_rules_of_every_shipped_study_judge_their_examples(name):
    assert check_examples(check_config(shipped(name), folders=False).corpus.clean.model_dump()) == []


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.from_regex(r"[a-z]\w{0,5}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    value=st.one_of(
        values, st.sampled_from(["yes", "null", "1e3", "0x1F", "./a b", "#a", "2024-10-01", "~", " a", "\x85"])
    )
)
def test_rendered_values_read_back(value):
    assert yaml.safe_load(f"key: {render_config.scalar(value)}") == {"key": value}


def test_a_shipped_folder_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(locate("./resources/teachers")).samefile(ROOT / "resources" / "teachers")
    (tmp_path / "resources" / "teachers").mkdir(parents=True)
    assert Path(locate("./resources/teachers")).samefile(tmp_path / "resources" / "teachers")
    assert locate("org/name") == "org/name"


def test_what_another_study_left_in_the_project_is_not_found_from_elsewhere(tmp_path, monkeypatch):
    project = tmp_path / "project"
    left = project / "results" / "sources" / "math.jsonl"
    left.parent.mkdir(parents=True)
    left.touch()
    monkeypatch.setattr(places, "_PROJECT", project)
    monkeypatch.chdir(tmp_path)
    assert locate("results/sources/math.jsonl") == "results/sources/math.jsonl"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("figures.smothing", 3, "config key figures.smothing: unknown key (value 3): remove it"),
        (
            "corpus.clean",
            {"url": {"drops": ["None here."]}},
            "corpus.clean.url.drops (value 'None here.'): the rule keeps it",
        ),
        ("corpus.shards", "many", "config key corpus.shards (value 'many'): "),
        ("teachers.steps.model", "./no/such/model", "teachers.steps.model (value './no/such/model'): no such folder"),
    ],
)
def test_snakemake_shows_the_line_and_no_traceback(tmp_path, path, value, expected):
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump(change(shipped("test.yaml"), path, value)), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "-n", "-s", ROOT / "Snakefile", "--configfile", file, "-d", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    told = run.stdout + run.stderr
    assert run.returncode != 0
    assert expected in told
    assert "Traceback" not in told
