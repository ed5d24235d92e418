"""Filters, controls and the released schema."""

import json
import math

import pandas as pd
import pytest
from curate_traces import main as curate_traces
from curate_traces import system_prompt
from export_dataset import FILES, card, released_row
from export_dataset import main as export
from find_duplicate_traces import main as find_duplicate_traces
from find_frequent_ngrams import frequent
from hypothesis import given
from hypothesis import strategies as st
from match_datasets import digest_order, match
from match_datasets import main as match_datasets
from score_perplexity import batches, perplexities
from summarise_duplicates import main as summarise_duplicates

from whichteacher.rule import InputError, Progress
from whichteacher.schemas import COLLECTED, CONTAMINATED_RESPONSES, NGRAM_COUNTS, PERPLEXITIES, QUERIES, TRACES
from whichteacher.tables import write_table

DUPLICATE_TABLES = ("digests", "duplicates", "repeats")
GOOD = "<think>work</think><answer>1</answer>"


def trace(identifier: str, tokens: int = 10, **changes) -> dict:
    return {
        "query_id": identifier,
        "source": "made",
        "source_row": "1",
        "category": "math",
        "licence": "Apache-2.0",
        "turns": [{"role": "user", "content": "Compute 1 + 1."}],
        "reference": "2",
        "reference_type": "number",
        "tests": None,
        "constraints": None,
        "attempt_id": f"a{identifier}",
        "teacher": "steps",
        "system": "",
        "prompt": "rendered",
        "thinking": "1+1=2",
        "answer": "\\boxed{2}",
        "verify_score": 1.0,
        "attempts": 1,
        "output_tokens": tokens,
        "perplexity": 1.5,
        **changes,
    }


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 5), st.integers(0, 4))
def test_frequent_ngrams_are_those_of_a_plain_count(tokens, size, max_count):
    windows = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    expected = {window: windows.count(window) for window in windows if windows.count(window) > max_count}
    found = {tuple(map(int, row["ngram"].split())): row["count"] for row in frequent([tokens], size, max_count)}
    assert found == expected


TOKENIZER = {"model": "./resources/teachers/tokenizer", "revision": None}


def attempt(identifier: str, **changes) -> dict:
    """A row of COLLECTED, accepted unless said otherwise."""
    return {
        "attempt_id": f"a{identifier}",
        "query_id": identifier,
        "teacher": "steps",
        "shard": 0,
        "round": 0,
        "attempt": 0,
        "prompt": "rendered",
        "text": GOOD,
        "thinking": "work",
        "answer": "1",
        "conversion": "",
        "finish_reason": "stop",
        "prompt_tokens": 3,
        "output_tokens": 9,
        "seconds": 0.0,
        "devices": 1,
        "model": "m",
        "model_digest": "0",
        "engine": "vllm",
        "engine_version": "1",
        "hardware": "none",
        "settings": "{}",
        "verdict": "pass",
        "score": 1.0,
        "reason": "equal",
        "verifier": "v",
        "verifier_version": "1",
        "evidence": "{}",
        "accepted": True,
        **changes,
    }


def curate(
    folder,
    attempts: list[dict],
    perplexity: dict[str, float] | None = None,
    ngrams=(),
    duplicates=(),
    contaminated=None,
    **curation,
) -> dict:
    """What curate_traces writes for the accepted of ``attempts``: its three tables as frames."""
    queries = {row["query_id"]: trace(row["query_id"]) for row in attempts}
    write_table(folder / "queries.parquet", [{n: row[n] for n in QUERIES.names} for row in queries.values()], QUERIES)
    write_table(folder / "attempts.parquet", attempts, COLLECTED)
    scores = [
        {"attempt_id": f"a{identifier}", "scorer": "s", "scope": "response", "tokens": 1, "perplexity": value}
        for identifier, value in (perplexity or {}).items()
    ]
    write_table(folder / "perplexities.parquet", scores, PERPLEXITIES)
    write_table(folder / "ngrams.parquet", [{"ngram": ngram, "count": 21} for ngram in ngrams], NGRAM_COUNTS)
    outputs = {name: folder / f"{name}.parquet" for name in ("table", "ledger", "dropped")}
    settings = {
        "ngrams": {"tokenizer": TOKENIZER, "size": 20},
        "perplexity": {"thresholds": {"steps": 2.0}},
        "structure": {"leaks": True, "max_foreign_share": None, "loops": False},
    }
    curate_traces(
        folder / "attempts.parquet",
        folder / "queries.parquet",
        [folder / "perplexities.parquet"],
        folder / "ngrams.parquet",
        list(duplicates),
        outputs,
        "steps/0",
        {"system_prompt": "Think.", "answer_format": "tags", "engine": "vllm"},
        settings | curation,
        contaminated,
    )
    return {name: pd.read_parquet(path) for name, path in outputs.items()}


def test_responses_that_hold_a_problem_their_query_does_not_are_dropped_where_asked(tmp_path):
    quoted = {"benchmark": "made", "problem_id": "p1", "share": 1.0, "query_share": 0.0, "quotation": "", "problem": ""}
    rows = [
        {"attempt_id": f"a{identifier}", "query_id": identifier, "query_flagged": flagged, **quoted}
        for identifier, flagged in (("1", False), ("2", True), ("1", False))
    ]
    write_table(tmp_path / "contaminated.parquet", rows, CONTAMINATED_RESPONSES)
    attempts = [attempt(identifier) for identifier in "123"]
    assert len(curate(tmp_path, attempts)["table"]) == 3
    found = curate(tmp_path, attempts, contaminated=tmp_path / "contaminated.parquet")
    assert found["table"]["query_id"].tolist() == ["2", "3"]
    assert found["dropped"][["query_id", "reason", "detail"]].to_numpy().tolist() == [
        ["1", "contaminated_response", "made/p1"]
    ]


def test_curation_keeps_what_passes_and_tells_what_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr("whichteacher.tables.PART_ROWS", 2)
    attempts = [
        attempt("1"),
        attempt("2", attempt_id="a2x", accepted=False),
        attempt("2", attempt=1),
        attempt("3", text="<think>work</think>1"),
        attempt("4"),
    ]
    found = curate(tmp_path, attempts, {"1": 1.5, "4": 2.5})
    traces = found["table"].set_index("query_id")
    assert traces["attempts"].to_dict() == {"1": 1, "2": 2} and traces.loc["1", "perplexity"] == 1.5
    assert set(traces["system"]) == {"Think."} and traces["turns"].map(len).eq(1).all()
    told = {"in": 4, "kept": 2, "perplexity_above_threshold": 1, "structure_answer_missing": 1}
    assert found["ledger"].set_index("reason")["rows"].to_dict() == told
    assert set(found["ledger"]["scope"]) == {"steps/0"}
    assert found["dropped"].set_index("query_id")["detail"]["4"] == "2.500 > 2.0"


def test_loops_and_other_scripts_are_dropped_where_that_is_asked(tmp_path):
    looping = "Wait, let me check. " * 12
    mixed = "It is two, \u6240\u4ee5\u7b54\u6848\u662f two."
    attempts = [
        attempt("1"),
        attempt("2", thinking=looping, text=f"<think>{looping}</think><answer>1</answer>"),
        attempt("3", thinking=mixed, text=f"<think>{mixed}</think><answer>1</answer>"),
    ]
    assert len(curate(tmp_path, attempts)["table"]) == 3
    found = curate(tmp_path, attempts, structure={"leaks": True, "max_foreign_share": 0.1, "loops": True})
    dropped = found["dropped"].set_index("query_id")["reason"].to_dict()
    assert dropped == {"2": "structure_loop", "3": "structure_foreign_script"}


def test_a_leaked_token_is_named_in_the_ledger(tmp_path):
    leaking = attempt("1", text="<think>work</think><answer>1<|im_end|></answer>")
    assert curate(tmp_path, [leaking])["dropped"][["reason", "detail"]].to_numpy().tolist() == [
        ["structure_template_token", "<|im_end|>"]
    ]


def test_the_system_field_is_the_teachers_or_the_releases():
    assert system_prompt("rendered", {"engine": "vllm", "system_prompt": "Think."}) == "Think."
    release = {"engine": "dataset", "system_prompt": ""}
    assert system_prompt('[{"role": "system", "content": "As released."}]', release) == "As released."
    assert system_prompt('[{"role": "user", "content": "1 + 1?"}]', release) == ""


def test_a_shard_without_accepted_attempts_gives_empty_tables(tmp_path):
    found = curate(tmp_path, [attempt("1", accepted=False)])
    assert found["table"].empty and found["dropped"].empty
    assert found["ledger"]["rows"].tolist() == [0, 0]


def found_duplicates(folder, *shards: list[dict]) -> dict[str, pd.DataFrame]:
    """What find_duplicate_traces writes for attempts of one teacher."""
    paths = [folder / f"attempts{number}.parquet" for number in range(len(shards))]
    for path, attempts in zip(paths, shards, strict=True):
        write_table(path, attempts, COLLECTED)
    outputs = {name: folder / f"{name}.parquet" for name in ("digests", "duplicates", "repeats")}
    find_duplicate_traces(paths, outputs, "steps")
    return {name: pd.read_parquet(path) for name, path in outputs.items()}


def said(thinking: str, answer: str = "1") -> dict[str, str]:
    return {"text": f"<think>{thinking}</think><answer>{answer}</answer>", "thinking": thinking, "answer": answer}


def test_equal_responses_to_different_queries_are_found_over_all_shards(tmp_path):
    found = found_duplicates(
        tmp_path,
        [attempt("5"), attempt("6", **said("caf\u00e9")), attempt("7", **said("other"))],
        [
            attempt("1", accepted=False),  # no trace
            attempt("2", **said("  work\n")),
            attempt("3", text="work </think><answer> 1</answer>"),
            attempt("4", **said("cafe\u0301")),
        ],
    )
    assert found["duplicates"][["query_id", "kept"]].to_numpy().tolist() == [["3", "2"], ["5", "2"], ["6", "4"]]
    assert sorted(found["digests"]["query_id"]) == ["2", "3", "4", "5", "6", "7"]


def test_attempts_that_repeat_an_earlier_one_are_counted(tmp_path):
    rows = [
        attempt("1", accepted=False, **said("a", "1")),
        attempt("1", attempt=1, accepted=False, **said("b", "1")),
        attempt("1", attempt=2, **said("a", "2")),
        attempt("2", accepted=False, text="cut", thinking=None, answer=None),
        attempt("2", attempt=1, accepted=False, text="cut", thinking=None, answer=None),
        attempt("3", **said("a", "1")),
    ]
    found = found_duplicates(tmp_path, [{**row, "attempt_id": str(n)} for n, row in enumerate(rows)])
    assert found["repeats"].iloc[0].to_dict() == {
        "teacher": "steps",
        "later_attempts": 3,
        "repeated_responses": 1,
        "repeated_answers": 1,
    }


def test_equal_responses_are_summarised_within_and_between_teachers(tmp_path):
    found = {}
    for name, second in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).mkdir()
        found_duplicates(tmp_path / name, [attempt("1"), attempt("2", **said(second)), attempt("3")])
        found[name] = tmp_path / name
    tables = ({name: path / f"{kind}.parquet" for name, path in found.items()} for kind in DUPLICATE_TABLES)
    summarise_duplicates(*tables, tmp_path / "duplicates.csv")
    told = pd.read_csv(tmp_path / "duplicates.csv").fillna({"other": ""}).set_index(["teacher", "other", "measure"])
    assert told.loc["a", "", "equal_responses"].tolist() == [3, 1, pytest.approx(1 / 3)]
    assert told.loc["a", "b", "shared_responses"].tolist() == [3, 3, 1]
    assert told.loc["a", "c", "shared_responses"].tolist() == [3, 2, pytest.approx(2 / 3)]


def test_equal_responses_are_dropped_where_that_is_asked(tmp_path):
    attempts = [attempt("1"), attempt("2"), attempt("3", **said("other"))]
    assert len(found_duplicates(tmp_path, attempts)["duplicates"]) == 1
    assert len(curate(tmp_path, attempts)["table"]) == 3
    found = curate(tmp_path, attempts, duplicates=[tmp_path / "duplicates.parquet"])
    assert found["table"]["query_id"].tolist() == ["1", "3"]
    assert found["dropped"][["query_id", "reason", "detail"]].to_numpy().tolist() == [["2", "duplicate_response", "1"]]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 100))
def test_batches_cover_every_row_once_within_the_budget(lengths, budget):
    made = list(batches(lengths, budget))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in made)


def test_perplexity_is_that_of_one_row_at_a_time(tiny_model):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    rows = [([5, 6, 7, 8, 9, 10], 3), ([20, 21], 1), ([30], 1)]
    values = perplexities(model, rows, Progress("test", len(rows)))
    for (ids, first), value in list(zip(rows, values, strict=True))[:2]:
        with torch.inference_mode():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = math.exp(-sum(logp[i - 1, ids[i]].item() for i in range(first, len(ids))) / (len(ids) - first))
        assert value == pytest.approx(expected, rel=1e-4)
    assert values[2] is None


def frames(**teachers: list[dict]) -> dict[str, pd.DataFrame]:
    return {name: pd.DataFrame(rows) for name, rows in teachers.items()}


def test_parallel_keeps_the_queries_every_teacher_solved():
    kept = match(frames(a=[trace("1"), trace("2")], b=[trace("2"), trace("3")]), "parallel")
    assert {name: list(rows) for name, (rows, _) in kept.items()} == {"a": [False, True], "b": [True, False]}


def test_equal_rows_and_tokens_bound_every_teacher():
    teachers = frames(a=[trace(str(i), 10) for i in range(9)], b=[trace(str(i), 30) for i in range(5)])
    rows = match(teachers, "equal_rows")
    assert {kept.sum() for kept, _ in rows.values()} == {5}
    tokens = match(teachers, "equal_tokens")
    assert all(teachers[name]["output_tokens"][kept].sum() <= 90 for name, (kept, _) in tokens.items())
    assert tokens["a"][0].sum() == 9 and tokens["b"][0].sum() == 3
    with pytest.raises(InputError, match="no such control"):
        match(teachers, "unheard_of")


def test_the_cut_takes_the_same_queries_first_for_every_teacher():
    a, b = pd.DataFrame([trace(str(i)) for i in range(30)]), pd.DataFrame([trace(str(i)) for i in range(29, -1, -1)])
    ordered = [list(frame["query_id"].to_numpy()[digest_order(frame["query_id"])]) for frame in (a, b)]
    assert ordered[0] == ordered[1] != list(a["query_id"])


def test_datasets_are_copied_from_all_shards_and_what_is_left_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("whichteacher.tables.PART_ROWS", 2)
    solved = {"a": [["1", "2", "3"], ["4", "5"]], "b": [["2"], ["5", "6"]]}
    inputs = {}
    for name, shards in solved.items():
        inputs[name] = [tmp_path / f"{name}{shard}.parquet" for shard in range(2)]
        for path, queries in zip(inputs[name], shards, strict=True):
            write_table(path, [trace(query, teacher=name) for query in queries], TRACES)
    places = [{name: tmp_path / f"{name}.{kind}" for name in solved} for kind in ("table", "ledger", "dropped")]
    match_datasets(inputs, *places, "parallel")
    tables, ledgers, dropped = ({name: pd.read_parquet(path) for name, path in kind.items()} for kind in places)
    for name, table in tables.items():
        assert table["query_id"].tolist() == ["2", "5"] and set(table["teacher"]) == {name}
    assert ledgers["a"].set_index("reason")["rows"].to_dict() == {
        "in": 5,
        "kept": 2,
        "not_solved_by_every_teacher": 3,
    }
    assert dropped["a"]["query_id"].tolist() == ["1", "3", "4"]


def test_the_released_schema(tmp_path):
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    record = released_row(trace("1", turns=turns))
    assert list(record) == ["system", "conversations"]
    assert [turn["from"] for turn in record["conversations"]] == ["human", "assistant", "human", "assistant"]
    infos = [turn["info"] for turn in record["conversations"]]
    assert all(list(info) == list(infos[0]) for info in infos) and len(infos[0]) == 10
    assert infos[2]["ground_truth"] == "2" and infos[0]["ground_truth"] is None
    assert infos[3]["verify_score"] == 1.0 and infos[3]["model_name"] == "steps" and infos[3]["ppl"] == 1.5
    assert record["conversations"][-1]["value"] == "<think>1+1=2</think><answer>\\boxed{2}</answer>"


def test_an_export_is_loaded_by_the_datasets_library(tmp_path):
    from datasets import load_dataset

    rows = [trace("1"), trace("2", category="general", source="other"), trace("3")]
    write_table(tmp_path / "d.parquet", rows, TRACES)
    export(str(tmp_path / "d.parquet"), str(tmp_path / "out"), "parallel", "Steps", "test")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["README.md", *(f"{name}.jsonl" for name in FILES.values())]
    )
    lines = (tmp_path / "out" / "math.jsonl").read_text().splitlines()
    assert [json.loads(line)["conversations"][0]["value"] for line in lines] == ["Compute 1 + 1."] * 2
    loaded = load_dataset(str(tmp_path / "out"), "math", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 2 and loaded[0]["conversations"][1]["info"]["think_content"] == "1+1=2"
    assert "| made | Apache-2.0 | 2 |" in card(rows, "parallel", "Steps", "test")
