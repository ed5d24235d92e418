import itertools
import shutil
from pathlib import Path

import compare_students
import compare_teachers
import measure_traces
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import reconcile_ledger
import study_tables
import summarise_costs
import summarise_teachers
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from whichteacher import conclusions, scores, students
from whichteacher.config import CATEGORIES
from whichteacher.ledger import LedgerError
from whichteacher.outcomes import difficulty_thirds
from whichteacher.resampling import (
    Interval,
    PairedScores,
    bootstrap_mean,
    generator,
    holm,
    nested_bootstrap,
    problems_needed,
    sign_flip_p,
)
from whichteacher.rule import InputError
from whichteacher.schemas import COLLECTED, DROPPED, LEDGER, QUERIES, TRACE_MEASURES, TRACES
from whichteacher.tables import read_frame, write_table
from whichteacher.traces import find_answer


@pytest.fixture(scope="module")
def measures(study):
    found = {}
    for teacher in study_tables.TEACHERS:
        path = study / f"statistics/trace_measures/{teacher}.parquet"
        measure_traces.main([study / f"curation/{teacher}/{shard}/traces.parquet" for shard in (0, 1)], path)
        found[teacher] = read_frame(path, TRACE_MEASURES)
    return found


@pytest.fixture(scope="module")
def samples(study):
    return scores.read_samples(sorted(study.glob(f"evaluation/{study_tables.CONTROL}/*/*/*.scored.parquet")))


# --- resampling ------------------------------------------------------------------------------------------------------


def test_bootstrap_interval_is_the_closed_form_on_normal_data():
    values = np.random.default_rng(3).normal(2, 5, 4000)
    found = bootstrap_mean(values, 4000, 0.95, generator(0, "x"))
    margin = 1.96 * 5 / np.sqrt(4000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - margin, abs=0.1 * margin)
    assert found.high == pytest.approx(values.mean() + margin, abs=0.1 * margin)


@pytest.mark.parametrize("draw", ["lognormal", "exponential"])
def test_bootstrap_interval_is_scipys_on_skewed_data(draw):
    values = getattr(np.random.default_rng(5), draw)(size=60)
    found = bootstrap_mean(values, 20_000, 0.9, generator(0, "x"))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.02 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.02 * width)
    assert found.high - values.mean() > values.mean() - found.low, "it is skewed as the data is"


def test_large_sample_forms_agree_with_resampling(monkeypatch):
    values = np.random.default_rng(4).exponential(1, 3000) - 0.97
    drawn = bootstrap_mean(values, 5000, 0.95, generator(0)), sign_flip_p(values, 5000, generator(0))
    monkeypatch.setattr("whichteacher.resampling.LARGE", 100)
    closed = bootstrap_mean(values, 5000, 0.95, generator(0)), sign_flip_p(values, 5000, generator(0))
    assert closed[0] == pytest.approx(drawn[0], abs=0.004)
    assert closed[1] == pytest.approx(drawn[1], abs=0.02)


@pytest.mark.parametrize("values", [[], [1.5]])
def test_too_few_values_give_no_interval(values):
    found = bootstrap_mean(np.array(values), 100, 0.95, generator(0))
    assert np.isnan(found.low) and np.isnan(found.high)
    assert not found.excludes_zero


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_sign_flip_p_is_exact_where_it_can_be(values):
    observed = abs(sum(values))
    patterns = list(itertools.product((-1, 1), repeat=len(values)))
    hits = sum(abs(sum(s * v for s, v in zip(signs, values, strict=True))) >= observed for signs in patterns)
    assert sign_flip_p(np.array(values), 1000, generator(0)) == pytest.approx(hits / len(patterns))


def test_sign_flip_p_agrees_with_scipy_where_it_draws():
    values = np.random.default_rng(5).normal(0, 1, 60)
    values += 0.25 - values.mean()
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=5000, rng=np.random.default_rng(0)
    ).pvalue
    assert sign_flip_p(values, 5000, generator(0)) == pytest.approx(theirs, abs=0.015)


def test_holm_is_that_of_statsmodels_and_skips_what_was_not_tested():
    values = [0.04, 0.001, 0.5, 0.02]
    corrected = holm([*values, np.nan])
    assert corrected[:-1] == pytest.approx(multipletests(values, method="holm")[1])
    assert corrected[:-1] == pytest.approx([0.08, 0.004, 0.5, 0.06])
    assert np.isnan(corrected[-1])


def test_nested_interval_without_seed_or_sample_noise_is_the_plain_bootstrap():
    rng = np.random.default_rng(6)
    first, second = (rng.random((1, 300)) < chance for chance in (0.7, 0.5))
    pair = PairedScores(first.astype(float), second.astype(float), 1)
    nested = nested_bootstrap([pair], 4000, 0.95, generator(1))
    plain = bootstrap_mean((first.astype(float) - second)[0], 4000, 0.95, generator(2))
    assert nested == pytest.approx(plain, abs=0.012)


def test_nested_interval_covers_the_truth_and_widens_with_seeds_that_differ():
    rng = np.random.default_rng(8)
    covered, widths = 0, {0.0: [], 0.1: []}
    for spread, kept in widths.items():
        for _ in range(40):
            sides = [0.5 + shift + spread * rng.normal(size=(3, 1)) + np.zeros((3, 60)) for shift in (0.1, 0.0)]
            shares = [rng.binomial(4, side.clip(0, 1)) / 4 for side in sides]
            found = nested_bootstrap([PairedScores(*shares, 4)], 400, 0.95, rng)
            covered += found.low <= 0.1 <= found.high
            kept.append(found.high - found.low)
    assert covered >= 0.85 * 80
    assert np.mean(widths[0.1]) > 1.3 * np.mean(widths[0.0])


def test_two_seeds_that_disagree_are_no_finding():
    problems = np.tile([0.0, 1.0], 40)
    first = np.stack([np.ones(80), np.zeros(80)])  # one student right everywhere, the other nowhere
    found = nested_bootstrap([PairedScores(first, np.stack([problems * 0.4] * 2), 4)], 500, 0.95, generator(0))
    assert found.value > 0 and not found.excludes_zero


def test_problems_needed_follows_the_square_root():
    assert problems_needed(Interval(10, -10, 30), 25) == 100
    assert problems_needed(Interval(0, -1, 1), 25) is None
    assert problems_needed(Interval(1, np.nan, np.nan), 1) is None


# --- traces and teachers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thinking", "reference", "kind", "end"),
    [
        ("So 12. Yes.", "12", "number", 5),
        ("312 and 12.5 and 12,500", "12", "number", None),
        ("A car", "A", "choice", None),
        ("x", None, None, None),
        (r"is \frac{1}{2}", r"\frac{1}{2}", "expression", 14),
    ],
)
def test_first_answer(thinking, reference, kind, end):
    assert find_answer(thinking, reference, kind) == end


def test_repetition_and_self_corrections():
    once = "one two three four five six seven eight nine"
    assert measure_traces.repeated_share(once) == 0
    assert measure_traces.repeated_share(f"{once} {once}") == pytest.approx(2 / 11)
    assert measure_traces.repeated_share("too short") is None
    trace = {"thinking": "Wait, check again: 5", "answer": "5", "reference": "5", "reference_type": "number"}
    trace["turns"] = [{"role": "user", "content": "What is 2 + 3?"}]
    measured = measure_traces.measure_trace(trace)
    assert measured["self_corrections"] == 3
    assert measured["answer_position"] == 1 and measured["tail_characters"] == 0
    assert measured["foreign_share"] == measured["loop_characters"] == 0
    trace |= {"thinking": "\u7b49\u4e00\u4e0b " + "wait " * 60}
    measured = measure_traces.measure_trace(trace)
    assert 0 < measured["foreign_share"] < 0.02 and measured["loop_characters"] == 300


def test_measures_tell_the_styles_apart(measures):
    means = {teacher: frame.mean(numeric_only=True) for teacher, frame in measures.items()}
    assert means["recheck"]["self_corrections"] > means["steps"]["self_corrections"] == 0
    assert means["recheck"]["repeated_share"] > 0.2
    assert means["recheck"]["answer_position"] < 0.6 < means["steps"]["answer_position"]


def test_outcomes_count_every_attempt_once(study, outcomes):
    for teacher, frame in outcomes.items():
        assert len(frame) == 160
        assert (frame["attempts_to_pass"].isna() == ~frame["solved"]).all()
        assert frame.loc[frame["solved"], "attempts_to_pass"].equals(
            frame.loc[frame["solved"], "attempts"].astype(float)
        )
        assert frame["attempts"].between(1, study_tables.ATTEMPTS).all(), teacher


def test_summary_adds_up(outcomes, measures):
    found = summarise_teachers.summarise_teachers(outcomes, measures, CATEGORIES)
    totals = found[found["category"] == "all"].set_index("teacher")
    parts = found[found["category"] != "all"].groupby("teacher")
    for column in ("queries", "solved", "attempts", "curated"):
        assert parts[column].sum().to_dict() == totals[column].to_dict()
    assert (found["solved"] + found["gave_up"] == found["queries"]).all()
    assert totals.loc["steps", "length_by_difficulty"] > totals.loc["recheck", "length_by_difficulty"]


def test_a_teacher_that_solves_nothing_has_no_length(outcomes, measures):
    frame = outcomes["leaps"].assign(solved=False, accepted_tokens=np.nan, attempts_to_pass=np.nan)
    row = summarise_teachers.summarise(frame, measures["leaps"].head(0), pd.Series(0.5, index=frame.index))
    assert row["acceptance"] == 0 and np.isnan(row["length_mean"])


def made_attempts(**changed) -> pd.DataFrame:
    """Query a: a failure, then a pass; query b: a failure."""
    columns = {
        "query_id": ["a", "a", "b"],
        "accepted": [False, True, False],
        "prompt_tokens": [10, 10, 20],
        "output_tokens": [100, 300, 600],
        "seconds": [1.0, 3.0, 5.0],
        "devices": [4, 4, 4],
    }
    return pd.DataFrame(columns | changed)


def made_costs(tmp_path, attempts, **price) -> pd.DataFrame:
    """The costs of a teacher with these attempts on two shards that are alike but for their queries."""
    files = []
    for shard in range(2):
        rows = attempts.assign(query_id=attempts["query_id"] + str(shard))
        files.append(tmp_path / f"{shard}.parquet")
        write_rows(files[-1], rows, COLLECTED)
        write_rows(
            tmp_path / f"queries{shard}.parquet",
            pd.DataFrame({"query_id": [f"a{shard}", f"b{shard}"], "category": ["math", "code"]}),
            QUERIES,
        )
    prices = {"price_per_million_tokens": None, "price_per_device_hour": None} | price
    queries = [tmp_path / f"queries{shard}.parquet" for shard in range(2)]
    summarise_costs.main({"t": files}, queries, tmp_path / "costs.csv", CATEGORIES, {"t": prices}, 200, 0.95, 0)
    return pd.read_csv(tmp_path / "costs.csv").set_index("category")


def write_rows(path, rows: pd.DataFrame, schema: pa.Schema) -> None:
    """``rows`` as a table of ``schema``; other columns are filled with what their type calls nothing."""
    nothing = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0, pa.bool_(): False}
    filled = {field.name: rows.get(field.name, [nothing.get(field.type, [])] * len(rows)) for field in schema}
    write_table(path, pa.table({name: list(values) for name, values in filled.items()}, schema=schema), schema)


def test_costs_count_what_failed_and_are_borne_by_what_was_verified(tmp_path):
    costs = made_costs(tmp_path, made_attempts(), price_per_million_tokens=2.0)
    assert list(costs.index) == ["all", "math", "code"]
    every, math, code = (costs.loc[name] for name in ("all", "math", "code"))
    assert (every["attempts"], every["verified"], every["output_tokens"], every["prompt_tokens"]) == (6, 2, 2000, 80)
    assert every["unaccepted_tokens"] == pytest.approx(0.7)
    assert every["tokens_per_verified"] == 1000
    assert every["seconds_per_verified"] == 9
    assert every["device_hours"] == pytest.approx(18 * 4 / 3600)
    assert every["price"] == pytest.approx(2000 * 2e-6)
    assert every["price_per_verified"] == pytest.approx(1000 * 2e-6)
    assert math["seconds_per_verified"] == 4 and math["unaccepted_tokens"] == pytest.approx(0.25)
    # Nothing was verified: there is no cost per trace, not a cost of nothing.
    assert code["output_tokens"] == 1200 and np.isnan(code["tokens_per_verified"]) and code["unaccepted_tokens"] == 1


def test_hours_of_devices_have_a_price_and_unknown_devices_have_no_hours(tmp_path):
    costs = made_costs(tmp_path, made_attempts(), price_per_device_hour=36.0)
    assert costs.loc["math", "price_per_verified"] == pytest.approx(4 * 4 / 3600 * 36.0)
    unknown = made_costs(tmp_path, made_attempts(devices=[None] * 3), price_per_device_hour=36.0)
    assert unknown[["device_hours", "price", "price_per_verified"]].isna().all(axis=None)
    assert unknown.loc["all", "tokens_per_verified"] == 1000


def test_teacher_comparison_is_paired(outcomes, measures):
    frames = {teacher: compare_teachers.measured(outcomes[teacher], measures[teacher]) for teacher in outcomes}
    thirds = difficulty_thirds(outcomes)
    found = compare_teachers.compare_teachers(frames, thirds, CATEGORIES, 500, 0.95, 0)
    cells = found.set_index(["teacher_a", "teacher_b", "category", "difficulty", "measure"])
    row = cells.loc["steps", "leaps", "all", "all", "length"]
    differences = (frames["steps"]["length"] - frames["leaps"]["length"]).dropna()
    assert row["queries"] == len(differences)
    assert row["difference"] == pytest.approx(differences.mean())
    assert row["low"] < row["difference"] < row["high"]
    assert (found["p_holm"] >= found["p"]).all()
    again = compare_teachers.compare_teachers(frames, thirds, ("math",), 500, 0.95, 0)
    kept = found[found["category"].isin(["all", "math"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept.drop(columns="p_holm"), again.drop(columns="p_holm"))


# --- students --------------------------------------------------------------------------------------------------------


def test_scores(samples):
    found = compare_students.score_students(samples, ["parallel"], list(study_tables.TEACHERS))
    assert len(found) == 3 * 3 * 3
    row = found.set_index(["teacher", "seed", "benchmark"]).loc["steps", "0", "hard_math"]
    mine = samples.query("teacher == 'steps' and seed == '0' and benchmark == 'hard_math'")
    by_problem = mine.groupby("problem_id")["passed"]
    assert row["pass_at_1"] == pytest.approx(by_problem.mean().mean())
    assert row["se_problems"] == pytest.approx(by_problem.mean().sem())
    assert row["se_samples"] == pytest.approx(np.sqrt((by_problem.var() / 4).sum()) / 40)
    assert row["lighteval"] == pytest.approx(row["pass_at_1"])
    assert row["truncated"] == row["no_answer"] == 0.25


def test_student_comparison_states_no_more_than_its_interval(samples):
    found = compare_students.compare_students(
        samples, ["parallel"], study_tables.LABELS, study_tables.BENCHMARK_LABELS, 500, 0.95, 0
    )
    assert len(found) == 3 * 4
    claimed = ~found["conclusion"].str.contains("no difference")
    assert (claimed == ((found["low"] > 0) | (found["high"] < 0))).all()
    assert claimed.any()
    row = found.set_index(["teacher_a", "teacher_b", "benchmark"]).loc["steps", "leaps", "all"]
    assert row["problems"] == 120 and row["low"] > 20
    assert row["difference"] == pytest.approx(row["score_a"] - row["score_b"])


ROW = {
    "teacher_a": "a",
    "teacher_b": "b",
    "benchmark": "x",
    "problems": 30,
    "seeds": 2,
    "score_a": 40.0,
    "score_b": 48.0,
    "difference": -8.0,
    "low": -15.0,
    "high": -1.0,
    "p_holm": 0.01,
    "problems_needed": 23,
}
NAMES = {"a": "A", "b": "B", "x": "X"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            "On X, students of B score 8.0 points above students of A (95 % interval 1.0 to 15.0; 30 problems, 2 training seeds).",
        ),
        ({"p_holm": 0.2}, "but not after correction for 6 comparisons (p = 0.2)."),
        ({"seeds": 1}, "one training seed each, so other seeds may differ"),
        ({"high": 1.0}, "no difference between students of B and of A is shown: 8.0 points for B"),
        (
            {"high": 1.0, "problems_needed": 43},
            "about 13 more problems would be needed to tell a difference of this size.",
        ),
        ({"high": 1.0, "problems_needed": np.nan}, "2 training seeds)."),
        ({"low": np.nan, "high": np.nan}, "too few problems"),
        (
            dict.fromkeys(("score_a", "score_b", "difference", "low", "high"), 0.0),
            "On X, no sample passed: these problems",
        ),
        (
            {"score_a": 100, "score_b": 100, "difference": 0.0, "low": 0.0, "high": 0.0},
            "On X, every sample passed: these",
        ),
    ],
)
def test_conclusions(changes, expected):
    assert expected in conclusions.conclude(ROW | changes, NAMES, 0.95, 6)


def test_a_student_with_missing_samples_is_an_error_that_names_it(samples):
    mine = samples.query("teacher == 'steps' and benchmark == 'hard_math'")
    with pytest.raises(InputError, match=r"parallel/steps/0.*hard_math.*p000 has 3 samples"):
        scores.shares(mine.iloc[1:])
    other = samples.query("teacher == 'leaps' and benchmark == 'hard_math' and problem_id != 'p007'")
    with pytest.raises(InputError, match="p007"):
        students.pair_scores(mine, other)


# --- ledger ----------------------------------------------------------------------------------------------------------


def test_the_whole_ledger_balances(study, tmp_path):
    reconcile_ledger.main(sorted(study.glob("**/*.ledger.parquet")), tmp_path / "ledger.csv")
    lines = pd.read_csv(tmp_path / "ledger.csv")
    assert set(lines["step"]) >= {"import_source", "collect_attempts", "match_datasets"}


def test_an_unbalanced_ledger_fails(tmp_path):
    lines = [
        {"step": "clean_queries", "scope": "all", "reason": reason, "rows": rows}
        for reason, rows in (("in", 10), ("kept", 8), ("has_url", 1))
    ]
    write_table(tmp_path / "x.ledger.parquet", lines, LEDGER)
    with pytest.raises(LedgerError, match="clean_queries on all: 10 rows in, 8 kept, 1 dropped"):
        reconcile_ledger.main([tmp_path / "x.ledger.parquet"], tmp_path / "ledger.csv")
    assert not (tmp_path / "ledger.csv").exists()


def reconcile(root: Path) -> pd.DataFrame:
    reconcile_ledger.main(sorted(root.glob("**/*.ledger.parquet")), root / "ledger.csv")
    return pd.read_csv(root / "ledger.csv")


@pytest.fixture
def copied(study, tmp_path) -> Path:
    """A copy of the study that a test may break."""
    return shutil.copytree(study, tmp_path / "copied")


#: For each link of the chain: a ledger of its later step, and the words about the earlier one.
LINKS = [
    ("corpus/cleaned", "import_source kept {} rows of all, clean_queries took in {}"),
    ("corpus/deduplicated", "clean_queries kept {} rows of all, deduplicate_queries took in {}"),
    ("corpus/decontaminated", "deduplicate_queries kept {} rows of all, decontaminate_queries took in {}"),
    ("verification/leaps/1/attempts", "decontaminate_queries kept {} rows of leaps, collect_attempts took in {}"),
    ("curation/leaps/1/traces", "collect_attempts kept {} rows of leaps/1, curate_traces took in {}"),
    ("datasets/parallel/leaps", "curate_traces kept {} rows of parallel/leaps, match_datasets took in {}"),
    ("training/parallel/leaps/0/rows", "match_datasets kept {} rows of parallel/leaps/0, train_student took in {}"),
]


@pytest.mark.parametrize(("stem", "told"), LINKS)
def test_each_broken_link_fails_with_step_scope_and_numbers(copied, stem, told):
    """A row more comes in and is dropped, so that the step itself balances."""
    assert {(before, after) for before, after, _ in reconcile_ledger.FLOWS} == {
        (words.split()[0], words.split(", ")[1].split()[0]) for _, words in LINKS
    }
    ledger = copied / f"{stem}.ledger.parquet"
    lines = read_frame(ledger, LEDGER)
    lines.loc[lines["reason"] == "in", "rows"] += 1
    lines.loc[len(lines)] = [lines["step"][0], lines["scope"][0], "more", 1]
    write_table(ledger, lines, LEDGER)
    with pytest.raises(LedgerError, match=told.format(r"\d+", r"\d+")):
        reconcile(copied)
    assert not (copied / "ledger.csv").exists()


@pytest.mark.parametrize(("stem", "told"), LINKS)
def test_a_scope_or_step_without_a_ledger_fails(copied, stem, told):
    """That one ledger is missing tells at its own link; at the first link of the corpus, at the next."""
    (copied / f"{stem}.ledger.parquet").unlink()
    step = told.split(", ")[1].split()[0]
    with pytest.raises(LedgerError, match=step):
        reconcile(copied)


def test_dropped_rows_that_are_not_those_of_the_ledger_fail(copied):
    path = copied / "datasets/parallel/steps.dropped.parquet"
    dropped = read_frame(path, DROPPED)
    write_table(path, dropped.iloc[1:], DROPPED)
    with pytest.raises(
        LedgerError, match=rf"match_datasets on parallel/steps: .* {len(dropped)} rows dropped as .* holds "
    ):
        reconcile(copied)


@pytest.mark.parametrize("stem", ["curation/steps/1/traces", "datasets/parallel/steps"])
def test_a_table_with_fewer_rows_than_were_kept_fails(copied, stem):
    path = copied / f"{stem}.parquet"
    rows = read_frame(path, TRACES)
    write_table(path, rows.iloc[1:], TRACES)
    with pytest.raises(LedgerError, match=rf"{len(rows)} rows kept, .*{stem}.parquet holds {len(rows) - 1}"):
        reconcile(copied)


def test_a_study_that_has_not_run_to_its_end_reconciles_so_far(copied):
    for folder in ("training", "datasets"):
        shutil.rmtree(copied / folder)
    assert reconcile(copied)["step"].nunique() == 6
    shutil.rmtree(copied / "verification")
    with pytest.raises(LedgerError, match=r"curate_traces took in .* and collect_attempts has no ledger"):
        reconcile(copied)
