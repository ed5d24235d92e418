"""Attempts with give-ups, costs per verified trace, difficulty and the anatomy of traces: each against another way to find it."""

import draw_attempts
import measure_traces
import numpy as np
import pandas as pd
import pytest
import study_tables
import summarise_attempts
import summarise_costs
from compare_teachers import OF_TRACE, compare_teachers, measured
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from whichteacher.config import CATEGORIES
from whichteacher.outcomes import DIFFICULTIES, difficulty_thirds
from whichteacher.ratios import Sums, bootstrap_ratio, compare_ratios
from whichteacher.resampling import generator, resample_rows, sign_flip_p
from whichteacher.survival import common_horizon, kaplan_meier, last_attempts, pseudo_values, restricted_mean
from whichteacher.traces import anatomy

TEXT = st.text(alphabet="ab 12+=$\\()[]`~\n.,", max_size=200)
#: Per query the last attempt and whether it passed.
ENDS = st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=25)


def ends_of(pairs):
    return np.array([attempt for attempt, _ in pairs]), np.array([passed for _, passed in pairs], dtype=bool)


def made_outcomes(attempts, passed, tokens=None, **columns) -> pd.DataFrame:
    """Outcomes of queries with these last attempts, as query_outcomes gives them."""
    attempts, passed = np.asarray(attempts), np.asarray(passed, dtype=bool)
    frame = pd.DataFrame({"attempts": attempts, "solved": passed, "first_pass": passed & (attempts == 1)})
    frame["attempts_to_pass"] = frame["attempts"].where(passed)
    frame["output_tokens"] = attempts * 100 if tokens is None else tokens
    frame["accepted_tokens"] = (frame["output_tokens"] / frame["attempts"]).where(passed)
    frame["category"] = "math"
    return frame.assign(**columns).rename_axis("query_id")


NO_PRICE = {"price_per_million_tokens": None, "price_per_device_hour": None}
NO_MEASURES = pd.DataFrame(columns=["query_id", *OF_TRACE])


# --- attempts --------------------------------------------------------------------------------------------------------


def test_the_curve_is_that_of_the_textbook():
    """Six queries: 1, 1, 2, 2 given up, 3, 3 given up; by hand 4/6, then 3/4 of it, then 1/2 of that."""
    curve = kaplan_meier(*ends_of([(1, True), (1, True), (2, True), (2, False), (3, True), (3, False)]), 0.95)
    assert curve["at_risk"].tolist() == [6, 4, 2]
    assert curve["passed"].tolist() == [2, 1, 1] and curve["given_up"].tolist() == [0, 1, 1]
    assert curve["survival"].tolist() == pytest.approx([4 / 6, 3 / 6, 1 / 4])


def test_the_curve_is_that_of_scipy():
    rng = np.random.default_rng(0)
    attempts, cap = rng.geometric(0.3, 500), rng.integers(2, 9, 500)
    passed = attempts <= cap
    attempts = np.minimum(attempts, cap)
    theirs = stats.ecdf(stats.CensoredData.right_censored(attempts, ~passed)).sf
    curve = kaplan_meier(attempts, passed, 0.95)
    assert curve["survival"].to_numpy() == pytest.approx(theirs.evaluate(curve["attempt"]))
    # At this size bounds by the logarithm of the logarithm are nearly ours.
    bounds = theirs.confidence_interval(0.95, method="log-log")
    assert curve["low"].to_numpy() == pytest.approx(bounds.low.evaluate(curve["attempt"]), abs=0.01)
    assert curve["high"].to_numpy() == pytest.approx(bounds.high.evaluate(curve["attempt"]), abs=0.01)


def test_bounds_without_give_ups_are_wilsons():
    curve = kaplan_meier(*ends_of([(1, True)] * 12 + [(2, True)] * 5 + [(3, False)] * 3), 0.9)
    for row, left in zip(curve.itertuples(), (8, 3, 3), strict=True):
        assert (row.low, row.high) == pytest.approx(proportion_confint(left, 20, 0.1, "wilson"))


@given(ENDS)
def test_curves_fall_within_their_bounds(pairs):
    curve = kaplan_meier(*ends_of(pairs), 0.95)
    assert (curve["survival"].diff().dropna() <= 1e-12).all()
    assert (curve["low"] <= curve["survival"] + 1e-9).all() and (curve["survival"] <= curve["high"] + 1e-9).all()
    assert curve[["low", "high"]].stack().between(0, 1).all()
    assert curve["passed"].sum() + curve["given_up"].sum() == len(pairs)


def test_no_queries_have_no_curve():
    nothing = np.array([], dtype=int), np.array([], dtype=bool)
    assert kaplan_meier(*nothing, 0.95).empty
    assert common_horizon([nothing, ends_of([(2, True)])]) == 0
    assert np.isnan(restricted_mean(*nothing, 3)) and len(pseudo_values(*nothing, 3)) == 0


@given(ENDS)
def test_without_early_give_ups_each_query_contributes_its_attempts(pairs):
    attempts, passed = ends_of([(attempt, passed or attempt < 5) for attempt, passed in pairs])
    assert pseudo_values(attempts, passed, 5) == pytest.approx(np.minimum(attempts, 5), abs=1e-6)
    assert restricted_mean(attempts, passed, 5) == pytest.approx(attempts.mean())


@given(ENDS)
def test_contributions_are_those_of_leaving_out_each_query(pairs):
    attempts, passed = ends_of(pairs)
    count = len(attempts)
    whole = restricted_mean(attempts, passed, 4)
    others = [np.arange(count) != place for place in range(count)]
    left = [restricted_mean(attempts[other], passed[other], 4) if count > 1 else 0 for other in others]
    assert pseudo_values(attempts, passed, 4) == pytest.approx(count * whole - (count - 1) * np.array(left), abs=1e-6)


def test_contributions_vary_as_the_textbook_says_the_mean_does():
    """The variance of a restricted mean: the area to the right of each event, squared, times Greenwood's term."""
    rng = np.random.default_rng(1)
    attempts, cap, horizon = rng.geometric(0.35, 20000), rng.integers(1, 8, 20000), 6
    passed = attempts <= cap
    attempts = np.minimum(attempts, cap)
    curve = kaplan_meier(attempts, passed, 0.95)
    heights = np.r_[1, curve["survival"]][:horizon]
    areas = [heights[place:].sum() for place in range(1, horizon)]
    terms = (curve["passed"] / (curve["at_risk"] * (curve["at_risk"] - curve["passed"])))[: horizon - 1]
    found = pseudo_values(attempts, passed, horizon)
    assert found.mean() == pytest.approx(heights.sum(), abs=1e-3)
    assert stats.sem(found) == pytest.approx(np.sqrt((np.square(areas) * terms).sum()), rel=0.02)


def test_the_horizon_is_where_every_curve_is_known():
    gave_up, solved = ends_of([(1, True), (3, False)]), ends_of([(1, True), (2, True)])
    assert common_horizon([gave_up, solved]) == 3
    assert common_horizon([solved, ends_of([(1, True)])]) == 2
    # Given up after one attempt, another passed at four: known to the end.
    assert common_horizon([ends_of([(1, False), (4, True)]), ends_of([(5, False)])]) == 5


def test_to_give_up_is_no_advantage(outcomes):
    """A teacher that stops early looks quick among what it solves, and is not."""
    patient = made_outcomes([1] * 6 + [2] * 2 + [4] * 2, [True] * 10)
    hasty = made_outcomes([1] * 6 + [2] * 4, [True] * 6 + [False] * 4)
    _, summary = summarise_attempts.summarise_attempts({"patient": patient, "hasty": hasty}, ["math"], 200, 0.95, 0)
    rows = summary.set_index(["teacher", "category"])
    assert hasty["attempts_to_pass"].mean() < patient["attempts_to_pass"].mean()
    assert (rows["horizon"] == 2).all()
    for category in ("all", "math"):
        assert rows.loc[("patient", category), "restricted_mean"] == rows.loc[("hasty", category), "restricted_mean"]
    survival, summary = summarise_attempts.summarise_attempts(outcomes, CATEGORIES, 200, 0.95, 0)
    assert (summary["passed"] + summary["given_up"] == summary["queries"]).all()
    assert ((summary["low"] <= summary["restricted_mean"]) & (summary["restricted_mean"] <= summary["high"])).all()
    ends = survival.groupby(["teacher", "category"])["passed"].sum()
    assert ends.to_dict() == summary.set_index(["teacher", "category"])["passed"].to_dict()


def test_a_teacher_that_solves_nothing_and_one_query_are_summarised():
    none = made_outcomes([2, 2], [False, False])
    survival, summary = summarise_attempts.summarise_attempts({"none": none}, CATEGORIES, 200, 0.95, 0)
    assert survival["survival"].eq(1).all() and summary["median"].isna().all()
    assert summary["restricted_mean"].eq(2).all()
    _, one = summarise_attempts.summarise_attempts({"one": none.head(1)}, CATEGORIES, 200, 0.95, 0)
    assert one[["low", "high"]].isna().all(axis=None)
    survival, summary = summarise_attempts.summarise_attempts({"no": none.head(0)}, CATEGORIES, 200, 0.95, 0)
    assert survival.empty and summary.empty and list(summary.columns) == list(summarise_attempts.SUMMARY)


def test_attempts_are_drawn(outcomes, tmp_path):
    survival, _ = summarise_attempts.summarise_attempts(outcomes, CATEGORIES, 200, 0.95, 0)
    survival.to_csv(tmp_path / "survival.csv", index=False)
    files = {kind: tmp_path / f"attempts.{kind}" for kind in ("svg", "png", "pdf", "csv")}
    draw_attempts.main(tmp_path / "survival.csv", files, study_tables.TEACHERS, CATEGORIES)
    assert (image.imread(files["png"])[..., :3] < 0.95).any(axis=2).mean() > 0.01, "almost blank"
    held = files["svg"].read_bytes()
    draw_attempts.main(tmp_path / "survival.csv", files, study_tables.TEACHERS, CATEGORIES)
    assert files["svg"].read_bytes() == held
    empty = draw_attempts.draw(survival.head(0), study_tables.TEACHERS, CATEGORIES)
    assert "No attempt" in empty.axes[0].texts[0].get_text()


# --- costs -----------------------------------------------------------------------------------------------------------


def made_sums(count: int, seed: int, chance: float = 0.7) -> Sums:
    rng = np.random.default_rng(seed)
    return Sums(rng.exponential(100, count), (rng.random(count) < chance).astype(float))


def test_resampled_sums_are_those_of_drawn_rows():
    values = np.column_stack([np.arange(30.0), np.ones(30)])
    drawn = resample_rows(values, 4000, generator(0))
    assert drawn.shape == (4000, 2) and (drawn[:, 1] == 30).all()
    assert drawn[:, 0].mean() == pytest.approx(values[:, 0].sum(), rel=0.01)
    assert drawn[:, 0].std() == pytest.approx(np.sqrt(30) * values[:, 0].std(), rel=0.05)


def test_the_interval_of_a_ratio_is_scipys():
    sums = made_sums(300, 0)
    found = bootstrap_ratio(sums, 8000, 0.9, generator(0))
    theirs = stats.bootstrap(
        tuple(sums),
        lambda above, below, axis: above.sum(axis) / below.sum(axis),
        paired=True,
        n_resamples=8000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = found.high - found.low
    assert found.value == pytest.approx(sums.numerator.sum() / sums.denominator.sum())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)


def test_large_samples_of_ratios_agree_with_resampling(monkeypatch):
    first, second = made_sums(3000, 2), made_sums(3000, 3, 0.66)
    drawn = bootstrap_ratio(first, 5000, 0.95, generator(0)), compare_ratios(first, second, 5000, 0.95, generator(0))
    monkeypatch.setattr("whichteacher.ratios.LARGE", 100)
    monkeypatch.setattr("whichteacher.resampling.LARGE", 100)
    closed = bootstrap_ratio(first, 5000, 0.95, generator(0)), compare_ratios(first, second, 5000, 0.95, generator(0))
    assert closed[0] == pytest.approx(drawn[0], rel=0.01)
    assert closed[1].difference == pytest.approx(drawn[1].difference, abs=0.6)
    assert closed[1].ratio == pytest.approx(drawn[1].ratio, rel=0.01)
    assert closed[1].p == pytest.approx(drawn[1].p, abs=0.02)


def test_the_test_of_two_ratios_is_that_of_swapping_teachers():
    """By scipy: the places of two teachers swapped at random, the excess over the common ratio as the statistic."""
    first, second = made_sums(40, 4), made_sums(40, 5, 0.5)
    above, below = (np.concatenate(column) for column in zip(first, second, strict=True))
    together = above.sum() / below.sum()

    def excess(ours, theirs, axis):
        ours, theirs = ours.astype(int), theirs.astype(int)
        cost = above - together * below
        return cost[ours].sum(axis) - cost[theirs].sum(axis)

    places = np.arange(40), np.arange(40, 80)
    theirs = stats.permutation_test(
        places, excess, permutation_type="samples", n_resamples=6000, vectorized=True, rng=np.random.default_rng(0)
    ).pvalue
    assert compare_ratios(first, second, 6000, 0.95, generator(0)).p == pytest.approx(theirs, abs=0.02)


def test_a_ratio_without_traces_has_no_bounds():
    nothing = Sums(np.ones(5), np.zeros(5))
    assert np.isnan(bootstrap_ratio(nothing, 100, 0.95, generator(0))).all()
    compared = compare_ratios(nothing, made_sums(5, 6), 100, 0.95, generator(0))
    assert np.isnan(compared.difference).all() and np.isnan(compared.ratio).all() and np.isnan(compared.p)
    # One trace in twenty queries: a third of the resamples hold none, so nobody can say how dear traces may be.
    rare = Sums(np.ones(20), np.eye(20)[0])
    found = bootstrap_ratio(rare, 1000, 0.95, generator(0))
    assert found.value == 20 and found.low < 20 and np.isnan(found.high)
    assert np.isnan(bootstrap_ratio(Sums(np.ones(1), np.ones(1)), 100, 0.95, generator(0))[1:]).all()


def test_a_p_without_hits_is_bounded_and_still_a_p():
    """A bound on sums with random signs: never below the exact p."""
    values = np.full(14, 1.0)
    exact = 2 / 2**14
    assert sign_flip_p(values, 2**15, generator(0)) == pytest.approx(exact)
    assert exact <= sign_flip_p(values, 100, generator(0)) <= 1 / 101
    assert sign_flip_p(np.full(300, 1.0), 100, generator(0)) < 1e-60


def test_costs_are_compared_between_teachers_with_their_prices(outcomes):
    first, second = made_outcomes([1, 2, 2], [True, True, False]), made_outcomes([1, 1, 1], [True, True, True])
    teachers = {
        "a": measured(first, NO_MEASURES, prices=first["output_tokens"] * 2e-6),
        "b": measured(second, NO_MEASURES, prices=second["output_tokens"] * 1e-6),
        "c": measured(second, NO_MEASURES),
    }
    found = compare_teachers(teachers, difficulty_thirds({"a": first, "b": second}), ["math"], 200, 0.95, 0)
    rows = found.set_index(["teacher_a", "teacher_b", "category", "difficulty", "measure"])
    tokens = rows.loc["a", "b", "all", "all", "tokens_per_verified"]
    assert (tokens["mean_a"], tokens["mean_b"], tokens["difference"], tokens["ratio"]) == (250, 100, 150, 2.5)
    assert rows.loc[("a", "b", "math", "all", "price_per_verified"), "ratio"] == pytest.approx(5)
    # Without a price there is nothing to compare.
    assert "price_per_verified" not in set(found[found["teacher_b"] == "c"]["measure"])
    # No trace of either teacher was curated.
    assert not set(found["measure"]) & set(OF_TRACE)
    assert set(found["difficulty"]) == {"all", *DIFFICULTIES}


def test_costs_have_intervals(outcomes):
    prices = pd.Series(0.5, index=outcomes["steps"].index)
    row = summarise_costs.cost_row(outcomes["steps"], prices, 500, 0.95, 0, "steps", "all")
    assert row["tokens_low"] < row["tokens_per_verified"] < row["tokens_high"]
    assert row["price_per_verified"] == pytest.approx(0.5 * 160 / row["verified"])
    assert row["price_low"] < row["price_per_verified"] < row["price_high"]
    unknown = summarise_costs.cost_row(outcomes["steps"], prices * np.nan, 500, 0.95, 0, "steps", "all")
    assert np.isnan([unknown["price"], unknown["price_low"], unknown["price_high"]]).all()


def test_a_teacher_without_attempts_costs_nothing_and_is_compared_with_nobody(outcomes):
    steps = outcomes["steps"]
    row = summarise_costs.cost_row(steps.head(0), pd.Series(dtype=float), 100, 0.95, 0, "none", "all")
    assert row["output_tokens"] == row["verified"] == 0
    assert np.isnan([row["tokens_per_verified"], row["tokens_low"], row["tokens_high"], row["unaccepted_tokens"]]).all()
    frames = {"steps": measured(steps, NO_MEASURES), "none": measured(steps.head(0), NO_MEASURES)}
    thirds = difficulty_thirds({"steps": steps, "none": steps.head(0)})
    assert compare_teachers(frames, thirds, CATEGORIES, 100, 0.95, 0).empty


# --- difficulty ------------------------------------------------------------------------------------------------------


def test_thirds_are_equal_within_categories_and_follow_failures():
    rng = np.random.default_rng(7)
    failures, tokens = rng.integers(0, 3, 90), rng.integers(100, 200, 90)
    category = np.repeat(["math", "code", "science"], 30)
    teachers = {
        name: made_outcomes(failures + 1, np.ones(90), tokens + more, category=category)
        for name, more in (("a", 0), ("b", 7))
    }
    thirds = difficulty_thirds(teachers)
    assert (pd.crosstab(category, thirds.to_numpy()) == 10).all(axis=None)
    for name in ("math", "code", "science"):
        means = [failures[(category == name) & (thirds == third)].mean() for third in DIFFICULTIES]
        assert means == sorted(means)
    swapped = difficulty_thirds({"a": teachers["b"], "b": teachers["a"]})
    assert thirds.equals(swapped)


def test_thirds_of_few_queries_and_of_teachers_with_other_queries():
    one = made_outcomes([1], [True])
    assert difficulty_thirds({"a": one}).tolist() == ["easy"]
    assert difficulty_thirds({"a": one.head(0)}).empty
    both = difficulty_thirds({"a": one, "b": made_outcomes([1, 3, 2], [True] * 3)})
    assert both.tolist() == ["easy", "hard", "medium"]


# --- anatomy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "formula", "code"),
    [
        ("So $x^2$ is.", "$x^2$", ""),
        (r"So \(x\) and \[y\]", r"\(x\)\[y\]", ""),
        ("From $5 to $10 each", "510", ""),  # sums of money are no formula, their numbers are numbers
        (r"\begin{align*}x\end{align*} so", r"\begin{align*}x\end{align*}", ""),
        ("well-known and/or **bold**", "", ""),
        ("3 * 4 = 12", "3 * 4=12", ""),
        ("a\n```python\nx = 1\n```\nb", "", "```python\nx = 1\n```"),
        ("~~~\n1\n```\n2", "", "~~~\n1\n```\n2"),  # another fence closes nothing, the end does
        (r"costs \$5$", "5", ""),
        ("words alone", "", ""),
    ],
)
def test_formulas_and_code_by_hand(text, formula, code):
    assert anatomy(text) == pytest.approx((len(formula) / len(text), len(code) / len(text)))


@given(TEXT)
def test_shares_lie_between_nought_and_one(text):
    formula, code = anatomy(text)
    if not text:
        assert formula is code is None
    else:
        assert min(formula, code) >= 0 and formula + code <= 1 + 1e-12


@pytest.mark.parametrize(
    ("thinking", "restarts"),
    [
        ("Alternatively, we could count. Let me start over.", 2),
        ("Hmm, maybe I should try another approach.\nAnother way: count.", 2),
        ("There are 12 different ways, and every one of these long paths is another way round.", 0),
        ("Wait, check again.", 0),  # self-corrections are another measure
        ("- Alternatively: no\n**From scratch**: yes", 2),
    ],
)
def test_restarts_begin_their_sentences(thinking, restarts):
    trace = {"thinking": thinking, "answer": "1", "reference": None, "reference_type": None, "turns": []}
    assert measure_traces.measure_trace(trace)["restarts"] == restarts


@given(TEXT, st.sampled_from(["1", "12", "a"]))
def test_measures_stay_within_their_bounds(thinking, reference):
    trace = {"thinking": thinking, "answer": "", "reference": reference, "reference_type": "text", "turns": []}
    found = measure_traces.measure_trace(trace)
    assert found["restarts"] >= 0 and found["self_corrections"] >= 0
    if found["answer_position"] is None:
        assert found["tail_characters"] is None
    else:
        assert 0 < found["answer_position"] <= 1
        assert (1 - found["answer_position"]) * len(thinking) == pytest.approx(found["tail_characters"])


def test_unclosed_marks_cost_no_second_pass():
    """A few seconds at most, on any machine: hundreds of thousands of marks that nobody closed."""
    for mark in ("\\[", "$$ ", "\\begin{align}", "`", "1-", "a. b c d e f g "):
        text = mark * (200_000 // len(mark))
        anatomy(text)
        measure_traces.measure_trace(
            {"thinking": text, "answer": "", "reference": None, "reference_type": None, "turns": []}
        )


def test_last_attempts_are_those_that_passed():
    frame = made_outcomes([4, 3], [True, False]).assign(attempts_to_pass=[2.0, np.nan])
    attempts, passed = last_attempts(frame)
    assert attempts.tolist() == [2, 3] and passed.tolist() == [True, False]
