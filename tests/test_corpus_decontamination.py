"""Decontamination: copies are found however they are worded, innocents survive."""

import json

import numpy as np
import pytest
from decontaminate_queries import ProblemIndex, decontaminate, flag_queries
from hypothesis import given
from hypothesis import strategies as st
from test_corpus_cleaning import query

from whichteacher.config import Decontaminate
from whichteacher.embedding import encode_hashed_words, load_encoder
from whichteacher.rule import InputError
from whichteacher.schemas import BENCHMARK_PROBLEMS, CONTAMINATION, QUERIES
from whichteacher.tables import as_table

SETTINGS = Decontaminate(embedder="hashed_words").model_dump()
SUM = "Compute 347 + 285."
STORY = "Mia has 34 beads. Mia gets 15 more. How many beads does Mia have now?"
CONTEST = (
    "Find the number of positive integers n less than 1000 such that n is a multiple of 7 and the sum of the digits "
    "of n is a multiple of 5."
)
PROBLEMS = [SUM, STORY, CONTEST]


def flags(content, **settings):
    found = flag_queries([[content]], PROBLEMS, {**SETTINGS, **settings})[0]
    return {(PROBLEMS[problem], method) for problem, method, _, falls in found if falls}


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
        "",
        "Compute",
    ],
)
def test_innocents_survive(content):
    assert flags(content) == set()


def test_another_number_is_recorded_but_does_not_fall():
    content = "Mia has 35 beads. Mia gets 15 more. How many beads does Mia have now?"
    found = flag_queries([[content]], PROBLEMS, SETTINGS)[0]
    assert [(PROBLEMS[problem], method, falls) for problem, method, _, falls in found] == [(STORY, "ngram", False)]


def test_every_turn_is_compared():
    turns = ["Compute 347 + 285.", "It is 632.", "And twice that?"]
    assert flag_queries([turns], PROBLEMS, SETTINGS)[0][0][:2] == (0, "exact")


def test_embedder_and_benchmarks_may_be_absent():
    assert methods("What is 347 + 285?", SUM, embedder=None) == set()
    assert flag_queries([[SUM]], [], SETTINGS) == [[]]


@given(st.text(max_size=80), st.integers(1, 12))
def test_every_problem_contains_itself(text, ngram):
    index = ProblemIndex([text], ngram)
    assert index.exact([text]) == [0]
    assert index.containment([text]) in ({0: (1.0, True)}, {})


@given(st.lists(st.text(max_size=40), max_size=6))
def test_hashed_vectors_have_unit_length_or_none(texts):
    norms = np.linalg.norm(encode_hashed_words(texts), axis=1)
    assert all(norm == pytest.approx(1, abs=1e-5) or norm == 0 for norm in norms)


def problem(prompt, identifier):
    row = dict.fromkeys(BENCHMARK_PROBLEMS.names)
    return {**row, "problem_id": identifier, "benchmark": "exam", "category": "math", "prompt": prompt}


def test_table_ledger_and_pairs():
    contents = ["What is 347 + 285?", SUM, "Here: " + STORY, "How are you today?"]
    queries = as_table([query(content, row=str(i)) for i, content in enumerate(contents)], QUERIES)
    problems = as_table([problem(prompt, str(i)) for i, prompt in enumerate(PROBLEMS)], BENCHMARK_PROBLEMS)
    left, pairs, ledger = decontaminate(queries, problems, SETTINGS)
    assert left["source_row"].to_pylist() == ["3"]
    assert [row["reason"] for row in ledger.dropped] == [
        "contaminated_embedding",
        "contaminated_exact",
        "contaminated_ngram",
    ]
    assert ledger.dropped[2]["detail"] == "a/2: exam/1"
    ledger.rows()
    table = as_table(pairs, CONTAMINATION)
    assert {(row["query"], row["problem"]) for row in table.to_pylist()} == {
        (contents[0], SUM),
        (SUM, SUM),
        (contents[2], STORY),
    }


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
