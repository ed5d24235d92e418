"""The table of agreement with other graders."""

import json

import measure_agreement
import pytest
from agreement import Graded, math, tally


def test_a_set_is_counted_and_its_disagreements_are_listed():
    graded = [
        Graded("a", "pass", True, "same_text"),
        Graded("b", "fail", False, "other_value"),
        Graded("c", "pass", False, "same_value"),
        Graded("d", "fail", True, "no_box"),
        Graded("e", "unknown", True, "timeout"),
        Graded("f", "unknown", False, "timeout"),
    ]
    row = tally("set", graded, "a note")
    assert row[:6] == ("set", 6, 2, 1, 1, 2)
    assert [one["id"] for one in row.disagreements] == ["c", "d", "e", "f"]
    table = measure_agreement.markdown([row]).splitlines()
    assert table[2] == "| set | 6 | 2 (33.3%) | 1 | 1 | 2 | a note |"
    assert "- d: ours fail, theirs pass: no_box" in table


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        (r"so $x$ is \boxed{3} and $y$", "3"),
        ("first $2$, then $$ 4 $$", "4"),
        (" 1 000 ", "1 000"),
    ],
)
def test_where_other_sets_have_their_answer(text, formula):
    assert math.last_formula(text) == formula


def test_only_the_answer_part_is_graded():
    assert math.answer_part("<think>5</think><answer> 6 </answer>") == "6"
    assert math.answer_part("a</think> <answer> 6") == "6"


def test_a_set_of_pairs_is_measured(tmp_path):
    folder = tmp_path / "verification"
    folder.mkdir()
    pairs = [("4", "4", True), ("4", "5", False), ("4", r"\sqrt{16}", False), ("a", "b", None)]
    rows = [
        {"id": str(number), "gold": gold, "pred": answer, "label": label, "math_verify": False, "qwen_grader": True}
        for number, (gold, answer, label) in enumerate(pairs)
    ]
    (folder / "real_predictions_graded.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    agreed, *others = [next(rows) for rows in [math._graded_answers(tmp_path, 1)] for _ in range(3)]
    assert agreed[1:6] == (3, 2, 1, 0, 0)
    assert agreed.disagreements[0]["id"] == "2"
    assert [row.rows for row in others] == [1, 1]


def test_a_missing_folder_and_an_unknown_part_are_told(tmp_path):
    with pytest.raises(SystemExit, match="no folder"):
        measure_agreement.main(tmp_path / "none", 1, ["math"])
    with pytest.raises(Exception, match="no part maths"):
        measure_agreement._parts("math,maths")
