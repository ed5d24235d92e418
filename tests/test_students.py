"""What lies behind the differences between students, and what may be said of them."""

import compare_controls
import compare_students
import numpy as np
import pandas as pd
import pytest
import split_scores
import statsmodels.api as sm
import study_tables
import summarise_students

from whichteacher import conclusions
from whichteacher.report.students import findings
from whichteacher.resampling import (
    Interval,
    PairedChange,
    PairedScores,
    bootstrap_mean,
    bootstrap_slope,
    generator,
    nested_bootstrap,
)
from whichteacher.rule import InputError
from whichteacher.schemas import CONTAMINATED_RESPONSES, CONTAMINATION
from whichteacher.scores import read_samples, shares
from whichteacher.students import by_students, compare_pairs, pair_scores
from whichteacher.tables import write_table

STATISTICS = {"resamples": 400, "confidence": 0.95, "seed": 0}
NOTHING = Interval(np.nan, np.nan, np.nan)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_tables.write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def samples(study):
    return read_samples(sorted(study.glob(f"evaluation/{study_tables.CONTROL}/*/*/*.scored.parquet")))


def made_samples(passed: np.ndarray, tokens: np.ndarray | None = None, **names: str) -> pd.DataFrame:
    """Samples with these passes: an array of seeds x problems x samples, or of problems alone."""
    passed = passed[None, :, None] if passed.ndim == 1 else passed
    seed, problem, _ = (axis.ravel() for axis in np.indices(passed.shape))
    names = {"control": "parallel", "teacher": "a", "benchmark": "x"} | names
    return pd.DataFrame(
        {
            **names,
            "seed": seed.astype(str),
            "problem_id": [f"p{number:03d}" for number in problem],
            "difficulty": np.nan,
            "passed": passed.ravel().astype(float),
            "output_tokens": 10 if tokens is None else np.broadcast_to(tokens, passed.shape).ravel(),
        }
    )


# --- resampling ------------------------------------------------------------------------------------------------------


def test_slope_and_its_interval_are_those_of_least_squares():
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 5, 400)
    y = 2 + 0.3 * x + rng.normal(0, 0.2 + 0.2 * x)
    fit = sm.OLS(y, sm.add_constant(x)).fit(cov_type="HC3")
    low, high = fit.conf_int()[1]
    found = bootstrap_slope(x, y, 4000, 0.95, generator(0))
    assert found.value == pytest.approx(fit.params[1])
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


@pytest.mark.parametrize(
    ("x", "value", "bounded"),
    [
        ([], np.nan, False),
        ([1.0], np.nan, False),
        ([1.0] * 8, np.nan, False),
        ([1.0, 2.0], 3.0, False),
        ([1.0, 1.0, 1.0, 2.0], 3.0, False),  # a third of the resamples has one level
        ([1.0, 2.0] * 6, 3.0, True),
    ],
)
def test_a_slope_needs_levels(x, value, bounded):
    found = bootstrap_slope(np.array(x), 3 * np.array(x), 300, 0.95, generator(0))
    assert found.value == pytest.approx(value, nan_ok=True)
    assert np.isnan(found.low) != bounded


def test_a_change_without_seed_or_sample_noise_is_the_plain_paired_bootstrap():
    rng = np.random.default_rng(6)
    a, b, c, d = ((rng.random((1, 300)) < chance).astype(float) for chance in (0.7, 0.5, 0.9, 0.4))
    change = PairedChange(PairedScores(a, b, 1), PairedScores(c, d, 1))
    nested = nested_bootstrap([change], 4000, 0.95, generator(1))
    assert nested == pytest.approx(bootstrap_mean(((a - b) - (c - d))[0], 4000, 0.95, generator(2)), abs=0.012)


# --- behind the scores -----------------------------------------------------------------------------------------------


def test_a_cap_fails_what_is_longer_and_nothing_else(samples):
    mine = samples.query("teacher == 'steps' and benchmark == 'hard_math'")
    found = pd.DataFrame(summarise_students.score_by_cap(mine, 400)).set_index("cap_share")
    assert list(found["cap_tokens"]) == [25, 50, 100, 200, 300, 400]
    assert found["pass_at_1"].is_monotonic_increasing
    whole = mine.groupby("problem_id")["passed"].mean()
    assert found.loc[1.0, "pass_at_1"] == pytest.approx(whole.mean()) and found.loc[1.0, "over_cap"] == 0
    assert found.loc[1.0, "se_problems"] == pytest.approx(whole.sem())
    short = mine["output_tokens"] <= 100
    assert found.loc[0.25, "pass_at_1"] == pytest.approx((mine["passed"] * short).mean())
    assert found.loc[0.25, "over_cap"] == pytest.approx(1 - short.mean())


def test_a_response_as_long_as_the_cap_is_within_it():
    made = made_samples(np.ones(4), tokens=np.array([49, 50, 51, 100])[None, :, None])
    half = pd.DataFrame(summarise_students.score_by_cap(made, 100)).set_index("cap_share").loc[0.5]
    assert half["pass_at_1"] == 0.5


def test_stated_difficulty_is_taken_where_it_tells_problems_apart():
    made = made_samples(np.zeros(30)).assign(difficulty=np.repeat([1.0, 2.0, 3.0], 10))
    made["output_tokens"] = (100 * 2.0 ** made["difficulty"]).astype(int)
    found = summarise_students.adaptivity(made, [], 200, 0.95, generator(0))
    assert found["difficulty"] == "stated"
    assert [found[name] for name in ("slope", "low", "high")] == pytest.approx([np.log(2)] * 3)


def test_estimated_difficulty_is_that_of_the_other_teachers_students():
    chance = np.linspace(0, 1, 11)
    tokens = np.exp(3 + 2 * (1 - chance)).round()[None, :, None]
    mine = made_samples(np.zeros(11), tokens).assign(difficulty=7)
    others = [made_samples(chance + shift, teacher=name) for name, shift in (("b", 0.1), ("c", -0.1))]
    kind, difficulty = summarise_students.difficulties(mine, others)
    assert kind == "estimated" and difficulty.to_list() == pytest.approx(list(1 - chance))
    found = summarise_students.adaptivity(mine, others, 200, 0.95, generator(0))
    assert found["slope"] == pytest.approx(2, abs=0.02)
    alone = summarise_students.adaptivity(mine, [], 200, 0.95, generator(0))
    assert alone["difficulty"] == "" and np.isnan(alone["slope"])


def test_an_empty_response_has_a_length():
    made = made_samples(np.zeros(12), np.zeros((1, 12, 1), int)).assign(difficulty=[1, 2] * 6)
    assert summarise_students.adaptivity(made, [], 200, 0.95, generator(0))["slope"] == 0


def test_variance_components_are_those_of_a_mixed_model():
    rng = np.random.default_rng(2)
    seeds, problems = 6, 14
    cells = 0.5 + rng.normal(0, 0.3, problems) + rng.normal(0, 0.2, (seeds, 1)) + rng.normal(0, 0.1, (seeds, problems))
    seed, problem = (axis.ravel() for axis in np.indices(cells.shape))
    frame = pd.DataFrame({"y": cells.ravel(), "seed": seed, "problem": problem, "whole": 1})
    parts = {"problem": "0 + C(problem)", "seed": "0 + C(seed)"}
    model = sm.MixedLM.from_formula("y ~ 1", groups="whole", vc_formula=parts, re_formula="0", data=frame)
    fit = model.fit(reml=True)
    theirs = dict(zip(model.exog_vc.names, fit.vcomp, strict=True))
    found = summarise_students.variance_components(cells, 1)
    assert found["problem"] * problems == pytest.approx(theirs["problem"], rel=1e-3)
    assert found["seed"] * seeds == pytest.approx(theirs["seed"], rel=1e-3)
    assert found["sampling"] * cells.size == pytest.approx(fit.scale, rel=1e-3)
    assert np.isnan(found["problem_seed"])
    # The variance of the mean, which is the intercept.
    assert sum(value for value in found.values() if value == value) == pytest.approx(
        fit.bse_fe["Intercept"] ** 2, rel=1e-3
    )


def test_variance_components_find_what_was_put_in():
    rng = np.random.default_rng(3)
    seeds, problems, per_problem = 5, 60, 4
    deviations = {"problem": 0.12, "seed": 0.05, "problem_seed": 0.08}
    found = []
    for _ in range(150):
        chance = (
            0.5
            + rng.normal(0, deviations["problem"], problems)
            + rng.normal(0, deviations["seed"], (seeds, 1))
            + rng.normal(0, deviations["problem_seed"], (seeds, problems))
        ).clip(0, 1)
        cells = rng.binomial(per_problem, chance) / per_problem
        found.append(summarise_students.variance_components(cells, per_problem))
    means = pd.DataFrame(found).mean() * [problems, seeds, seeds * problems, seeds * problems * per_problem]
    for name, deviation in deviations.items():
        assert means[name] == pytest.approx(deviation**2, rel=0.15), name
    assert means["sampling"] == pytest.approx(0.25 - sum(value**2 for value in deviations.values()), rel=0.03)


@pytest.mark.parametrize(
    ("seeds", "problems", "per_problem", "told"),
    [
        (1, 5, 1, set()),
        (1, 5, 4, {"problem", "sampling"}),
        (3, 5, 1, {"problem", "seed", "sampling"}),
        (3, 5, 4, {"problem", "seed", "problem_seed", "sampling"}),
        (1, 1, 1, set()),
        (3, 1, 4, {"sampling"}),
    ],
)
def test_what_a_design_cannot_tell_is_empty(seeds, problems, per_problem, told):
    passed = np.random.default_rng(0).integers(0, 2, (seeds, problems, per_problem))
    row = summarise_students.components_row(made_samples(passed))
    parts = ("problem", "seed", "problem_seed", "sampling")
    assert {name for name in parts if not np.isnan(row[name])} == told
    assert np.isnan(row["standard_error"]) == (problems == 1)
    if seeds == 1 and problems > 1:
        by_problem = passed.mean(axis=2)[0]
        assert row["standard_error"] == pytest.approx(100 * by_problem.std(ddof=1) / np.sqrt(problems))


def test_every_student_has_its_rows(study, samples, tmp_path):
    outputs = {name: tmp_path / f"{name}.csv" for name in ("score_by_cap", "adaptivity", "variance_components")}
    scored = sorted(study.glob(f"evaluation/{study_tables.CONTROL}/*/*/*.scored.parquet"))
    teachers, benchmarks = list(study_tables.TEACHERS), list(study_tables.BENCHMARKS)
    summarise_students.main(scored, outputs, [study_tables.CONTROL], teachers, benchmarks, 300, STATISTICS)
    tables = {name: pd.read_csv(path) for name, path in outputs.items()}
    assert {name: len(table) for name, table in tables.items()} == {
        "score_by_cap": 54,
        "adaptivity": 9,
        "variance_components": 9,
    }
    assert (tables["adaptivity"]["difficulty"] == "estimated").all()
    scores = compare_students.score_students(samples, [study_tables.CONTROL], teachers).query("seed == 'all'")
    capped = tables["score_by_cap"].query("cap_share == 1")
    assert capped["pass_at_1"].to_list() == pytest.approx(
        capped.merge(scores, on=["teacher", "benchmark"])["pass_at_1_y"].to_list()
    )


# --- failures and flagged problems -----------------------------------------------------------------------------------


def test_failures_are_compared_as_scores_are(samples):
    arguments = (["parallel"], list(study_tables.TEACHERS), list(study_tables.BENCHMARKS))
    found = compare_students.compare_failures(samples, *arguments, **STATISTICS)
    assert list(found["measure"].unique()) == ["truncated", "no_answer"] and len(found) == 2 * 3 * 4
    # The last of four samples is cut, and the first has no answer, for everybody.
    assert (found[["rate_a", "rate_b"]] == 25).all(axis=None) and (found["difference"] == 0).all()


def test_flagged_problems_are_split_out(study, tmp_path):
    scored = sorted(study.glob(f"evaluation/{study_tables.CONTROL}/*/*/*.scored.parquet"))
    quoted = {field.name: "" for field in CONTAMINATED_RESPONSES} | {"share": 1.0, "query_share": 0.0}
    quoted |= {"query_flagged": False, "benchmark": "hard_math"}
    rows = [quoted | {"problem_id": name} for name in ("p003", "p004", "p004")]
    write_table(tmp_path / "quoted.parquet", rows, CONTAMINATED_RESPONSES)
    queries = {"query_id": "q", "source": "s", "method": "ngram", "score": 0.8, "query": "", "problem": ""}
    queries |= {"benchmark": "easy_math"}
    asked = [queries | {"problem_id": f"p{number:03d}", "dropped": True} for number in range(40)]
    asked += [
        queries | {"benchmark": "hard_math", "problem_id": f"p00{number}", "dropped": number < 4} for number in range(8)
    ]
    write_table(tmp_path / "asked.parquet", asked, CONTAMINATION)
    outputs = (tmp_path / "scores.csv", tmp_path / "comparison.csv")
    names = (["parallel"], list(study_tables.TEACHERS), list(study_tables.BENCHMARKS), STATISTICS)
    split_scores.main(scored, tmp_path / "asked.parquet", [tmp_path / "quoted.parquet"], *outputs, *names)
    table = pd.read_csv(outputs[0]).set_index(["teacher", "benchmark"])
    row = table.loc["steps", "hard_math"]
    assert (row["flagged_by_queries"], row["flagged_by_responses"]) == (4, 2)
    assert (row["problems_flagged"], row["problems_unflagged"]) == (5, 35)
    samples = read_samples(scored)
    mine = samples.query("teacher == 'steps' and benchmark == 'hard_math'").groupby("problem_id")["passed"].mean()
    assert row["pass_at_1_flagged"] == pytest.approx(mine[:5].mean())
    assert row["se_problems_unflagged"] == pytest.approx(mine[5:].sem())
    assert np.isnan(table.loc["leaps", "easy_math"]["pass_at_1_unflagged"])
    assert np.isnan(table.loc["leaps", "code_tasks"]["pass_at_1_flagged"])
    compared = pd.read_csv(outputs[1]).set_index(["teacher_a", "teacher_b", "benchmark"]).sort_index()
    assert compared.loc["steps", "leaps"]["problems"].to_dict() == {
        "easy_math": 0,
        "hard_math": 35,
        "code_tasks": 40,
        "all": 75,
    }
    assert compared.loc[("steps", "leaps", "easy_math"), ["difference", "p", "p_holm"]].isna().all()
    # What holds no flagged problem is what compare_students finds.
    whole = compare_students.compare_students(
        samples, ["parallel"], study_tables.LABELS, study_tables.BENCHMARK_LABELS, **STATISTICS
    ).set_index(["teacher_a", "teacher_b", "benchmark"])
    same = ["difference", "low", "high", "p"]
    assert compared.loc[("steps", "leaps", "code_tasks"), same].to_list() == pytest.approx(
        whole.loc[("steps", "leaps", "code_tasks"), same].to_list()
    )


def test_a_study_without_contamination_has_no_flagged_problem(samples):
    queries = pd.DataFrame(columns=["benchmark", "problem_id", "dropped"]).astype({"dropped": bool})
    responses = pd.DataFrame(columns=["benchmark", "problem_id"])
    marked = split_scores.mark(samples, queries, responses)
    assert not marked["flagged"].any()
    table = split_scores.split_scores(marked, ["parallel"], ["steps"], ["hard_math"])
    assert table["problems_flagged"].item() == 0 and table["problems_unflagged"].item() == 40


# --- controls --------------------------------------------------------------------------------------------------------

SHOWN = Interval(10, 4, 16)


@pytest.mark.parametrize(
    ("gap", "reference", "change", "verdict"),
    [
        (Interval(9, 3, 15), SHOWN, Interval(-1, -6, 4), "stays"),
        (Interval(20, 14, 26), SHOWN, Interval(10, 4, 16), "stays"),
        (Interval(5, 1, 9), SHOWN, Interval(-5, -9, -1), "narrows"),
        (Interval(1, -3, 5), SHOWN, Interval(-9, -15, -3), "closes"),
        # The gap includes zero, but nothing shows that it changed.
        (Interval(3, -3, 9), SHOWN, Interval(-7, -16, 2), "undecided"),
        # It changed, but too little is known of where it is now.
        (Interval(0, -20, 20), SHOWN, Interval(-10, -19, -1), "undecided"),
        (Interval(-8, -14, -2), SHOWN, Interval(-18, -26, -10), "reverses"),
        (Interval(5, 1, 9), Interval(3, -3, 9), Interval(2, -4, 8), "undecided"),
        (NOTHING, NOTHING, NOTHING, "undecided"),
        (NOTHING, SHOWN, NOTHING, "undecided"),
    ],
)
def test_the_verdict_on_a_gap_is_no_stronger_than_its_intervals(gap, reference, change, verdict):
    assert conclusions.judge_gap(gap, reference, change) == verdict
    mirrored = (Interval(-each.value, -each.high, -each.low) for each in (gap, reference, change))
    assert conclusions.judge_gap(*mirrored) == verdict


@pytest.mark.parametrize(
    ("controls", "reference"),
    [
        ({"own": "own_passes", "same": "parallel", "again": "parallel"}, "same"),
        ({"own": "own_passes", "length": "length_matched"}, "own"),
    ],
)
def test_the_reference_is_the_parallel_control(controls, reference):
    assert compare_controls.reference_control(controls) == reference


def made_controls(seeds: int = 2) -> pd.DataFrame:
    """Samples of teachers a and b: a is far ahead in own and parallel, and not at all where lengths are matched."""
    rng = np.random.default_rng(5)
    frames = []
    for control, chances in {
        "own": (0.8, 0.3),
        "parallel": (0.8, 0.3),
        "length": (0.5, 0.5),
    }.items():
        for teacher, chance in zip("ab", chances, strict=True):
            for benchmark in ("x", "y"):
                passed = rng.random((seeds, 60, 4)) < chance
                frames.append(made_samples(passed, control=control, teacher=teacher, benchmark=benchmark))
    return pd.concat(frames, ignore_index=True)


CONTROLS = {"own": "own_passes", "parallel": "parallel", "length": "length_matched"}


def test_a_gap_closes_where_its_cause_is_held_equal():
    samples = made_controls()
    labels = ({"a": "A", "b": "B"}, {"x": "X", "y": "Y"})
    compared = compare_students.compare_students(samples, list(CONTROLS), *labels, **STATISTICS)
    gaps = compare_controls.compare_controls(by_students(samples), compared, CONTROLS, ["x", "y"], **STATISTICS)
    assert list(gaps["control"][:3]) == ["parallel", "own", "length"]
    assert list(gaps["kind"][:3]) == ["parallel", "own_passes", "length_matched"]
    assert list(gaps["verdict"]) == ["reference", "stays", "closes"] * 3
    others = gaps[gaps["verdict"] != "reference"]
    assert others["change"].to_list() == pytest.approx(
        (others["difference"] - others["reference_difference"]).to_list()
    )
    assert ((others["change_low"] < others["change"]) & (others["change"] < others["change_high"])).all()
    assert gaps["remaining"].to_list() == pytest.approx((gaps["difference"] / gaps["reference_difference"]).to_list())
    lines = conclusions.conclude_study(compared, gaps, "parallel").splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("- On X, students of A score ")
    assert lines[0].endswith("2 training seeds). It holds in 2 of 3 controls; it closes under `length`.")
    # The report's first sentences say so too.
    shown = compared[(compared["control"] == "parallel") & (compared["benchmark"] == "all")]
    (finding,) = findings(shown, {"a": "#000000", "b": "#ffffff"}, [line.removeprefix("- ") for line in lines])
    assert finding["sentence"] == lines[2].removeprefix("- ")
    (finding,) = findings(shown, {"a": "#000000", "b": "#ffffff"})
    assert finding["sentence"] == shown["conclusion"].item()


def test_problems_of_another_control_must_be_the_same():
    samples = made_controls()
    less = samples[(samples["control"] != "length") | (samples["problem_id"] != "p007")]
    with pytest.raises(InputError, match=r"benchmark x: problem p007 .* length/a and parallel/a"):
        compare_controls.paired_change(by_students(less), ("a", "b"), "length", "parallel", ["x"])


def test_one_problem_one_seed_and_one_sample_say_nothing(tmp_path):
    samples = pd.concat([made_samples(np.ones(1), teacher="a"), made_samples(np.zeros(1), teacher="b")])
    labels = ({"a": "A", "b": "B"}, {"x": "X"})
    compared = compare_students.compare_students(samples, ["parallel"], *labels, **STATISTICS)
    kinds = {"parallel": "parallel"}
    gaps = compare_controls.compare_controls(by_students(samples), compared, kinds, ["x"], **STATISTICS)
    assert gaps["low"].isna().all() and gaps["remaining"].isna().all() and (gaps["verdict"] == "reference").all()
    told = conclusions.conclude_study(compared, gaps, "parallel")
    assert told.startswith("- On X, too few problems were scored to compare students of A and B.\n")


def test_without_another_control_a_difference_says_so():
    assert conclusions.conclude_controls({"parallel": "reference"}) == "No other control was run."
    verdicts = dict(zip("abcdef", ("reference", "stays", "narrows", "closes", "reverses", "undecided"), strict=True))
    assert conclusions.conclude_controls(verdicts) == (
        "It holds in 3 of 6 controls; it narrows under `c`; it closes under `d`; it reverses under `e`; "
        "it is undecided under `f`."
    )


def test_a_benchmark_that_only_one_teacher_answered_counts_no_problem():
    samples = made_samples(np.ones(5))
    found = compare_pairs(samples, ["parallel"], ["a", "b"], ["x"], **STATISTICS)
    assert found["problems"].to_list() == [0, 0] and found["difference"].isna().all()


def test_pairs_are_in_the_order_of_problems():
    samples = made_samples(np.array([1.0, 0.0, 1.0]))
    pair = pair_scores(samples, samples.iloc[::-1].assign(teacher="b"))
    assert pair.first.tolist() == pair.second.tolist() == shares(samples)[0].to_numpy().tolist()
