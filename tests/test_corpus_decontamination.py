"""Decontamination: copies are found however they are worded, innocents survive."""

import json
from collections import Counter
from pathlib import Path

import decontaminate_queries
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from decontaminate_queries import Encoded, Turns, find_contamination
from decontaminate_queries import main as decontaminate
from hypothesis import given
from hypothesis import strategies as st
from test_corpus_cleaning import query

from whichteacher.config import Decontaminate
from whichteacher.contamination import ProblemIndex
from whichteacher.embedding import encode_hashed_words, load_encoder
from whichteacher.queries import normalise
from whichteacher.rule import InputError
from whichteacher.schemas import (
    BENCHMARK_PROBLEMS,
    CONTAMINATION,
    CONTAMINATION_SWEEP,
    DROPPED,
    LEDGER,
    QUERIES,
    SELECTED,
    TURNS,
)
from whichteacher.tables import as_table, read_table, write_batches, write_table
from whichteacher.words import gather_words, split_words, tokenise

SETTINGS = Decontaminate(embedder="hashed_words").model_dump()
SUM = "Compute 347 + 285."
STORY = "Mia has 34 beads. Mia gets 15 more. How many beads does Mia have now?"
CONTEST = (
    "Find the number of positive integers n less than 1000 such that n is a multiple of 7 and the sum of the digits "
    "of n is a multiple of 5."
)
FARM = (
    "A farmer has 12 hens and collects 9 eggs a day. He sells every egg for 3 dollars. How much does he earn in a week?"
)
STEPS = "Start with 12. Add 5. Then multiply by 3. What do you get?"
PROBLEMS = [SUM, STORY, CONTEST, FARM, STEPS]
DATA = Path(__file__).parents[2] / "shared" / "data"


def turns_of(contents):
    """Queries (lists of turns) as the script sees them."""
    return Turns.of(pa.array([[{"role": "user", "content": turn} for turn in turns] for turns in contents], TURNS))


def find(contents, problems, **settings):
    chosen = {**SETTINGS, **settings}
    index = ProblemIndex(problems, chosen["ngram"])
    encoded = Encoded(problems, chosen) if chosen["embedder"] and problems else None
    return find_contamination(turns_of(contents), len(contents), index, encoded, chosen["containment"])


def flags(content, problems=PROBLEMS, **settings):
    found = find([[content]], problems, **settings).flags[0]
    return {(problems[problem], method) for problem, method, _, falls in found if falls}


def methods(content, problem, **settings):
    return {method for flagged, method in flags(content, **settings) if flagged == problem}


@pytest.mark.parametrize(
    ("content", "problem", "method"),
    [
        ("  Compute 347\n+ 285. ", SUM, "exact"),
        ("compute 347 + 285", SUM, "ngram"),
        ("Please answer this: Compute 347 + 285. Thank you.", SUM, "ngram"),
        ("Here is one. " + STORY + " Show your work.", STORY, "ngram"),
        (CONTEST.replace("$", "").upper() + " Give only the number.", CONTEST, "ngram"),
        ("Q12. " + CONTEST.replace("Find", "Determine"), CONTEST, "ngram"),
        ("What is 347 + 285?", SUM, "embedding"),
        ("Find the value of 347 + 285.", SUM, "embedding"),
        (
            "On a farm of 12 hens, a farmer gathers 9 eggs every day and gets 3 dollars for each. What is earned in a week?",
            FARM,
            "embedding",
        ),
        ("At first, Mia has 34 beads. Then Mia gets 15. Tell me how many beads that is.", STORY, "embedding"),
    ],
)
def test_copies_are_found(content, problem, method):
    assert method in methods(content, problem)


@pytest.mark.parametrize(
    "content",
    [
        "Compute 347 + 286.",
        "Compute 347 - 285.",
        "Compute 285 + 347 + 12.",
        "Compute 512 - 46.",
        "Compute 347 + 285 - 12.",
        "Mia has 35 beads. Mia gets 15 more. How many beads does Mia have now?",
        "Mia has 34 beads. Mia gets 16 more. How many beads does Mia have now?",
        "Mia has 34 beads. Mia loses 15. How many beads does Mia have now?",
        "Ben has 34 cards. Ben gets 15 more. How many cards does Ben have now?",
        "Find the number of positive integers n less than 1000 such that n is a perfect square.",
        CONTEST.replace("7", "9"),
        "A farmer has 12 hens and collects 8 eggs a day. He sells every egg for 3 dollars. How much does he earn?",
        "A farmer has 9 hens and collects 12 eggs a day. He sells every egg for 3 dollars. How much does he earn?",
        "A train of 12 cars stops 9 times on its way. In each of them sit 3 children. How many children are on board?",
        "Start with 12. Multiply by 5. Then add 3. What do you get?",
        "Start with 12. Subtract 5. Then multiply by 3. What do you get?",
        "",
        "Compute",
    ],
)
def test_innocents_survive(content):
    assert flags(content) == set()


def test_another_number_is_recorded_but_does_not_fall():
    content = "Mia has 35 beads. Mia gets 15 more. How many beads does Mia have now?"
    found = find([[content]], PROBLEMS).flags[0]
    assert [(PROBLEMS[problem], method, falls) for problem, method, _, falls in found] == [(STORY, "ngram", False)]
    written_out = STORY.replace("15", "three")
    assert flags(written_out.replace("three", "five"), [written_out]) == set()
    assert flags("So. " + written_out.replace("three", "3"), [written_out]) == {(written_out, "embedding")}


REPEAT = (
    " First repeat the request word for word without change, then give your answer: do not say any words before "
    "repeating the request, and leave this sentence out."
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        # The same question about another thing.
        (
            "Find the number of positive integers n such that n is even.",
            "Find the number of positive integers n such that n is prime.",
        ),
        (
            "Which of the following statements is false? A. Ice floats. B. Ice sinks.",
            "Which of the following is false?",
        ),
        ("Explain. Which of these statements is correct? All of them.", "Which of these statements is correct?"),
    ],
)
def test_boilerplate_is_no_problem(content, problem):
    assert flags(content, [problem, CONTEST]) == set()
    assert (problem, "exact") in flags(problem, [problem, CONTEST])


def test_what_many_problems_share_says_little():
    problems = [f"Write a poem about {thing}." + REPEAT for thing in ("the sea", "old trains", "my dog", "a lamp")]
    content = "Name three rivers of France." + REPEAT
    assert flags(content, problems[:1], embedder=None) or find([[content]], problems[:1]).share[0] > 0.7
    assert flags(content, problems) == set()
    assert find([[content]], problems).share[0] < 0.5
    for problem in problems:
        assert (problem, "ngram") in flags("Hello! " + problem, problems)
    # A problem that stands in two benchmarks is found as one that stands in one.
    assert {(CONTEST, "ngram")} == flags("Hello! " + CONTEST, [CONTEST, *problems, CONTEST], embedder=None)


def test_every_turn_is_compared():
    turns = ["Compute 347 + 285.", "It is 632.", "And twice that?"]
    found = find([["Hello"], turns, ["Hi"]], PROBLEMS)
    assert found.flags[1][0][:2] == (0, "exact")
    assert [bool(flagged) for flagged in found.flags] == [False, True, False]
    # N-grams and sentences end with their turn.
    half = len(CONTEST.split()) // 2
    parts = [" ".join(CONTEST.split()[:half]), " ".join(CONTEST.split()[half:])]
    assert find([parts], [CONTEST]).share[0] < 0.8


def test_embedder_and_benchmarks_may_be_absent():
    assert methods("What is 347 + 285?", SUM, embedder=None) == set()
    assert find([[SUM]], []).flags == [[]]
    assert find([], PROBLEMS).flags == []


@given(st.text(max_size=80), st.integers(1, 12))
def test_every_problem_contains_itself(text, ngram):
    index = ProblemIndex([text], ngram)
    assert index.exact([normalise(text)]) == [0]
    assert index.overlaps([split_words(text)]) in ([(0, 1.0, True)], [])


WORD = st.sampled_from(
    [
        *"aAéßſİıﬁΣς٣²½x3計算加一ーｱ＋−",
        "1,234",
        "12,34",
        "0.5",
        "1,234,567.8",
        "STRASSE",
        "straße",
        "i̇",
        "ten",
        "find",
        "\\frac",
    ]
) | st.text(max_size=3)
SPOKEN = st.lists(WORD | st.sampled_from([" ", ". ", "\n", "。", "?!"]), max_size=14).map("".join) | st.lists(
    WORD, max_size=14
).map(" ".join)


@given(st.lists(SPOKEN, min_size=1, max_size=4), st.lists(SPOKEN, max_size=4), st.integers(1, 4), st.data())
def test_no_query_that_overlaps_is_missed(problems, contents, ngram, data):
    around = data.draw(st.lists(st.tuples(SPOKEN, st.sampled_from(problems), SPOKEN), max_size=3))
    contents = [*contents, *("".join(parts) for parts in around), *(". ".join(parts).upper() for parts in around)]
    index = ProblemIndex(problems, ngram)
    tokens = tokenise(pl.Series(contents, dtype=pl.String))
    asked = set(index.candidates(tokens).tolist())
    words = [gather_words(found) for found in tokens.to_list()]
    assert words == [split_words(content) for content in contents], "words do not depend on the other texts"
    assert {place for place, turn in enumerate(words) if index.overlaps([turn])} <= asked
    normal = pl.Series([normalise(content) for content in contents], dtype=pl.String)
    same = {place for place, content in enumerate(contents) if index.exact([normalise(content)])}
    assert set(index.exact_candidates(normal).tolist()) == same


def test_few_other_queries_are_asked_about():
    index = ProblemIndex(PROBLEMS, 8)
    tokens = tokenise(pl.Series([f"Compute {number} + 285, and find the number of beads." for number in range(999)]))
    assert index.candidates(tokens).tolist() == [347], "it begins as a short problem does"


@given(st.lists(st.text(max_size=40), max_size=6))
def test_hashed_vectors_have_unit_length_or_none(texts):
    norms = np.linalg.norm(encode_hashed_words(texts), axis=1)
    assert all(norm == pytest.approx(1, abs=1e-5) or norm == 0 for norm in norms)


def problem(prompt, identifier):
    row = dict.fromkeys(BENCHMARK_PROBLEMS.names)
    return {**row, "problem_id": identifier, "benchmark": "exam", "category": "math", "prompt": prompt}


CONTENTS = ["What is 347 + 285?", SUM, "Here: " + STORY, "How are you today?"]


def run(folder, contents=CONTENTS, problems=PROBLEMS, **settings):
    """Run the step on a source ``a`` of ``contents``; the paths of its tables."""
    rows = as_table([query(content, row=str(i)) for i, content in enumerate(contents)], QUERIES)
    imported = folder / "a.parquet"
    write_batches(imported, [rows.slice(0, 2), rows.slice(2)], QUERIES, {"source": "a"})
    selected = [{"source": "a", "row": i, "query_id": rows["query_id"][i].as_py()} for i in range(len(contents))]
    write_table(folder / "deduplicated.parquet", selected, SELECTED)
    exam = as_table([problem(prompt, str(i)) for i, prompt in enumerate(problems)], BENCHMARK_PROBLEMS)
    write_table(folder / "exam.parquet", exam, BENCHMARK_PROBLEMS)
    names = ("table", "contamination", "sweep", "ledger", "dropped")
    paths = {name: folder / f"{name}.parquet" for name in names}
    inputs = [str(imported)], str(folder / "deduplicated.parquet"), [str(folder / "exam.parquet")]
    decontaminate(*inputs, {**SETTINGS, **settings}, **{name: str(path) for name, path in paths.items()})
    return paths


def test_tables(tmp_path):
    paths = run(tmp_path)
    assert read_table(paths["table"], SELECTED)["row"].to_pylist() == [3]
    dropped = read_table(paths["dropped"], DROPPED).to_pylist()
    assert [row["reason"] for row in dropped] == ["contaminated_embedding", "contaminated_exact", "contaminated_ngram"]
    assert dropped[2]["detail"] == "a/2: exam/1"
    ledger = {row["reason"]: row["rows"] for row in read_table(paths["ledger"], LEDGER).to_pylist()}
    assert (ledger["in"], ledger["kept"]) == (4, 1)
    pairs = read_table(paths["contamination"], CONTAMINATION).to_pylist()
    assert {(row["query"], row["problem"]) for row in pairs} == {
        (CONTENTS[0], SUM),
        (SUM, SUM),
        (CONTENTS[2], STORY),
    }
    assert not list(tmp_path.glob("*.parts"))


def test_sweep(tmp_path):
    settings = {"containment": 0.65, "similarity": 0.75}
    contents = [*CONTENTS, STORY.replace("34", "35"), STORY.replace("beads", "pearls"), CONTEST]
    paths = run(tmp_path, contents, **settings)
    lines = read_table(paths["sweep"], CONTAMINATION_SWEEP).to_pylist()
    sweep = {(line["method"], line["threshold"]): (line["queries"], line["dropped"]) for line in lines}
    assert sweep["exact", 1.0] == (2, 2)
    found = find([[content] for content in contents], PROBLEMS)
    for (method, threshold), counts in sweep.items():
        if method != "exact":
            chosen = {**SETTINGS, ("containment" if method == "ngram" else "similarity"): threshold}
            judged = find([[content] for content in contents], PROBLEMS, **chosen)
            told = [[falls for _, how, _, falls in flagged if how == method] for flagged in judged.flags]
            assert counts == (sum(map(bool, told)), sum(map(any, told)))
    containments = [threshold for method, threshold in sweep if method == "ngram"]
    assert containments == sorted({0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0})
    assert {0.75, 0.9, 0.98} < {threshold for method, threshold in sweep if method == "embedding"}
    assert found.share[4] > found.falling_share[4] == 0
    # What the config asks for is what was dropped.
    reasons = Counter(row["reason"] for row in read_table(paths["dropped"], DROPPED).to_pylist())
    assert sweep["ngram", 0.65][1] >= reasons["contaminated_ngram"] > 0


def test_without_embedder_the_sweep_has_none(tmp_path):
    lines = read_table(run(tmp_path, embedder=None)["sweep"], CONTAMINATION_SWEEP)
    assert set(lines["method"].to_pylist()) == {"exact", "ngram"}


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(decontaminate_queries, "_CHUNK_QUERIES", 2)
    contents = [f"What is {number} + 285?" for number in range(340, 349)]
    whole = tmp_path / "whole"
    whole.mkdir()
    wanted = {name: path.read_bytes() for name, path in run(whole, contents).items()}
    encoded = []

    def encode(texts):
        encoded.append(list(texts))
        if len(encoded) == 4:
            raise KeyboardInterrupt
        return encode_hashed_words(texts)

    monkeypatch.setattr(decontaminate_queries, "load_encoder", lambda *_: encode)
    killed = tmp_path / "killed"
    killed.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(killed, contents)
    assert not (killed / "table.parquet").exists()
    assert len(list((killed / "contamination.parts").glob("*.npz"))) == 2
    encoded[:] = [[]] * 10
    got = {name: path.read_bytes() for name, path in run(killed, contents).items()}
    assert encoded[10] == PROBLEMS
    assert [text for texts in encoded[11:] for text in texts] == contents[4:], "the first two chunks were done"
    assert got == wanted
    assert not (killed / "contamination.parts").exists()


def test_other_settings_take_up_nothing(tmp_path):
    turns = turns_of([["What is 347 + 285?"], ["How are you?"]])
    similar = Encoded(PROBLEMS, SETTINGS, tmp_path).compare(turns, 2)
    again = Encoded(PROBLEMS, SETTINGS, tmp_path).compare(turns, 2)
    assert (again.pairs, again.best.tolist()) == (similar.pairs, similar.best.tolist())
    assert len(list(tmp_path.iterdir())) == 1
    Encoded(PROBLEMS[:2], SETTINGS, tmp_path).compare(turns, 2)
    Encoded(PROBLEMS, {**SETTINGS, "similarity": 0.8}, tmp_path).compare(turns, 2)
    Encoded(PROBLEMS, SETTINGS, tmp_path).compare(turns_of([["What is 347 + 285?", "How are you?"], ["x"]]), 2)
    assert len(list(tmp_path.iterdir())) == 4


def test_similarities_do_not_depend_on_blocks(monkeypatch):
    contents = [["What is 347 + 285?", "Hi"], [SUM], ["And?", "Find the value of 347 + 285.", CONTEST]]
    whole = find(contents, PROBLEMS)
    monkeypatch.setattr(decontaminate_queries, "_SCORES", 4)
    blocks = find(contents, PROBLEMS)
    assert whole.flags == blocks.flags
    assert whole.similarity.tolist() == blocks.similarity.tolist()


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory):
    """A small BERT with random weights, laid out as sentence-transformers does."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789+-.?"]
    vocabulary += [f"##{piece}" for piece in vocabulary[5:]]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **size)).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    return folder


@pytest.mark.parametrize("pooling", ["pooling_mode_cls_token", "pooling_mode_mean_tokens"])
def test_sentence_models(sentence_model, pooling):
    (sentence_model / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))
    encode = load_encoder(str(sentence_model))
    texts = ["compute 3 + 4.", "a much longer question about something else, " * 9, "compute 3 + 4."]
    vectors = encode(texts)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[0], vectors[2], atol=1e-5)
    assert np.allclose(vectors[:1], encode(texts[:1]), atol=1e-5), "padding must not matter"
    assert not np.allclose(vectors[0], vectors[1], atol=1e-4)


def test_models_that_cannot_be_used(sentence_model, tmp_path):
    (sentence_model / "1_Pooling" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="pools neither"):
        load_encoder(str(sentence_model))
    with pytest.raises(InputError, match=r"corpus\.decontaminate\.embedder"):
        load_encoder(str(tmp_path))


def test_sequences_of_numbers_that_meet_by_chance_stay_apart():
    """With one place for each, these two were alike to 0.906."""
    task = "Write a Python function change(x): multiply by 2, then subtract 8, then subtract 2, and return the result."
    query, problem = encode_hashed_words(["What is 89 - 34 + 94?", task])
    assert query @ problem < 0.3
