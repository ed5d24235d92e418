"""The miniature's corpus and benchmarks: what is planted is exactly what the corpus stage removes."""

import json
import re
from collections import Counter

import pyarrow as pa
import pytest
from clean_queries import main as clean_queries
from decontaminate_queries import main as decontaminate_queries
from deduplicate_queries import main as deduplicate_queries
from import_benchmark import main as import_benchmark
from import_source import main as import_source
from make_miniature_benchmarks import benchmark_rows
from make_miniature_benchmarks import main as make_miniature_benchmarks
from make_miniature_corpus import _MALFORMED, DROPPED, SURVIVING, make_corpus, reword
from make_miniature_corpus import main as make_miniature_corpus
from shard_corpus import main as shard_corpus

from whichteacher import schemas
from whichteacher.config import CATEGORIES, Clean, Decontaminate, Deduplicate
from whichteacher.embedding import encode_hashed_words
from whichteacher.miniature.benchmarks import make_benchmark
from whichteacher.queries import normalise, shard_of
from whichteacher.rule import InputError
from whichteacher.selection import selected_batches
from whichteacher.tables import as_table, read_frame, read_table

SOURCES = {category: category for category in CATEGORIES}
QUERIES = dict(zip(CATEGORIES, (120, 60, 50, 40, 40, 40), strict=True))
BENCHMARKS = {"easy_math": 30, "hard_math": 20, "code_tasks": 20}
ROLES = {"easy_math": "MATH500", "hard_math": "AIME2024", "code_tasks": "LiveCodeBench"}
COLUMNS = {"id": "id", "turns": "turns", "answer": "answer", "answer_type": "answer_type", "tests": "tests"}
DEDUPLICATE = Deduplicate().model_dump()
DECONTAMINATE = Decontaminate(embedder="hashed_words", containment=0.7).model_dump()
PLANTED = 12


def corpus(seed=1, planted=PLANTED, benchmarks=BENCHMARKS, **queries):
    return make_corpus(SOURCES, {**QUERIES, **queries}, benchmarks, planted, seed)


@pytest.fixture(scope="module", params=[1, 2, 3])
def stage(request, tmp_path_factory):
    """The whole corpus stage, run on a generated corpus; the folder of its tables."""
    folder = tmp_path_factory.mktemp("corpus")

    def out(name, *kinds):
        return {
            kind: str(folder / (f"{name}.parquet" if kind == "table" else f"{name}.{kind}.parquet")) for kind in kinds
        }

    three = ("table", "ledger", "dropped")
    paths = {source: str(folder / f"{source}.jsonl") for source in SOURCES}
    make_miniature_corpus(paths, str(folder / "planted.json"), SOURCES, QUERIES, BENCHMARKS, PLANTED, request.param)
    problems = {name: str(folder / f"{name}.benchmark.jsonl") for name in BENCHMARKS}
    make_miniature_benchmarks(BENCHMARKS, problems)
    for source, category in SOURCES.items():
        columns = {**COLUMNS, "constraints": "constraints"}
        settings = {"path": paths[source], "category": category, "licence": "Apache-2.0", "columns": columns}
        import_source(source, settings, **out(source, *three))
    for name, path in problems.items():
        category = "code" if name == "code_tasks" else "math"
        settings = {"path": path, "category": category, "role": ROLES[name], "expected_problems": BENCHMARKS[name]}
        import_benchmark(name, {**settings, "columns": {**COLUMNS, "difficulty": "difficulty"}}, **out(name, "table"))
    imported = [str(folder / f"{source}.parquet") for source in SOURCES]
    clean_queries(imported, Clean().model_dump(), **out("cleaned", *three))
    cleaned, single = str(folder / "cleaned.parquet"), str(folder / "deduplicated.parquet")
    pairs = {"duplicates": str(folder / "duplicates.parquet")}
    deduplicate_queries(imported, cleaned, list(SOURCES), DEDUPLICATE, **out("deduplicated", *three), **pairs)
    benchmarks = [str(folder / f"{name}.parquet") for name in BENCHMARKS]
    pairs = {name: str(folder / f"{name}.parquet") for name in ("contamination", "sweep")}
    decontaminate_queries(imported, single, benchmarks, DECONTAMINATE, **out("decontaminated", *three), **pairs)
    shards = [str(folder / f"shard{shard}.parquet") for shard in range(3)]
    shard_corpus(imported, str(folder / "decontaminated.parquet"), shards)
    return folder


def corpus_left(folder):
    """The queries that are left, in the order of their sources and rows there."""
    selected = read_table(folder / "decontaminated.parquet", schemas.SELECTED)
    imported = [folder / f"{source}.parquet" for source in SOURCES]
    return as_table(pa.concat_tables(selected_batches(imported, selected, schemas.QUERIES.names)), schemas.QUERIES)


def dropped_rows(folder):
    """Reason of every dropped row, by ``source/row`` or ``file:line``."""
    steps = [*SOURCES, "cleaned", "deduplicated", "decontaminated"]
    dropped = read_frame([folder / f"{step}.dropped.parquet" for step in steps], schemas.DROPPED)
    return list(zip(dropped["detail"].str.split(": ").str[0], dropped["reason"], strict=True))


def test_exactly_what_was_planted_is_removed(stage):
    planted = json.loads((stage / "planted.json").read_text())
    wanted = [
        (row if kind in _MALFORMED else f"{source}/{row}", reason)
        for kind, reason in DROPPED.items()
        for source, row in planted[kind]
    ]
    assert set(Counter(map(len, planted.values()))) == {PLANTED}
    assert Counter(dropped_rows(stage)) == Counter(wanted)


def test_planted_innocents_survive_and_counts_add_up(stage):
    left = corpus_left(stage).to_pandas()
    rows = set(left["source"] + "/" + left["source_row"])
    planted = json.loads((stage / "planted.json").read_text())
    for kind in SURVIVING:
        assert {f"{source}/{row}" for source, row in planted[kind]} <= rows
    assert len(left) == sum(QUERIES.values()) + len(SURVIVING) * PLANTED


@pytest.mark.parametrize(
    # By default near duplicates are longer texts; smaller n-grams compare the miniature's few words as well.
    ("settings", "found", "nothing_else"),
    [({}, 9, True), ({"ngram": 2, "similarity": 0.5}, PLANTED, False)],
)
def test_planted_near_duplicates_leave_if_asked_for(stage, tmp_path, settings, found, nothing_else):
    imported = [str(stage / f"{source}.parquet") for source in SOURCES]
    out = {name: str(tmp_path / f"{name}.parquet") for name in ("table", "duplicates", "ledger", "dropped")}
    near = Deduplicate(near=True, **settings).model_dump()
    deduplicate_queries(imported, str(stage / "cleaned.parquet"), list(SOURCES), near, **out)
    dropped = read_frame(out["dropped"], schemas.DROPPED)
    rows = set(dropped.loc[dropped["reason"] == "near_duplicate", "detail"].str.split(": ").str[0])
    planted = {f"{source}/{row}" for source, row in json.loads((stage / "planted.json").read_text())["near_duplicate"]}
    assert len(rows & planted) >= found
    assert not nothing_else or rows <= planted
    pairs = read_frame(out["duplicates"], schemas.DUPLICATES).set_index("method").loc["near"]
    assert rows == set(pairs["dropped_source"] + "/" + pairs["dropped_source_row"])
    left = read_frame(out["table"], schemas.SELECTED)["query_id"]
    assert set(pairs["kept"]) <= set(left)
    assert set(pairs["dropped"]).isdisjoint(left)
    assert pairs["similarity"].between(near["similarity"], 1).all()


def test_nothing_left_is_a_benchmark_problem(stage):
    left = corpus_left(stage).to_pylist()
    problems = read_frame([stage / f"{name}.parquet" for name in BENCHMARKS], schemas.BENCHMARK_PROBLEMS)
    contents = [turn["content"] for row in left for turn in row["turns"]]
    assert {normalise(content) for content in contents}.isdisjoint(map(normalise, problems["prompt"]))
    similarity = encode_hashed_words(contents) @ encode_hashed_words(problems["prompt"].tolist()).T
    assert similarity.max() < DECONTAMINATE["similarity"]
    # Not by a hair: the nearest innocent and the farthest reworded copy stand well apart.
    flagged = read_frame(stage / "contamination.parquet", schemas.CONTAMINATION)
    assert similarity.max() < 0.85 < flagged.loc[flagged["method"] == "embedding", "score"].min() - 0.05


def test_shards_hold_every_query_once(stage):
    queries = corpus_left(stage)
    shards = [read_table(stage / f"shard{shard}.parquet", schemas.QUERIES) for shard in range(3)]
    assert pa.concat_tables(shards).equals(queries.sort_by("query_id"))
    for number, shard in enumerate(shards):
        assert {shard_of(identifier, 3) for identifier in shard["query_id"].to_pylist()} == {number}


def test_equal_seeds_give_equal_bytes_and_others_do_not():
    assert corpus() == corpus()
    assert corpus(seed=2)[0]["math"] != corpus()[0]["math"]


def test_more_queries_move_nothing():
    lines, planted = corpus()
    more, same = corpus(math=QUERIES["math"] + 50, general=QUERIES["general"] + 1)
    assert same == planted
    for source in SOURCES:
        assert more[source][: len(lines[source])] == lines[source]
    assert [len(more[source]) - len(lines[source]) for source in SOURCES] == [50, 0, 0, 0, 0, 1]


def test_small_corpora():
    lines, planted = corpus(planted=0)
    assert [len(lines[source]) for source in SOURCES] == list(QUERIES.values())
    assert all(not rows for rows in planted.values())
    few = dict.fromkeys(CATEGORIES, 6)
    assert len(corpus(planted=3, benchmarks={}, **few)[1]["contaminated_exact"]) == 0


def test_benchmarks_do_not_follow_the_corpus_and_grow_at_the_end():
    rows = benchmark_rows("hard_math", 40)
    assert rows[:20] == benchmark_rows("hard_math", 20)
    assert len({row["turns"][0]["content"] for row in rows}) == 40
    assert all(0 <= int(row["answer"]) <= 999 for row in rows)


def test_no_drawn_query_has_the_task_of_a_problem():
    """Not even in other words: what is contaminated is what was planted."""

    def sums(rows):
        return {(tuple(re.findall(r"\d+", row["turns"][-1]["content"])), row["answer"]) for row in rows}

    problems = [
        row for name, count in BENCHMARKS.items() if name != "code_tasks" for row in benchmark_rows(name, count)
    ]
    for seed in range(5):
        drawn = map(json.loads, corpus(seed)[0]["math"][-QUERIES["math"] :])
        assert sums(drawn).isdisjoint(sums(problems))


def test_rewording_keeps_numbers_and_changes_words():
    for name, count in BENCHMARKS.items():
        for problem in make_benchmark(name, count):
            said = reword(problem)
            assert said != problem.prompt
            assert [c for c in said if c.isdigit()] == [c for c in problem.prompt if c.isdigit()]


def test_settings_that_do_not_fit(tmp_path):
    def make(sources, path="{}.jsonl"):
        paths = {source: str(tmp_path / path.format(source)) for source in sources}
        make_miniature_corpus(paths, str(tmp_path / "planted.json"), sources, {"math": 5}, {}, 0, 1)

    make({"sums": "math"})
    with pytest.raises(InputError, match=r"miniature\.queries has no code"):
        make({"programs": "code"})
    with pytest.raises(InputError, match="share a category"):
        make({"sums": "math", "more": "math"})
    with pytest.raises(InputError, match=r"call the file sums\.jsonl"):
        make({"sums": "math"}, "{}.csv")
    with pytest.raises(InputError, match=r"lower config key miniature\.queries\.instruction_following"):
        corpus(instruction_following=100_000)
