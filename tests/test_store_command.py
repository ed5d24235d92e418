"""tools/store.py: what it shows, exports and merges, and every way in which it finds that a store is not whole."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import store as store_command

from whichteacher.engines.specs import content_digest, request_keys, score_keys
from whichteacher.store import Store

SETTINGS = {"sampling": {"temperature": 0.5}}
OWNER = "ab" * 32


def row(prompt: str, attempt: int = 0, text: str = "text", owner: str = OWNER) -> dict:
    return {
        "key": request_keys(owner, SETTINGS)(prompt, attempt),
        "prompt": prompt,
        "text": text,
        "reasoning": None,
        "finish_reason": "stop",
        "prompt_tokens": 1,
        "output_tokens": 7,
        "seconds": 1800.0,
        "model": f"org/{owner[:2]}",
        "model_digest": owner,
        "engine": "vllm",
        "engine_version": "0",
        "hardware": "cpu",
        "devices": 1,
        "settings": json.dumps(SETTINGS),
    }


def score(query: str, response: str, **changed) -> dict:
    """A row of the kind ``perplexities``."""
    content = content_digest(query, response)
    return {
        "key": score_keys(OWNER, {"max_length": 9})(content),
        "content": content,
        "length": 9,
        "query_tokens": 3,
        "query_nll": 3.0,
        "response_tokens": 5,
        "response_nll": 1.5,
        "seconds": 900.0,
        "model": "org/ab",
        "model_digest": OWNER,
        "engine": "vllm",
        "engine_version": "0",
        "hardware": "cpu",
        "devices": 1,
        "settings": json.dumps({"max_length": 9}),
    } | changed


@pytest.fixture
def folder(tmp_path):
    """Two models; of the first a row that two writers stored."""
    folder = tmp_path / "store"
    Store(folder, "responses", OWNER).append([row("p", 0, "first"), row("p", 1), row("q", 3)])
    Store(folder, "responses", OWNER).append([row("p", 0, "second")])
    Store(folder, "responses", "cd" * 32).append([row("p", owner="cd" * 32)])
    return folder


def test_what_a_store_holds_is_shown_by_model(folder):
    lines = [line.split() for line in store_command.show(folder).splitlines()]
    assert [line[1] for line in lines[1:]] == ["org/ab", "org/cd"]
    first = dict(zip(["kind", "model", "digest", "rows", "again", "tokens", "hours"], lines[1], strict=False))
    assert (first["rows"], first["again"], first["tokens"], first["hours"]) == ("3", "1", "21", "1.50")


def test_a_whole_store_is_called_whole(folder, capsys):
    assert store_command.main(["verify", str(folder)]) == 0
    assert "the store is whole" in capsys.readouterr().out


def test_a_key_that_stands_for_another_prompt_is_found(folder):
    Store(folder, "responses", OWNER).append([row("p", 2) | {"prompt": "not the one that was asked"}])
    (line,) = store_command.verify(folder)
    assert "does not belong to its row" in line and row("p", 2)["key"] in line


def test_a_row_in_the_folder_of_another_model_is_found(folder):
    Store(folder, "responses", OWNER).append([row("p", owner="ef" * 32)])
    assert any("rows of another model" in line for line in store_command.verify(folder))


def test_damage_and_unfinished_files_are_found_and_told(folder, capsys):
    shelf = Store(folder, "responses", OWNER)
    segment = shelf.segments()[0]
    segment.write_bytes(segment.read_bytes()[:-50])
    (shelf.folder / ".half.parquet.x1").write_bytes(b"")
    assert store_command.main(["verify", str(folder)]) == 1
    told = capsys.readouterr().out
    assert "is damaged: its rows will be made again" in told
    assert "was never finished" in told
    assert len(shelf.lookup([row("p", 1)["key"]])) == 0


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.zst", "out.parquet"])
def test_every_row_is_exported_once_as_the_first_writer_wrote_it(folder, tmp_path, name):
    output = tmp_path / name
    assert store_command.export(folder, output, None) == 4
    if name.endswith(".parquet"):
        rows = pq.read_table(output).to_pylist()
    else:
        with pa.input_stream(output, compression="detect") as lines:
            rows = [json.loads(line) for line in lines.read().splitlines()]
    assert {(each["key"], each["model"]) for each in rows} == {
        (each["key"], each["model"]) for each in (row("p"), row("p", 1), row("q", 3), row("p", owner="cd" * 32))
    }
    assert {each["text"] for each in rows if each["key"] == row("p")["key"]} == {"first"}
    assert not list(tmp_path.glob("*scratch*"))


def test_one_models_rows_are_exported_alone_and_odd_names_refused(folder, tmp_path):
    assert store_command.export(folder, tmp_path / "one.parquet", "org/cd") == 1
    with pytest.raises(SystemExit, match=r"\.jsonl, \.jsonl\.zst or \.parquet"):
        store_command.export(folder, tmp_path / "out.csv", None)


def test_merging_adds_what_is_missing_and_the_first_writer_still_wins(folder, tmp_path):
    other = tmp_path / "other"
    Store(other, "responses", OWNER).append([row("p", 0, "third"), row("new", text="from the other")])
    assert store_command.merge(folder, other) == 3
    assert store_command.merge(folder, other) == 0
    found = Store(other, "responses", OWNER).lookup([row("p")["key"], row("new")["key"]])
    assert found[row("p")["key"]]["text"] == "first"
    assert found[row("new")["key"]]["text"] == "from the other"
    assert store_command.verify(other) == []


def test_perplexities_are_shown_verified_exported_and_merged_like_responses(folder, tmp_path):
    shelf = Store(folder, "perplexities", OWNER)
    shelf.append([score("q", "a"), score("q", "b")])
    shelf.append([score("q", "a", response_nll=9.0)])
    line = store_command.show(folder).splitlines()[-1].split()
    assert line[:2] == ["perplexities", "org/ab"] and line[3:7] == ["2", "1", "16", "0.50"]
    assert store_command.verify(folder) == []
    output = tmp_path / "scores.parquet"
    assert store_command.main(["export", str(folder), str(output), "--kind", "perplexities"]) == 0
    rows = {row["key"]: row for row in pq.read_table(output).to_pylist()}
    assert len(rows) == 2 and rows[score("q", "a")["key"]]["response_nll"] == 1.5
    other = tmp_path / "other"
    assert store_command.merge(folder, other) == 5
    assert Store(other, "perplexities", OWNER).lookup(rows).keys() == rows.keys()
    shelf.append([score("q", "c", content=content_digest("q", "not what was read"))])
    (found,) = store_command.verify(folder)
    assert "does not belong to its row" in found and score("q", "c")["key"] in found


def test_a_folder_that_is_no_store_is_one_line(tmp_path):
    for command in (["show"], ["verify"], ["export", "x.parquet"]):
        with pytest.raises(SystemExit, match="is no store: name the folder"):
            store_command.main([command[0], str(tmp_path), *command[1:]])
