"""Instruction following: what the checks of IFEval's instructions count, and what they leave to a judge."""

import inspect
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whichteacher.config import Verification
from whichteacher.instructions import INSTRUCTIONS
from whichteacher.rule import InputError
from whichteacher.verifiers import constraints
from whichteacher.verifiers.dispatch import verify_many

CASES = Path(__file__).parents[1] / "resources" / "verifier_cases" / "constraints.jsonl"
ROOT = Path(__file__).parents[1]
ENGLISH = (
    "The ferry leaves at six and comes back late at night, when most people have been asleep for hours and the whole port "
    "lies empty."
)
GERMAN = (
    "Die Fähre legt um sechs Uhr ab und kommt erst spät in der Nacht zurück, wenn die meisten Leute schlafen und der ganze Hafen "
    "leer ist."
)


def test_every_case_gets_the_verdict_it_is_labelled_with():
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    rows = [
        {**case, "attempt_id": case["case_id"], "query_id": case["case_id"], "answer_format": "tags"} for case in cases
    ]
    verdicts = {verdict["attempt_id"]: verdict["verdict"] for verdict in verify_many(rows, Verification())}
    assert verdicts == {case["case_id"]: case["expected"] for case in cases}
    asked = {name for case in cases for name in json.loads(case["constraints"])["instruction_id_list"]}
    assert asked == INSTRUCTIONS.keys()


def test_the_instructions_and_their_arguments_are_those_of_the_package():
    taken = {
        name: tuple(
            argument for argument in inspect.signature(check.build_description).parameters if argument != "self"
        )
        for name, check in constraints.checkers().items()
    }
    assert taken == INSTRUCTIONS


def test_sentences_are_told_by_the_model_that_was_loaded_without_a_download():
    constraints.checkers()
    assert nltk.sent_tokenize("Dr. Moss left at 6 p.m. on Friday. He was tired.") == [
        "Dr. Moss left at 6 p.m. on Friday.",
        "He was tired.",
    ]
    # The folder it was written to is gone, and nobody looks for it any more; the project itself may lie in a temporary folder.
    assert not any(Path(place).name.startswith(tempfile.gettempprefix()) for place in nltk.data.path)


@pytest.mark.parametrize(
    ("identifier", "arguments"),
    [
        ("keywords:existence", {"keywords": "ferry"}),
        ("keywords:existence", {"keywords": []}),
        ("keywords:existence", {"keywords": ["ferry", " "]}),
        ("keywords:existence", {"keywords": [7]}),
        ("keywords:frequency", {"keyword": "ferry", "frequency": 2}),
        ("keywords:frequency", {"keyword": "ferry", "frequency": 2, "relation": "at most"}),
        ("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}),
        ("length_constraints:number_words", {"num_words": "ten", "relation": "at least"}),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "then"},
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 0, "first_word": "then"},
        ),
        ("change_case:capital_word_frequency", {"capital_frequency": 2}),
    ],
)
def test_an_argument_that_is_missing_or_wrong_is_the_users_error_and_never_made_up(identifier, arguments):
    for text in ("The ferry leaves.\n\nThen it returns.", " "):
        with pytest.raises(InputError, match=f"instruction '{identifier}' does not take kwargs"):
            constraints.follows(identifier, arguments, text)


@pytest.mark.parametrize(
    ("text", "language", "followed"),
    [
        (GERMAN, "de", True),
        (ENGLISH, "de", False),
        ("Guten Tag", "de", True),
        ("OK", "de", None),
        ("12 + 30", "de", None),
        (ENGLISH, "tlh", None),
        ("渡轮六点出发，深夜才回来，那时大多数人已经睡着了。", "zh", True),
    ],
)
def test_a_language_that_cannot_be_told_is_left_to_a_judge(text, language, followed):
    assert constraints.follows("language:response_language", {"language": language}, text) is followed


def test_the_language_counts_for_instructions_about_case_where_it_can_be_told():
    for identifier, change in (
        ("change_case:english_capital", str.upper),
        ("change_case:english_lowercase", str.lower),
    ):
        assert constraints.follows(identifier, {}, change(ENGLISH)) is True
        assert constraints.follows(identifier, {}, change(GERMAN)) is False
        assert constraints.follows(identifier, {}, change("Guten Tag")) is True
        assert constraints.follows(identifier, {}, "Guten Tag") is False


@pytest.mark.parametrize(
    ("word", "text", "there"),
    [
        ("C++", "I like C++.", True),
        ("C++", "I like C+.", False),
        (".net", "Use .net here", True),
        (".net", "Use the planet.network", False),
        ("a.c", "abc", False),
        ("cat", "concatenate", False),
        ("cat", "A Cat.", True),
    ],
)
def test_a_forbidden_word_is_a_text_with_no_letter_beside_it(word, text, there):
    arguments = {"forbidden_words": ["unheard", word]}
    assert constraints.follows("keywords:forbidden_words", arguments, text) is not there


def test_keywords_are_texts():
    for word, text, there in (("C++ (2023)", "In c++ (2023).", True), ("a.c", "abc", False)):
        assert constraints.follows("keywords:existence", {"keywords": [word]}, text) is there
        arguments = {"keyword": word, "frequency": 1, "relation": "at least"}
        assert constraints.follows("keywords:frequency", arguments, text) is there


@given(st.text(max_size=300), st.text(max_size=30))
def test_the_same_text_gets_the_same_language_whatever_was_asked_before(text, before):
    first = constraints.detect_language(text)
    constraints.detect_language(before)
    assert constraints.detect_language(text) == first


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("I'm here and HE'S there.", 3),
        ("DON'T", 2),
        ("O'BRIEN and the U.S and AM/PM and WELL-KNOWN", 4),
        ("Mr O'Brien has 3 cats", 0),
    ],
)
def test_capital_words_are_parted_as_ifeval_parts_them(text, count):
    identifier = "change_case:capital_word_frequency"
    for relation, wanted, followed in (("at least", count, True), ("at least", count + 1, False)):
        arguments = {"capital_frequency": wanted, "capital_relation": relation}
        assert constraints.follows(identifier, arguments, text) is followed


def test_one_undecided_instruction_leaves_the_row_to_a_judge_with_what_was_found():
    payload = {
        "instruction_id_list": ["language:response_language", "punctuation:no_comma"],
        "kwargs": [{"language": "tlh"}, {}],
    }
    outcome = constraints.check("One, two.", json.dumps(payload))
    assert (outcome.score, outcome.reason) == (None, "no_judge")
    assert outcome.evidence["followed"] == {"0 language:response_language": None, "1 punctuation:no_comma": False}


def test_a_hostile_text_is_counted_in_no_time():
    """Patterns that look back would take minutes of CPU for these, and the row would end undecided."""
    text = "\n" * 50_000 + "'" * 50_000 + "-" * 50_000
    assert constraints.follows("detectable_format:number_bullet_lists", {"num_bullets": 1}, text) is False
    arguments = {"capital_frequency": 1, "capital_relation": "less than"}
    assert constraints.follows("change_case:capital_word_frequency", arguments, text) is True


def test_models_of_sentences_and_languages_are_loaded_only_where_they_are_asked_for():
    """Every rule process imports the checks, those of mathematics too."""
    code = "import sys, whichteacher.verifiers.pool; print({'nltk', 'punkt', 'langdetect', 'if_verifiable'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "workflow")},
    )
    assert done.stdout == "set()\n"
