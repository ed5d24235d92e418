"""The store: what is written is found again, whoever writes, whatever dies."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whichteacher import store as store_module
from whichteacher.engines import respond as respond_module
from whichteacher.engines.respond import Request, complete, respond, shelf_of
from whichteacher.engines.specs import Completion, OpenaiSpec, VllmSpec, request_keys, request_seed
from whichteacher.store import RESPONSES, Store, StoreError, digest, model_digest

SPEC = dict(revision=None, dtype="float32", max_model_len=64)
SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": -1, "max_tokens": 8}


def row(key: str, text: str = "text") -> dict:
    return {
        "key": key,
        "prompt": "prompt",
        "text": text,
        "reasoning": None,
        "finish_reason": "stop",
        "prompt_tokens": 1,
        "output_tokens": 2,
        "seconds": 0.5,
        "model": "m",
        "model_digest": "d",
        "engine": "vllm",
        "engine_version": "0",
        "hardware": "cpu",
        "devices": 1,
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


def test_the_digest_of_a_large_file_is_remembered_until_the_file_changes(tmp_path, model, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(store_module, "_LARGE_BYTES", 5)
    before = model_digest(str(model), None)
    (note,) = (tmp_path / "cache").rglob("*/digests/*")  # of the weights; the other file is small
    assert model_digest(str(model), None) == before
    note.write_text("remembered")
    assert model_digest(str(model), None) != before
    (model / "model.safetensors").write_bytes(b"changed weights")
    changed = model_digest(str(model), None)
    monkeypatch.setattr(store_module, "_LARGE_BYTES", 2**28)
    assert model_digest(str(model), None) == changed


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_digests_ignore_the_order_of_keys(value):
    assert digest(value) == digest(dict(reversed(list(value.items()))))


def keys_of(spec, requests=(("p", 0),)):
    key = request_keys("owner", spec.settings())
    return [key(*request) for request in requests]


def test_every_setting_is_in_the_key_and_nothing_that_only_says_how_it_is_served(model):
    spec = VllmSpec(model=str(model), sampling=SAMPLING, **SPEC)
    (key,) = keys_of(spec)
    assert len({key, *keys_of(spec, [("q", 0), ("p", 1)]), request_keys("other", spec.settings())("p", 0)}) == 4
    for changed in (
        VllmSpec(model=str(model), sampling=SAMPLING | {"temperature": 0.7}, **SPEC),
        VllmSpec(model=str(model), sampling=SAMPLING | {"stop": ["END"]}, **SPEC),
        VllmSpec(model=str(model), sampling=SAMPLING, **SPEC | {"dtype": "bfloat16"}),
        VllmSpec(model=str(model), sampling=SAMPLING, **SPEC | {"max_model_len": 128}),
        VllmSpec(model=str(model), sampling=SAMPLING, quantization="fp8", **SPEC),
    ):
        assert keys_of(changed) != [key]
    for same in (
        VllmSpec(model=str(model), sampling=SAMPLING, tensor_parallel=2, pipeline_parallel=2, data_parallel=2, **SPEC),
        VllmSpec(model=str(model), sampling=SAMPLING, arguments={"gpu_memory_utilization": 0.5}, **SPEC),
        # A setting that is not used must change no key: it may be one that came later.
        VllmSpec(model=str(model), sampling=SAMPLING | {"stop": None}, **SPEC),
    ):
        assert keys_of(same) == [key]


def test_an_endpoint_is_its_model_not_its_address():
    def spec(**changed):
        told = {"base_url": "http://127.0.0.1:1/v1", "served_model": "m", "api": "chat"} | changed
        return OpenaiSpec("org/m", "a" * 40, SAMPLING, **told)

    (key,) = keys_of(spec())
    for same in ({"base_url": "http://127.0.0.1:2/v1"}, {"concurrency": 1}, {"retries": 0}, {"served_model": "other"}):
        assert keys_of(spec(**same)) == [key]
    for other in ({"api": "completions"}, {"extra_body": {"top_k": 2}}):
        assert keys_of(spec(**other)) != [key]
    named = [OpenaiSpec(name, None, SAMPLING, "http://x/v1", name, "chat") for name in ("a", "b")]
    assert len({each.owner() for each in named}) == 2
    assert spec().owner() == model_digest("org/m", "a" * 40)


@given(st.text(), st.text(), st.integers(0, 9), st.integers(0, 9))
def test_keys_differ_where_requests_do(first, second, one, two):
    key = request_keys("owner", {})
    assert (key(first, one) == key(second, two)) == ((first, one) == (second, two))
    assert 0 <= request_seed(key(first, one)) < 2**60


def test_rows_come_in_the_order_of_the_keys_whatever_order_they_were_written_in(tmp_path):
    store = Store(tmp_path / "store", "responses", "owner")
    keys = [f"{number:04d}" for number in range(100)]
    shuffled = random.Random(0).sample(keys, len(keys))
    for start in range(0, 100, 7):
        store.append([row(key, f"text of {key}") for key in shuffled[start : start + 7]])
    scratch = tmp_path / "scratch"
    tables = list(store.ordered(keys[:90], 16, scratch))
    assert [table.num_rows for table in tables] == [16] * 5 + [10]
    assert pa.concat_tables(tables)["text"].to_pylist() == [f"text of {key}" for key in keys[:90]]
    assert not scratch.exists()
    assert list(store.ordered([], 16, scratch)) == []


def test_rows_that_may_not_be_stored_take_their_place_among_the_stored(tmp_path):
    store = Store(tmp_path / "store", "responses", "owner")
    store.append([row("a"), row("c")])
    (table,) = store.ordered(["a", "b", "c"], 10, tmp_path / "scratch", [row("b", "refused")])
    assert table["text"].to_pylist() == ["text", "refused", "text"]
    with pytest.raises(StoreError, match="1 of 2 rows"):
        next(store.ordered(["a", "b"], 10, tmp_path / "scratch"))


def test_joined_segments_hold_the_same_rows_and_the_first_writer_still_wins(tmp_path):
    early, late = Store(tmp_path, "responses", "owner"), Store(tmp_path, "responses", "owner")
    late.append([row("x", "late store, first row")])
    early.append([row("a", "first")])
    late.append([row("a", "second"), row("b", "other")])
    late.append([row("c")])
    before = late.lookup({"a", "b", "c", "x"})
    assert len(late.segments()) == 4
    late.consolidate()
    early.consolidate()
    assert len(late.segments()) == 2
    assert late.lookup({"a", "b", "c", "x"}) == before
    assert before["a"]["text"] == "first"


def test_joining_stops_at_the_size_readers_can_hold(tmp_path, monkeypatch):
    store = Store(tmp_path, "responses", "owner")
    for number in range(10):
        store.append([row(str(number))])
    size = store.segments()[0].stat().st_size
    monkeypatch.setattr(store_module, "_SEGMENT_BYTES", int(3.5 * size))  # a size varies by some bytes
    store.consolidate()
    assert len(store.segments()) == 4
    assert len(store.lookup(map(str, range(10)))) == 10


def test_a_reader_misses_nothing_while_segments_are_joined(tmp_path):
    """Between the listing and the reading of a segment, another job joins it to others."""
    writer, reader = Store(tmp_path, "responses", "owner"), Store(tmp_path, "responses", "owner")
    for key in "abc":
        writer.append([row(key)])
    read = reader._read

    def late(path, columns):
        writer.consolidate()
        return read(path, columns)

    reader._read = late
    assert set(reader.lookup("abc")) == set("abc")
    assert not list(writer.folder.glob("*.corrupt"))


def test_a_segment_damaged_since_it_was_found_is_an_error_before_the_first_row(tmp_path):
    store = Store(tmp_path / "store", "responses", "owner")
    store.append([row("a", "x" * 5000)])
    content = bytearray(store.segments()[0].read_bytes())
    # The key column stays readable, a page of another one does not.
    place = content.index(b"x" * 20) if b"x" * 20 in content else 400
    content[place] ^= 0xFF
    store.segments()[0].write_bytes(content)
    with pytest.raises(StoreError, match="lost"):
        next(store.ordered(["a"], 10, tmp_path / "scratch"))
    assert list(store.folder.glob("*.corrupt")) and not store.segments()


class Engine:
    """Stands for an engine: what is under test is what happens around it."""

    def __init__(self, dies_after: int = 10**9, refuses: str = "") -> None:
        self.facts = {"engine": "vllm", "engine_version": "0", "hardware": "none", "devices": 1}
        self.asked: list[str] = []
        self.dies_after, self.refuses = dies_after, refuses

    def run(self, missing):
        for key, prompt in missing.items():
            if len(self.asked) == self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(key)
            if prompt == self.refuses:
                yield Completion(key, "", None, "refused", 0, 0, durable=False)
            else:
                yield Completion(key, prompt.upper(), None, "stop", 1, len(prompt))


def test_a_killed_generation_is_resumed_where_it_stopped(tmp_path, model, monkeypatch):
    spec = VllmSpec(model=str(model), sampling=SAMPLING, **SPEC)
    requests = [Request(f"prompt {i}", attempt) for i in range(20) for attempt in range(2)]
    first, second = Engine(dies_after=25), Engine()
    monkeypatch.setattr(respond_module, "_start", lambda _: first)
    with pytest.raises(KeyboardInterrupt):
        respond(requests, spec, tmp_path / "store", "test")
    monkeypatch.setattr(respond_module, "_start", lambda _: second)
    responses = respond(requests, spec, tmp_path / "store", "test")
    assert [response.text for response in responses] == [request.prompt.upper() for request in requests]
    assert len(first.asked) + len(second.asked) == len(requests) == len({*first.asked, *second.asked})
    monkeypatch.setattr(respond_module, "_start", lambda _: pytest.fail("an engine was started for stored responses"))
    assert respond(requests, spec, tmp_path / "store", "test") == responses


def test_what_an_endpoint_refused_is_answered_and_asked_again_the_next_time(tmp_path, model, monkeypatch):
    spec = VllmSpec(model=str(model), sampling=SAMPLING, **SPEC)
    for _ in range(2):
        engine = Engine(refuses="no")
        monkeypatch.setattr(respond_module, "_start", lambda _, engine=engine: engine)
        responses = respond([Request("yes", 0), Request("no", 0)], spec, tmp_path / "store", "test")
        assert [response.finish_reason for response in responses] == ["stop", "refused"]
    assert len(engine.asked) == 1


def test_the_engines_time_is_shared_out_by_tokens(tmp_path, model, monkeypatch):
    spec = VllmSpec(model=str(model), sampling=SAMPLING, **SPEC)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(respond_module, "_start", lambda _: Engine())
    monkeypatch.setattr(respond_module.time, "monotonic", lambda: float(next(clock)))
    shelf = shelf_of(spec, tmp_path)
    complete({"a": "x", "b": "xxx"}, spec, shelf, "test")
    rows = shelf.lookup("ab")
    assert rows["b"]["seconds"] == 3 * rows["a"]["seconds"] > 0
    assert rows["a"].keys() == set(RESPONSES.names)
