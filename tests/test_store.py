"""The store: what is written is found again, whoever writes, whatever dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whichteacher import engines
from whichteacher.engines import EngineSpec, Request, request_key, respond, settings_of
from whichteacher.store import Store, digest, model_digest

SPEC = dict(revision=None, dtype="float32", max_model_len=64, tensor_parallel=1)
SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": -1, "max_tokens": 8}


def row(key: str, text: str = "text") -> dict:
    return {
        "key": key,
        "prompt": "prompt",
        "text": text,
        "finish_reason": "stop",
        "prompt_tokens": 1,
        "output_tokens": 2,
        "seconds": 0.5,
        "model": "m",
        "model_digest": "d",
        "engine": "vllm",
        "engine_version": "0",
        "hardware": "cpu",
        "settings": "{}",
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def test_rows_are_found_by_key_and_only_those(tmp_path):
    store = Store(tmp_path, "responses", "owner")
    store.append([row("a", "one"), row("b", "two")])
    store.append([row("c", "three")])
    found = store.lookup({"a", "c", "absent"})
    assert {key: value["text"] for key, value in found.items()} == {"a": "one", "c": "three"}


def test_the_first_writer_of_a_key_wins(tmp_path):
    first, second = Store(tmp_path, "responses", "owner"), Store(tmp_path, "responses", "owner")
    first.append([row("a", "first")])
    second.append([row("a", "second"), row("b", "other")])
    assert {key: value["text"] for key, value in first.lookup({"a", "b"}).items()} == {"a": "first", "b": "other"}


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_segment_is_set_aside_and_never_read(tmp_path, damage):
    store = Store(tmp_path, "responses", "owner")
    store.append([row("good")])
    store.append([row("bad", "some text that is long enough to hold a flipped byte " * 20)])
    segment = store.segments()[-1]
    content = bytearray(segment.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[60] ^= 0xFF
    segment.write_bytes(content)
    assert set(store.lookup({"good", "bad"})) == {"good"}
    assert segment.with_suffix(".corrupt").exists() and not segment.exists()


_WRITER = """
import sys
from whichteacher.store import Store
sys.path.insert(0, {tests!r})
from test_store import row
store = Store({folder!r}, "responses", "owner")
n = 0
while True:
    store.append([row(f"{{sys.argv[1]}}-{{n}}-{{i}}", "x" * 2000) for i in range(50)])
    n += 1
    print(n, flush=True)
"""


def test_kill_nine_loses_only_the_segment_in_flight(tmp_path):
    program = _WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "workflow")}
    writers = [
        subprocess.Popen([sys.executable, "-c", program, name], stdout=subprocess.PIPE, text=True, env=environment)
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout.readline().strip() == "1"
    time.sleep(0.3)
    promised = {}
    for name, writer in zip("ab", writers, strict=True):
        writer.send_signal(signal.SIGKILL)
        promised[name] = 1 + len(writer.stdout.read().split())
        writer.wait()
    store = Store(tmp_path, "responses", "owner")
    wanted = {f"{name}-{n}-{i}" for name, count in promised.items() for n in range(count) for i in range(50)}
    assert wanted <= set(store.lookup(wanted))
    assert not list(store.folder.glob("*.corrupt"))


def test_a_model_is_its_weights_not_its_path(tmp_path, model):
    before = model_digest(str(model), None)
    (model / "README.md").write_text("a card changes nothing")
    assert model_digest(str(model), None) == before
    (model / "model.safetensors").write_bytes(b"other weights")
    assert model_digest(str(model), None) != before
    assert model_digest("org/name", "a" * 40) != model_digest("org/name", "b" * 40)
    (model / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights"):
        model_digest(str(model), None)


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_digests_ignore_the_order_of_keys(value):
    assert digest(value) == digest(dict(reversed(list(value.items()))))


def test_every_setting_is_in_the_key(model):
    spec = EngineSpec(model=str(model), sampling=SAMPLING, **SPEC)
    key = request_key(Request("p", 0), settings_of(spec), "owner")
    assert request_key(Request("q", 0), settings_of(spec), "owner") != key
    assert request_key(Request("p", 1), settings_of(spec), "owner") != key
    assert request_key(Request("p", 0), settings_of(spec), "other") != key
    for changed in (
        EngineSpec(model=str(model), sampling=SAMPLING | {"temperature": 0.7}, **SPEC),
        EngineSpec(model=str(model), sampling=SAMPLING, **SPEC | {"dtype": "bfloat16"}),
        EngineSpec(model=str(model), sampling=SAMPLING, **SPEC | {"max_model_len": 128}),
    ):
        assert request_key(Request("p", 0), settings_of(changed), "owner") != key
    split = EngineSpec(model=str(model), sampling=SAMPLING, **SPEC | {"tensor_parallel": 2})
    assert request_key(Request("p", 0), settings_of(split), "owner") == key


def test_a_killed_generation_is_resumed_where_it_stopped(tmp_path, model, monkeypatch):
    """The engine is replaced: what is under test is what happens around it when it dies."""
    asked = []

    def dies_after(count):
        def generate(missing, spec):
            for done, (key, request) in enumerate(missing.items()):
                if done == count:
                    raise KeyboardInterrupt
                asked.append(request)
                yield {name: row(key)[name] for name in row(key) if name not in ("model", "hardware")} | {
                    "text": request.prompt.upper()
                }

        return generate

    spec = EngineSpec(model=str(model), sampling=SAMPLING, **SPEC)
    requests = [Request(f"prompt {i}", attempt) for i in range(20) for attempt in range(2)]
    monkeypatch.setattr(engines, "_generate", dies_after(25))
    with pytest.raises(KeyboardInterrupt):
        respond(requests, spec, tmp_path / "store", "test")
    monkeypatch.setattr(engines, "_generate", dies_after(1000))
    responses = respond(requests, spec, tmp_path / "store", "test")
    assert [response.text for response in responses] == [request.prompt.upper() for request in requests]
    assert len(asked) == len(requests) == len(set(asked))
    monkeypatch.setattr(engines, "_generate", lambda *_: pytest.fail("an engine was started for stored responses"))
    assert respond(requests, spec, tmp_path / "store", "test") == responses
