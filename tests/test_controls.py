"""Datasets that may be compared: each kind of control, its balance, its ledger, and one format for all."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from match_datasets import COLUMNS, balance, cells_of, check_filled, digest_order, match
from match_datasets import main as match_datasets
from test_config import change, complaint, shipped
from test_curation import TOKENIZER, trace

from whichteacher.config import Curation, Verification, check_config
from whichteacher.formats import normalise_answer, normalise_thinking, protected
from whichteacher.references import infer_type
from whichteacher.responses import split_response
from whichteacher.rule import InputError
from whichteacher.schemas import TRACES
from whichteacher.tables import write_table
from whichteacher.verifiers.code import last_program
from whichteacher.verifiers.dispatch import verify_many
from whichteacher.verifiers.math import boxes

ROOT = Path(__file__).parents[1]


def control(kind: str, **chosen) -> dict:
    return {"kind": kind, "length_bins": None, "perplexity_bins": None, "share": None, **chosen}


def frames(**teachers: list[dict]) -> dict[str, pd.DataFrame]:
    return {name: pd.DataFrame([{key: row[key] for key in COLUMNS} for row in rows]) for name, rows in teachers.items()}


def kept(teachers: dict[str, pd.DataFrame], kind: str, **chosen) -> dict[str, list[str]]:
    """Identifiers of what a control keeps, by teacher."""
    reasons = match(teachers, control(kind, **chosen))
    return {name: teachers[name]["query_id"][why == ""].tolist() for name, why in reasons.items()}


# --- kinds -----------------------------------------------------------------------------------------------------------


def test_parallel_keeps_the_queries_every_teacher_solved():
    teachers = frames(a=[trace("1"), trace("2")], b=[trace("2"), trace("3")])
    assert kept(teachers, "parallel") == kept(teachers, "format_normalised") == {"a": ["2"], "b": ["2"]}
    assert kept(teachers, "own_passes") == {"a": ["1", "2"], "b": ["2", "3"]}


def test_equal_rows_and_tokens_bound_every_teacher():
    teachers = frames(a=[trace(str(i), 10) for i in range(9)], b=[trace(str(i), 30) for i in range(5)])
    assert {len(found) for found in kept(teachers, "equal_rows").values()} == {5}
    found = kept(teachers, "equal_tokens")
    assert len(found["a"]) == 9 and len(found["b"]) == 3


def test_a_cut_takes_the_same_queries_first_for_every_teacher():
    a, b = pd.DataFrame([trace(str(i)) for i in range(30)]), pd.DataFrame([trace(str(i)) for i in range(29, -1, -1)])
    ordered = [list(frame["query_id"].to_numpy()[digest_order(frame["query_id"])]) for frame in (a, b)]
    assert ordered[0] == ordered[1] != list(a["query_id"])


rows = st.lists(
    st.tuples(st.sampled_from(["math", "code"]), st.integers(1, 60), st.one_of(st.none(), st.floats(1, 9))), max_size=40
)
bins = st.one_of(
    st.none(), st.integers(1, 6), st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True).map(sorted)
)


@settings(max_examples=50)
@given(st.lists(rows, min_size=2, max_size=3), bins, bins)
def test_matched_datasets_are_equal_in_every_cell_and_drop_no_more_than_they_must(
    teachers, length_bins, perplexity_bins
):
    made = {
        f"t{number}": [
            trace(f"{number}-{place}", tokens, category=category, perplexity=perplexity)
            for place, (category, tokens, perplexity) in enumerate(found)
        ]
        for number, found in enumerate(teachers)
    }
    data = {
        name: frame.astype({"perplexity": float}) if len(frame) else empty() for name, frame in frames(**made).items()
    }
    for kind, columns in (
        ("length_matched", ["output_tokens"]),
        ("perplexity_matched", ["perplexity"]),
        ("length_perplexity_matched", ["output_tokens", "perplexity"]),
    ):
        chosen = {"output_tokens": length_bins, "perplexity": perplexity_bins}
        used = {("length_bins", "perplexity_bins")[column == "perplexity"]: chosen[column] for column in columns}
        reasons = match(data, control(kind, **used))
        pooled = pd.concat(data.values())
        counts = {}
        for name, frame in data.items():
            cells = [
                (row["category"], *(cell(pooled, row, column, chosen[column]) for column in columns))
                for row in frame.to_dict("records")
            ]
            for place, found in enumerate(cells):
                missing = "perplexity" in columns and np.isnan(frame["perplexity"][place])
                assert (reasons[name][place] == "no_perplexity") == missing
                if not missing:
                    counts.setdefault(found, {key: [0, 0] for key in data})[name][0] += 1
                    counts[found][name][1] += reasons[name][place] == ""
        for found in counts.values():
            assert {took for _, took in found.values()} == {min(had for had, _ in found.values())}


def empty() -> pd.DataFrame:
    return frames(a=[trace("1")])["a"].iloc[:0]


def cell(pooled: pd.DataFrame, row: dict, column: str, chosen) -> int:
    """The bin of one value by plain counting of the limits that are not above it."""
    if not isinstance(chosen, list):
        values = pooled.loc[pooled["category"] == row["category"], column].dropna()
        if values.empty:
            return 0
        chosen = set(np.quantile(values, np.linspace(0, 1, (chosen or 10) + 1)[1:-1]))
    return sum(row[column] >= limit for limit in chosen)


def test_within_a_cell_the_first_by_digest_stay():
    a = [trace(str(number), 10) for number in range(40)]
    teachers = frames(a=a, b=[trace(f"b{number}", 10) for number in range(7)])
    ordered = np.array([row["query_id"] for row in a])[digest_order(teachers["a"]["query_id"])]
    assert sorted(kept(teachers, "length_matched")["a"]) == sorted(ordered[:7])


@pytest.mark.parametrize(
    ("lengths", "chosen", "expected"),
    [
        ([1, 5, 10, 20], [5, 20], [0, 1, 1, 2]),
        ([1, 5, 10, 20], 1, [0, 0, 0, 0]),
        ([*range(100)], 2, [0] * 50 + [1] * 50),
        ([7] * 5, 10, [1] * 5),  # equal limits are one
    ],
)
def test_bins_are_limits_or_quantiles(lengths, chosen, expected):
    teachers = frames(a=[trace(str(number), length) for number, length in enumerate(lengths)])
    assert cells_of(teachers, {"output_tokens": chosen})["a"].tolist() == expected


def test_score_quantile_keeps_the_best_of_each_category():
    scores = {"math": [1.0, 1.0, 0.9, 0.95], "general": [0.91, 0.99, 0.92]}
    made = [
        trace(f"{category}{place}", category=category, verify_score=score)
        for category, found in scores.items()
        for place, score in enumerate(found)
    ]
    found = kept(frames(a=made), "score_quantile")["a"]
    assert found == ["math0", "math1", "general1", "general2"]
    ties = frames(a=[trace(str(number)) for number in range(20)])
    order = ties["a"]["query_id"].to_numpy()[digest_order(ties["a"]["query_id"])]
    assert sorted(kept(ties, "score_quantile", share=0.25)["a"]) == sorted(order[:5])


@pytest.mark.parametrize(
    ("kind", "a", "b", "expected"),
    [
        ("parallel", [trace("1")], [trace("2")], "control mine: no trace of teacher a is left: no query is left that every"),
        ("length_matched", [trace("1", 5)], [trace("2", 50)], "no trace of teacher a is left: no cell holds traces of every"),
        ("equal_rows", [trace("1")], [], "no trace of teacher b is left: it has no traces at all"),
        ("parallel", [trace("1")], [], "no trace of teacher b is left: it has no traces at all"),
        ("equal_tokens", [trace("1", 5)], [trace("2", 50)], "no trace of teacher b is left: its first trace is longer"),
    ],
)  # fmt: skip
def test_an_empty_dataset_is_one_error_with_control_teacher_and_remedy(kind, a, b, expected):
    teachers = {name: frames(x=found)["x"] if found else empty() for name, found in (("a", a), ("b", b))}
    with pytest.raises(InputError, match=re.escape(expected)):
        check_filled("mine", kind, match(teachers, control(kind)))


# --- the balance -----------------------------------------------------------------------------------------------------


def test_the_balance_before_and_after():
    before = frames(
        a=[trace(str(number), tokens) for number, tokens in enumerate([10, 20, 30])],
        b=[trace(str(number), tokens) for number, tokens in enumerate([30, 40, 50])],
    )
    after = {"a": before["a"].iloc[2:], "b": before["b"].iloc[:1]}
    found = balance(before, after).set_index(["teacher", "category"])
    assert set(found.index.get_level_values("category")) == {"all", "math"}
    row = found.loc["a", "all"]
    assert row[["rows_before", "rows", "tokens_before", "tokens", "length_mean", "length_median"]].tolist() == [
        3, 1, 60, 30, 30, 30
    ]  # fmt: skip
    assert row["length_difference_before"] == pytest.approx((20 - 40) / 10)
    assert found.loc["b", "all"]["length_difference_before"] == pytest.approx(2)
    assert np.isnan(row["length_difference"])  # one row has no variance
    assert np.isnan(row["perplexity_difference_before"])  # all the same


# --- the script ------------------------------------------------------------------------------------------------------


def run(folder: Path, solved: dict[str, list[list[dict]]], kind: str, **chosen) -> dict[str, dict[str, pd.DataFrame]]:
    """Run match_datasets on ``solved`` (traces by teacher and shard): its tables as frames, by kind and teacher."""
    inputs = {}
    for name, shards in solved.items():
        inputs[name] = [folder / f"{name}{number}.parquet" for number in range(len(shards))]
        for path, found in zip(inputs[name], shards, strict=True):
            write_table(path, found, TRACES)
    places = {key: {name: folder / f"{name}.{key}" for name in solved} for key in ("table", "ledger", "dropped")}
    tokenizer = {key: TOKENIZER[key] for key in ("model", "revision")}
    match_datasets(inputs, *places.values(), folder / "balance.csv", "mine", control(kind, **chosen), tokenizer)
    return {key: {name: pd.read_parquet(path) for name, path in files.items()} for key, files in places.items()}


def test_datasets_are_copied_from_all_shards_and_what_is_left_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("whichteacher.tables.PART_ROWS", 2)
    solved = {
        name: [[trace(query, teacher=name) for query in queries] for queries in shards]
        for name, shards in {"a": [["1", "2", "3"], ["4", "5"]], "b": [["2"], ["5", "6"]]}.items()
    }
    found = run(tmp_path, solved, "parallel")
    for name, table in found["table"].items():
        assert table["query_id"].tolist() == ["2", "5"] and set(table["teacher"]) == {name}
    told = {"in": 5, "kept": 2, "not_solved_by_every_teacher": 3}
    assert found["ledger"]["a"].set_index("reason")["rows"].to_dict() == told
    assert set(found["ledger"]["a"]["scope"]) == {"mine/a"}
    assert found["dropped"]["a"]["query_id"].tolist() == ["1", "3", "4"]
    assert pd.read_csv(tmp_path / "balance.csv")["rows"].tolist() == [2] * 4


def test_a_normalised_dataset_counts_its_own_tokens_and_knows_no_perplexity(tmp_path):
    text = {"thinking": "Okay, so   **two**\n\n\n\nand two.", "answer": "So \\( \\boxed{4} \\)"}
    found = run(tmp_path, {name: [[trace("1", 999, teacher=name, **text)]] for name in "ab"}, "format_normalised")
    row = found["table"]["a"].iloc[0]
    assert (row["thinking"], row["answer"]) == ("Two\n\nand two.", "So $\\boxed{4}$")
    assert 0 < row["output_tokens"] < 999 and np.isnan(row["perplexity"])


# --- one format ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb \n\n\n\nc", "a\nb\n\nc"),
        ("  a\u00a0 b\tc  ", "a b c"),
        ("if x:\n    deep  in", "if x:\n    deep in"),
        ("so \\( x + y \\) and \\[\n x^2 \n\\] done", "so $x + y$ and $$x^2$$ done"),
        (r"\begin{pmatrix} a \\[4pt] b \\(c) \end{pmatrix}", r"\begin{pmatrix} a \\[4pt] b \\(c) \end{pmatrix}"),
        ("## The **end** ##\ntext", "The end\ntext"),
        ("#hashtag", "#hashtag"),
        ("it is **very** large", "it is very large"),
        ("2**3**4 and x ** y ** z", "2**3**4 and x ** y ** z"),
        ("a\n---\nb\n***\nc", "a\n\nb\n\nc"),
        ("* one\n  * two\n\u2022 three\n- four", "- one\n  - two\n- three\n- four"),
        ("x = 3\n* 4\n+ 5\n- 6", "x = 3\n* 4\n+ 5\n- 6"),
        ("1) one\n(2) two\n3. three", "1. one\n2. two\n3. three"),
        ("(1 +\n2) = 3", "(1 +\n2) = 3"),
        ("Okay, so I need", "I need"),
        ("Hmm. Let me see", "Let me see"),
        ("so, we add", "We add"),
        ("Right triangles are", "Right triangles are"),
        ("So we need", "So we need"),
        ("Okay", "Okay"),
        ("Alright, alright, so it is", "It is"),
    ],
)
def test_thinking_in_one_format(text, expected):
    assert normalise_thinking(text) == expected
    assert normalise_thinking(expected) == expected


@pytest.mark.parametrize(
    ("text", "category", "expected"),
    [
        ("Certainly! here it is", "general", "Here it is"),
        ("Okay, so here", "general", "Okay, so here"),
        ("**B**", "science", "**B**"),  # what is compared is the whole answer
        ("It is **so**: \\boxed{**B**  c}", "science", "It is so: \\boxed{**B**  c}"),
        ("* one\n* two", "instruction_following", "* one\n* two"),
    ],
)
def test_answers_in_one_format(text, category, expected):
    assert normalise_answer(text, category) == expected


CODE = "```python\n# no heading\nprint(2  **  3)\n\n\n\n* x\n```"


def test_code_and_boxes_stay_byte_for_byte():
    text = f"### Code\n{CODE}\nthen `a  **b**` and \\boxed{{\\( a  \\)}} in **bold**"
    found = normalise_answer(text, "code")
    assert found == f"Code\n{CODE}\nthen `a  **b**` and \\boxed{{\\( a  \\)}} in bold"
    assert normalise_answer("**x**\n```\n* never  closed", "code") == "x\n```\n* never  closed"


pieces = st.sampled_from(
    [CODE, "```", "~~~", "`", "\\boxed{", "}", "{", "\\(", "\\)", "\\[", "\\]", "$", "\\\\", "\n", "\n\n\n", "  ", " ", "*", "**",
     "# ", "- ", "* ", "+ ", "1) ", "(2) ", "---", "Okay, so ", "Sure! ", "x", "2", "word", "\u2022 ", "\ue000", "\ue000" "0\ue001"]
)  # fmt: skip


@given(st.lists(pieces, max_size=30).map("".join))
def test_whatever_the_text_nothing_protected_changes_and_twice_is_once(text):
    for found in (normalise_answer(text, "code"), normalise_thinking(text)):
        assert [found[start:end] for start, end in protected(found)] == [
            text[start:end] for start, end in protected(text)
        ]
        assert boxes(found) == boxes(text)
        assert last_program(found) == last_program(text)
        assert bool(found.strip()) == bool(text.strip())
    assert normalise_thinking(normalise_thinking(text)) == normalise_thinking(text)


def test_no_labelled_case_changes_its_verdict():
    """All that a verifier reads of an answer stays: boxes, programs, or the whole. Every eighth changed one is verified."""
    changed = []
    for path in sorted((ROOT / "resources/verifier_cases").glob("*.jsonl")):
        for case in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            parts = split_response(case["text"])
            if parts.fault:
                continue
            # The same answer as another teacher might dress it.
            dressed = f"Sure! ## Answer\n\n* **Note**: done\n\n\n{parts.answer}"
            if case["category"] in ("instruction_following", "science"):
                dressed = parts.answer
            answer = normalise_answer(dressed, case["category"])
            assert (boxes(answer), last_program(answer)) == (boxes(dressed), last_program(dressed)), case["case_id"]
            if case["category"] in ("math", "science"):
                assert boxes(answer) or answer == dressed
            if case["category"] != "code" and answer != dressed:
                changed.append((case, dressed, answer))
    assert len(changed) > 100
    told = []
    for part in (1, 2):
        rows = [
            case
            | {
                "attempt_id": case["case_id"],
                "query_id": case["case_id"],
                "reference_type": case.get("reference_type") or infer_type(case.get("reference"), case["category"]),
                "answer_format": "tags",
                "text": f"<think>t</think><answer>{(case, dressed, answer)[part]}</answer>",
            }
            for case, dressed, answer in changed[::8]
        ]
        told.append(verify_many(rows, Verification(), 1, "test"))
    for before, after in zip(*told, strict=True):
        assert (before["verdict"], before["score"]) == (after["verdict"], after["score"]), before["attempt_id"]


# --- the configuration -----------------------------------------------------------------------------------------------


def controls(value: object) -> dict:
    block = {
        "ngrams": {"tokenizer": {"model": "./x"}},
        "perplexity": {"scorers": {"x": {"model": "./x"}}},
        "controls": value,
    }
    return Curation.model_validate(block).controls


def test_controls_are_a_list_of_kinds_or_settings_by_name():
    assert {name: found.kind for name, found in controls(["parallel", "equal_rows"]).items()} == {
        "parallel": "parallel",
        "equal_rows": "equal_rows",
    }
    found = controls({"fine": {"kind": "length_matched", "length_bins": 50}, "parallel": {}, "own_passes": None})
    assert [(name, block.kind) for name, block in found.items()] == [
        ("fine", "length_matched"),
        ("parallel", "parallel"),
        ("own_passes", "own_passes"),
    ]
    assert found["fine"].length_bins == 50
    again = Curation.model_validate(
        {"ngrams": {"tokenizer": {"model": "./x"}}, "controls": {"fine": found["fine"].model_dump()}}
    )
    assert again.controls["fine"] == found["fine"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["nothing"], "curation.controls.nothing.kind (value 'nothing'): Input should be 'parallel'"),
        ([], "curation.controls"),
        (["parallel", "parallel"], "a control is listed twice"),
        ({"half": {"kind": "parallel", "share": 0.5}}, "kind parallel takes no `share`, which is of score_quantile"),
        ({"length_matched": {"length_bins": [100, 10]}}, "do not rise"),
        ({"length_matched": {"length_bins": 0}}, "curation.controls.length_matched.length_bins"),
        ({"score_quantile": {"share": 1.5}}, "curation.controls.score_quantile.share (value 1.5)"),
    ],
)
def test_a_fault_of_a_control_is_told(value, expected):
    message = complaint(change(shipped("test.yaml"), "curation.controls", value))
    assert message.startswith("config key ") and expected in message


def test_a_control_that_needs_perplexities_asks_for_them():
    config = change(shipped("test.yaml"), "curation.perplexity", None)
    assert "control perplexity_matched matches perplexities, and none are computed" in complaint(
        change(config, "curation.controls", ["perplexity_matched"])
    )
    assert check_config(change(config, "curation.controls", ["length_matched"]), folders=False)
