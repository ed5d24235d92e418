"""tools/why.py: every way in which the life of a query can go, on a corpus that the corpus stage made."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import study_tables
import why
import yaml
from clean_queries import main as clean_queries
from decontaminate_queries import main as decontaminate_queries
from deduplicate_queries import main as deduplicate_queries
from import_benchmark import main as import_benchmark
from import_source import main as import_source
from make_miniature_benchmarks import main as make_miniature_benchmarks
from make_miniature_corpus import main as make_miniature_corpus
from shard_corpus import main as shard_corpus

from whichteacher.config import Clean, Decontaminate, Deduplicate
from whichteacher.ledger import Ledger
from whichteacher.queries import shard_of
from whichteacher.schemas import ATTEMPTS, PERPLEXITIES, QUERIES, SELECTED, TRACES, VERDICTS
from whichteacher.tables import read_frame, read_table, write_batches, write_json, write_table

SOURCES = {"sums": "math", "programs": "code"}
PROBLEMS = {"easy_math": 20, "code_tasks": 5}
ROLES = {"easy_math": "MATH500", "code_tasks": "LiveCodeBench"}
COLUMNS = {name: name for name in ("id", "turns", "answer", "answer_type", "tests", "constraints")}
DECONTAMINATE = {"embedder": "hashed_words", "containment": 0.7}


def _config(folder: Path) -> dict:
    """The configuration of the made-up study, as its file has it."""
    small = yaml.safe_load((Path(__file__).parents[1] / "config/test.yaml").read_text())
    return {
        "study": "made_up",
        "results": str(folder),
        "corpus": {
            "sources": {
                name: {"path": f"{name}.jsonl", "category": category, "licence": "Apache-2.0", "columns": COLUMNS}
                for name, category in SOURCES.items()
            },
            "decontaminate": DECONTAMINATE,
        },
        "teachers": {
            name: {**small["teachers"]["steps"], **looks, "attempts": [1, 1, 1]}
            for name, looks in study_tables.TEACHERS.items()
        },
        "curation": {
            "perplexity": {"scorers": {"all_styles": {"model": "./nowhere"}}},
            "ngrams": {"tokenizer": {"model": "./nowhere"}},
            "controls": [study_tables.CONTROL, "own_passes"],
        },
        **{part: small[part] for part in ("training", "evaluation")},
    }


def _make_corpus(root: Path) -> None:
    """The corpus stage in the layout of a real run; what is planted is in ``planted.json``."""
    corpus = root / "corpus"

    def out(name, *kinds, **more):
        files = {kind: corpus / (f"{name}.parquet" if kind == "table" else f"{name}.{kind}.parquet") for kind in kinds}
        return {kind: str(path) for kind, path in (files | more).items()}

    three = ("table", "ledger", "dropped")
    paths = {source: str(root / f"{source}.jsonl") for source in SOURCES}
    counts = {"math": 60, "code": 30}
    make_miniature_corpus(paths, str(root / "planted.json"), SOURCES, counts, PROBLEMS, 2, 1)
    for name, category in SOURCES.items():
        settings = {"path": paths[name], "category": category, "licence": "Apache-2.0", "columns": COLUMNS}
        import_source(name, settings, **out(f"imported/{name}", *three))
    problems = {name: str(root / f"{name}.jsonl") for name in PROBLEMS}
    make_miniature_benchmarks(PROBLEMS, problems)
    for name, path in problems.items():
        columns = {**COLUMNS, "difficulty": "difficulty"}
        category = "code" if name == "code_tasks" else "math"
        settings = {"path": path, "category": category, "role": ROLES[name], "expected_problems": PROBLEMS[name]}
        import_benchmark(name, {**settings, "columns": columns}, **out(f"benchmarks/{name}", "table"))
    imported = [str(corpus / f"imported/{name}.parquet") for name in SOURCES]
    selections = [str(corpus / f"{name}.parquet") for name in ("cleaned", "deduplicated", "decontaminated")]
    clean_queries(imported, Clean().model_dump(), **out("cleaned", *three))
    pairs = {"duplicates": corpus / "duplicates.parquet"}
    deduplicate_queries(
        imported, selections[0], list(SOURCES), Deduplicate().model_dump(), **out("deduplicated", *three, **pairs)
    )
    pairs = {"contamination": corpus / "contamination.parquet", "sweep": corpus / "contamination_sweep.parquet"}
    benchmarks = [str(corpus / f"benchmarks/{name}.parquet") for name in PROBLEMS]
    settings = Decontaminate(**DECONTAMINATE).model_dump()
    decontaminate_queries(imported, selections[1], benchmarks, settings, **out("decontaminated", *three, **pairs))
    shard_corpus(imported, selections[2], [str(corpus / "shards/0.parquet")])


def _make_rest(root: Path) -> None:
    """Teachers, curation, datasets, export and students on the sums of the corpus."""
    rows = [row for row in read_table(root / "corpus/shards/0.parquet", QUERIES).to_pylist() if row["source"] == "sums"]
    rng = np.random.default_rng(3)
    for row in rows:
        row["reference"] = str(sum(map(ord, row["reference"])))  # the helper works with whole numbers
    study_tables.write_teachers(root, rows, {row["query_id"]: 1 for row in rows}, 1, rng)
    for teacher in study_tables.TEACHERS:
        traces = read_table(root / f"curation/{teacher}/0/traces.parquet", TRACES)
        scores = [
            dict(attempt_id=row["attempt_id"], query_id=row["query_id"], scorer="all_styles", scope="response")
            | dict(length=9, tokens=5, nll=5 * math.log(1.25), perplexity=1.25, state="scored")
            for row in traces.to_pylist()
        ]
        write_table(root / f"curation/{teacher}/0/all_styles.perplexities.parquet", scores, PERPLEXITIES)
        # Curation drops one trace more.
        ledger = Ledger("curate_traces", teacher, traces.num_rows)
        ledger.keep(traces.num_rows - 1)
        gone = traces["query_id"][-1].as_py()
        ledger.drop(gone, "perplexity_above_threshold", "2.100 > 1.7")
        kept = traces.filter(pc.not_equal(traces["query_id"], gone))
        write_table(root / f"curation/{teacher}/0/traces.parquet", kept, TRACES)
        ledger.write(
            root / f"curation/{teacher}/0/traces.ledger.parquet", root / f"curation/{teacher}/0/traces.dropped.parquet"
        )
        write_table(root / f"datasets/own_passes/{teacher}.parquet", kept, TRACES)
    (root / f"export/{study_tables.CONTROL}/steps").mkdir(parents=True)
    # One student is trained, and a trace of its dataset was too long for it.
    training = root / f"training/{study_tables.CONTROL}/steps/0"
    write_json(training / "summary.json", {})
    dataset = read_table(root / f"datasets/{study_tables.CONTROL}/steps.parquet", TRACES)
    ledger = Ledger("train_student", f"{study_tables.CONTROL}/steps/0", dataset.num_rows)
    ledger.keep(dataset.num_rows - 1)
    ledger.drop(dataset["query_id"][-2].as_py(), "too_long", "9000 tokens")
    ledger.write(training / "rows.ledger.parquet", training / "rows.dropped.parquet")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("results")
    _make_corpus(root)
    _make_rest(root)
    (root / "config.yaml").write_text(yaml.safe_dump(_config(root), sort_keys=False))
    return root


@pytest.fixture
def results(finished, tmp_path) -> Path:
    """A copy that a test may change; its configuration still names the place it was made in."""
    return shutil.copytree(finished, tmp_path / "copied")


@pytest.fixture
def ask(capsys):
    """What the command prints on one query of a results folder."""

    def asked(root: Path, query: str, *options: str) -> str:
        assert why.main([query, "--config", str(root / "config.yaml"), "--results", str(root), *options]) == 0
        return capsys.readouterr().out

    return asked


def refusal(root: Path, query: str) -> str:
    with pytest.raises(SystemExit) as ended:
        why.main([query, "--config", str(root / "config.yaml"), "--results", str(root)])
    assert isinstance(ended.value.code, str)  # status 1, and the line on stderr
    return ended.value.code


def line_of(text: str, step: str) -> str:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [step]]
    return " ".join(line.split())


def collected(root: Path, teacher: str):
    return read_table(root / f"verification/{teacher}/0/attempts.parquet", study_tables.COLLECTED).to_pandas()


def planted(root: Path, kind: str) -> list[list[str]]:
    return json.loads((root / "planted.json").read_text())[kind]


# --- the corpus ------------------------------------------------------------------------------------------------------


def test_a_query_that_went_all_the_way(finished, ask):
    query = read_frame(finished / f"datasets/{study_tables.CONTROL}/steps.parquet", TRACES)["query_id"][0]
    told = ask(finished, query)
    for step in ("clean_queries", "deduplicate_queries", "decontaminate_queries"):
        assert line_of(told, step) == f"{step} kept"
    assert line_of(told, "shard_corpus") == "shard_corpus kept corpus/shards/0.parquet"
    assert "same text" not in told
    assert "licence     Apache-2.0" in told and "(number)" in told and "from sums.jsonl" in told
    steps, recheck = told.split("teacher ")[1:3]
    assert steps.startswith("steps (Steps)\n") and recheck.startswith("recheck (Recheck)\n")
    for attempt in collected(finished, "steps").query("query_id == @query").itertuples():
        accepted = " (accepted)" if attempt.accepted else ""
        said = f"{attempt.finish_reason}, {attempt.output_tokens} tokens, {attempt.verdict} {attempt.score:.2f}"
        assert f"round {attempt.round}, attempt {attempt.attempt}" in steps
        assert f"{said}: {attempt.reason}{accepted}" in steps
    assert "score_perplexity 1.250 scored: scorer all_styles" in " ".join(steps.split())
    datasets = [" ".join(line.split()) for line in steps.splitlines() if "match_datasets" in line]
    assert datasets == [
        f"match_datasets kept datasets/{control}/steps.parquet" for control in (study_tables.CONTROL, "own_passes")
    ]
    exports = [" ".join(line.split()) for line in steps.splitlines() if "export_dataset" in line]
    assert exports == [
        f"export_dataset kept export/{study_tables.CONTROL}/steps",
        "export_dataset - own_passes: has not run",
    ]
    assert line_of(steps, "train_student") == f"train_student kept {study_tables.CONTROL}/steps/0"


def test_a_trace_that_was_too_long_for_a_student_says_so(finished, ask):
    last = read_table(finished / f"datasets/{study_tables.CONTROL}/steps.parquet", TRACES)["query_id"][-2].as_py()
    told = ask(finished, last)
    assert f"train_student dropped {study_tables.CONTROL}/steps/0: too_long: 9000 tokens" in " ".join(told.split())


def test_every_row_of_every_table_of_dropped_rows_is_explained(finished, ask):
    told = 0
    for step, stem in (
        ("clean_queries", "cleaned"),
        ("deduplicate_queries", "deduplicated"),
        ("decontaminate_queries", "decontaminated"),
    ):
        for row in pq.read_table(finished / f"corpus/{stem}.dropped.parquet").to_pylist():
            place, detail = row["detail"].split(": ", 1)
            life = ask(finished, place)
            assert line_of(life, step) == f"{step} dropped {row['reason']}: {why.shown(detail)}"
            assert life.startswith(f"query {row['query_id']}\n") and "teacher" not in life
            told += 1
    for source in SOURCES:
        for row in pq.read_table(finished / f"corpus/imported/{source}.dropped.parquet").to_pylist():
            place, detail = row["detail"].split(": ", 1)
            said = f"import_source dropped {row['reason']}: {why.shown(detail)}"
            assert line_of(ask(finished, place), "import_source") == said
            told += 1
    assert told == sum(
        pq.read_table(path).num_rows for path in finished.glob("corpus/**/*.dropped.parquet")
    ) and told > len(SOURCES)


def test_of_equal_rows_the_survivor_lives_on_and_names_the_others(finished, ask):
    duplicate = pq.read_table(finished / "corpus/duplicates.parquet").to_pylist()[0]
    kept, dropped = (f"{duplicate[f'{side}_source']}/{duplicate[f'{side}_source_row']}" for side in ("kept", "dropped"))
    by_id = ask(finished, duplicate["kept"])
    assert by_id == ask(finished, kept)
    assert f"stands for {dropped} (equal)" in by_id and f"same text   {dropped}" in by_id
    other = ask(finished, dropped)
    assert f"is stood for by {kept} (equal)" in other and "shard_corpus" not in other


def test_a_near_duplicate_names_the_other_query_and_how_close_it_is(results, ask):
    first, second = read_table(results / "corpus/shards/0.parquet", QUERIES).slice(0, 2).to_pylist()
    pair = {
        "kept": first["query_id"],
        "kept_source": first["source"],
        "kept_source_row": first["source_row"],
        "dropped": second["query_id"],
        "dropped_source": second["source"],
        "dropped_source_row": second["source_row"],
    }
    table = pa.Table.from_pylist([{**pair, "method": "near", "similarity": 0.913}])
    pq.write_table(table, results / "corpus/duplicates.parquet")
    told = ask(results, first["query_id"])
    label = f"{second['source']}/{second['source_row']}"
    assert f"stands for {label} (close, 0.91, query {second['query_id']})" in told
    assert f"query {first['query_id']})" in ask(results, second["query_id"])


def test_a_contaminated_query_is_shown_beside_its_problem(finished, ask):
    (place, *_) = planted(finished, "contaminated_framed")
    told = ask(finished, "/".join(place))
    pairs = pq.read_table(finished / "corpus/contamination.parquet").to_pylist()
    mine = [pair for pair in pairs if f"query {pair['query_id']}\n" in told]
    assert len(mine) >= 2
    for pair in mine:
        problem = f"{pair['benchmark']}/{pair['problem_id']}"
        assert f"close to {problem} by {pair['method']}, {pair['score']:.3f}, falls for it: {pair['problem']}" in told


def test_a_row_of_the_import_that_is_named_by_its_place(finished, ask):
    (place, *_) = planted(finished, "invalid_json")
    told = ask(finished, place[1])
    assert told.startswith(f"{place[1]} of source {place[0]}\n") and "invalid_json" in told


def test_code_shows_its_tests_in_brief(finished, ask):
    row = next(
        row for row in read_table(finished / "corpus/shards/0.parquet", QUERIES).to_pylist() if row["tests"] is not None
    )
    tests = json.loads(row["tests"])
    cases = len(tests["assert_case"] if tests["call_type"] == "assert" else tests["inputs"])
    assert f"tests       {cases} of kind {tests['call_type']}" in ask(finished, row["query_id"])


# --- the teachers ----------------------------------------------------------------------------------------------------


def test_a_query_given_up_and_one_curated_away(finished, ask):
    attempts = collected(finished, "leaps")
    lost = attempts.groupby("query_id")["accepted"].any()
    query = lost.index[~lost][0]
    leaps = ask(finished, query).split("teacher leaps")[1]
    assert leaps.count("fail 0.00: different") == study_tables.ATTEMPTS
    assert line_of(leaps, "collect_attempts").endswith("dropped give_up: no attempt of 3 was accepted")
    assert "curate_traces" not in leaps
    (gone,) = pq.read_table(finished / "curation/leaps/0/traces.dropped.parquet")["query_id"].to_pylist()
    leaps = ask(finished, gone).split("teacher leaps")[1]
    assert line_of(leaps, "curate_traces") == "curate_traces dropped perplexity_above_threshold: 2.100 > 1.7"
    assert "match_datasets" not in leaps


def test_a_trace_outside_of_a_dataset_says_why(finished, ask):
    folder = finished / f"datasets/{study_tables.CONTROL}"
    left_out = set(pq.read_table(folder / "steps.dropped.parquet")["query_id"].to_pylist())
    own = pq.read_table(finished / "datasets/own_passes/steps.parquet")["query_id"].to_pylist()
    steps = ask(finished, next(query for query in own if query in left_out)).split("teacher ")[1]
    lines = [" ".join(line.split()) for line in steps.splitlines() if "match_datasets" in line]
    assert lines == [
        f"match_datasets dropped {study_tables.CONTROL}: not_solved_by_all",
        "match_datasets kept datasets/own_passes/steps.parquet",
    ]


def test_published_answers_that_were_dropped_are_told(results, ask):
    config = _config(results)
    config["teachers"]["leaps"] = {
        **study_tables.TEACHERS["leaps"],
        "engine": "dataset",
        "model": "published",
        "traces": "./published",
        "traces_layout": "am",
        "answer_format": "thinking_only",
    }
    (results / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    query = read_frame(results / f"datasets/{study_tables.CONTROL}/steps.parquet", TRACES)["query_id"][0]
    ledger = Ledger("import_traces", "leaps", 1)
    ledger.drop(query, "duplicate_answer", "math.jsonl:7")
    (results / "generation/leaps").mkdir(parents=True)
    ledger.write(
        results / "generation/leaps/traces.ledger.parquet", results / "generation/leaps/traces.dropped.parquet"
    )
    leaps = ask(results, query).split("teacher leaps")[1]
    assert line_of(leaps, "import_traces") == "import_traces dropped duplicate_answer: math.jsonl:7"


# --- results that are not whole --------------------------------------------------------------------------------------


def test_steps_that_have_not_run_are_said_to_be_missing(results, ask):
    query = read_frame(results / f"datasets/{study_tables.CONTROL}/steps.parquet", TRACES)["query_id"][0]
    for path, step in (
        (f"datasets/{study_tables.CONTROL}/steps.parquet", "match_datasets"),
        ("curation/steps/0/traces.parquet", "curate_traces"),
        ("verification/steps/0/attempts.parquet", "collect_attempts"),
        ("corpus/shards/0.parquet", "shard_corpus"),
        ("corpus/decontaminated.parquet", "decontaminate_queries"),
        ("corpus/deduplicated.parquet", "deduplicate_queries"),
        ("corpus/cleaned.parquet", "clean_queries"),
    ):
        (results / path).unlink()
        steps = ask(results, query).split("teacher recheck")[0]
        (line, *_) = [line for line in steps.splitlines() if step in line]
        assert line.split()[1] == "-" and "has not run" in line
    for folder in ("verification", "curation", "datasets", "export"):
        shutil.rmtree(results / folder)
    assert "teacher" not in ask(results, query)


def test_before_a_shard_is_closed_its_rounds_are_told(results, ask):
    attempts = collected(results, "leaps")
    query = attempts.loc[attempts["attempt"] == 2, "query_id"].iloc[0]
    for round_ in (0, 1):
        rows = attempts[attempts["round"] == round_]
        write_table(results / f"generation/leaps/0/round{round_}.parquet", rows, ATTEMPTS)
    rows = attempts[attempts["round"] == 0]
    write_table(results / "verification/leaps/0/round0.parquet", rows, VERDICTS)
    (results / "verification/leaps/0/attempts.parquet").unlink()
    leaps = ask(results, query).split("teacher leaps")[1]
    first, second = [line for line in leaps.splitlines() if "attempt " in line]
    assert first.endswith("fail 0.00: different") and second.endswith("no verdict yet")
    assert "more may follow" in line_of(leaps, "collect_attempts")


def test_shards_alone_tell_where_a_query_came_from(results, ask):
    row = read_table(results / "corpus/shards/0.parquet", QUERIES).to_pylist()[0]
    for path in (results / "corpus").iterdir():
        if path.name != "shards":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    told = ask(results, row["query_id"][:12])
    assert f"source      {row['source']}, row {row['source_row']}" in told


def test_the_right_one_of_several_shards_is_opened(results, ask):
    rows = read_table(results / "corpus/shards/0.parquet", QUERIES).to_pylist()
    shutil.rmtree(results / "corpus/imported")
    config = _config(results)
    config["corpus"]["shards"] = 3
    (results / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for shard in range(3):
        mine = [row for row in rows if shard_of(row["query_id"], 3) == shard]
        write_table(results / f"corpus/shards/{shard}.parquet", mine, QUERIES)
    for shard in range(3):
        query = next(row["query_id"] for row in rows if shard_of(row["query_id"], 3) == shard)
        for digits in (query, query[:8]):
            assert line_of(ask(results, digits), "shard_corpus").endswith(f"kept corpus/shards/{shard}.parquet")


def test_tables_of_another_run_are_not_taken_for_an_answer(results, ask):
    row = read_table(results / "corpus/shards/0.parquet", QUERIES).to_pylist()[0]
    selected = read_table(results / "corpus/cleaned.parquet", SELECTED)
    others = selected.filter(pc.not_equal(selected["query_id"], row["query_id"]))
    write_table(results / "corpus/cleaned.parquet", others, SELECTED)
    assert "made from other inputs" in line_of(ask(results, row["query_id"]), "clean_queries")


def test_a_damaged_table_is_one_line(results):
    path = results / "corpus/cleaned.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    query = read_frame(results / "corpus/shards/0.parquet", QUERIES)["query_id"][0]
    assert "a table cannot be read" in refusal(results, query)


# --- finding ---------------------------------------------------------------------------------------------------------


def test_few_digits_are_enough_and_too_few_are_refused(finished, ask):
    queries = read_frame(finished / "corpus/shards/0.parquet", QUERIES)["query_id"]
    assert ask(finished, queries[3][:6].upper()) == ask(finished, queries[3])
    assert "give at least 6 digits" in refusal(finished, queries[3][:5])


def test_digits_of_several_queries_list_them(results):
    path = results / "corpus/imported/sums.parquet"
    rows = read_table(path, QUERIES).slice(0, 15).to_pylist()
    for number, row in enumerate(rows):
        row["query_id"] = f"abcdef{number:026x}"
    write_table(path, rows, QUERIES)
    told = refusal(results, "abcdef").splitlines()
    assert told[0] == "why: abcdef is 15 queries:" and told[-1] == "  and 3 more"
    assert told[1] == f"  abcdef{0:026x}  sums/{rows[0]['source_row']}"


@pytest.mark.parametrize(
    "query", ["0" * 32, "deadbeef", "sums/nowhere", "nowhere/1", "sums.jsonl:999999", "?!", "", "f" * 33]
)
def test_what_nobody_knows_is_one_line(finished, query):
    told = refusal(finished, query)
    assert told.startswith("why: ") and "\n" not in told


def test_text_cannot_steer_the_terminal(results, ask):
    path = results / "corpus/imported/sums.parquet"
    (row, *rest) = read_table(path, QUERIES).to_pylist()
    row["turns"] = [{"role": "user", "content": "\x1b[2J\u202eevil\n\ttext " + "long " * 100}]
    write_table(path, [row, *rest], QUERIES)
    told = ask(results, f"sums/{row['source_row']}")
    assert "\\x1b[2J\\u202eevil text long" in told and "\x1b" not in told
    assert f"… ({len(row['turns'][0]['content'])} characters)" in told


def test_what_is_wrong_with_a_configuration_is_said(finished, tmp_path, capsys):
    def ended(path):
        with pytest.raises(SystemExit) as refused:
            why.main(["sums/1", "--config", str(path)])
        return refused.value.code

    path = tmp_path / "config.yaml"
    assert "name a configuration file" in ended(path)
    path.write_text("a: [")
    assert "is no YAML" in ended(path)
    path.write_text("- a\n")
    assert "holds no keys" in ended(path)
    wrong = _config(finished) | {"shardz": 3}
    path.write_text(yaml.safe_dump(wrong))
    assert ended(path).startswith("config key shardz: unknown key")
    path.write_text(yaml.safe_dump(_config(tmp_path / "nothing")))
    assert "no results of a study" in ended(path)


def test_the_configuration_says_where_the_results_are(finished, capsys):
    (place, *_) = planted(finished, "url")
    assert why.main(["/".join(place), "--config", str(finished / "config.yaml")]) == 0
    assert "dropped  url" in capsys.readouterr().out


# --- scale -----------------------------------------------------------------------------------------------------------


def test_only_the_key_is_read_of_row_groups_without_the_query(tmp_path, monkeypatch):
    """Of a sorted table one row group is read, of another table the keys and then one row group."""
    identifiers = [f"{number:032x}" for number in range(1000)]
    batches = [
        pa.table({"query_id": identifiers[start : start + 100], "text": ["t"] * 100}) for start in range(0, 1000, 100)
    ]
    schema = pa.schema([pa.field("query_id", pa.string(), False), pa.field("text", pa.string(), False)])
    write_batches(tmp_path / "sorted.parquet", batches, schema)
    mixed = pa.concat_tables(batches).take(pa.array(np.random.default_rng(0).permutation(1000)))
    write_batches(tmp_path / "mixed.parquet", [mixed.slice(start, 100) for start in range(0, 1000, 100)], schema)
    read = []
    whole = pq.ParquetFile.read_row_group

    def watched(self, group, columns=None, **options):
        read.append((group, tuple(columns)))
        return whole(self, group, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    ((place, row),) = why.rows_where(tmp_path / "sorted.parquet", "query_id", identifiers[345], ["text", "absent"])
    assert place == 345 and row == {"text": "t"}
    assert read == [(3, ("query_id",)), (3, ("text",))]
    read.clear()
    why.rows_where(tmp_path / "mixed.parquet", "query_id", identifiers[345], ["text"])
    assert [columns for _, columns in read].count(("text",)) == 1


def test_digits_find_what_a_plain_search_finds(tmp_path):
    rng = np.random.default_rng(1)
    identifiers = sorted(f"{number:04x}" for number in rng.integers(0, 2**16, 300))
    groups = [pa.table({"query_id": identifiers[start : start + 7]}) for start in range(0, 300, 7)]
    write_batches(tmp_path / "t.parquet", groups, pa.schema([pa.field("query_id", pa.string(), False)]))
    for digits in ("0", "f", "ff", "8", "80", identifiers[0], identifiers[-1], identifiers[150][:3], "0000", "ffff"):
        found = why.rows_where(tmp_path / "t.parquet", "query_id", digits, ["query_id"], prefix=True)
        assert [row["query_id"] for _, row in found] == [each for each in identifiers if each.startswith(digits)]
