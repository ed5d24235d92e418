"""The plan: what is paid for, what is due, and whether the estimate is the one it claims to be."""

import json

import numpy as np
import pandas as pd
import plan
import pyarrow as pa
import pytest
import sample_pilot
from plan import Need, Pilot, estimate, expected, read_needs, read_pilot

from whichteacher import engines
from whichteacher.engines.respond import shelf_of
from whichteacher.engines.specs import request_keys
from whichteacher.queries import query_id, shard_of
from whichteacher.rounds import render_prompts, spec_of
from whichteacher.schemas import ATTEMPTS, QUERIES, VERDICTS
from whichteacher.tables import read_table, write_table

TEACHER = {
    "model": "a-model",
    "revision": None,
    "engine": "openai",
    "endpoint": {"api": "chat", "served_model": None, "extra_body": {}},
    "answer_format": "tags",
    "system_prompt": "",
    "suffixes": {},
    "sampling": {"temperature": 0.5, "top_p": 1.0, "top_k": -1, "max_tokens": 9, "stop": None},
    "attempts": [1, 2],
}
RUNNING = {
    "tensor_parallel": 1,
    "pipeline_parallel": 1,
    "data_parallel": 1,
    "vllm_arguments": {},
    "endpoint": {
        "base_url": "http://127.0.0.1:1/v1",
        "api_key_env": None,
        "concurrency": 1,
        "requests_per_minute": None,
        "retries": 0,
        "timeout_seconds": 1.0,
    },
}
PRICE = {"price_per_million_tokens": 1e6, "price_per_device_hour": None}


def simulate(rng, chance, schedule, mean_tokens):
    """Queries that pass each attempt with their own ``chance``: which rounds they reach and their tokens there."""
    reached = np.zeros((len(chance), len(schedule)), dtype=bool)
    tokens = np.zeros((len(chance), len(schedule)))
    open_ = np.ones(len(chance), dtype=bool)
    for number, count in enumerate(schedule):
        reached[:, number] = open_
        tokens[:, number] = np.where(open_, rng.poisson(mean_tokens, (len(chance), count)).sum(axis=1), 0)
        open_ = open_ & (rng.random((len(chance), count)) > chance[:, None]).all(axis=1)
    return Pilot(reached, tokens)


def nothing_stored(queries: int) -> Need:
    return Need(np.zeros(queries, dtype=int), np.ones(queries), np.ones(queries, dtype=bool))


def test_without_a_store_the_estimate_is_the_pilots_mean_times_the_queries():
    pilot = simulate(np.random.default_rng(1), np.full(40, 0.5), [1, 2], 100)
    found = estimate(pilot, nothing_stored(1000), [1, 2])
    assert found["tokens"] == pytest.approx(1000 * pilot.tokens.sum() / 40)
    assert found["responses"] == pytest.approx(1000 * (pilot.reached @ [1, 2]).mean())
    assert found["tokens_low"] < found["tokens"] < found["tokens_high"]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    schedule, covered, runs = [1, 1, 2], 0, 150
    for _ in range(runs):
        chance = rng.beta(2, 2, 2000)
        everything = simulate(rng, chance, schedule, 100)
        chosen = rng.choice(2000, 60, replace=False)
        found = estimate(Pilot(everything.reached[chosen], everything.tokens[chosen]), nothing_stored(2000), schedule)
        covered += found["tokens_low"] <= everything.tokens.sum() <= found["tokens_high"]
    assert 0.88 <= covered / runs <= 0.99


def test_what_is_stored_or_solved_is_not_expected_again():
    stored = np.array(
        [[True, True, True], [True, False, False], [True, True, False], [False] * 3, [True, False, False]]
    )
    #                   all is there        round 1 is due         half of it         all is due    solved
    need = read_needs(stored, [1, 2], np.array([-1, -1, -1, -1, 0]), judged=0)
    assert need.round.tolist() == [2, 1, 1, 0]
    assert need.share.tolist() == [0, 1, 0.5, 1]
    # Nobody has looked at the stored first attempts: whether the second round is needed is not known.
    assert need.open.tolist() == [False, False, False, True]
    judged = read_needs(stored, [1, 2], np.array([-1, -1, -1, -1, 0]), judged=1)
    assert judged.open.tolist() == [False, True, True, True]
    assert judged.round.tolist() == [2, 1, 1, 1]


def test_later_rounds_count_by_the_share_that_reaches_them():
    # Four pilot queries, 10 tokens an attempt; one of them reaches the second round of two attempts.
    pilot = Pilot(
        np.array([[1, 0], [1, 0], [1, 0], [1, 1]], dtype=bool), np.array([[10, 0], [10, 0], [10, 0], [10, 20]])
    )
    one = np.ones((1, 4))

    def ahead(round_: int, share: float, is_open: bool) -> list[float]:
        return expected(pilot, Need(np.array([round_]), np.array([share]), np.array([is_open])), [1, 2], one)[
            0
        ].tolist()

    assert ahead(0, 1.0, True) == [1 + 0.25 * 2, 10 + 0.25 * 20]
    assert ahead(1, 1.0, False) == [0.25 * 2, 0.25 * 20]  # its first attempt is stored and may have passed
    assert ahead(1, 1.0, True) == [2, 20]  # and is known to have failed
    assert ahead(1, 0.5, True) == [1, 10]  # one of the two attempts is stored
    assert ahead(2, 0.0, False) == [0, 0]


def test_a_round_no_pilot_query_reached_costs_what_attempts_cost():
    pilot = Pilot(np.array([[1, 0], [1, 0]], dtype=bool), np.array([[10.0, 0], [30.0, 0]]))
    need = Need(np.array([1]), np.array([1.0]), np.array([True]))
    assert expected(pilot, need, [1, 2], np.ones((1, 2)))[0].tolist() == [2, 40]


def queries_table(path, count: int) -> list[str]:
    """A shard of ``count`` queries; returns their ids in order."""
    rows = []
    for number in range(count):
        turns = [{"role": "user", "content": f"question {number}"}]
        rows.append(
            {name: "" for name in QUERIES.names} | {"query_id": query_id(turns), "category": "math", "turns": turns}
        )
    rows.sort(key=lambda row: row["query_id"])
    write_table(path, rows, QUERIES)
    return [row["query_id"] for row in rows]


def test_the_pilot_is_the_first_queries_of_the_corpus_over_all_shards(tmp_path):
    ids = queries_table(tmp_path / "all.parquet", 40)
    table = read_table(tmp_path / "all.parquet", QUERIES)
    for shard in range(3):
        mask = pa.array([shard_of(each, 3) == shard for each in ids])
        write_table(tmp_path / f"{shard}.parquet", table.filter(mask), QUERIES)
    shards = [tmp_path / f"{shard}.parquet" for shard in range(3)]
    for wanted in (5, 30, 100):
        sample_pilot.main(shards, tmp_path / "pilot.parquet", wanted)
        assert read_table(tmp_path / "pilot.parquet", QUERIES)["query_id"].to_pylist() == ids[:wanted]


def pilot_round(folder, ids, passed, tokens, number):
    """The pilot's tables of one round over ``ids``."""
    blank = {"string": "", "int64": 0, "double": 0.0}
    attempts = [
        {field.name: blank[str(field.type)] for field in ATTEMPTS}
        | {"attempt_id": f"{each}{number}", "query_id": each, "output_tokens": tokens}
        for each in ids
    ]
    verdicts = [
        {field.name: blank[str(field.type)] for field in VERDICTS}
        | {"query_id": each, "verdict": "pass" if each in passed else "fail"}
        for each in ids
    ]
    paths = (folder / f"{number}.attempts.parquet", folder / f"{number}.verdicts.parquet")
    write_table(paths[0], attempts, ATTEMPTS)
    write_table(paths[1], verdicts, VERDICTS)
    return paths


def test_the_pilot_is_read_round_by_round(tmp_path):
    first = pilot_round(tmp_path, ["a", "b", "c"], ["a", "c"], 10, 0)
    second = pilot_round(tmp_path, ["b"], [], 25, 1)
    found = read_pilot([first[0], second[0]], [first[1], second[1]], ["a", "b", "c"])
    assert found.reached.tolist() == [[True, False], [True, True], [True, False]]
    assert found.tokens.tolist() == [[10, 0], [10, 25], [10, 0]]


def test_the_plan_counts_the_store_and_the_verdicts_and_starts_no_engine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines.respond, "_start", lambda _: pytest.fail("a plan starts no engine"))
    ids = queries_table(tmp_path / "0.parquet", 10)
    sample_pilot.main([tmp_path / "0.parquet"], tmp_path / "pilot.parquet", 4)
    spec = spec_of(TEACHER, RUNNING)
    shelf = shelf_of(spec, tmp_path / "store")
    prompts = render_prompts(read_table(tmp_path / "0.parquet", QUERIES), TEACHER)
    key_of = request_keys(shelf.owner, spec.settings())
    text = {name: "" for name in ("text", "finish_reason", "model", "engine", "engine_version", "hardware")}
    shelf.append(
        [
            text
            | {"key": key_of(prompt, 0), "prompt": prompt, "prompt_tokens": 1, "output_tokens": 10, "seconds": 36.0}
            | {"model_digest": shelf.owner, "settings": json.dumps(spec.settings(), sort_keys=True)}
            for prompt in prompts[:6]
        ]
    )
    first = pilot_round(tmp_path, ids[:4], ids[:3], 10, 0)
    second = pilot_round(tmp_path, ids[3:4], [], 20, 1)
    pilots = {"t": ([first[0], second[0]], [first[1], second[1]])}

    def planned(verdicts):
        plan.main(
            [tmp_path / "0.parquet"], tmp_path / "pilot.parquet", pilots, {"t": [verdicts]}, {"t": TEACHER},
            {"t": RUNNING}, {"t": PRICE}, tmp_path / "store", tmp_path / "plan.csv",
        )  # fmt: skip
        return pd.read_csv(tmp_path / "plan.csv").iloc[0]

    before = planned([tmp_path / "no such round"])
    assert (before["queries"], before["solved"], before["stored"], before["due"]) == (10, 0, 6, 4)
    # 4 queries from the start (1 + 1/4 x 2 attempts each), 6 whose first attempt is there (1/4 x 2 each).
    assert before["responses"] == pytest.approx(4 * 1.5 + 6 * 0.5)
    assert before["tokens"] == pytest.approx(4 * 15 + 6 * 5)
    assert before["hours"] == pytest.approx(before["tokens"] * 3.6 / 3600)
    assert before["price"] == pytest.approx(before["tokens"])
    # Nobody here knows what an endpoint runs on.
    assert np.isnan(before["device_hours"])
    judged = pilot_round(tmp_path / "judged", ids, ids[:8], 10, 0)[1]
    after = planned([judged, tmp_path / "no such round"])
    assert (after["solved"], after["due"]) == (8, 4)
    assert after["responses"] == pytest.approx(2 * 2)
    told = capsys.readouterr()
    assert "95% intervals from a pilot of 4 queries" in told.out + told.err


def test_published_traces_need_no_plan(tmp_path, capsys):
    queries_table(tmp_path / "pilot.parquet", 3)
    teacher = {"t": TEACHER | {"engine": "dataset"}}
    plan.main([], tmp_path / "pilot.parquet", {}, {}, teacher, {}, {}, tmp_path, tmp_path / "plan.csv")
    told = capsys.readouterr()
    assert "t: published traces, nothing to generate" in told.out + told.err
