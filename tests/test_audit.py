"""What checks the verdicts: labelled answers, references against themselves, a sample verified again in other ways."""

import json
from collections import Counter
from pathlib import Path

import audit_verifiers
import check_references
import pytest
import reverify_sample
import study_tables

from whichteacher.config import CATEGORIES, Verification
from whichteacher.rule import InputError
from whichteacher.schemas import COLLECTED, LABELLED_CASES, QUERIES, REFERENCE_CHECKS, REVERIFIED
from whichteacher.tables import read_frame, write_table

CASES = sorted((Path(__file__).parents[1] / "resources" / "verifier_cases").glob("*.jsonl"))


def test_the_shipped_cases_are_whole_and_hold_both_truths():
    cases = audit_verifiers.read_cases(CASES)
    assert len(cases) >= 500
    counts = Counter((case["category"], case["right"]) for case in cases)
    for category in ("math", "science", "code", "instruction_following"):
        assert min(counts[category, True], counts[category, False]) >= 20
    assert {case["category"] for case in cases} <= set(CATEGORIES)
    assert {case["expected"] for case in cases} == {"pass", "fail", "unknown"}
    for case in cases:
        assert isinstance(case["right"], bool) and case["note"] and case["trap"]
        assert set(case) <= {*audit_verifiers._FIELDS, "reference", "reference_type", "tests", "constraints"}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "no JSON object"),
        ("[]", "has no case_id"),
        ('{"case_id": "a"}', "has no category"),
        (None, "is there twice"),
    ],
)
def test_a_bad_case_is_named(tmp_path, line, fault):
    good = dict.fromkeys(audit_verifiers._FIELDS, "x") | {"case_id": "a", "category": "code"}
    (tmp_path / "cases.jsonl").write_text(f"{json.dumps(good)}\n{line or json.dumps(good)}\n")
    with pytest.raises(InputError, match=rf"cases.jsonl:2: .*{fault}"):
        audit_verifiers.read_cases([tmp_path / "cases.jsonl"])


def test_cases_are_verified_like_any_answer(tmp_path):
    shared = {"category": "math", "trap": "none", "finish_reason": "stop", "expected": "pass", "note": "made up"}
    cases = [
        {
            **shared,
            "case_id": str(given),
            "text": f"<think>So.</think><answer>\\boxed{{{given}}}</answer>",
            "right": given == 4,
        }
        | {"reference": "4", "reference_type": None}
        for given in (4, 5)
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    settings = Verification().model_dump(mode="json")
    audit_verifiers.main([tmp_path / "cases.jsonl"], tmp_path / "cases.parquet", settings, 1)
    assert read_frame(tmp_path / "cases.parquet", LABELLED_CASES)["verdict"].tolist() == ["pass", "fail"]


def query(number, category, reference, kind):
    shared = {"source": "s", "source_row": "0", "licence": "CC0-1.0", "turns": [{"role": "user", "content": "?"}]}
    return {
        **shared,
        **{"query_id": f"{number:032x}", "category": category, "reference": reference, "reference_type": kind},
        **{"tests": None, "constraints": None},
    }


def test_references_that_cannot_be_verified_against_are_found(tmp_path):
    rows = [
        query(0, "math", "\\frac{1}{2}", "expression"),
        query(1, "math", "\\frac{1}{", "expression"),
        query(2, "code", None, None),
        query(3, "science", "B", "choice"),
    ]
    write_table(tmp_path / "shard.parquet", rows, QUERIES)
    check_references.main(tmp_path / "shard.parquet", tmp_path / "checks.parquet", 10, 1)
    checks = read_frame(tmp_path / "checks.parquet", REFERENCE_CHECKS)
    assert checks["fit"].tolist() == [True, False, True]
    assert checks["reference"].tolist() == [rows[0]["reference"], rows[1]["reference"], "B"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_tables.write_study(tmp_path_factory.mktemp("study"), queries=48)


def collected(study):
    return {
        name: [study / f"verification/{name}/{shard}/attempts.parquet" for shard in (0, 1)]
        for name in study_tables.TEACHERS
    }


def test_the_sample_is_the_same_for_every_order_and_grows(study, tmp_path):
    files = collected(study)["steps"]
    drawn = reverify_sample.draw(files, 10)
    assert drawn["attempt_id"].tolist() == sorted(drawn["attempt_id"]) and len(drawn) == 10
    assert reverify_sample.draw(files[::-1], 10)["attempt_id"].tolist() == drawn["attempt_id"].tolist()
    assert set(drawn["attempt_id"]) < set(reverify_sample.draw(files, 20)["attempt_id"])
    assert reverify_sample.draw(files, 0).empty
    judged = read_frame(files[0], COLLECTED).assign(verifier="judge_x")
    write_table(tmp_path / "judged.parquet", judged, COLLECTED)
    assert reverify_sample.draw([tmp_path / "judged.parquet"], 10).empty


def test_a_sample_is_verified_again_and_graded_in_another_way(study, tmp_path):
    queries = [study / f"corpus/shards/{shard}.parquet" for shard in (0, 1)]
    settings = Verification().model_dump(mode="json")
    formats = dict.fromkeys(study_tables.TEACHERS, "tags")
    reverify_sample.main(collected(study), queries, [], tmp_path / "sample.parquet", formats, settings, 12, 4)
    sample = read_frame(tmp_path / "sample.parquet", REVERIFIED)
    assert len(sample) == 12 * len(formats)
    compared = sample[sample["category"].isin(["math", "science"])]
    assert (compared["verdict"] == compared["loaded_verdict"]).all()
    assert (compared["verdict"] == compared["second_verdict"]).all() and len(compared) > 10
    # The made-up code and instructions have neither tests nor constraints.
    assert set(sample.loc[sample["category"] == "code", "loaded_verdict"]) <= {"unknown", "fail"}
