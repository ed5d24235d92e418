"""Filters and controls."""

import pandas as pd
import pytest
from curate_traces import main as curate_traces
from curate_traces import system_prompt
from find_duplicate_traces import main as find_duplicate_traces
from summarise_duplicates import main as summarise_duplicates

from whichteacher.schemas import (
    COLLECTED,
    CONTAMINATED_RESPONSES,
    NGRAM_COUNTS,
    PERPLEXITIES,
    PERPLEXITY_LIMITS,
    QUERIES,
)
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
        "cut_characters": 0,
        "perplexity": 1.5,
        **changes,
    }


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
    scored = {"scorer": "s", "scope": "response", "length": 2, "tokens": 1, "nll": 0.5, "state": "scored"}
    scores = [
        {**scored, "attempt_id": f"a{identifier}", "query_id": identifier, "perplexity": value}
        for identifier, value in (perplexity or {}).items()
    ]
    write_table(folder / "perplexities.parquet", scores, PERPLEXITIES)
    limit = {"teacher": "steps", "scorer": "s", "threshold": "2.0", "limit": 2.0, "rows": 1, "scored": 1, "above": 0}
    write_table(folder / "limits.parquet", [limit], PERPLEXITY_LIMITS)
    write_table(folder / "ngrams.parquet", [{"ngram": ngram, "count": 21} for ngram in ngrams], NGRAM_COUNTS)
    outputs = {name: folder / f"{name}.parquet" for name in ("table", "ledger", "dropped")}
    settings = {
        "ngrams": {"tokenizer": TOKENIZER, "size": 20, "action": "drop_row"},
        "repetition": None,
        "structure": {"leaks": True, "max_foreign_share": None, "loops": False},
    }
    curate_traces(
        folder / "attempts.parquet",
        folder / "queries.parquet",
        [folder / "perplexities.parquet"],
        [folder / "limits.parquet"],
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
    assert found["dropped"].set_index("query_id")["detail"]["4"] == "2.5 > 2"


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
