"""Verdicts of whole rows: structure, thresholds, constraints, code, killed comparisons, and the stage's scripts."""

import json
import random
import sys
from pathlib import Path

import collect_attempts
import pandas as pd
import pytest
import score_samples
import verify_responses
from hypothesis import given
from hypothesis import strategies as st

from whichteacher.config import Verification
from whichteacher.miniature.problems import CATEGORIES, draw_problem
from whichteacher.miniature.styles import write_trace
from whichteacher.queries import query_id
from whichteacher.responses import join_response
from whichteacher.rule import InputError
from whichteacher.sandbox import Result
from whichteacher.schemas import (
    ATTEMPTS,
    BENCHMARK_PROBLEMS,
    COLLECTED,
    DROPPED,
    LEDGER,
    QUERIES,
    SAMPLES,
    SCORED_SAMPLES,
    VERDICTS,
)
from whichteacher.tables import read_frame, write_table
from whichteacher.verifiers import code, constraints
from whichteacher.verifiers.dispatch import verify_many
from whichteacher.verifiers.pool import RuleProcess

DATA = Path(__file__).parents[2] / "shared" / "data"
SETTINGS = {"sandbox": {"cpu_seconds": 1, "memory_mb": 256}}


def row(category="math", text=None, answer=r"\boxed{42}", finish_reason="stop", **references):
    return {
        "attempt_id": "a",
        "query_id": "q",
        "category": category,
        "text": join_response("thought", answer) if text is None else text,
        "finish_reason": finish_reason,
        "answer_format": "tags",
        **references,
    }


def verify(*rows, **settings):
    return verify_many(rows, Verification.model_validate({**SETTINGS, **settings}))


# --- structure -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        (None, "stop", "same_text"),
        (None, "length", "truncated"),
        (None, "abort", "not_finished"),
        (r"<think>it is \boxed{42}", "stop", "thinking_not_closed"),
        (r"<think>t</think>\boxed{42}", "stop", "answer_missing"),
        (r"<think>t</think><answer>\boxed{42}", "stop", "answer_not_closed"),
        (r"<think></think><answer>\boxed{42}</answer>", "stop", "thinking_empty"),
        (r"<think>\boxed{42}</think><answer>it is 42</answer>", "stop", "no_box"),
    ],
)
def test_only_a_complete_response_can_pass(text, finish_reason, reason):
    (verdict,) = verify(row(text=text, finish_reason=finish_reason, reference="42", reference_type="number"))
    assert verdict["reason"] == reason
    assert verdict["verdict"] == ("pass" if reason == "same_text" else "fail")


@given(st.text(max_size=60), st.sampled_from(["length", "abort"]))
def test_nothing_unfinished_passes(answer, finish_reason):
    (verdict,) = verify(row(answer=answer + r"\boxed{42}", finish_reason=finish_reason, reference="42"))
    assert (verdict["verdict"], verdict["score"]) == ("fail", 0.0)


def test_no_reference_is_unknown():
    decided = verify(row(), row("general"), row("instruction_following"), row("code", answer="```python\nx\n```"))
    assert [verdict["verdict"] for verdict in decided] == ["unknown"] * 4
    assert [verdict["reason"] for verdict in decided] == [
        "no_reference",
        "no_judge",
        "reference_unreadable",
        "reference_unreadable",
    ]


# --- comparisons that do not end -------------------------------------------------------------------------------------


def test_an_endless_comparison_is_unknown_and_the_shard_goes_on():
    rows = [
        row(answer=r"\boxed{9999999^{9999999}}", reference="7", reference_type="expression"),
        row(answer=r"\boxed{8}", reference="7", reference_type="number"),
    ]
    endless, wrong = verify(*rows, deadline_seconds=1)
    assert (endless["verdict"], endless["reason"], endless["score"]) == ("unknown", "timeout", 0.0)
    assert wrong["verdict"] == "fail"


def test_a_killed_process_is_replaced():
    process = RuleProcess(5)
    try:
        assert process.run("math", r"\boxed{1}", "1", "number").reason == "same_text"
        process._process.kill()
        process._process.wait()
        assert process.run("math", r"\boxed{1}", "1", "number").reason == "verifier_died"
        assert process.run("math", r"\boxed{1}", "1", "number").reason == "same_text"
    finally:
        process.close()


# --- constraints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "arguments", "good", "bad"),
    [
        ("keywords:existence", {"keywords": ["quiet", "River"]}, "A QUIET river.", "A quiet lake."),
        ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "Concatenate.", "A Cat."),
        ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "less than"}, "a b", "a a"),
        ("keywords:letter_frequency", {"letter": "x", "let_frequency": 2, "let_relation": "at least"}, "xX", "x"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
        ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "Dr. No.", "A b. C d."),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n***\n***\nb"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
            "a\n\nThen, b",
            "a\n\nb",
        ),
        ("change_case:english_lowercase", {}, "all low.", "All low."),
        ("change_case:english_capital", {}, "ALL HIGH.", "ALL high."),
        ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "at least"}, "A b", "a b"),
        ("punctuation:no_comma", {}, "a b", "a, b"),
        ("startend:end_checker", {"end_phrase": "That is all."}, "Hm. that is all. ", "That is all. Hm."),
        ("startend:quotation", {}, ' "a" ', '"a'),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a\n* b\n- c"),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
        ("detectable_format:title", {}, "<<a>>\nb", "<<>>\nb"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* **b**", "*a* ** **"),
        (
            "detectable_format:multiple_sections",
            {"section_spliter": "Part", "num_sections": 2},
            "Part 1\na\nPart 2\nb",
            "Part 1\na",
        ),
        ("detectable_format:constrained_response", {}, "My answer is maybe.", "Perhaps."),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b]", "[a] b"),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "a\nP.S. b", "a\nPS b"),
        ("combination:two_responses", {}, "a ****** b", "a ****** a"),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. Well.", "Well. Say it."),
    ],
)
def test_instruction(identifier, arguments, good, bad):
    assert constraints.follows(identifier, arguments, good) is True
    assert constraints.follows(identifier, {**arguments, "unused": None}, bad) is False
    assert constraints.follows(identifier, arguments, " ") is False


def test_score_is_the_share_of_instructions():
    payload = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    rows = row("instruction_following", answer='"a, b"', constraints=json.dumps(payload))
    (verdict,) = verify(rows)
    assert (verdict["verdict"], verdict["score"], verdict["reason"]) == ("fail", 0.5, "not_followed")
    assert verify(rows, thresholds={"instruction_following": 0.5})[0]["verdict"] == "pass"


def test_thinking_does_not_count():
    payload = json.dumps({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})
    text = join_response("well, well", "no commas")
    assert verify(row("instruction_following", text=text, constraints=payload))[0]["verdict"] == "pass"


@pytest.mark.parametrize(
    ("identifier", "arguments"), [("startend:rhyme", {}), ("keywords:existence", {"words": ["a"]})]
)
def test_unknown_instruction_is_the_users_error(identifier, arguments):
    payload = json.dumps({"instruction_id_list": [identifier], "kwargs": [arguments]})
    with pytest.raises(InputError, match=f"query q: instruction '{identifier}'"):
        verify(row("instruction_following", constraints=payload))


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared test data")
def test_agreement_with_ifevals_own_verdicts():
    """Every instruction is known; those decided agree, apart from texts whose language the original also checks."""
    decided = []
    with open(DATA / "ifeval" / "ifeval_gpt4_verdicts.jsonl", encoding="utf-8") as file:
        for line in map(json.loads, file):
            for identifier, arguments, official in zip(
                line["instruction_id_list"], line["kwargs"], line["follow_strict"], strict=True
            ):
                got = constraints.follows(identifier, arguments, line["response"])
                if got is not None:
                    decided.append(got == official)
    assert len(decided) > 200
    assert sum(decided) >= 0.99 * len(decided)


# --- code ------------------------------------------------------------------------------------------------------------

ASSERTS = json.dumps({"call_type": "assert", "fn_name": "f", "assert_case": ["assert f(1) == 2", "assert f(2) == 3"]})
STD = json.dumps({"call_type": "std", "inputs": ["1\n", "2\n"], "outputs": ["2\n", "3\n"]})


def fenced(program, label="python"):
    return f"Here it is.\n```{label}\n{program}\n```"


def test_code():
    good, half = "def f(x):\n    return x + 1", "def f(x):\n    return 2"
    decided = verify(
        row("code", answer=fenced(good), tests=ASSERTS),
        row("code", answer=fenced(half), tests=ASSERTS),
        row("code", answer=fenced("import os\nos._exit(0)\n" + good), tests=ASSERTS),
        row("code", answer=fenced(half) + "\n" + fenced(good), tests=ASSERTS),
        row("code", answer=fenced("print(int(input()) + 1)"), tests=STD),
        row("code", answer=fenced("while True: pass"), tests=STD),
        row("code", answer="def f(x): return x + 1", tests=ASSERTS),
        row("code", answer=fenced(good), tests=json.dumps({"call_type": "assert", "assert_case": []})),
    )
    assert [(verdict["verdict"], verdict["score"], verdict["reason"]) for verdict in decided] == [
        ("pass", 1.0, "tests_passed"),
        ("fail", 0.5, "tests_failed"),
        ("fail", 0.0, "tests_failed"),
        ("pass", 1.0, "tests_passed"),
        ("pass", 1.0, "tests_passed"),
        ("unknown", 0.0, "timeout"),
        ("fail", 0.0, "no_program"),
        ("unknown", 0.0, "reference_unreadable"),
    ]
    assert json.loads(decided[1]["evidence"])["outcomes"] == ["passed", "error:AssertionError"]


def std(outputs):
    return json.dumps({"call_type": "std", "inputs": ["1\n"] * len(outputs), "outputs": outputs})


def asserts(cases):
    return json.dumps({"call_type": "assert", "assert_case": cases})


@pytest.mark.parametrize(
    "tests",
    [
        asserts("assert f(1) == 2"),
        asserts([""]),
        asserts(["# none"]),
        asserts(["pass", "assert f(1) == 2"]),
        asserts(["def test():\n    assert f(1) == 2"]),
        asserts(["assert f(1 =="]),
        std("2"),
        std(["", " \n"]),
        json.dumps({"call_type": "std", "inputs": ["1"], "outputs": []}),
    ],
)
def test_tests_that_any_program_passes_or_fails_are_no_tests(tests):
    def unused(job):
        raise AssertionError("nothing is run")

    assert code.check(fenced("x = 1"), tests, 10, 0.9, unused).reason == "reference_unreadable"


def test_one_blank_output_among_others_is_a_test():
    results = [Result("ran", "", ""), Result("ran", "", "2")]
    assert code.check(fenced("x"), std(["", "2"]), 10, 0.9, lambda job: results).score == 1.0


def test_half_a_character_harms_nobody():
    outcome = code.check(fenced("x = '\ud800'"), std(["\ud800"]), 10, 0.9, lambda job: [Result("ran", "", "1")])
    assert (outcome.score, outcome.reason) == (0.0, "tests_failed")


def test_the_program_that_ran_is_told_by_its_digest():
    one, same, other = (
        code.check(fenced(program), STD, 10, 0.9, lambda job: [Result("ran", "", "2"), Result("ran", "", "3")]).evidence
        for program in ("x = 1", "x = 1", "x = 2")
    )
    assert one["program_sha256"] == same["program_sha256"] != other["program_sha256"]


@pytest.mark.parametrize(
    ("given", "wanted", "same"),
    [
        ("1.50", "1.5", True),
        ("1e2", "100", True),
        ("-0", "0", True),
        (".5", "0.5", True),
        ("0011", "0011", True),
        ("11", "0011", False),
        ("1_000", "1000", False),
        ("inf", "Infinity", False),
        ("１", "1", False),
        ("1e99999", "1e99998", False),
        ("0.33333", "0.333333", False),
    ],
)
def test_numbers_may_be_written_otherwise_but_codes_may_not(given, wanted, same):
    assert code.same_output(given, wanted) is same


def test_a_timeout_that_cannot_matter_is_no_excuse():
    results = [Result("error", "AssertionError", ""), Result("cpu_limit", "", "")]
    outcome = code.check(fenced("x"), ASSERTS, 10, 0.9, lambda job: results)
    assert (outcome.score, outcome.reason) == (0.0, "tests_failed")


def test_a_sandbox_that_does_not_start_is_unknown():
    def broken(job):
        raise OSError("no")

    assert code.check(fenced("x"), ASSERTS, 10, 0.9, broken).reason == "sandbox_failed"


def test_only_the_first_tests_run():
    seen = []
    code.check(fenced("x"), ASSERTS, 1, 0.9, lambda job: seen.extend(job.cases) or [Result("ran", "", "")])
    assert seen == ["assert f(1) == 2"]


@pytest.mark.parametrize(
    ("given_output", "wanted", "same"),
    [
        ("1 2\n", "1 2", True),
        ("1 2 \n\n", "1 2\n", True),
        ("2.0", "2", True),
        ("1\n2", "1 2", False),
        ("", "", True),
        ("yes", "Yes", False),
        ("nan", "1", False),
    ],
)
def test_outputs(given_output, wanted, same):
    assert code.same_output(given_output, wanted) is same


# --- the scripts, on the miniature's own problems --------------------------------------------------------------------


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A shard of the miniature's problems, a round of right and spoilt responses and one of right ones for the open queries."""
    folder, rng = tmp_path_factory.mktemp("shard"), random.Random(5)
    queries, right = {}, {}
    for number in range(120):
        problem = draw_problem(CATEGORIES[number % 6], rng)
        turns = [{"role": role, "content": content} for role, content in problem.turns]
        identifier = query_id(turns)
        queries[identifier] = {
            **{name: None for name in QUERIES.names},
            **{"query_id": identifier, "source": "s", "source_row": str(number), "licence": "Apache-2.0"},
            **{"category": problem.category, "turns": turns},
            **{"reference": problem.reference, "reference_type": problem.reference_type},
            "tests": json.dumps(problem.tests) if problem.tests else None,
            "constraints": json.dumps(problem.constraints) if problem.constraints else None,
        }
        right[identifier] = join_response(*write_trace(problem, "steps"))

    def attempt(identifier, number, text, finish_reason="stop"):
        strings = {name: "" for name in ATTEMPTS.names}
        numbers = {name: 1 for name in ("prompt_tokens", "output_tokens", "seconds", "devices")}
        return {
            **strings,
            **numbers,
            **{"attempt_id": f"{identifier}-{number}", "query_id": identifier, "teacher": "t", "shard": 0},
            **{"round": number, "attempt": number, "text": text, "finish_reason": finish_reason},
        }

    spoilt = sorted(queries)[::4]
    first = [attempt(i, 0, t[:-3] if i in spoilt else t, "length" if i in spoilt else "stop") for i, t in right.items()]
    second = [attempt(identifier, 1, right[identifier]) for identifier in spoilt[1:]]
    write_table(folder / "shard.parquet", queries.values(), QUERIES)
    write_table(folder / "attempts0.parquet", first, ATTEMPTS)
    write_table(folder / "attempts1.parquet", second, ATTEMPTS)
    return folder, spoilt


@pytest.fixture(scope="module")
def verified(shard):
    folder, spoilt = shard
    settings = Verification.model_validate(SETTINGS).model_dump(mode="json")
    for number in (0, 1):
        verify_responses.main(
            folder / f"attempts{number}.parquet",
            folder / "shard.parquet",
            None,
            folder / f"verdicts{number}.parquet",
            settings,
            "tags",
            2,
        )
    return folder, spoilt


def test_every_trace_of_the_miniature_passes_unless_spoilt(verified):
    folder, spoilt = verified
    verdicts = read_frame(folder / "verdicts0.parquet", VERDICTS)
    attempts = read_frame(folder / "attempts0.parquet", ATTEMPTS)
    assert verdicts["attempt_id"].tolist() == attempts["attempt_id"].tolist()
    is_spoilt = verdicts["query_id"].isin(spoilt)
    assert set(verdicts.loc[is_spoilt, "reason"]) == {"truncated"}
    assert set(verdicts.loc[~is_spoilt, "verdict"]) == {"pass"}


def test_collected_attempts_balance(verified):
    folder, spoilt = verified
    outputs = tuple(str(folder / f"collected.{name}") for name in ("table", "ledger", "dropped"))
    rounds = [[folder / f"{kind}{number}.parquet" for number in (0, 1)] for kind in ("attempts", "verdicts")]
    collect_attempts.main(*rounds, folder / "shard.parquet", outputs, "t/0")
    table = read_frame(outputs[0], COLLECTED)
    assert table.groupby("query_id")["accepted"].sum().max() == 1
    assert set(table.loc[~table["query_id"].isin(table.loc[table["accepted"], "query_id"]), "query_id"]) == {spoilt[0]}
    assert (table.loc[table["accepted"] & table["query_id"].isin(spoilt), "round"] == 1).all()
    ledger = read_frame(outputs[1], LEDGER).set_index("reason")["rows"]
    assert ledger["in"] == ledger["kept"] + 1 == ledger["kept"] + ledger["give_up"]
    assert read_frame(outputs[2], DROPPED)[["query_id", "detail"]].values.tolist() == [[spoilt[0], "truncated"]]


def test_the_first_pass_is_accepted():
    attempts = pd.DataFrame(
        {"attempt_id": list("dcba"), "query_id": list("qqqp"), "attempt": [2, 1, 0, 0], "round": [1, 1, 0, 0]}
    )
    verdicts = pd.DataFrame(
        {"attempt_id": list("abcd"), "verdict": ["unknown", "fail", "pass", "pass"], "score": 0.0}
    ).assign(**{name: "" for name in ("reason", "verifier", "verifier_version", "evidence")})
    table = collect_attempts.collect(attempts, verdicts)
    assert table["attempt_id"].tolist() == list("abcd")
    assert table["accepted"].tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="attempt a "):
        collect_attempts.collect(attempts, verdicts[1:])


def test_an_attempt_of_another_shard_is_an_error():
    attempts = pd.DataFrame({"attempt_id": ["a"], "query_id": ["q"], "text": [""], "finish_reason": ["stop"]})
    with pytest.raises(ValueError, match="query q, which is not in this shard"):
        verify_responses.rows_to_verify(attempts, pd.DataFrame({"query_id": ["p"], "category": ["math"]}), "tags")


def test_a_benchmark_gives_no_part_marks(tmp_path):
    eleven = {"call_type": "assert", "assert_case": [*["assert f(1) == 2"] * 10, "assert f(2) == 3"]}
    problems = [
        {"problem_id": "c", "category": "code", "tests": json.dumps(eleven)},
        {"problem_id": "m", "category": "math", "reference": "7", "reference_type": "number"},
    ]
    answers = [
        ("c", fenced("def f(x):\n    return 2")),
        ("m", r"\boxed{7}"),
        ("c", fenced("def f(x):\n    return x + 1")),
        ("m", r"\boxed{8}"),
    ]
    common = {"benchmark": "b", "prompt": ""}
    samples = [
        {
            **common,
            **{"sample_id": str(number), "student": "s", "problem_id": problem, "sample": number},
            **{"text": join_response("t", answer), "finish_reason": "stop", "output_tokens": 1, "lighteval_metric": ""},
        }
        for number, (problem, answer) in enumerate(answers)
    ]
    write_table(tmp_path / "problems.parquet", [{**common, **problem} for problem in problems], BENCHMARK_PROBLEMS)
    write_table(tmp_path / "samples.parquet", samples, SAMPLES)
    settings = Verification.model_validate(SETTINGS).model_dump(mode="json")
    paths = [tmp_path / f"{name}.parquet" for name in ("samples", "problems", "scored")]
    score_samples.main(*paths, settings, "tags", 1)
    scored = read_frame(paths[2], SCORED_SAMPLES)
    assert scored["sample_id"].tolist() == list("0123")
    assert scored["verdict"].tolist() == ["fail", "pass", "pass", "fail"]
    assert scored["score"].tolist() == pytest.approx([10 / 11, 1.0, 1.0, 0.0])


def test_the_scripts_need_no_snakemake():
    assert "snakemake" not in vars(verify_responses)
    assert "math_verify" not in vars(sys.modules["whichteacher.verifiers.dispatch"])
