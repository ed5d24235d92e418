"""What the Slurm profile asks for; the study on a real Slurm where WHICHTEACHER_SLURM is set (tests/slurm)."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[1]


PROFILE = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
RULES = "\n".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
NAMES = set(re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)", RULES, re.MULTILINE))
#: What goes on where it was killed: a retry needs no more time.
RESUMED = {
    *("generate_responses", "complete_constraints", "judge_responses", "rejudge_sample"),
    *("score_perplexity", "evaluate_student", "train_student"),
}


def with_examples() -> dict:
    """The profile with the settings that it holds as comments."""
    return yaml.safe_load(re.sub(r"^# (?=set-\w+:$| +\w+:)", "", PROFILE, flags=re.MULTILINE))


def dry_run(folder: Path, config: str, *left_out: str) -> str:
    """What a dry run with the profile prints, without the plugin and conda, which are in no environment of the tests."""
    absent = {"executor", "jobs", "software-deployment-method", "conda-prefix", *left_out}
    profile = {key: value for key, value in yaml.safe_load(PROFILE).items() if key not in absent}
    (folder / "profile").mkdir()
    (folder / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "-n", "--snakefile", ROOT / "Snakefile", "--cores", "1024"),
            *("--configfile", ROOT / "config" / config, "--directory", folder, "--profile", folder / "profile"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


class Asked(NamedTuple):
    """What the jobs of a rule ask for: the most of each, and every resource of one of them."""

    jobs: int
    threads: int
    resources: dict[str, str]


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> dict[str, Asked]:
    """What the jobs of the study of the paper ask for, by rule."""
    printed = dry_run(tmp_path_factory.mktemp("paper"), "paper.yaml", "groups", "group-components")
    found: dict[str, Asked] = {}
    for name, block in re.findall(r"^rule (\w+):\n((?:    .*\n)+)", printed, re.MULTILINE):
        resources = dict(re.findall(r"(\w+)=([^,\n]+)", re.search(r"^    resources: (.*)$", block, re.MULTILINE)[1]))
        threads = re.search(r"^    threads: (\d+)$", block, re.MULTILINE)
        before = found.get(name, Asked(0, 1, resources))
        most = {
            key: str(max(int(value), int(before.resources[key]))) if value.isdigit() else value
            for key, value in resources.items()
        }
        found[name] = Asked(before.jobs + 1, max(before.threads, int(threads[1]) if threads else 1), most)
    return found


def table(paper: dict[str, Asked]) -> str:
    """The table of docs/cluster.md: rules by what they ask for; GPUs are those of a node."""
    rows = [
        "| GPUs a node | nodes | threads | memory, MB | time, min | rules (jobs) |",
        "| ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    alike: dict[tuple, list[str]] = {}
    for rule, (jobs, threads, resources) in sorted(paper.items()):
        if rule == "all":
            continue
        per_gpu = int(resources.get("cpus_per_gpu", 0)) if resources.get("gpu", "0") != "0" else 0
        gpus = resources.get("gres", "").removeprefix("gpu:") or resources.get("gpu", "0")
        cores = f"{per_gpu} a GPU" if per_gpu else threads
        memory = resources["mem_mb"] if resources["mem_mb"].isdigit() else "by input"
        key = (int(gpus), int(resources.get("nodes", 1)), cores, memory, int(resources["runtime"]))
        alike.setdefault(key, []).append(f"`{rule}` ({jobs})" if jobs > 1 else f"`{rule}`")
    for key, rules in sorted(alike.items(), key=lambda row: (-row[0][0], -row[0][4], str(row[0]))):
        rows.append("| " + " | ".join(map(str, key)) + " | " + ", ".join(rules) + " |")
    return "\n".join(rows)


def test_the_profile_is_whole():
    profile = yaml.safe_load(PROFILE)
    assert (profile["executor"], profile["retries"], profile["software-deployment-method"]) == ("slurm", 2, "conda")
    assert "slurm-array-jobs" not in profile
    assert "retries" not in yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())


def test_every_rule_that_the_profile_names_exists():
    profile = with_examples()
    assert {"generate_responses", "train_student"} <= profile["set-resources"].keys()
    assert (profile["set-resources"].keys() | profile["set-threads"].keys()) <= NAMES
    grouped = [entry.split("=")[0] for entry in profile["groups"]]
    assert set(grouped) <= NAMES
    assert len(grouped) == len(set(grouped))
    groups = {entry.split("=")[1] for entry in profile["groups"]}
    assert {entry.split("=")[0] for entry in profile["group-components"]} <= groups


def test_what_the_examples_set_a_job_can_have():
    known = {
        "slurm_partition",
        "slurm_account",
        "qos",
        "constraint",
        "gpu_model",
        "gres",
        "mem_mb",
        "runtime",
        "slurm_extra",
    }
    for rule, resources in with_examples()["set-resources"].items():
        assert resources.keys() <= known, rule


@pytest.mark.parametrize("config", ["test.yaml", "audit.yaml"])
def test_no_group_waits_for_itself(tmp_path, config):
    # Snakemake refuses a group that another job leads back into.
    assert "build_report" in dry_run(tmp_path, config)


def test_what_each_job_asks_for_is_a_number(paper):
    assert len(paper) > 50
    for rule, (_, _, resources) in paper.items():
        for name in ("mem_mb", "runtime", "gpu", "nodes", "tasks", "cpus_per_gpu"):
            # Of what is not there yet the size is not known.
            assert re.fullmatch(r"[1-9]\d*|0", resources.get(name, "0")) or (rule, name) == ("shard_corpus", "mem_mb")


def test_gpus_of_one_job_are_on_one_node(paper):
    for rule, (_, _, resources) in paper.items():
        if resources.get("gpu", "0") != "0":
            assert resources["nodes"] == "1", rule
    # tests/slurm/gpus.smk asks for the same, of a real Slurm.
    assert paper["generate_responses"].resources.items() >= {"gpu": "16", "nodes": "1", "cpus_per_gpu": "8"}.items()
    several = {"gres": "gpu:8", "nodes": "4", "tasks": "4", "tasks_per_gpu": "0", "mpi": "srun"}
    assert paper["train_student"].resources.items() >= several.items()
    assert "gpu" not in paper["train_student"].resources
    assert paper["train_student"].threads == 64


def growing(amount):
    source = (ROOT / "workflow" / "rules" / "common.smk").read_text()
    names: dict = {}
    exec(
        re.search(r"^def growing.*?(?=^\S)", source.replace("\ndef growing", "\n\ndef growing"), re.M | re.S)[0], names
    )
    return names["growing"](amount)


def test_every_retry_is_given_half_as_much_more():
    assert [growing(2000)({}, None, attempt) for attempt in (1, 2, 3)] == [2000, 3000, 4000]
    assert growing(lambda files: 10 * len(files))({}, ["a", "b"], 3) == 40


def test_every_rule_is_given_more_of_what_it_may_run_out_of():
    for block in re.split(r"^ *(?=rule \w+:)", RULES, flags=re.MULTILINE)[1:]:
        name = re.match(r"rule (\w+)", block)[1]
        for resource in ("mem_mb", "runtime"):
            for value in re.findall(rf"^ +{resource}=(.*),$", block, re.MULTILINE):
                resumed = name in RESUMED and resource == "runtime"
                assert value.startswith("growing(") is not resumed, f"{name}: {resource}={value}"


def test_the_page_on_clusters_shows_what_each_rule_asks_for(paper):
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert table(paper) in page, table(paper)


@pytest.mark.skipif("WHICHTEACHER_SLURM" not in os.environ, reason="minutes: set WHICHTEACHER_SLURM=1 to run it")
def test_the_small_study_on_slurm(tmp_path):
    program = ROOT / "tests" / "slurm" / "run_study_on_slurm.py"
    done = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
