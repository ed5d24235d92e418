import json
import re
import shutil
import subprocess
from pathlib import Path

import build_report
import check_reference
import choose_examples
import compare_controls
import compare_students
import compare_teachers
import draw_attempts
import draw_category_shares
import draw_contamination
import draw_differences
import draw_ledger
import draw_length_histogram
import draw_lengths
import draw_perplexities
import draw_published
import draw_scores
import draw_thresholds
import draw_training_loss
import draw_verdicts
import find_duplicate_traces
import measure_traces
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import reconcile_ledger
import score_models
import split_scores
import study_tables
import summarise_attempts
import summarise_costs
import summarise_datasets
import summarise_duplicates
import summarise_perplexities
import summarise_students
import summarise_teachers
import summarise_training
import summarise_verdicts
import write_tables
from matplotlib import image

from whichteacher.config import CATEGORIES
from whichteacher.outcomes import by_teacher
from whichteacher.perplexity import files_by_scorer
from whichteacher.plotting import read_published
from whichteacher.report.formatting import number, percent
from whichteacher.report.students import paper_table
from whichteacher.report.teachers import example
from whichteacher.report.verdicts import pair_name
from whichteacher.rule import InputError
from whichteacher.schemas import COLLECTED, CONTAMINATION, CONTAMINATION_SWEEP, REJUDGED, REVERIFIED
from whichteacher.tables import read_table, write_json, write_table

REPOSITORY = Path(__file__).parents[1]
PUBLISHED = REPOSITORY / "config" / "published"
FIGURES = tuple(build_report.FIGURES)
AUDITS = (
    *("verdicts", "error_rates", "agreement", "disagreements", "references", "contested"),
    *("thresholds", "score_quantiles"),
)
_BOTH = ("in", "kept")


def _pictures(study, name):
    return {kind: study / f"figures/{name}.{kind}" for kind in ("svg", "png", "pdf", "csv")}


def _draw(study):
    """Everything that follows the statistics, on the tables of a made-up study."""
    statistics = study / "statistics"
    looks, control = study_tables.TEACHERS, study_tables.CONTROL
    tables = {name: statistics / f"datasets/{name}.csv" for name in ("categories", "lengths", "boxes")}
    shares = _pictures(study, "category_shares")
    draw_category_shares.main(tables["categories"], PUBLISHED / "fig2_shares.csv", shares, study_tables.LABELS)
    histogram = _pictures(study, "length_histogram")
    draw_length_histogram.main(tables["lengths"], PUBLISHED / "fig3_math_lengths.csv", histogram, looks)
    draw_lengths.main(tables["boxes"], PUBLISHED / "fig4_lengths.csv", _pictures(study, "lengths"), looks)
    draw_perplexities.main(tables["boxes"], PUBLISHED / "fig5_perplexity.csv", _pictures(study, "perplexities"), looks)
    draw_scores.main(
        statistics / "scores.csv",
        statistics / "model_scores.csv",
        PUBLISHED / "fig1_scores.csv",
        PUBLISHED / "table1_scores.csv",
        _pictures(study, "scores"),
        control,
        study_tables.BENCHMARKS,
        looks,
        study_tables.MODELS,
    )
    logs = [
        study / f"training/{control}/{teacher}/{seed}/log.parquet" for teacher in looks for seed in study_tables.SEEDS
    ]
    draw_training_loss.main(logs, PUBLISHED / "fig6_loss.csv", _pictures(study, "training_loss"), looks, 25)
    draw_differences.main(
        statistics / "student_comparison.csv",
        _pictures(study, "differences"),
        control,
        study_tables.BENCHMARK_LABELS,
        looks,
        0.95,
    )
    draw_attempts.main(statistics / "attempts_survival.csv", _pictures(study, "attempts"), looks, CATEGORIES)
    draw_verdicts.main(statistics / "verdicts.csv", _pictures(study, "verdicts"), looks, CATEGORIES)
    draw_thresholds.main(
        statistics / "thresholds.csv",
        _pictures(study, "thresholds"),
        looks,
        CATEGORIES,
        dict.fromkeys(CATEGORIES, 0.9),
    )
    draw_ledger.main(statistics / "ledger.csv", _pictures(study, "ledger"), looks)
    sweep = study / "corpus/contamination_sweep.parquet"
    draw_contamination.main(sweep, _pictures(study, "contamination"), {"containment": 0.6, "similarity": 0.9})
    write_tables.main(
        statistics / "scores.csv",
        [PUBLISHED / "table1_scores.csv", PUBLISHED / "table2_lengths.csv"],
        {
            f"table{number}_{kind}": study / f"tables/table{number}.{kind}"
            for number in (1, 2)
            for kind in ("csv", "md")
        },
        [control],
        study_tables.LABELS,
        study_tables.BENCHMARKS,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = study_tables.write_study(tmp_path_factory.mktemp("study"))
    statistics = root / "statistics"
    measures = {teacher: statistics / f"trace_measures/{teacher}.parquet" for teacher in study_tables.TEACHERS}
    for teacher, path in measures.items():
        measure_traces.main([root / f"curation/{teacher}/{shard}/traces.parquet" for shard in (0, 1)], path)
    queries = [root / f"corpus/shards/{shard}.parquet" for shard in (0, 1)]
    collected = {
        teacher: [root / f"verification/{teacher}/{shard}/attempts.parquet" for shard in (0, 1)]
        for teacher in study_tables.TEACHERS
    }
    summarise_teachers.main(collected, queries, measures, statistics / "teachers.csv", CATEGORIES)
    equal = {kind: {} for kind in ("digests", "duplicates", "repeats")}
    for teacher, paths in collected.items():
        outputs = {kind: root / f"curation/{teacher}/{kind}.parquet" for kind in equal}
        find_duplicate_traces.main(paths, outputs, teacher)
        for kind, path in outputs.items():
            equal[kind][teacher] = path
    summarise_duplicates.main(*equal.values(), statistics / "duplicates.csv")
    prices = {name: {"price_per_million_tokens": None, "price_per_device_hour": 2.0} for name in study_tables.TEACHERS}
    summarise_costs.main(collected, queries, statistics / "costs.csv", CATEGORIES, prices, 200, 0.95, 0)
    summarise_verdicts.main(
        collected,
        queries,
        [root / f"verification/references/{shard}.parquet" for shard in (0, 1)],
        root / "verification/audit/cases.parquet",
        root / "verification/audit/sample.parquet",
        [],
        {name: statistics / f"{name}.csv" for name in AUDITS},
        0.95,
    )
    compared = statistics / "teacher_comparison.csv"
    scored = [str(path) for path in root.glob("curation/*/*/*.perplexities.parquet")]
    summarise_attempts.main(
        collected,
        queries,
        {name: statistics / f"attempts_{name}.csv" for name in ("survival", "summary")},
        CATEGORIES,
        200,
        0.95,
        0,
    )
    others = files_by_scorer(scored, list(measures), ["other"])
    compare_teachers.main(collected, queries, measures, others, compared, CATEGORIES, prices, 200, 0.95, 0)
    summarise_perplexities.main(others, [], statistics / "perplexities.csv", {"other": "org/other"})
    compare_students.main(
        sorted(root.glob(f"evaluation/{study_tables.CONTROL}/*/*/*.scored.parquet")),
        statistics / "scores.csv",
        statistics / "student_comparison.csv",
        statistics / "failure_comparison.csv",
        [study_tables.CONTROL],
        study_tables.LABELS,
        study_tables.BENCHMARK_LABELS,
        {"resamples": 300, "confidence": 0.95, "seed": 0},
    )
    summarise_training.main(sorted(root.glob("training/*/*/*/summary.json")), statistics / "training.csv")
    scored = sorted(root.glob(f"evaluation/{study_tables.CONTROL}/*/*/*.scored.parquet"))
    names = ([study_tables.CONTROL], list(study_tables.TEACHERS), list(study_tables.BENCHMARK_LABELS))
    drawing = {"resamples": 300, "confidence": 0.95, "seed": 0}
    tables = ("score_by_cap", "adaptivity", "variance_components")
    summarise_students.main(scored, {name: statistics / f"{name}.csv" for name in tables}, *names, 512, drawing)
    split = [statistics / f"{name}.csv" for name in ("scores_by_contamination", "uncontaminated_comparison")]
    split_scores.main(scored, root / "corpus/contamination.parquet", [], *split, *names, drawing)
    compare_controls.main(
        scored,
        statistics / "student_comparison.csv",
        statistics / "gap_by_control.csv",
        statistics / "conclusions.md",
        {study_tables.CONTROL: "parallel"},
        list(study_tables.BENCHMARK_LABELS),
        drawing,
    )
    score_models.main(
        sorted(root.glob("evaluation/models/*/*/*.scored.parquet")),
        statistics / "model_scores.csv",
        study_tables.MODELS,
    )
    reconcile_ledger.main(sorted(root.glob("**/*.ledger.parquet")), statistics / "ledger.csv")
    table = pq.read_table(queries[0])
    planted = {"url": [["made_up", "gone"]], "near_duplicate": [["made_up", table["source_row"][0].as_py()]]}
    write_json(root / "miniature/planted.json", planted)
    datasets = [root / f"datasets/{study_tables.CONTROL}/{teacher}.parquet" for teacher in measures]
    tables = {name: statistics / f"datasets/{name}.csv" for name in ("categories", "lengths", "boxes")}
    summarise_datasets.main(list(measures.values()), datasets, tables, list(measures), 32, 10)
    _draw(root)
    return root


def _examples(study, path, contamination=None, datasets=None):
    """What the rule of choose_examples would write."""
    inputs = {
        "contamination": contamination or study / "corpus/contamination.parquet",
        "queries": sorted(study.glob("corpus/shards/*.parquet")),
        "planted": study / "miniature/planted.json",
        "collected": sorted(study.glob("verification/*/*/attempts.parquet")),
        "datasets": datasets
        or [study / f"datasets/{study_tables.CONTROL}/{teacher}.parquet" for teacher in study_tables.TEACHERS],
        "quoted": [],
    }
    choose_examples.main(inputs, path, list(study_tables.TEACHERS))
    return path


def _report(study, page, training=True, contamination=None):
    build_report.main(_report_inputs(study, training, contamination), page, _report_config(training))
    return page.read_text(encoding="utf-8")


def _report_config(training):
    return {
        "study": "made_up",
        "audit": None,
        "miniature": {"seed": 1} if training else None,
        "teachers": study_tables.TEACHERS,
        "curation": {
            "controls": {study_tables.CONTROL: {"kind": "parallel"}},
            "perplexity": {"scorers": {"other": {"model": "org/other"}}} if training else None,
        },
        "statistics": {"confidence": 0.95},
        "training": {"seeds": [0, 1]} if training else None,
        "evaluation": {"benchmarks": study_tables.BENCHMARKS, "models": study_tables.MODELS} if training else None,
    }


def _report_inputs(study, training, contamination):
    students = ("scores", "training_loss", "differences")
    inputs = {
        "template": REPOSITORY / "workflow/report/report.html.j2",
        "css": REPOSITORY / "workflow/report/report.css",
        "examples": _examples(study, study / "statistics/examples.json", contamination),
        "balances": [study / f"datasets/{study_tables.CONTROL}/balance.csv"],
        "preflights": [
            study / f"training/{study_tables.CONTROL}/{name}/0/preflight.json" for name in study_tables.TEACHERS
        ],
        "figures": [study / f"figures/{name}.svg" for name in FIGURES if training or name not in students],
        "files": sorted(study.glob("statistics/*.csv")),
    }
    names = (
        "teachers",
        "costs",
        "teacher_comparison",
        "ledger",
        "duplicates",
        "perplexities",
        "scores",
        "student_comparison",
        "model_scores",
        "attempts_summary",
        "training",
        *("gap_by_control", "score_by_cap", "adaptivity", "variance_components", "scores_by_contamination"),
    )
    inputs["conclusions"] = study / "statistics/conclusions.md"
    inputs |= {name: study / f"statistics/{name}.csv" for name in names}
    inputs |= {f"audit_{name}": study / f"statistics/{name}.csv" for name in AUDITS}
    return inputs | {name: study / f"tables/{name}.csv" for name in ("table1", "table2")}


# --- published numbers -----------------------------------------------------------------------------------------------


def test_published_numbers_agree_with_one_another():
    shares = read_published(PUBLISHED / "fig2_shares.csv")
    for teacher, rows in shares[shares["statistic"] == "output_tokens"].groupby("teacher"):
        parts = rows[rows["item"] != "all"]["value"]
        assert parts.sum() == pytest.approx(rows[rows["item"] == "all"]["value"].item(), abs=0.1), teacher
    counted = read_published(PUBLISHED / "fig3_math_lengths.csv")
    counted = counted[counted["statistic"] == "instances"].groupby("teacher")["value"].sum()
    assert counted.between(557.8, 558.6).all()
    bars = read_published(PUBLISHED / "fig1_scores.csv").set_index(["teacher", "item"])["value"]
    table = read_published(PUBLISHED / "table1_scores.csv").set_index(["teacher", "item", "statistic"])["value"]
    assert bars["AM-Thinking distilled-32B (ours)", "AIME2024"] == table["AM-Thinking-v1", "AIME2024", "student"]
    assert set(pd.concat(map(read_published, PUBLISHED.glob("*.csv")))["how"]) == {"printed", "pixel", "derived"}


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn(study, name):
    files = _pictures(study, name)
    pixels = image.imread(files["png"])[..., :3]
    assert min(pixels.shape[:2]) > 400
    assert (pixels < 0.95).any(axis=2).mean() > 0.02, "almost blank"
    svg = files["svg"].read_text()
    assert svg.startswith("<?xml") and "<dc:date>" not in svg
    data = pd.read_csv(files["csv"])
    assert len(data) > 3
    if "origin" in data:
        assert set(data["origin"]) == {"this run", "paper"}


def test_a_benchmark_without_a_place_in_the_papers_tables_stands_beside_none_of_its_values(study):
    benchmarks = {**study_tables.BENCHMARKS, "easy_math": {**study_tables.BENCHMARKS["easy_math"], "role": None}}
    scores = pd.read_csv(study / "statistics/scores.csv", dtype={"seed": str})
    figure, table = (read_published(PUBLISHED / f"{name}.csv") for name in ("fig1_scores", "table1_scores"))
    bars = draw_scores.prepare(scores, None, figure, table, study_tables.CONTROL, benchmarks)
    assert set(bars.loc[bars["benchmark"] == "easy_math", "origin"]) == {"this run"}
    assert list(dict.fromkeys(bars["benchmark"]))[-1] == "easy_math"
    drawn = draw_scores.draw(bars, benchmarks, study_tables.TEACHERS, {})
    assert not any("None" in text.get_text() for ax in drawn.axes for text in ax.texts)
    run = scores[scores["seed"] == "all"][["control", "benchmark", "teacher"]].assign(value=50.0, error=1.0)
    cells = write_tables.prepare(run, table, [study_tables.CONTROL], benchmarks)
    text = write_tables.to_markdown(cells, benchmarks, study_tables.LABELS, "T")
    assert re.search(r"Easy mathematics .* \| - \| - \| - \| - \|$", text, re.MULTILINE)
    page = paper_table(cells, "T", study_tables.LABELS, benchmarks)
    (cells,) = [row["cells"] for row in page["rows"] if row["cells"][0] == "Easy mathematics"]
    assert cells[-4:] == ["–"] * 4


def test_the_papers_figures_are_drawn_from_its_printed_numbers_alone(tmp_path):
    kinds = ("svg", "png", "pdf", "csv")
    outputs = {f"{name}_{kind}": tmp_path / f"{name}.{kind}" for name in draw_published.FIGURES for kind in kinds}
    outputs |= {f"{name}_md": tmp_path / f"{name}.md" for name in draw_published.TABLES}
    draw_published.main({path.stem: path for path in PUBLISHED.glob("*.csv")}, outputs)
    for name in draw_published.FIGURES:
        pixels = image.imread(tmp_path / f"{name}.png")[..., :3]
        assert (pixels < 0.95).any(axis=2).mean() > 0.02, f"{name} is almost blank"
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert "| AIME2025 | 72.2 | 62.2 | 52.8 |" in (tmp_path / "table1.md").read_text()
    # Both readings of Figure 4: 6,286.3 million tokens of 1,890.7 thousand traces are 3,325 each, not the 3,757 printed.
    texts = [
        text.get_text()
        for text in draw_published.draw_lengths(
            read_published(PUBLISHED / "fig4_lengths.csv"), read_published(PUBLISHED / "fig2_shares.csv")
        )
        .axes[0]
        .texts
    ]
    assert {"3,757", "3,325"} <= set(texts)


def test_the_same_data_gives_the_same_bytes(study):
    before = {path: path.read_bytes() for path in [*study.glob("figures/*"), *study.glob("tables/*")]}
    assert len(before) == 4 * len(FIGURES) + 4
    _draw(study)
    assert [path.name for path, held in before.items() if path.read_bytes() != held] == []


def test_spans_close_at_their_upper_end():
    names = summarise_datasets.spans(1024, 10)
    published = read_published(PUBLISHED / "fig3_math_lengths.csv")
    assert names == list(dict.fromkeys(published["item"]))
    counts = summarise_datasets.count_spans(pd.Series([0, 1, 1024, 1025, 10240, 10241, 99999]), 1024, 10)
    assert counts.tolist() == [3, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]


def test_boxes_follow_tukey():
    found = summarise_datasets.box_statistics([1, 2, 3, 4, 100])
    assert found == {"mean": 22, "low_whisker": 1, "q1": 2, "median": 3, "q3": 4, "high_whisker": 4}


def test_without_perplexities_the_figure_says_so(study):
    published = read_published(PUBLISHED / "fig5_perplexity.csv")
    unscored = pd.DataFrame({"category": ["math"], "output_tokens": [7], "perplexity": [np.nan]})
    boxes = summarise_datasets.boxes(unscored).assign(teacher="steps")
    assert set(boxes["measure"]) == {"output_tokens"}
    rows = draw_perplexities.prepare(boxes, published)
    assert set(rows["origin"]) == {"paper"}
    figure = draw_perplexities.draw(rows, study_tables.TEACHERS)
    assert "No perplexities" in figure.axes[0].texts[0].get_text()


def test_differences_put_the_teacher_ahead_first(study):
    comparison = pd.read_csv(study / "statistics/student_comparison.csv")
    flipped = comparison.assign(
        teacher_a=comparison["teacher_b"],
        teacher_b=comparison["teacher_a"],
        difference=-comparison["difference"],
        low=-comparison["high"],
        high=-comparison["low"],
    )
    rows, same = (
        draw_differences.prepare(frame, study_tables.CONTROL, study_tables.BENCHMARK_LABELS)
        for frame in (comparison, flipped)
    )
    pd.testing.assert_frame_equal(rows, same)
    assert (rows["difference"] >= 0).all() and (rows["low"] <= rows["difference"]).all()


@pytest.mark.parametrize(
    ("low", "p_holm", "expected"),
    [(1, 0.01, "yet students differ"), (1, 0.2, "may differ"), (-1, 0.01, "No difference")],
)
def test_the_headline_is_no_stronger_than_the_numbers(low, p_holm, expected):
    rows = pd.DataFrame({"low": [low], "high": [9], "p_holm": [p_holm]})
    assert expected in draw_differences.headline(rows, 0.95)


def test_one_teacher_has_no_differences(study):
    comparison = pd.read_csv(study / "statistics/student_comparison.csv").head(0)
    rows = draw_differences.prepare(comparison, study_tables.CONTROL, study_tables.BENCHMARK_LABELS)
    figure = draw_differences.draw(rows, study_tables.BENCHMARK_LABELS, study_tables.TEACHERS, 0.95)
    assert "No two teachers" in figure.axes[0].texts[0].get_text()


def test_loss_is_smoothed_over_full_windows():
    log = pd.DataFrame({"step": np.tile(np.arange(1, 101), 2), "loss": np.r_[np.arange(100.0), np.arange(100.0) + 2]})
    rows = draw_training_loss.prepare({"steps": log}, read_published(PUBLISHED / "fig6_loss.csv"), 50)
    run = rows[rows["origin"] == "this run"].set_index("step")
    assert run.loc[10, "loss"] == 10
    assert run["smoothed"].first_valid_index() == 11
    assert run.loc[50, "smoothed"] == pytest.approx(run.loc[40:59, "loss"].mean())


def test_tables_stand_beside_the_paper(study):
    text = (study / "tables/table1.md").read_text()
    hard = next(line for line in text.splitlines() if line.startswith("| Hard mathematics"))
    assert "AIME2024 | 84.3 | 79.4 | 70.9 |" in hard
    cells = pd.read_csv(study / "tables/table2.csv").set_index(["benchmark", "teacher"])["value"]
    assert cells["hard_math", "AM-Thinking-v1"] == 15273.8
    scores = pd.read_csv(study / "statistics/scores.csv", dtype={"seed": str})
    mean = scores.set_index(["seed", "benchmark", "teacher"])["mean_tokens"]["all", "hard_math", "leaps"]
    assert cells["hard_math", "leaps"] == pytest.approx(mean)


def test_every_row_of_the_ledger_is_in_its_picture(study):
    ledger, drawn = (pd.read_csv(study / f"{name}.csv") for name in ("statistics/ledger", "figures/ledger"))
    # Of a control's students, who share their rows, the first is drawn.
    later = (ledger["step"] == "train_student") & ~ledger["scope"].str.endswith("/0")
    reasons = ledger[~ledger["reason"].isin(["in", "kept"]) & ~later]
    fallen = drawn[drawn["kind"] == "dropped"]
    assert fallen["rows"].sum() == reasons["rows"].sum()
    assert set(zip(fallen["step"], fallen["line"], strict=True)) == set(
        zip(reasons["step"], reasons["reason"], strict=True)
    )
    sections = drawn.groupby("section")
    assert list(sections.groups) == ["Corpus", *sorted(study_tables.TEACHERS)]
    for section, lines in sections:
        # Waterfall: what falls hangs between what one step left and what the next one leaves.
        level = 100.0
        for line in lines.to_dict("records")[1:]:
            width = 100 * line["rows"] / lines["rows"].iloc[0]
            if line["kind"] == "left":
                assert line["start"] == 0 and width <= level + 1e-9, section
                below, level = level, width
            elif line["kind"] == "dropped":
                assert line["start"] + width == pytest.approx(below)
                assert line["start"] >= level - 1e-9
                below = line["start"]


def test_a_ledger_of_many_sources_and_of_one_row_is_drawn():
    sources = [("import_source", f"source_{number:02d}", reason, 100_000) for number in range(20) for reason in _BOTH]
    rest = [
        ("clean_queries", "all", "in", 2_000_000),
        ("clean_queries", "all", "kept", 1_999_999),
        ("clean_queries", "all", "empty", 1),
        ("import_traces", "steps", "in", 3_000_000),
        ("import_traces", "steps", "kept", 1_000_000),
        ("import_traces", "steps", "no_query", 2_000_000),
    ]
    lines = pd.DataFrame([*sources, *rest], columns=["step", "scope", "reason", "rows"])
    rows = draw_ledger.prepare(lines, {"steps": study_tables.TEACHERS["steps"]})
    assert (rows["kind"] == "source").sum() == 20
    assert rows.loc[rows["kind"] == "source", "start"].tolist() == pytest.approx([5 * number for number in range(20)])
    figure = draw_ledger.draw(rows, study_tables.TEACHERS)
    told = [text.get_text() for text in figure.axes[0].texts]
    assert "< 0.1 %" in told and "> 99.9 %" in told and "Steps: published answers" in told
    # The single row has a dot that can be seen, well inside the axis.
    dots = figure.axes[1]
    assert dots.get_xscale() == "log" and dots.get_xlim()[0] < 1
    assert 1 in [line.get_xdata()[0] for line in dots.lines if line.get_marker() == "o"]


def test_nothing_in_the_ledger_is_said(study):
    ledger = pd.read_csv(study / "statistics/ledger.csv").head(0)
    figure = draw_ledger.draw(draw_ledger.prepare(ledger, study_tables.TEACHERS), study_tables.TEACHERS)
    assert any("No rows" in text.get_text() for text in figure.axes[0].texts)


def test_the_sweep_shows_what_was_set_and_leaves_out_what_was_not_tried(study):
    sweep = read_table(study / "corpus/contamination_sweep.parquet", CONTAMINATION_SWEEP).to_pandas()
    set_to = {"containment": 0.6, "similarity": 0.9}
    figure = draw_contamination.draw(sweep, set_to)
    told = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert told == ["set to 0.6: 16 flagged, 8 dropped", "set to 0.9: 20 flagged, 20 dropped"]
    alone = draw_contamination.draw(sweep[sweep["method"] != "embedding"], set_to)
    assert [ax.get_title(loc="left") for ax in alone.axes] == ["Word n-grams"]
    nothing = draw_contamination.draw(sweep.assign(queries=0, dropped=0), set_to)
    assert "No query is like" in nothing.axes[0].texts[0].get_text()


# --- report ----------------------------------------------------------------------------------------------------------


def test_the_report_needs_nothing_from_outside(study):
    page = _report(study, study / "report.html")
    assert "<script" not in page and "<link" not in page and "@import" not in page
    sources = re.findall(r'src="([^"]{1,30})', page)
    assert len(sources) == len(FIGURES)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    for target in re.findall(r'href="([^"]+)"', page):
        if target.startswith("#"):
            assert f'id="{target[1:]}"' in page
        else:
            assert (study / target).exists(), target


def _tables(page):
    """The tables of a page: caption, links to their data, and the cells of each column by its head."""
    found = []
    for part in re.split(r'<div class="table">', page)[1:]:
        part = part[: part.index("</table>")]
        caption = re.search(r'<p class="caption">(.*?)</p>', part)[1]
        data = re.search(r'<(p|details) class="data">(.*?)</\1>', part)
        rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", part, re.DOTALL)]
        columns = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True)) if len(rows) > 1 else {}
        found.append((caption, re.findall(r'href="([^"]+)"', data[2]) if data else [], columns))
    assert len(found) == page.count("<table>")
    return found


@pytest.mark.parametrize("training", [True, False])
def test_every_table_of_the_report_links_to_its_data(study, training):
    page = _report(study, study / "report.html", training)
    given = set()
    for paths in _report_inputs(study, training, None).values():
        given |= {path.resolve() for path in (paths if isinstance(paths, list) else [paths])}
    tables = _tables(page)
    assert len(tables) > 20
    for caption, links, _ in tables:
        assert links, caption
        for target in links:
            assert (study / target).is_file() and (study / target).resolve() in given, (caption, target)


#: Some tables of the report: how their caption begins, one of their columns, and what it shows of the linked file.
_SHOWN = {
    "Generation": ("Tokens", lambda rows: rows["output_tokens"].map(number)),
    "Students: pass@1": ("Pass@1", lambda rows: (100 * rows["pass_at_1"]).map(lambda value: number(value, 1))),
    "Solved queries": ("Solved", lambda rows: rows.loc[rows["category"] == "all", "acceptance"].map(percent)),
    "Verdicts and their reasons": ("Share", lambda rows: rows["share"].map(percent)),
    "parallel: ": ("Tokens", lambda rows: rows.loc[rows["category"] == "all", "tokens"].map(number)),
    "Training": ("Tokens seen", lambda rows: rows["tokens_seen"].map(number)),
    "Queries close to": ("Flagged", lambda chosen: [number(row["flagged"]) for row in chosen["flagged"]]),
}


def test_the_linked_files_hold_what_the_tables_show(study):
    tables = _tables(_report(study, study / "report.html"))
    for begin, (head, expected) in _SHOWN.items():
        _, links, columns = next(found for found in tables if found[0].startswith(begin))
        files = [study / target for target in links]
        held = [json.loads(file.read_text()) if file.suffix == ".json" else pd.read_csv(file) for file in files]
        assert list(columns[head]) == list(expected(*held)), begin


#: Reads the report in a frame as wide as a phone: its width, and pictures that did not load.
_PHONE = """<iframe id="page" src="{page}" style="width: 360px; height: 800px; border: 0"></iframe>
<script>window.onload = () => {{
  const found = document.getElementById("page").contentDocument;
  const broken = [...found.images].filter(image => !image.naturalWidth).length;
  const wide = found.documentElement.scrollWidth - found.documentElement.clientWidth;
  document.title = `${{wide}} too wide, ${{broken}} of ${{found.images.length}} broken`;
}}</script>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here")
def test_a_phone_shows_the_report_whole_without_an_error(study, tmp_path):
    _report(study, study / "report.html")
    phone = tmp_path / "phone.html"
    phone.write_text(_PHONE.format(page=(study / "report.html").as_uri()))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--dump-dom", phone.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    title = re.search("<title>(.*)</title>", done.stdout)[1]
    assert title == f"0 too wide, 0 of {len(FIGURES)} broken"


def test_the_report_states_the_finding_and_the_counts(study):
    page = _report(study, study / "report.html")
    comparison = pd.read_csv(study / "statistics/student_comparison.csv")
    assert all(sentence in page for sentence in comparison["conclusion"])
    # A second scorer is compared under its own name, and the figure says whose perplexity it shows.
    assert "Perplexity (other)" in page
    assert "This run’s scorer is other (org/other)." in page
    assert "2 of 2 planted rows" in page
    assert page.count("<mark>") == len(study_tables.TEACHERS)
    assert "math_verify 0.9.0" in page


def test_an_audit_has_no_students(study):
    page = _report(study, study / "audit.html", training=False)
    assert "trains no students" in page
    assert 'id="finding"' not in page and "planted rows" not in page
    assert 'id="teachers"' in page and page.count("<figure") == 9


def test_flagged_pairs_stand_side_by_side_the_doubtful_first(study, tmp_path):
    def pair(number, method, score, query="What is <b>2</b> + 2?"):
        return {
            "query_id": f"{number:032x}",
            "source": "made_up",
            "benchmark": "hard_math",
            "problem_id": f"p{number}",
            "method": method,
            "score": score,
            "dropped": number % 2 == 0,
            "query": query,
            "problem": f"problem {number}",
        }

    pairs = [pair(number, "embedding", 0.99 - number / 1000) for number in range(choose_examples.SHOWN_PAIRS + 20)]
    pairs += [pair(1000, "exact", 1.0, "x" * 3000), pair(1001, "ngram", 0.61)]
    write_table(tmp_path / "contamination.parquet", pairs, CONTAMINATION)
    page = _report(study, study / "pairs.html", contamination=tmp_path / "contamination.parquet")
    assert re.findall(r"<summary>(\w+): (\d+) of (\d+) pairs", page) == [
        ("exact", "1", "1"),
        ("ngram", "1", "1"),
        ("embedding", "50", "70"),
    ]
    assert [f"problem {number}<" in page for number in (69, 20, 19)] == [True, True, False]
    assert page.index("problem 69<") < page.index("problem 68<")
    assert "What is &lt;b&gt;2&lt;/b&gt; + 2?" in page and "… (3,000 characters)" in page
    assert f"<b>0.610</b>, kept: made_up, query {1001:032x}, and Hard mathematics, p1001" in page


def test_no_contamination_is_said(study, tmp_path):
    write_table(tmp_path / "contamination.parquet", [], CONTAMINATION)
    page = _report(study, study / "clean.html", contamination=tmp_path / "contamination.parquet")
    assert "No query was found equal or close" in page and 'aria-label="Problem"' not in page


def test_text_of_models_cannot_break_the_page(study, tmp_path):
    traces = {teacher: tmp_path / f"{teacher}.parquet" for teacher in study_tables.TEACHERS}
    for teacher, path in traces.items():
        table = pq.read_table(study / f"datasets/{study_tables.CONTROL}/{teacher}.parquet")
        place = table.schema.get_field_index("thinking")
        hostile = ["</pre><script>alert(1)</script>"] * table.num_rows
        pq.write_table(table.set_column(place, table.schema.field(place), [hostile]), path)
    examples = json.loads(_examples(study, tmp_path / "examples.json", datasets=list(traces.values())).read_text())
    shown = example(examples["example"], study_tables.LABELS, dict.fromkeys(traces, "#000000"))
    assert all(trace["found"] == "" and "<script>" in trace["before"] for trace in shown["traces"])
    environment = build_report.environment(REPOSITORY / "workflow/report")
    assert "<script>" not in environment.from_string("{{ text }}").render(text=shown["traces"][0]["before"])


def test_files_are_shared_out_by_teacher():
    assert by_teacher(["a", "b"], ["a0", "a1", "b0", "b1"]) == {"a": ["a0", "a1"], "b": ["b0", "b1"]}


# --- models beside the students --------------------------------------------------------------------------------------


def test_a_model_is_scored_as_a_student_with_the_same_answers(study, tmp_path):
    models = pd.read_csv(study / "statistics/model_scores.csv").set_index("benchmark")
    students = pd.read_csv(study / "statistics/scores.csv", dtype={"seed": str})
    student = students[(students["teacher"] == "steps") & (students["seed"] == "0")].set_index("benchmark")
    for name in ("pass_at_1", "se_samples", "se_problems", "mean_tokens", "truncated", "no_answer", "lighteval"):
        assert models[name].to_dict() == student[name].to_dict(), name
    assert models["within"].to_dict() == {"easy_math": True, "hard_math": np.nan, "code_tasks": False} | {
        name: value for name, value in models["within"].items() if pd.isna(value)
    }
    bars = pd.read_csv(study / "figures/scores.csv")
    beside = bars[(bars["origin"] == "this run") & ~bars["student"].astype("boolean").fillna(True)]
    assert set(beside["name"]) == {"steps"} and len(beside) == 3
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", _report(study, tmp_path / "page.html")))
    assert "Models evaluated beside the students" in page and "50.0 to 100.0" in page


def test_a_reference_check_fails_with_a_line_per_score_outside(study, tmp_path):
    with pytest.raises(InputError) as error:
        check_reference.main(study / "statistics/model_scores.csv", tmp_path / "reference.csv")
    lines = str(error.value).splitlines()
    assert (
        len(lines) == 2 and lines[0].startswith("steps on code_tasks: pass@1 is ") and "expected 0 to 1 %" in lines[0]
    )
    assert not (tmp_path / "reference.csv").exists()
    good = pd.read_csv(study / "statistics/model_scores.csv").query("benchmark != 'code_tasks'")
    good.to_csv(tmp_path / "good.csv", index=False)
    check_reference.main(tmp_path / "good.csv", tmp_path / "reference.csv")
    assert pd.read_csv(tmp_path / "reference.csv")["benchmark"].tolist() == ["easy_math"]
    good.assign(within=None).to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(InputError, match="no model has `expected` scores"):
        check_reference.main(tmp_path / "none.csv", tmp_path / "reference.csv")


# --- the verdicts ----------------------------------------------------------------------------------------------------


def test_the_report_says_what_is_known_of_the_verdicts(study, tmp_path):
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", _report(study, tmp_path / "page.html")))
    assert "1 of 4: 25.0 % [4.6, 69.9]" in page, "wrong answers that passed, after Wilson"
    assert "1 of 3: 33.3 % [6.1, 79.2]" in page, "right answers that failed"
    assert "60 attempts were verified once more under load: 1 verdicts changed" in page
    assert "160 references were given to their verifiers as answers: 1 are unfit" in page
    contested = pd.read_csv(study / "statistics/contested.csv")
    assert len(contested) and f"On {len(contested)} queries at least two teachers give the same answer" in page
    assert set(contested["answer"]) == {0} and contested["teachers"].str.contains(" ").all()


def test_shares_of_verdicts_add_up(study):
    rows = pd.read_csv(study / "figures/verdicts.csv")
    assert rows.groupby(["teacher", "category"])["share"].sum().round(9).eq(1).all()
    assert (
        draw_verdicts.draw(rows.head(0), study_tables.TEACHERS).axes[0].texts[0].get_text()
        == "No attempt has been verified"
    )
    per_teacher = pd.read_csv(study / "statistics/verdicts.csv").groupby("teacher")["attempts"].sum()
    collected = read_table(study / "verification/steps/0/attempts.parquet", COLLECTED).num_rows
    assert (
        per_teacher["steps"]
        == collected + read_table(study / "verification/steps/1/attempts.parquet", COLLECTED).num_rows
    )


def test_judges_and_rules_are_compared_by_what_the_rules_had_said():
    evidence = json.dumps({"before": {"verdict": "fail", "reason": "other_value"}})
    judged = {"teacher": "t", "category": "math", "attempt_id": "a", "verifier": "judge_x", "verdict": "pass"}
    attempts = pd.DataFrame([{**judged, "reason": "judged", "evidence": evidence}])
    none = (pd.DataFrame(columns=schema.names) for schema in (REVERIFIED, REJUDGED))
    again = {**judged, "again": "swapped_x", "reason": "judged", "again_verdict": "fail", "again_reason": "judged"}
    pairs = summarise_verdicts.opinions(next(none), attempts, next(none))
    (row,) = summarise_verdicts.agreement(pairs).to_dict("records")
    assert row["pair"] == "judge_x" and row["second_only"] == row["changed"] == 1
    assert pair_name("judge_x") == "the rules, and the judge x"
    pairs = summarise_verdicts.opinions(pd.DataFrame(columns=REVERIFIED.names), attempts, pd.DataFrame([again]))
    rows = summarise_verdicts.agreement(pairs).set_index("pair")
    assert rows.loc["swapped_x", "first_only"] == 1
    assert pair_name("swapped_x") == "the judge x, and again with the answer before the reference"
    assert pair_name("second_y") == "the judge, and the judge y"


def test_kappa_is_that_of_the_textbook():
    # Cohen's example form: observed agreement 0.7, expected 0.5.
    assert summarise_verdicts.kappa(20, 5, 10, 15) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert summarise_verdicts.kappa(5, 0, 0, 0) is None and summarise_verdicts.kappa(3, 2, 0, 0) is None


def test_a_sweep_counts_attempts_and_queries():
    rows = [("q1", "fail", 0.5), ("q1", "pass", 0.9), ("q2", "fail", 0.3), ("q2", "unknown", 0.0)]
    attempts = pd.DataFrame(rows, columns=["query_id", "verdict", "score"]).assign(teacher="t", category="code")
    sweep = summarise_verdicts.threshold_sweep(attempts).set_index("threshold")
    assert sweep.loc[0.0, ["attempts", "passing", "queries", "solved"]].tolist() == [3, 3, 2, 2]
    assert sweep.loc[0.9, ["passing", "solved"]].tolist() == [1, 1]
    assert sweep.loc[0.3, "solved_share"] == 1 and sweep.loc[1.0, "share"] == 0
    (row,) = summarise_verdicts.score_quantiles(attempts).to_dict("records")
    assert (row["attempts"], row["q50"], row["mean"]) == (3, 0.5, pytest.approx(1.7 / 3))


def test_thresholds_are_drawn_where_attempts_were_decided(study):
    rows = pd.read_csv(study / "figures/thresholds.csv")
    assert set(rows["teacher"]) == set(study_tables.TEACHERS) and rows["share"].between(0, 1).all()
    falling = rows.sort_values("threshold").groupby(["teacher", "category"])["share"]
    assert falling.apply(lambda shares: shares.is_monotonic_decreasing).all()
    empty = draw_thresholds.draw(rows.head(0), study_tables.TEACHERS, CATEGORIES, dict.fromkeys(CATEGORIES, 0.9))
    assert empty.axes[0].texts[0].get_text() == "No attempt has been decided"
