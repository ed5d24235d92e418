"""The small study, run for real from its configuration, and what happens when something changes or dies."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from study_runs import CONFIG, ROOT, changed, command, planned, snakemake, stored

pytestmark = pytest.mark.study

FIGURES = (
    *("category_shares", "length_histogram", "lengths", "perplexities", "attempts", "ledger", "contamination"),
    *("verdicts", "thresholds", "scores", "training_loss", "differences"),
)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, small_study) -> Path:
    """The working directory of a finished small study: the one that the test of interruptions has left, or a new one."""
    if "undisturbed" not in small_study:
        small_study["undisturbed"] = tmp_path_factory.mktemp("study")
        snakemake(small_study["undisturbed"])
    return small_study["undisturbed"]


@pytest.fixture(scope="session")
def results(finished) -> Path:
    return finished / "results" / "test"


def test_everything_the_study_promises_is_there(results):
    assert (results / "report.html").stat().st_size > 50_000
    for name in (
        "scores",
        "category_shares",
        "length_histogram",
        "lengths",
        "perplexities",
        "training_loss",
        "ledger",
        "contamination",
    ):
        for suffix in ("svg", "png", "pdf", "csv"):
            assert (results / "figures" / f"{name}.{suffix}").stat().st_size > 0
    for name in ("table1", "table2"):
        assert len(pd.read_csv(results / "tables" / f"{name}.csv"))
    for teacher in ("steps", "recheck", "leaps"):
        files = sorted(path.name for path in (results / "export" / "parallel" / teacher).glob("*.jsonl"))
        assert files == ["code.jsonl", "if.jsonl", "math.jsonl", "multiturn.jsonl", "other.jsonl", "science.jsonl"]


#: What figures, tables and report are drawn from, of a folder of results: no text, no trace, no model.
ENOUGH = (
    *(
        "statistics/**/*.csv",
        "statistics/examples.json",
        "statistics/conclusions.md",
        "datasets/*/balance.csv",
        "corpus/contamination_sweep.parquet",
    ),
    *("training/**/log.parquet", "training/**/preflight.json"),
)
#: None of these is in the environment of the figures.
HEAVY = ("torch", "vllm", "transformers", "trl", "datasets", "polars", "math_verify", "ftfy", "scipy", "statsmodels")


def test_figures_and_report_are_drawn_anew_from_a_copy_of_the_results_alone(results, tmp_path):
    copy = tmp_path / "elsewhere" / "results" / "test"
    for pattern in ENOUGH:
        for path in results.glob(pattern):
            place = copy / path.relative_to(results)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)  # with new times, as a download has them
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({HEAVY!r}))\n")
    run = [*command(tmp_path / "elsewhere"), "report", "figures"]
    run[run.index(str(ROOT / "Snakefile"))] = str(ROOT / "workflow" / "from_results.smk")
    environment = {**os.environ, "PYTHONPATH": str(blocked)}
    done = subprocess.run(run, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert set(planned(done.stdout + done.stderr)) == {
        *(f"draw_{name}" for name in FIGURES),
        *("write_tables", "build_report", "report", "figures"),
    }
    for folder in ("figures", "tables"):
        drawn = {path.name: path.read_bytes() for path in (copy / folder).iterdir()}
        assert drawn == {path.name: path.read_bytes() for path in (results / folder).iterdir()}

    def words(folder):
        page = (folder / "report.html").read_text()
        return re.sub(r'<li><a href="(export|statistics/trace_measures)/[^<]*</a></li>', "", page)

    assert words(copy) == words(results)
    data = re.findall(r'<(p|details) class="data">(.*?)</\1>', words(copy))
    links = [target for _, told in data for target in re.findall(r'href="([^"]+)"', told)]
    assert len(data) == words(copy).count("<table>") and all((copy / target).is_file() for target in links)


def test_snakemakes_own_report_has_figures_and_tables_with_captions(finished, tmp_path):
    snakemake(finished, "--report", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "Figure 4. Trace lengths" in page and "Table 2. Output tokens" in page
    assert "its printed means are those of mathematics" in page  # from the caption


def test_datasets_are_parallel_and_every_trace_is_verified(results):
    queries = {}
    for teacher in ("steps", "recheck", "leaps"):
        table = pd.read_parquet(results / "datasets" / "parallel" / f"{teacher}.parquet")
        assert (table["verify_score"] >= 0.9).all() and table["query_id"].is_unique
        queries[teacher] = set(table["query_id"])
    assert queries["steps"] == queries["recheck"] == queries["leaps"]


def test_the_ledger_balances_and_finds_every_planted_fault(results):
    lines = pd.read_csv(results / "statistics" / "ledger.csv")
    counted = lines.groupby(["step", "scope"]).apply(
        lambda rows: rows.set_index("reason")["rows"].to_dict(), include_groups=False
    )
    for counts in counted:
        assert counts["in"] == sum(rows for reason, rows in counts.items() if reason != "in")
    planted = json.loads((results / "miniature" / "planted.json").read_text())
    dropped = pd.concat(pd.read_parquet(path) for path in (results / "corpus").glob("*.dropped.parquet"))
    reasons = dropped["reason"].value_counts()
    for reason, kinds in (
        ("url", ["url"]),
        ("table", ["markdown_table", "html_table"]),
        ("unicode_ratio", ["private_use"]),
        ("empty", ["empty"]),
    ):
        assert reasons[reason] == sum(len(planted[kind]) for kind in kinds) > 0


def test_the_life_of_a_query_is_told_from_its_source_to_its_last_stage(finished, results):
    def why(query: str) -> list[tuple[str, str]]:
        """(step, state) of each line about a step."""
        command = [sys.executable, str(ROOT / "tools/why.py"), query, "--config", str(CONFIG)]
        done = subprocess.run(command, cwd=finished, capture_output=True, text=True, check=True)
        return re.findall(r"^  (\w+_\w+) +(\S+)", done.stdout, re.MULTILINE)

    query = pd.read_parquet(results / "datasets/parallel/steps.parquet")["query_id"].iloc[0]
    corpus = ["import_source", "clean_queries", "deduplicate_queries", "decontaminate_queries", "shard_corpus"]
    accepted = ["collect_attempts", "curate_traces", "match_datasets", "export_dataset", "train_student"]
    # Every teacher solved it; the line of its perplexity holds a number.
    told = [(step, state) for step, state in why(query) if step != "score_perplexity"]
    assert told == [(step, "kept") for step in [*corpus, *3 * accepted]]
    dropped = pd.read_parquet(results / "corpus/deduplicated.dropped.parquet")["detail"].iloc[0].split(": ")[0]
    assert why(dropped) == [(step, "kept") for step in corpus[:2]] + [("deduplicate_queries", "dropped")]


def test_the_first_pass_of_each_query_is_the_one_accepted(results):
    attempts = pd.read_parquet(results / "verification" / "steps" / "0" / "attempts.parquet")
    passed = attempts[attempts["verdict"] == "pass"].sort_values("attempt").groupby("query_id").head(1)
    assert set(passed["attempt_id"]) == set(attempts.loc[attempts["accepted"], "attempt_id"])
    assert (attempts.loc[attempts["accepted"], "finish_reason"] == "stop").all()


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in snakemake(finished)


def test_a_figure_is_redrawn_alone(finished, tmp_path):
    config = changed(tmp_path, lambda raw: raw["figures"].update(smoothing=3))
    jobs = planned(snakemake(finished, "-n", config=config))
    assert set(jobs) == {"draw_training_loss", "build_report", "all"}


def test_how_a_teacher_is_served_re_runs_the_report_alone(finished, tmp_path):
    def serve_otherwise(raw):
        raw["teachers"]["steps"] |= {"data_parallel": 2, "vllm_arguments": {"max_num_seqs": 64}}

    assert set(planned(snakemake(finished, "-n", config=changed(tmp_path, serve_otherwise)))) == {"build_report", "all"}

    def price(raw):
        raw["teachers"]["steps"]["price_per_device_hour"] = 2.0

    jobs = planned(snakemake(finished, "-n", config=changed(tmp_path, price)))
    assert set(jobs) == {"summarise_costs", "compare_teachers", "build_report", "all"}

    def recolour(raw):
        raw["teachers"]["steps"] |= {"label": "Step by step", "colour": "#123456"}

    jobs = planned(snakemake(finished, "-n", config=changed(tmp_path, recolour)))
    assert "draw_lengths" in jobs
    assert not {"generate_responses", "verify_responses", "curate_traces", "train_student"} & set(jobs)


def test_how_training_is_run_re_runs_the_report_alone(finished, tmp_path):
    config = changed(tmp_path, lambda raw: raw["training"].update(checkpoint_steps=7))
    assert set(planned(snakemake(finished, "-n", config=config))) == {"build_report", "all"}


def test_a_new_prompt_asks_its_teacher_alone_again(finished, tmp_path):
    config = changed(tmp_path, lambda raw: raw["teachers"]["steps"].update(system_prompt="Think step by step."))
    jobs = planned(snakemake(finished, "-n", config=config))
    assert jobs["generate_responses"] == jobs["verify_responses"] == 2, "one teacher's rounds"
    assert jobs["collect_attempts"] == 1 and jobs["train_student"] == 3, "the intersection may change for all"
    assert not {"import_source", "shard_corpus", "import_benchmark"} & set(jobs)


def test_a_new_threshold_reads_nothing_again(finished, tmp_path):
    def raise_one(raw):
        raw["curation"]["perplexity"]["thresholds"]["steps"] = {"quantile": 0.9}

    jobs = planned(snakemake(finished, "-n", config=changed(tmp_path, raise_one)))
    assert jobs["set_perplexity_limits"] == jobs["curate_traces"] == 1
    assert "score_perplexity" not in jobs

    def serve_otherwise(raw):
        raw["curation"]["perplexity"]["scorers"]["all_styles"]["data_parallel"] = 2

    assert set(planned(snakemake(finished, "-n", config=changed(tmp_path, serve_otherwise)))) == {"build_report", "all"}


def test_the_plan_of_a_finished_study_finds_everything_paid_for(finished, tmp_path):
    directory = tmp_path / "planned"
    shutil.copytree(finished, directory)
    results = directory / "results" / "test"
    before = stored(results)
    told = snakemake(directory, "plan")
    assert stored(results) == before
    assert "engine started" not in "".join(log.read_text() for log in results.glob("logs/generate_pilot/*/*.log"))
    plan = pd.read_csv(results / "plan" / "plan.csv").set_index("teacher")
    attempts = {name: pd.read_parquet(results / f"verification/{name}/0/attempts.parquet") for name in plan.index}
    assert plan["stored"].to_dict() == {name: len(rows) for name, rows in attempts.items()}
    assert plan["solved"].to_dict() == {name: rows["accepted"].sum() for name, rows in attempts.items()}
    assert not plan[["due", "responses", "tokens_high", "hours_high"]].any(axis=None)
    assert re.search(r"^to generate for certain +0 +0 +0$", told, re.MULTILINE)


def test_a_new_teacher_leaves_the_others_alone(finished, tmp_path):
    def add(raw):
        raw["teachers"]["fourth"] = raw["teachers"]["steps"] | {"label": "Fourth", "colour": "#333333"}

    text = snakemake(finished, "-n", config=changed(tmp_path, add))
    jobs = planned(text)
    rounds = len(yaml.safe_load(CONFIG.read_text())["teachers"]["steps"]["attempts"])
    assert jobs["generate_responses"] == jobs["verify_responses"] == rounds
    assert jobs["score_perplexity"] == jobs["set_perplexity_limits"] == jobs["curate_traces"] == 1
    assert "deduplicate_queries" not in jobs


def test_more_queries_cost_only_their_own_attempts(finished, tmp_path):
    directory = tmp_path / "more"
    shutil.copytree(finished, directory)
    results = directory / "results" / "test"
    shard, table = results / "corpus/shards/0.parquet", results / "generation/steps/0/round0.parquet"
    before = set(pd.read_parquet(shard)["query_id"])
    old = pd.read_parquet(table).set_index("attempt_id")
    before_rows = len(stored(results))

    def add(raw):
        raw["miniature"]["queries"]["math"] += 50

    target = str(table.relative_to(directory))
    snakemake(directory, target, config=changed(tmp_path, add))
    after = set(pd.read_parquet(shard)["query_id"])
    new = pd.read_parquet(table).set_index("attempt_id")
    assert before < after and len(after - before) > 40
    assert len(stored(results)) - before_rows == len(new) - len(old) == len(after - before)
    assert new.loc[old.index, "text"].equals(old["text"])


def test_killed_again_and_again_it_ends_with_the_same_tables(finished, tmp_path):
    """Kill -9 of everything at random moments; what follows the stored text is the same to the byte."""
    directory = tmp_path / "killed"
    (directory / "results/test").mkdir(parents=True)
    shutil.copytree(finished / "results/test/store", directory / "results/test/store")
    rows = len(stored(directory / "results/test"))
    until = ("--until", "match_datasets")
    rng = random.Random(0)
    for _ in range(4):
        run = subprocess.Popen(
            command(directory, *until), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(6, 14))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        snakemake(directory, "--unlock")
    snakemake(directory, *until)
    for path in sorted((finished / "results/test").glob("datasets/parallel/*.parquet")):
        again = directory / path.relative_to(finished)
        assert again.read_bytes() == path.read_bytes(), path.name
    assert len(stored(directory / "results/test")) == rows
