"""The estimate of a study's size: its arithmetic, what it reads, and that the page on clusters shows what it prints."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import estimate_scale  # noqa: E402
from estimate_scale import Assumptions, Line  # noqa: E402

from whichteacher.config import ConfigError, check_config  # noqa: E402

PAPER = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())


DEFAULT = Assumptions()


def lines(change=lambda study: None, assumed: Assumptions = DEFAULT) -> dict[str, Line]:
    raw = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    change(raw)
    found = estimate_scale.estimate(check_config(raw, folders=False), assumed)
    return {line.stage: line for line in found}


def test_attempts_are_drawn_for_open_queries_alone():
    assert estimate_scale.attempts_per_query([1], 0.3) == 1
    assert estimate_scale.attempts_per_query([1, 1], 0.75) == pytest.approx(1.25)
    # Two of the second round at once: both are drawn, and both must fail for a third round.
    assert estimate_scale.attempts_per_query([1, 2, 4], 0.5) == pytest.approx(1 + 2 * 0.5 + 4 * 0.125)


def test_a_model_without_a_size_is_named():
    with pytest.raises(ConfigError, match=r"model org/large: its name says no size"):
        estimate_scale.known_size("org/large")


def test_training_takes_six_operations_per_parameter_and_token():
    assumed = Assumptions(queries=1000, prompt_tokens=100)
    tokens = sum(100 + mean for mean in (3324.9, 3257.2, 2725.5)) * 1000 * PAPER["training"]["recipe"]["epochs"]
    line = lines(assumed=assumed)["training"]
    assert line.gpu_hours == pytest.approx(6 * 32e9 * tokens / (0.35 * 989e12) / 3600)
    assert (line.jobs, line.devices) == (3, 32)


def test_generation_reads_and_writes_at_their_own_speeds():
    assumed = Assumptions(queries=1000, accepted=0.7, prompt_tokens=100)
    attempts = 1 + 0.3 + 2 * 0.09 + 4 * 0.0081
    written, read = 1000 * attempts * 3257.2, 1000 * attempts * 100
    expected = 2 * 22e9 * (written / 0.05 + read / 0.4) / 989e12 / 3600
    assert lines(assumed=assumed)["generation: Qwen3-235B-A22B"].gpu_hours == pytest.approx(expected)


def test_samples_are_as_long_as_those_of_table_2():
    sampled = {"AIME2024": (30 * 64, 15273.8 + 13516.4 + 11853.5), "AIME2025": (30 * 64, 18199.2 + 16975.7 + 13495.9)}
    sampled |= {"MATH500": (500 * 4, 3495.7 + 6429.4 + 3613.0), "LiveCodeBench": (167 * 16, 23426.9 + 13576.7 + 30731)}
    written = sum(samples * lengths for samples, lengths in sampled.values())
    read = 3 * 315 * sum(samples for samples, _ in sampled.values())
    expected = 2 * 32e9 * (written / 0.05 + read / 0.4) / 989e12 / 3600
    assert lines()["evaluation"].gpu_hours == pytest.approx(expected)


def test_what_the_study_asks_for_more_of_costs_more():
    def larger(study):
        study["training"]["seeds"] = [0, 1]
        study["teachers"]["am_thinking_v1"]["attempts"] = [4]
        study["curation"]["perplexity"]["scorers"].pop("mistral_small_24b")
        study["verification"]["judges"].pop("qwen_7b")

    before, after = lines(), lines(larger)
    for doubled in ("training", "evaluation"):
        assert after[doubled].gpu_hours == pytest.approx(2 * before[doubled].gpu_hours)
        assert after[doubled].jobs == 2 * before[doubled].jobs
    grown = after["generation: AM-Thinking-v1"].gpu_hours / before["generation: AM-Thinking-v1"].gpu_hours
    assert grown == pytest.approx(4 / estimate_scale.attempts_per_query([1, 1, 2, 4], 0.7))
    assert before.keys() - after.keys() == {"curation: mistral_small_24b", "verification: qwen_7b"}


def test_everything_grows_with_the_queries_but_students_samples_and_weights():
    once, twice = lines(assumed=Assumptions(queries=1e6)), lines(assumed=Assumptions(queries=2e6))
    for stage, line in once.items():
        same = stage in ("evaluation", "weights of all models")
        assert twice[stage].gpu_hours == pytest.approx(line.gpu_hours * (1 if same else 2)), stage


def test_hours_end_where_jobs_or_gpus_do():
    assumed = replace(DEFAULT, gpus=64, gpus_per_node=8)
    text = estimate_scale.table([Line("few jobs", 3, 8, 240, 0), Line("many", 100, 8, 640, 2**31)], assumed)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()]
    assert rows[0][4] == "hours on 64 GPUs"
    assert rows[2] == ["few jobs", "3", "8", "240", "10", "3", ""]  # 24 GPUs
    assert rows[3] == ["many", "100", "8", "640", "10", "8", "2"]
    assert rows[4] == ["**all, one after the other**", "", "", "880", "20", "", "2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["config/paper.yaml", "--accepted", "0"], "--accepted (value 0): give a number above zero"),
        (["config/test.yaml"], "model ./resources/teachers/"),
        (["config/reference.yaml"], "the study has no teachers"),
        (["no.yaml"], "no.yaml"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        estimate_scale.main(arguments)
    assert said in str(ended.value)
    assert "\n" not in str(ended.value)


def test_help_says_of_every_assumption_where_it_is_from(capsys):
    with pytest.raises(SystemExit):
        estimate_scale.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for option in estimate_scale.fields(Assumptions):
        assert f"--{option.name.replace('_', '-')} " in told
        text = option.metadata["help"]
        assert any(word in text for word in ("assumed", "config/published", "Figure", "NVIDIA", "yours", "as in"))


def test_the_table_of_the_page_on_clusters_is_what_the_command_prints(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "cluster.md").read_text()
    command = next(line for line in page.splitlines() if "tools/estimate_scale.py config" in line)
    estimate_scale.main(shlex.split(command)[2:])
    assert capsys.readouterr().out.strip() in page
