"""Decontamination measured on real problems: labelled rephrasings and translations, framed copies, and innocents.

Run with ``-s`` to see the tables that docs/corpus.md quotes.
"""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_corpus_decontamination import find

DATA = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs the shared test data")

#: Folder of a sentence-transformers model to measure besides ``hashed_words``.
ENCODER = os.environ.get("WHICHTEACHER_TEST_ENCODER")
FRAMES = ("Please solve this problem.\n\n{}\n\nGive the answer in a box.", "Q7. {}", "### Question: {} ### Answer:")


def read(name, *keys):
    return [row[key] for row in map(json.loads, (DATA / name).open(encoding="utf-8")) for key in keys if key in row]


def benchmarks():
    return {
        "gsm8k": read("benchmarks/gsm8k_test.jsonl", "question"),
        "math500": read("benchmarks/math500.jsonl", "problem"),
        "amc23": read("benchmarks/amc23.jsonl", "problem"),
        "aime2024": read("benchmarks/aime2024.jsonl", "problem"),
    }


def kinds():
    """The labelled pairs (problem, copy) by kind."""
    pairs = {}
    for row in map(json.loads, (DATA / "near_dup/known_duplicate_pairs.jsonl").open(encoding="utf-8")):
        if row["label"] == "duplicate":
            pairs.setdefault(row["kind"], []).append((row["a"], row["b"]))
    return pairs


def judge(pairs, method, **settings):
    """True and false positives of a method, as pairs of a copy and a problem it falls for, and the number of copies."""
    problems = list(dict.fromkeys(problem for problem, _ in pairs))
    flags = find([[copy] for _, copy in pairs], problems, **settings).flags
    told = [{problems[flagged] for flagged, how, _, falls in found if falls and how == method} for found in flags]
    right = sum(problem in found for (problem, _), found in zip(pairs, told, strict=True))
    return right, sum(map(len, told)) - right, len(pairs)


def show(method, kind, right, wrong, copies):
    precision = f"{right / (right + wrong):.3f}" if right + wrong else "-"
    print(
        f"{method:>28} {kind:>22}: recall {right / copies:.3f} ({right}/{copies}), precision {precision} ({wrong} wrong)"
    )


#: Recall of ``hashed_words``, by kind, a little below what is measured; every pair that is not labelled is wrong. Word n-grams
#: find no free rephrasing, and nothing without a model finds a translation.
FLOORS = {"paraphrase_en": 0.4, "mcq_rephrase_english": 0.12}


def test_labelled_pairs():
    for kind, pairs in kinds().items():
        for method in ("exact", "ngram", "embedding"):
            right, wrong, copies = judge(pairs, method)
            show("hashed_words" if method == "embedding" else method, kind, right, wrong, copies)
            assert wrong == 0
            if method == "embedding":
                assert right >= FLOORS.get(kind, 0) * copies


@pytest.mark.skipif(ENCODER is None, reason="WHICHTEACHER_TEST_ENCODER names no sentence-transformers model")
def test_labelled_pairs_with_a_model():
    for kind, pairs in kinds().items():
        for similarity in (0.8, 0.9):
            found = judge(pairs, "embedding", embedder=ENCODER, similarity=similarity)
            show(f"{Path(ENCODER).name} > {similarity}", kind, *found)


def edited(text, seed):
    """``text`` with one of twenty words gone, and set without dollar signs."""
    rng = np.random.default_rng(seed)
    words = text.replace("$", "").split()
    plain = [place for place, word in enumerate(words) if word.isalpha()]
    gone = set(rng.choice(plain, len(plain) // 20, replace=False)) if plain else set()
    return " ".join(word for place, word in enumerate(words) if place not in gone)


def test_framed_and_edited_copies_are_found_and_nothing_else():
    for name, problems in benchmarks().items():
        pairs = [(problem, FRAMES[i % 3].format(problem)) for i, problem in enumerate(problems)]
        found = judge(pairs, "ngram", embedder=None)
        show("ngram", f"{name}, framed", *found)
        assert found == (len(pairs), 0, len(pairs))
        pairs = [(problem, FRAMES[i % 3].format(edited(problem, i))) for i, problem in enumerate(problems)]
        right, wrong, copies = judge(pairs, "ngram", embedder=None)
        show("ngram", f"{name}, edited", right, wrong, copies)
        assert wrong == 0
        assert right >= 0.9 * copies


def test_distinct_problems_flag_nothing():
    """Queries of contests and school books against benchmarks of the same, their boilerplate included."""
    texts = benchmarks()
    problems = [problem for found in texts.values() for problem in found]
    found = find([[problem] for problem in problems], problems)
    other = Counter(
        method
        for query, flags in zip(problems, found.flags, strict=True)
        for flagged, method, _, falls in flags
        if falls and problems[flagged] != query
    )
    print(f"{len(problems)} problems against each other: {dict(other)} flagged")
    assert not other


def test_true_overlaps_between_benchmarks_are_found():
    """MATH-500 and MMLU share a problem (looked at: the figure skater); nothing else of the one is in the other."""
    problems = read("benchmarks/mmlu_stem.jsonl", "question")
    queries = benchmarks()["math500"]
    found = find([[f"Solve: {query}"] for query in queries], problems)
    shared = {
        (query, problems[flagged])
        for query, flags in zip(queries, found.flags, strict=True)
        for flagged, _, _, falls in flags
        if falls
    }
    assert len(shared) == 1
    assert all(query == problem and "figure skater" in query for query, problem in shared)


def test_prompts_that_share_instructions_flag_nothing():
    prompts = list(dict.fromkeys(read("ifeval/ifeval_prompts.jsonl", "prompt")))
    found = find([[prompt] for prompt in prompts], prompts, embedder=None)
    other = [
        (prompts[query], prompts[flagged])
        for query, flags in enumerate(found.flags)
        for flagged, _, _, falls in flags
        if falls and flagged != query
    ]
    assert other == []
