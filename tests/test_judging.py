"""Judges: which answers they are asked about, what they are shown, what is read from what they say, and the rule around it."""

import json
from collections import Counter

import collect_attempts
import complete_constraints
import judge_responses
import pandas as pd
import pytest
import rejudge_sample
import verify_responses
from endpoint_server import EndpointServer
from hypothesis import given
from hypothesis import strategies as st

from whichteacher import judging
from whichteacher.config import REWARDED, ConfigError, Judge, Verification, check_config
from whichteacher.miniature.study import small_study
from whichteacher.schemas import ATTEMPTS, CONSTRAINTS, QUERIES, REJUDGED, VERDICTS
from whichteacher.tables import read_frame, write_table
from whichteacher.verifiers.outcome import Outcome

SETTINGS = {"threshold": 0.9, "deadline_seconds": 10}


# --- what they are asked about ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("category", "verdict", "reason", "reference", "asked"),
    [
        ("math", "pass", "same_value", "3", False),
        ("math", "fail", "other_value", "3", True),
        ("math", "unknown", "timeout", "3", True),
        ("math", "fail", "other_integer", "3", False),
        ("math", "fail", "no_box", "3", False),
        ("math", "unknown", "no_reference", None, False),
        ("science", "unknown", "no_judge", "osmosis", True),
        ("science", "unknown", "no_judge", None, False),
        ("science", "fail", "other_number", "3 N", False),
        ("science", "fail", "other_letter", "B", False),
        ("code", "fail", "tests_failed", None, False),
        ("instruction_following", "fail", "not_followed", None, False),
        ("general", "pass", "same_text", "yes", True),
        ("multi_turn", "unknown", "no_judge", None, True),
    ],
)
def test_who_is_judged(category, verdict, reason, reference, asked):
    assert judging.is_judged(category, verdict, reason, reference) is asked


# --- what they are shown ---------------------------------------------------------------------------------------------


def test_a_judge_sees_query_reference_and_box_alone():
    turns = [{"role": "user", "content": "Solve {answer} for {reference}."}]
    (message,) = judging.ask("math", turns, r"\frac{1}{2}", r"So it is \boxed{0.5} of them.")
    assert message["role"] == "user"
    assert "<problem>\nSolve {answer} for {reference}.\n</problem>" in message["content"], "no place inside a value"
    assert "<answer>\n0.5\n</answer>" in message["content"]
    assert "<reference>\n\\frac{1}{2}\n</reference>" in message["content"]


def test_a_dialogue_keeps_its_roles():
    turns = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user")]
    (message,) = judging.ask("multi_turn", turns, None, "reply")
    assert "[system]\ns\n\n[user]\nu\n\n[assistant]\na\n\n[user]\nu" in message["content"]
    assert judging.rate(turns, "reply")[-1] == {"role": "assistant", "content": "reply"}


@pytest.mark.parametrize("category", judging.PROMPTS)
def test_every_prompt_is_there_and_leaves_no_place_open(category):
    (message,) = judging.ask(category, [{"role": "user", "content": "Q"}], "R", "A")
    assert not {"{query}", "{reference}", "{answer}"} & set(message["content"].split())
    if category != "instruction_following":
        assert "A" in message["content"].splitlines()


# --- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("category", "text", "score"),
    [
        ("math", "Both are one half.\nVerdict: equal", 1.0),
        ("math", "**Verdict: Different**", 0.0),
        ("math", "Verdict: equal\n...on reflection\nVerdict: different", 0.0),
        ("math", "<think>Verdict: equal</think>\nVerdict: different", 0.0),
        ("math", "The verdict: equal or different is hard.", None),
        ("math", "", None),
        ("science", "Close.\nScore: 4.5", 0.9),
        ("science", "Score: 5/5", 1.0),
        ("science", "Score: 9", None),
        ("science", "Score: -1", None),
        ("general", "Helpfulness: 4\nCorrectness: 3.5\nCoherence: 4", 11.5 / 12),
        ("general", "Helpfulness: 4\nCoherence: 4", None),
    ],
)
def test_what_a_judgement_says(category, text, score):
    outcome = judging.read_judgement(category, "vllm", text)
    assert outcome.score == (None if score is None else pytest.approx(score))
    assert outcome.reason == ("judge_unreadable" if score is None else "judged")


@given(st.sampled_from(["math", "science", "general"]), st.text())
def test_no_judgement_breaks_the_reader(category, text):
    score = judging.read_judgement(category, "openai", text).score
    assert score is None or 0 <= score <= 1


@given(*[st.floats(-1, 5)] * 3)
def test_heads_are_summed_and_cut_to_the_scale(helpfulness, correctness, coherence):
    heads = {"helpfulness": helpfulness, "correctness": correctness, "coherence": coherence, "verbosity": 4.0}
    outcome = judging.read_judgement("general", "reward", json.dumps(heads))
    assert outcome.score == pytest.approx(min(max((helpfulness + correctness + coherence) / 12, 0), 1))
    assert outcome.evidence["heads"] == heads


def test_constraints_that_rules_know_are_kept():
    wanted = {"instruction_id_list": ["punctuation:no_comma", "made:up"], "kwargs": [{}, {}]}
    found, faults = judging.read_constraints(f"Here: {json.dumps(wanted)} done {{}}")
    assert json.loads(found) == {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert len(faults) == 1 and "made:up" in faults[0]
    assert judging.read_constraints('{"instruction_id_list": [], "kwargs": []}') == (None, [])
    with pytest.raises(ValueError, match="instruction_id_list"):
        judging.read_constraints("none at all {")


# --- the configuration -----------------------------------------------------------------------------------------------


def judge(**changes):
    return {"model": "./judge", "categories": ["math"], **changes}


def test_judges_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="decided by its tests"):
        Judge.model_validate(judge(categories=["code"]))
    with pytest.raises(ValueError, match="a reward model judges multi_turn and general, not math"):
        Judge.model_validate(judge(engine="reward"))
    with pytest.raises(ValueError, match="math has the judges one and two"):
        Verification.model_validate({"judges": {"one": judge(), "two": judge()}})
    assert Judge.model_validate(judge(engine="reward", categories=list(REWARDED))).devices == 1


def test_a_missing_judge_is_one_line():
    config = small_study().model_dump(mode="json") | {"verification": {"judges": {"one": judge()}}}
    with pytest.raises(
        ConfigError, match=r"^config key verification.judges.one.model \(value './judge'\): no such folder"
    ):
        check_config(config)


def test_each_judge_hands_its_verdicts_to_the_next():
    judges = {
        "first": judge(),
        "words": judge(categories=["instruction_following"]),
        "second": judge(categories=["science"]),
    }
    settings = Verification.model_validate({"judges": judges})
    assert settings.table("round0") == "round0.second.parquet"
    assert settings.table("round0", before="second") == "round0.first.parquet"
    assert settings.table("round0", before="first") == "round0.parquet"
    assert Verification().table("round0") == "round0.parquet"


# --- the rules -------------------------------------------------------------------------------------------------------


def query(number, category, reference=None, **more):
    return {
        **{"query_id": f"{number:032x}", "source": "made_up", "source_row": str(number), "category": category},
        **{"licence": "CC0-1.0", "turns": [{"role": "user", "content": f"Question {number}?"}], "reference": reference},
        **{"reference_type": None, "tests": None, "constraints": None, **more},
    }


def attempt(query_id, number, answer, finish_reason="stop"):
    strings = {name: "" for name in ATTEMPTS.names}
    numbers = {name: 1 for name in ("prompt_tokens", "output_tokens", "seconds", "devices")}
    text = f"<think>I think so.</think><answer>{answer}</answer>"
    return {
        **{
            **strings,
            **numbers,
            "attempt_id": f"{query_id}-{number}",
            "query_id": query_id,
            "teacher": "t",
            "shard": 0,
        },
        **{"round": 0, "attempt": number, "text": text, "finish_reason": finish_reason},
    }


QUERY_ROWS = [
    query(0, "math", "0.5"),
    query(1, "math", "12"),
    query(2, "science", "water leaves the cell"),
    query(3, "general"),
    query(4, "instruction_following"),
]
ATTEMPT_ROWS = [
    attempt(QUERY_ROWS[0]["query_id"], 0, r"\boxed{\text{half of one}}"),  # for the judge
    attempt(QUERY_ROWS[0]["query_id"], 1, r"It is \boxed{\text{half of one}}."),  # the same box: judged once
    attempt(QUERY_ROWS[0]["query_id"], 2, r"\boxed{0.5}"),  # passes by rule
    attempt(QUERY_ROWS[1]["query_id"], 0, r"\boxed{13}"),  # another integer
    attempt(QUERY_ROWS[1]["query_id"], 1, r"\boxed{\text{a dozen}}", "length"),  # cut off
    attempt(QUERY_ROWS[2]["query_id"], 0, "The water goes out."),
    attempt(QUERY_ROWS[3]["query_id"], 0, "Hello."),
    attempt(QUERY_ROWS[4]["query_id"], 0, "No commas here"),
]


def written(prompt, _seed):
    """What the endpoint's model says: found by a word of its task."""
    if "Verdict:" in prompt:
        return "Both denote one half.\nVerdict: equal"
    if "science question" in prompt:
        return "It means the same.\nScore: 4.4"
    if "Helpfulness:" in prompt:
        return "A greeting.\nHelpfulness: 4\nCorrectness: 4\nCoherence: 3"
    return 'It asks for no commas. {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}'


@pytest.fixture
def shard(tmp_path):
    write_table(tmp_path / "shard.parquet", QUERY_ROWS, QUERIES)
    write_table(tmp_path / "attempts.parquet", ATTEMPT_ROWS, ATTEMPTS)
    return tmp_path


def blocks(url, categories):
    """The judge's settings and how it is served, as the rule's parameters hold them."""
    endpoint = {
        "base_url": url,
        "api": "chat",
        "served_model": "judge",
        "extra_body": {},
        "retries": 0,
        "timeout_seconds": 20,
    }
    made = Judge.model_validate(
        {"model": "org/judge", "engine": "openai", "endpoint": endpoint, "categories": categories}
    ).model_dump(mode="json")
    running = {"endpoint": {**made["endpoint"]}}
    sampling = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "max_tokens": 64, "stop": None}
    return {**made, "sampling": sampling}, running


def judged(shard, url, verdicts="rules.parquet", categories=("math", "science", "general")):
    verification = Verification.model_validate(SETTINGS).model_dump(mode="json", exclude={"judges", "audit"})
    if not (shard / "rules.parquet").exists():
        verify_responses.main(
            shard / "attempts.parquet", shard / "shard.parquet", None, shard / "rules.parquet", verification, "tags", 1
        )
    settings, running = blocks(url, list(categories))
    judge_responses.main(
        shard / "attempts.parquet",
        shard / "shard.parquet",
        shard / verdicts,
        shard / "judged.parquet",
        "kind",
        settings,
        running,
        verification,
        "tags",
        str(shard / "store"),
    )
    return read_frame(shard / "judged.parquet", VERDICTS).set_index("attempt_id")


def test_judges_decide_what_rules_cannot_and_nothing_else(shard):
    with EndpointServer(write=written) as server:
        table = judged(shard, server.url)
        assert len(server.seen) == 3, "one box, one science answer, one greeting"
        assert all(request.body["temperature"] == 0 for request in server.seen)
        again = judged(shard, server.url)
        assert len(server.seen) == 3, "everything is in the store"
    pd.testing.assert_frame_equal(table, again)
    rules = read_frame(shard / "rules.parquet", VERDICTS).set_index("attempt_id")
    assert table.index.tolist() == rules.index.tolist()
    told = {
        row["attempt_id"]: (v["verdict"], v["reason"])
        for row, v in zip(ATTEMPT_ROWS, table.to_dict("records"), strict=True)
    }
    ids = [row["attempt_id"] for row in ATTEMPT_ROWS]
    assert [told[one] for one in ids[:2]] == [("pass", "judged")] * 2
    assert told[ids[2]][0] == "pass" and table.loc[ids[2], "verifier"] == "math"
    assert told[ids[3]] == ("fail", "other_integer") and told[ids[4]] == ("fail", "truncated")
    assert told[ids[5]] == ("fail", "judged") and table.loc[ids[5], "score"] == pytest.approx(0.88)
    assert told[ids[6]] == ("pass", "judged") and table.loc[ids[6], "score"] == pytest.approx(11 / 12)
    evidence = json.loads(table.loc[ids[0], "evidence"])
    assert evidence["before"]["reason"] == rules.loc[ids[0], "reason"]
    assert "one half" in evidence["said"]
    assert table.loc[ids[0], "verifier_version"].startswith("equivalence-1+org/judge@")


def test_a_judge_that_says_nothing_leaves_it_unknown(shard):
    with EndpointServer(write=lambda prompt, seed: "Hm.") as server:
        table = judged(shard, server.url)
    reasons = Counter(table.loc[table["verifier"] == "judge_kind", "reason"])
    assert reasons == {"judge_unreadable": 4}
    assert set(table.loc[table["verifier"] == "judge_kind", "verdict"]) == {"unknown"}


def test_without_judges_rows_wait_as_unknown(shard):
    with EndpointServer(write=written) as server:
        table = judged(shard, server.url, categories=["multi_turn"])
        assert not server.seen
    rules = read_frame(shard / "rules.parquet", VERDICTS).set_index("attempt_id")
    pd.testing.assert_frame_equal(table, rules)
    assert rules.loc[ATTEMPT_ROWS[6]["attempt_id"], ["verdict", "reason"]].tolist() == ["unknown", "no_judge"]


def test_verdicts_of_another_round_are_refused(shard):
    with EndpointServer(write=written) as server:
        judged(shard, server.url)
        strange = read_frame(shard / "rules.parquet", VERDICTS).assign(attempt_id="elsewhere")
        write_table(shard / "strange.parquet", strange, VERDICTS)
        with pytest.raises(ValueError, match="attempt elsewhere: not of this round"):
            judged(shard, server.url, "strange.parquet")


def test_queries_without_constraints_get_theirs_from_the_judge(shard):
    with EndpointServer(write=written) as server:
        settings, running = blocks(server.url, ["instruction_following"])
        complete_constraints.main(
            shard / "shard.parquet", shard / "constraints.parquet", "kind", settings, running, str(shard / "store")
        )
        assert len(server.seen) == 1
    (row,) = read_frame(shard / "constraints.parquet", CONSTRAINTS).to_dict("records")
    assert row["query_id"] == QUERY_ROWS[4]["query_id"] and row["reason"] == "completed"
    settings = Verification.model_validate(SETTINGS).model_dump(mode="json", exclude={"judges", "audit"})
    verify_responses.main(
        shard / "attempts.parquet",
        shard / "shard.parquet",
        shard / "constraints.parquet",
        shard / "v.parquet",
        settings,
        "tags",
        1,
    )
    verdict = read_frame(shard / "v.parquet", VERDICTS).iloc[-1]
    assert (verdict["verdict"], verdict["reason"]) == ("pass", "followed")


def test_what_is_undecided_has_no_score():
    row = {name: "" for name in VERDICTS.names} | {"evidence": "{}", "score": 0.0}
    made = judge_responses.judged_verdict(row, Outcome(None, "judge_length"), 0.0, "judge_x", "v")
    assert (made["verdict"], made["score"]) == ("unknown", 0.0)


# --- asked again -----------------------------------------------------------------------------------------------------


def test_swapping_shows_the_answer_before_the_reference():
    turns = [{"role": "user", "content": "Say <reference> and <answer>."}]
    for category in ("math", "science"):
        (plain,), (swapped,) = (judging.ask(category, turns, "R", "A", swapped=order) for order in (False, True))
        places = [
            swapped["content"].index(f"<{name}>\n{letter}") for name, letter in (("answer", "A"), ("reference", "R"))
        ]
        assert places == sorted(places)
        assert sorted(plain["content"].splitlines()) == sorted(swapped["content"].splitlines())
    with pytest.raises(ValueError, match="does not show reference and answer"):
        judging.ask("general", turns, "R", "A", swapped=True)


def test_second_judges_decide_nothing_and_need_a_first():
    second = judge(categories=["math", "science"], second=True)
    settings = Verification.model_validate({"judges": {"one": judge(), "two": second}})
    assert settings.asked == ["one"] and settings.judge_of("science") is None
    assert settings.asked_again == ["one", "two"]
    assert Verification.model_validate({"judges": {"two": second}}).asked_again == []
    reward = judge(engine="reward", categories=list(REWARDED))
    assert Verification.model_validate({"judges": {"r": reward}}).asked_again == [], (
        "a reward model is shown no reference"
    )
    with pytest.raises(ValueError, match="a second judge is asked about answers"):
        Judge.model_validate(judge(categories=["instruction_following"], second=True))


def asked_again(shard, url, categories, second):
    settings, running = blocks(url, list(categories))
    verification = Verification.model_validate(SETTINGS).model_dump(mode="json", exclude={"judges", "audit"})
    rejudge_sample.main(
        {"t": [shard / "collected.parquet"]},
        [shard / "shard.parquet"],
        shard / "again.parquet",
        "other" if second else "kind",
        {**settings, "second": second},
        running,
        {"t": "tags"},
        verification,
        100,
        str(shard / "store"),
    )
    return read_frame(shard / "again.parquet", REJUDGED)


def test_what_judges_decided_is_judged_again(shard):
    """A judge that goes by what comes first is found out by the other order."""

    def first_wins(prompt, seed):
        if "Verdict:" in prompt:
            return f"Verdict: {'equal' if prompt.index('<reference>') < prompt.index('<answer>') else 'different'}"
        return written(prompt, seed)

    with EndpointServer(write=first_wins) as server:
        judged(shard, server.url)
        outputs = [shard / f"collected{kind}.parquet" for kind in ("", ".ledger", ".dropped")]
        collect_attempts.main(
            [shard / "attempts.parquet"], [shard / "judged.parquet"], shard / "shard.parquet", outputs, "t/0"
        )
        swapped = asked_again(shard, server.url, ("math", "science", "general"), second=False)
        second = asked_again(shard, server.url, ("math", "general"), second=True)
    verdicts = swapped.groupby("category")[["verdict", "again_verdict"]].agg(list)
    assert verdicts.loc["math"].tolist() == [["pass", "pass"], ["fail", "fail"]]
    assert set(swapped["again"]) == {"swapped_kind"} and set(swapped["category"]) == {"math", "science"}
    assert set(second["again"]) == {"second_other"} and set(second["category"]) == {"math", "general"}
    assert (second["verdict"] == second["again_verdict"]).all(), "asked in the first order, it says the same"
    assert second["again_score"].tolist() == second["score"].tolist()
