"""Perplexities: what is read, kept, counted and cut off; and that vLLM reads what transformers reads."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import score_perplexity
import set_perplexity_limits
import summarise_perplexities
from hypothesis import given, settings
from hypothesis import strategies as st

from whichteacher.engines import vllm as vllm_module
from whichteacher.engines.specs import Score, ScorerSpec, content_digest, score_keys
from whichteacher.perplexity import limit_of, perplexity, perplexity_columns, quantile, read_limit
from whichteacher.rule import InputError
from whichteacher.schemas import COLLECTED, PERPLEXITIES, PERPLEXITY_LIMITS, QUERIES
from whichteacher.store import Store
from whichteacher.tables import read_table, write_table

ROOT = Path(__file__).parents[1]
SCORER = ROOT / "resources" / "teachers" / "scorer"
RUNNING = {"tensor_parallel": 1, "pipeline_parallel": 1, "data_parallel": 1, "vllm_arguments": {}}
READING = {"scope": "response", "max_length": 100, "overlong": "first_tokens"}
FLUSH_ROWS = 8


def write_shard(folder: Path, texts: list[str], refused: int = 0) -> dict[str, str]:
    """A shard of queries, each with the accepted response of ``texts`` and one that failed; the last ``refused`` queries are
    ones that no template renders."""
    queries, attempts = [], []
    for number, text in enumerate(texts):
        role = "nobody" if number >= len(texts) - refused else "user"
        turns = [{"role": role, "content": f"question {number % 7}"}]
        queries.append(
            dict.fromkeys(QUERIES.names, "") | {"query_id": f"{number:04}", "category": "math", "turns": turns}
        )
        blank = dict.fromkeys(COLLECTED.names, "") | dict.fromkeys(
            ("shard", "round", "prompt_tokens", "output_tokens", "devices", "seconds", "score"), 0
        )
        told = {"query_id": f"{number:04}", "text": text, "attempt": 1, "accepted": True}
        attempts.append(blank | told | {"attempt_id": f"f{number}", "text": "wrong", "attempt": 0, "accepted": False})
        attempts.append(blank | told | {"attempt_id": f"a{number}"})
    write_table(folder / "queries.parquet", queries, QUERIES)
    write_table(folder / "attempts.parquet", attempts, COLLECTED)
    return {"queries": str(folder / "queries.parquet"), "attempts": str(folder / "attempts.parquet")}


def job(folder: Path, model: Path, name: str = "out", reading: dict | None = None, **running) -> dict:
    """The arguments of a job of ``score_perplexity``."""
    return {
        "output": str(folder / f"{name}.parquet"),
        "name": "scorer",
        "scorer": {"model": str(model), "revision": None, "dtype": "float32", "quantization": None},
        "perplexity": READING | (reading or {}),
        "running": RUNNING | running,
        "store": str(folder / "store"),
        "step": "score_perplexity t, shard 0, scorer s",
    }


def read_rows(path: str) -> list[dict]:
    return read_table(path, PERPLEXITIES).to_pylist()


def stored(folder: Path) -> list[dict]:
    """Every row of the store, those that are there twice included."""
    return [
        row
        for owner in sorted((folder / "store" / "perplexities").glob("*"))
        for table in Store(folder / "store", "perplexities", owner.name).tables()
        for row in table.to_pylist()
    ]


class Scorer:
    """Stands for vLLM: a token is a character, and its negative log-likelihood the share of its code in a hundred."""

    asked: ClassVar[list[str]] = []
    seconds = 0.0

    def __init__(self, spec: ScorerSpec) -> None:
        self.spec = spec
        self.facts = {"engine": "vllm", "engine_version": "0", "hardware": "none", "devices": 1}

    def run(self, rows):
        for key, query, response in rows:
            time.sleep(self.seconds)
            self.asked.append(key)
            score = Score(key, content_digest(query, response), len(query + response), 0, 0.0, 0, 0.0)
            if score.length <= self.spec.max_length or self.spec.overlong == "first_tokens":
                read = [ord(letter) / 100 for letter in (query + response)[: self.spec.max_length]]
                before, after = read[1 : len(query)], read[len(query) :]
                score = score._replace(query_tokens=len(before), query_nll=math.fsum(before))
                score = score._replace(response_tokens=len(after), response_nll=math.fsum(after))
            yield score


@pytest.fixture
def scorer(monkeypatch):
    """The stand-in, with nothing asked of it yet."""
    monkeypatch.setattr(Scorer, "asked", [])
    monkeypatch.setattr(vllm_module, "VllmScorer", Scorer)
    return Scorer


# --- numbers --------------------------------------------------------------------------------------------------------


def test_a_perplexity_is_a_finite_number_or_none():
    assert perplexity(2 * math.log(3), 2) == pytest.approx(3)
    assert perplexity(0.0, 5) == 1
    assert [perplexity(*row) for row in ((0.0, 0), (math.nan, 3), (math.inf, 3), (1e9, 1))] == [None] * 4


def test_every_row_says_what_became_of_it():
    score = {"length": 9, "query_tokens": 3, "query_nll": 3.0, "response_tokens": 5, "response_nll": 1.0}

    def state(scope="response", max_length=10, overlong="first_tokens", **changed):
        found = perplexity_columns(score | changed, scope, max_length, overlong)
        assert (found["perplexity"] is None) == (found["state"] not in ("scored", "cut"))
        return found["state"], found["tokens"], found["nll"]

    assert state() == ("scored", 5, 1.0)
    assert state("query_and_response") == ("scored", 8, 4.0)
    assert state(max_length=8) == ("cut", 5, 1.0)
    nothing = dict(query_tokens=0, query_nll=0.0, response_tokens=0, response_nll=0.0)
    assert state(max_length=8, overlong="unscored", **nothing)[0] == "overlong"
    assert state(response_tokens=0, response_nll=0.0)[0] == "no_tokens"
    # A query that fills the whole length leaves nothing to score.
    assert state(max_length=4, response_tokens=0, response_nll=0.0)[0] == "no_tokens"
    assert state(response_nll=math.nan)[0] == "not_finite"
    assert perplexity_columns(None, "response", 10, "unscored")["state"] == "not_rendered"


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=60), st.integers(1, 100))
def test_a_quantile_is_the_smallest_value_that_the_share_does_not_exceed(values, percent):
    found = quantile(np.array(values), percent / 100)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.none() | st.floats(1, 100), max_size=50),
    st.integers(1, 4),
    st.sampled_from([None, 5.0, {"quantile": 0.9}]),
)
def test_a_limit_is_that_of_all_shards_together(tmp_path_factory, values, shards, threshold):
    folder = tmp_path_factory.mktemp("limits")
    blank = {
        "query_id": "q",
        "scorer": "s",
        "scope": "response",
        "length": 1,
        "tokens": 1,
        "nll": 0.0,
        "state": "scored",
    }
    paths = [str(folder / f"{shard}.parquet") for shard in range(shards)]
    for shard, path in enumerate(paths):
        rows = [blank | {"attempt_id": "a", "perplexity": value} for value in values[shard::shards]]
        write_table(path, rows, PERPLEXITIES)
    output = str(folder / "limits.parquet")
    set_perplexity_limits.main(paths, output, "t", "s", threshold)
    (row,) = read_table(output, PERPLEXITY_LIMITS).to_pylist()
    known = np.array([value for value in values if value is not None])
    assert row["limit"] == read_limit([output]) == limit_of(threshold, known)
    assert (row["rows"], row["scored"]) == (len(values), len(known))
    assert row["above"] == (0 if row["limit"] is None else (known > row["limit"]).sum())
    assert json.loads(row["threshold"] or "null") == threshold
    if threshold == {"quantile": 0.9}:
        assert row["above"] <= 0.1 * len(known)


def test_without_perplexities_there_is_no_limit():
    assert read_limit([]) is None


@given(st.text(), st.text(), st.text(), st.text())
def test_keys_differ_where_rows_do(query, response, other_query, other_response):
    key_of = score_keys("owner", {"max_length": 5})
    one, two = (key_of(content_digest(*row)) for row in ((query, response), (other_query, other_response)))
    assert (one == two) == ((query, response) == (other_query, other_response))
    assert score_keys("owner", {"max_length": 6})(content_digest(query, response)) != one


def test_what_changes_a_score_is_in_the_key_and_nothing_else():
    def settings_of(**changed):
        told = dict(model="m", revision="a" * 40, dtype="float32", max_length=9, overlong="unscored") | changed
        return ScorerSpec(**told).settings()

    for changed in ({"dtype": "bfloat16"}, {"quantization": "fp8"}, {"max_length": 8}, {"overlong": "first_tokens"}):
        assert settings_of(**changed) != settings_of()
    served = {"tensor_parallel": 2, "pipeline_parallel": 2, "data_parallel": 2, "arguments": {"max_num_seqs": 2}}
    assert settings_of(**served) == settings_of()


def test_thinking_that_the_template_opens_is_opened_once():
    closed = score_perplexity.closed
    assert closed("<|assistant|><think>\n", "<think>a</think>") == "<|assistant|>"
    assert closed("<|assistant|><think>\n", "a</think>") == "<|assistant|><think>\n"
    assert closed("<|assistant|>", "<think>a</think>") == "<|assistant|>"


# --- a job ----------------------------------------------------------------------------------------------------------


def test_accepted_responses_are_scored_once_whatever_is_asked_next(tmp_path, tiny_model, scorer):
    shard = write_shard(tmp_path, ["a", "bb", "", "a" * 200, "c", "d", "e", "a"])
    score_perplexity.main(**shard, **job(tmp_path, tiny_model))
    rows = read_rows(tmp_path / "out.parquet")
    assert [row["attempt_id"] for row in rows] == [f"a{number}" for number in range(8)]
    # The first and the last are the same question with the same answer.
    assert len(scorer.asked) == len(stored(tmp_path)) == 7
    assert rows[0]["perplexity"] == rows[7]["perplexity"] == pytest.approx(math.exp(ord("a") / 100))
    assert [row["state"] for row in rows] == ["scored", "scored", "no_tokens", "cut", *["scored"] * 4]
    assert rows[3]["tokens"] < 100 < rows[3]["length"]
    before = (tmp_path / "out.parquet").read_bytes()
    score_perplexity.main(**shard, **job(tmp_path, tiny_model))
    assert (tmp_path / "out.parquet").read_bytes() == before
    # The other scope comes of the same reading; served otherwise it is the same.
    score_perplexity.main(
        **shard, **job(tmp_path, tiny_model, "both", {"scope": "query_and_response"}, data_parallel=2)
    )
    assert len(scorer.asked) == 7
    both = read_rows(tmp_path / "both.parquet")
    assert [row["tokens"] > row_before["tokens"] for row, row_before in zip(both, rows, strict=True)] == [True] * 8
    score_perplexity.main(**shard, **job(tmp_path, tiny_model, "unscored", {"overlong": "unscored"}))
    assert [row["state"] for row in read_rows(tmp_path / "unscored.parquet")][3] == "overlong"
    assert not [path.name for path in tmp_path.iterdir() if "scratch" in path.name]


def test_no_engine_starts_where_nothing_is_missing(tmp_path, tiny_model, scorer, monkeypatch):
    shard = write_shard(tmp_path, ["a", "b"])
    score_perplexity.main(**shard, **job(tmp_path, tiny_model))
    monkeypatch.setattr(vllm_module, "VllmScorer", lambda _: pytest.fail("an engine was started"))
    score_perplexity.main(**shard, **job(tmp_path, tiny_model, "again"))
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    score_perplexity.main(**write_shard(nothing, []), **job(nothing, tiny_model))
    assert read_rows(nothing / "out.parquet") == []


def test_a_query_that_the_template_refuses_is_told_and_loses_no_other(tmp_path, tiny_model, scorer, capsys):
    folder = tmp_path / "strict"
    shutil.copytree(tiny_model, folder)
    strict = "{%- if messages[0]['role'] == 'nobody' %}{{- raise_exception('no such role') }}{%- endif %}"
    template = folder / "chat_template.jinja"
    template.write_text(strict + template.read_text())
    score_perplexity.main(**write_shard(tmp_path, ["a", "b", "c"], refused=1), **job(tmp_path, folder))
    assert [row["state"] for row in read_rows(tmp_path / "out.parquet")] == ["scored", "scored", "not_rendered"]
    assert "no such role" in capsys.readouterr().out


def test_a_damaged_segment_is_scored_again(tmp_path, tiny_model, scorer):
    shard = write_shard(tmp_path, [f"text {number}" for number in range(40)])
    score_perplexity.main(**shard, **job(tmp_path, tiny_model))
    (segment,) = (tmp_path / "store").rglob("*.parquet")
    segment.write_bytes(segment.read_bytes()[:-99])
    score_perplexity.main(**shard, **job(tmp_path, tiny_model, "again"))
    assert len(scorer.asked) == 80
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "out.parquet").read_bytes()


#: A job in a process of its own, as its rule runs it, with a slow stand-in for vLLM and a smaller flush.
PROGRAM = f"""
import json, sys
from types import SimpleNamespace
import score_perplexity, test_perplexity
from whichteacher.engines import respond, vllm
from whichteacher.rule import logged
respond.FLUSH_ROWS = {FLUSH_ROWS}
told = json.loads(sys.argv[1])
class Telling(test_perplexity.Scorer):
    seconds = 0.01
    def run(self, rows):
        for score in super().run(rows):
            print("read", file=sys.stdout, flush=True)
            yield score
vllm.VllmScorer = Telling
score_perplexity.main(**told)
"""


def start(folder: Path, arguments: dict) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": ":".join(str(ROOT / part) for part in ("workflow", "workflow/scripts", "tests"))
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_kill_nine_loses_no_more_than_the_last_flush(tmp_path, tiny_model):
    arguments = write_shard(tmp_path, [f"text {number}" for number in range(120)]) | job(tmp_path, tiny_model)
    rng = random.Random(4)
    for _ in range(4):
        before = len(stored(tmp_path))
        killed = start(tmp_path, arguments)
        read, goal = 0, rng.randrange(10, 30)
        for line in killed.stdout:
            read += line == "read\n"
            if read == goal:
                break
        killed.send_signal(signal.SIGKILL)
        read += killed.communicate()[0].count("read\n")
        assert 0 <= read - (len(stored(tmp_path)) - before) <= FLUSH_ROWS
    missing = 120 - len(stored(tmp_path))
    last = start(tmp_path, arguments)
    assert last.communicate()[0].count("read\n") == missing
    assert last.returncode == 0
    keys = [row["key"] for row in stored(tmp_path)]
    assert len(keys) == len(set(keys)) == 120
    # The same bytes as without a kill.
    other = tmp_path / "other"
    other.mkdir()
    undisturbed = start(other, arguments | job(other, tiny_model))
    undisturbed.communicate()
    assert (other / "out.parquet").read_bytes() == (tmp_path / "out.parquet").read_bytes()


# --- statistics -----------------------------------------------------------------------------------------------------


def test_the_summary_has_every_teacher_and_scorer(tmp_path):
    blank = {"query_id": "q", "scope": "response", "length": 1, "tokens": 10}
    paths, limits = [], []
    for teacher in ("x", "y"):
        for scorer in ("one", "two"):
            path = tmp_path / f"curation/{teacher}/0/{scorer}.perplexities.parquet"
            rows = [
                blank
                | {
                    "attempt_id": str(n),
                    "scorer": scorer,
                    "nll": 10 * math.log(n + 1),
                    "perplexity": n + 1.0,
                    "state": state,
                }
                for n, state in enumerate(("scored", "scored", "cut"))
            ]
            rows.append(
                blank
                | {
                    "attempt_id": "o",
                    "scorer": scorer,
                    "tokens": 0,
                    "nll": 0.0,
                    "perplexity": None,
                    "state": "overlong",
                }
            )
            write_table(path, rows, PERPLEXITIES)
            paths.append(str(path))
        limits.append(str(tmp_path / f"{teacher}.parquet"))
        set_perplexity_limits.main([paths[-2]], limits[-1], teacher, "one", {"quantile": 0.5})
    files = summarise_perplexities.files_by_scorer(paths, ["x", "y"], ["one", "two"])
    summarise_perplexities.main(files, limits, tmp_path / "out.csv", {"one": "org/one", "two": "org/two"})
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(zip(table["teacher"], table["scorer"], strict=True)) == [
        ("x", "one"),
        ("x", "two"),
        ("y", "one"),
        ("y", "two"),
    ]
    first = table.iloc[0]
    assert first[["responses", "scored", "cut", "overlong", "other_unscored", "tokens"]].tolist() == [4, 3, 1, 1, 0, 30]
    assert (first["mean"], first["median"], first["limit"], first["above"]) == (2, 2, 2, 1)
    assert first["pooled"] == pytest.approx(6 ** (1 / 3))
    assert table["limit"].isna().tolist() == [False, True, False, True]
    # A study without scorers has an empty table.
    summarise_perplexities.main({}, [], tmp_path / "none.csv", {})
    assert len(pd.read_csv(tmp_path / "none.csv")) == 0


# --- vLLM for real --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen(tmp_path_factory, tiny_model) -> Path:
    """A small Qwen2 of random weights with strong opinions, which writes a start token into its template."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen")
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=259,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=2,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def reference(model, tokenizer, query: str, response: str, scope: str, max_length: int) -> float | None:
    """The perplexity as transformers gives it: one row at a time, in float32."""
    import torch

    before = tokenizer.encode(query, add_special_tokens=False)
    ids = (before + tokenizer.encode(response, add_special_tokens=False))[:max_length]
    first = len(before) if scope == "response" else 1
    if len(ids) <= first:
        return None
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)
    return math.exp(-sum(logprobs[i - 1, ids[i]].item() for i in range(first, len(ids))) / (len(ids) - first))


def texts(count: int) -> list[str]:
    """Responses from empty to longer than any limit here, some in letters of several bytes."""
    rng = random.Random(0)
    words = ["<think>", "</think>", "so", "12", "+", "7", "=", "Zahl", "число", "数", "wait,", "\n", "<|im_end|>"]
    lengths = [0, 1, 2, 400] + [rng.randrange(1, 60) for _ in range(count - 4)]
    return [" ".join(rng.choices(words, k=length)) for length in lengths]


@pytest.mark.study
@pytest.mark.parametrize("which", ["miniature", "qwen"])
def test_vllm_reads_what_transformers_reads(tmp_path, qwen, which):
    """Both scopes, rows of all lengths, cut ones among them; prompts longer than a step are split over several."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = SCORER if which == "miniature" else qwen
    shard = write_shard(tmp_path, texts(60))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    turns = {row["query_id"]: row["turns"] for row in read_table(shard["queries"], QUERIES).to_pylist()}
    compared = 0
    for max_length in (511, 60):
        for scope in ("response", "query_and_response"):
            told = job(
                tmp_path,
                folder,
                reading={"scope": scope, "max_length": max_length},
                vllm_arguments={"max_num_batched_tokens": 256},
            )
            score_perplexity.main(**shard, **told)
            rows = read_rows(told["output"])
            for row, text in zip(rows, texts(60), strict=True):
                query = tokenizer.apply_chat_template(
                    turns[row["query_id"]], tokenize=False, add_generation_prompt=True
                )
                expected = reference(model, tokenizer, query, text, scope, max_length)
                if expected is None:
                    assert row["state"] == "no_tokens"
                else:
                    assert row["perplexity"] == pytest.approx(expected, rel=1e-3)
                    compared += 1
            assert "cut" in {row["state"] for row in rows}
    assert compared > 200


@pytest.mark.study
def test_replicas_read_what_one_engine_reads(tmp_path, qwen):
    shard = write_shard(tmp_path, texts(40))
    for replicas in (1, 2):
        told = job(tmp_path, qwen, str(replicas), {"max_length": 300}, data_parallel=replicas)
        score_perplexity.main(**shard, **told | {"store": str(tmp_path / f"store{replicas}")})
    one, two = (read_rows(tmp_path / f"{replicas}.parquet") for replicas in (1, 2))
    assert [row["state"] for row in one] == [row["state"] for row in two]
    for first, second in zip(one, two, strict=True):
        assert first["nll"] == pytest.approx(second["nll"], rel=1e-4)


@pytest.mark.study
def test_a_scorer_that_cannot_be_used_says_why_and_what_to_do(tmp_path, qwen):
    shard = write_shard(tmp_path, ["a"])
    with pytest.raises(
        InputError, match=r"a context of 512 tokens.* lower curation.perplexity.max_length from 512 to 511$"
    ):
        score_perplexity.main(**shard, **job(tmp_path, qwen, reading={"max_length": 512}))
    broken = tmp_path / "broken"
    shutil.copytree(qwen, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"vLLM cannot serve .*broken"):
        score_perplexity.main(**shard, **job(tmp_path, broken))
