"""Exports: the released schema, what reads it, what describes it, and what an export is refused for."""

import gc
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import export_dataset
import import_traces
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from import_source import import_rows
from study_tables import write_study

from whichteacher import release, release_checks
from whichteacher.config import Publication
from whichteacher.ledger import Ledger
from whichteacher.published import read_record, read_trace
from whichteacher.queries import query_id
from whichteacher.release import COLUMNS, FILES, INFO, RELEASED, Writer, is_copy, json_line, released_row, shard_rows
from whichteacher.release_checks import secrets, unpinned
from whichteacher.release_metadata import (
    NOT_KNOWN,
    code_version,
    croissant,
    duty,
    ledger_steps,
    strictest,
    without_places,
)
from whichteacher.responses import TAGS
from whichteacher.rows import Fault, file_rows, read_rows
from whichteacher.rule import InputError
from whichteacher.schemas import TRACES
from whichteacher.tables import read_table, write_table

TEACHER = {"engine": "vllm", "model": "org/model", "revision": "a" * 40, "system_prompt": "", "answer_format": "tags"}
SETTINGS = {
    "teacher": TEACHER,
    "corpus": {
        "sources": {"made_up": {"path": "/elsewhere/rows.jsonl", "licence": "CC0-1.0"}, "unused": {"path": "./x"}}
    },
    "verification": {"threshold": 0.9},
    "curation": {"ngrams": {"size": 20}},
}
RELEASE = {"creator": "Somebody", "url": "https://example.org/traces", "date": "2025-06-12"}


def trace(identifier: str = "1", **changes) -> dict:
    """A TRACES row."""
    return {
        "query_id": f"{identifier:0>32}",
        "source": "made_up",
        "source_row": identifier,
        "category": "math",
        "licence": "CC0-1.0",
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
        "output_tokens": 7,
        "cut_characters": 0,
        "perplexity": 1.5,
        **changes,
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The tables of a finished study."""
    return write_study(tmp_path_factory.mktemp("study"), queries=48)


def export(study: Path, folder: Path, rows=None, settings=SETTINGS, publisher=RELEASE) -> Path:
    """Export the study's dataset of ``steps``, or these TRACES rows under a ledger that fits, to ``folder``."""
    dataset = study / "datasets/parallel/steps.parquet"
    last = study / "datasets/parallel/steps.ledger.parquet"
    if rows is not None:
        dataset, last = folder.parent / "dataset.parquet", folder.parent / "last.ledger.parquet"
        write_table(dataset, rows, TRACES)
        ledger = Ledger("match_datasets", "parallel/steps", len(rows))
        ledger.keep(len(rows))
        ledger.write(last, folder.parent / "last.dropped.parquet")
    ledgers = [
        *(study / f"corpus/{name}.ledger.parquet" for name in ("imported/made_up", "cleaned", "decontaminated")),
        *sorted(study.glob("verification/steps/*/attempts.ledger.parquet")),
        *sorted(study.glob("curation/steps/*/traces.ledger.parquet")),
        last,
    ]
    export_dataset.main(
        str(dataset),
        [str(path) for path in ledgers],
        [str(path) for path in sorted(study.glob("verification/steps/*/attempts.parquet"))],
        str(study / "verification/audit/cases.parquet"),
        str(study / "verification/audit/sample.parquet"),
        str(folder),
        "parallel",
        "steps",
        "Steps",
        {"name": "made", "settings": settings, "release": publisher},
    )
    return folder


@pytest.fixture(scope="module")
def exported(study, tmp_path_factory) -> Path:
    """An export of rows of every kind."""
    rows = [
        trace("1"),
        trace("2", category="code", tests='{"call_type": "assert", "assert_case": ["f(1)"]}', reference=None),
        trace("3", category="instruction_following", constraints='{"instruction_id_list": []}', perplexity=None),
        trace("4", category="multi_turn", turns=said("One?", "1", "Two?"), system="Be brief.", reference=None),
        trace("5", category="science", answer="B\u2028\u0085é", source="other", licence="research only, see the card"),
        *(trace(str(number), reference=None) for number in range(6, 20)),
        trace("20", reference=str(10**40)),
    ]
    return export(study, tmp_path_factory.mktemp("exported") / "steps", rows)


def said(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def held(row: dict) -> dict:
    """What the schema holds of a TRACES row."""
    return {column: row[column] for column in COLUMNS}


# --- the schema ------------------------------------------------------------------------------------------------------


def test_the_released_schema():
    record = released_row(trace(turns=said("one", "two", "three")))
    assert list(record) == ["system", "conversations"]
    assert [turn["from"] for turn in record["conversations"]] == ["human", "assistant", "human", "assistant"]
    infos = [turn["info"] for turn in record["conversations"]]
    assert all(tuple(info) == INFO for info in infos) and len(INFO) == 10
    filled = [{key for key, value in info.items() if value is not None} for info in infos]
    assert filled[0] == filled[1] == {"source", "category"}
    assert filled[2] == {"source", "category", "ground_truth"}
    assert filled[3] == set(INFO) - {"test_case", "instruction_constrain"}
    assert infos[3]["verify_score"] == 1.0 and infos[3]["model_name"] == "steps" and infos[3]["ppl"] == 1.5
    assert record["conversations"][-1]["value"] == "<think>1+1=2</think><answer>\\boxed{2}</answer>"


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")) | st.sampled_from(
    ["a\u2028b", "\u0085", "x\x0b\x1cy", "12345678901234567890123", "1e400", "null", "NaN", '"\\', "\U0001f600", ""]
)
SAID = TEXT.map(str.strip).filter(lambda text: text and not any(tag in text for tag in TAGS))
ROWS = st.builds(
    trace,
    source=TEXT.filter(bool),
    category=st.sampled_from(sorted(FILES)),
    turns=st.lists(TEXT, min_size=1, max_size=5).filter(lambda contents: len(contents) % 2).map(lambda c: said(*c)),
    reference=st.none() | TEXT | st.integers().map(str),
    tests=st.none() | TEXT,
    constraints=st.none() | TEXT,
    system=TEXT,
    thinking=SAID,
    answer=SAID,
    verify_score=st.floats(0.9, 1),
    teacher=TEXT.filter(bool),
    perplexity=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(ROWS)
def test_every_field_comes_back_and_a_record_is_one_line_for_everybody(row):
    line = json_line(released_row(row))
    assert len(line.splitlines()) == 1
    record = json.loads(line)
    assert held(read_record(record)) == held(row)
    assert json_line(released_row(read_record(record))) == line
    read = read_trace(record, "am")
    assert (read.turns, read.system, read.conversion) == (row["turns"], row["system"], "")


@given(st.lists(ROWS, max_size=8))
def test_files_hold_the_records_wherever_they_are_cut(rows):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        patch.setattr(release, "_GROUP_CHARACTERS", 2000)
        records = [released_row(row) for row in rows]
        writer = Writer(folder, "math", shard_bytes=1)
        for record in records:
            writer.write(record)
        first, *shards = writer.close()
        assert first == ("math.jsonl", "math", len(rows)) and sum(shard.rows for shard in shards) == len(rows)
        assert lines(folder / "math.jsonl") == records
        assert [row for shard in shards for row in shard_rows(folder / shard.path)] == records
        assert [Path(shard.path).name for shard in shards] == [
            f"train-{number:05d}-of-{len(shards):05d}.parquet" for number in range(len(shards))
        ]
        assert len(shards) == len({shard.path for shard in shards}) and all(shard.rows for shard in shards)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_say_is_null(number):
    record = released_row(trace(perplexity=number))
    assert record["conversations"][-1]["info"]["ppl"] is None and json.loads(json_line(record)) == record


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category": "poetry"}, "wrong_type"),
        ({"source": None}, "missing_column"),
        ({"model_name": 3}, "wrong_type"),
        ({"test_case": {"\ud800": 1}}, "invalid_text"),
    ],
)
def test_a_record_that_cannot_be_read_has_a_named_fault(change, reason):
    record = released_row(trace())
    for turn in record["conversations"]:
        turn["info"] |= change
    with pytest.raises(Fault) as found:
        read_record(record)
    assert found.value.reason == reason
    record = released_row(trace())
    record["conversations"][-1]["value"] = "<think>cut"
    with pytest.raises(Fault, match="not in the format"):
        read_record(record)


# --- round trips -----------------------------------------------------------------------------------------------------


def test_an_export_is_read_by_the_import_of_traces_and_by_a_source(exported):
    files = import_traces.trace_files(str(exported), None)
    assert sorted(files) == ["code.jsonl", "if.jsonl", "math.jsonl", "multiturn.jsonl", "science.jsonl"]
    columns = {"turns": "conversations", "answer": "conversations.1.info.ground_truth"}
    for kind in ("math.jsonl", "parquet/math/train-00000-of-00001.parquet"):
        records = lines(exported / "math.jsonl")
        rows = [read_trace(row.values, "am") for row in file_rows(exported / kind, ["conversations"], ["system"])]
        source = {"path": str(exported / kind), "category": "math", "licence": "MIT", "columns": columns}
        (imported,) = import_rows(read_rows(source), "mine", source, Ledger("import_source", "mine", 0))
        assert [row.turns for row in rows] == imported["turns"].to_pylist()
        assert [query_id(row.turns) for row in rows] == imported["query_id"].to_pylist()
        assert [row.text for row in rows] == [record["conversations"][-1]["value"] for record in records]
        assert imported["reference"].to_pylist() == ["2", *[None] * 14, str(10**40)]


def test_copies_are_told_from_releases_in_parquet():
    names = ["math.jsonl", "parquet/math/train-00000-of-00001.parquet", "parquet/code/train-00000-of-00001.parquet"]
    assert [is_copy(name, names) for name in names] == [False, True, False]
    assert not is_copy("data/math/a.parquet", ["math.jsonl"]) and is_copy("parquet/a/b.parquet", ["a.jsonl.zst"])


def test_a_release_read_and_exported_again_has_the_same_records(study, tmp_path):
    """A release with ten keys on every turn, in the ways that releases differ: the records say the same as before."""
    records = {}
    for name, placed in (("code", "both"), ("math", "response"), ("other", "ours")):
        category = next(ours for ours, theirs in FILES.items() if theirs == name)
        made = [
            released_row(trace(str(i), category=category, tests='["t"]', turns=said(f"{name} {i}?"))) for i in range(5)
        ]
        for record in made:
            asked, response = record["conversations"]
            if placed == "both":
                asked["info"] |= response["info"]
            elif placed == "response":
                asked["info"] = dict.fromkeys(INFO)
        records[name] = made
        (tmp_path / "release").mkdir(exist_ok=True)
        text = "".join(json.dumps(record) + "\n" for record in made)
        (tmp_path / "release" / f"{name}.jsonl").write_text(text)
    files = import_traces.trace_files(str(tmp_path / "release"), None)
    read = [
        read_record(row.values) for path in files.values() for row in file_rows(path, ["conversations"], ["system"])
    ]
    rows = [trace(str(number)) | found for number, found in enumerate(read)]
    folder = export(study, tmp_path / "again", rows)
    for name, made in records.items():
        again = lines(folder / f"{name}.jsonl")
        assert [read_record(record) for record in again] == [read_record(record) for record in made]
        texts = [[(turn["from"], turn["value"]) for turn in record["conversations"]] for record in again]
        assert texts == [[(turn["from"], turn["value"]) for turn in record["conversations"]] for record in made]
    assert (folder / "other.jsonl").read_bytes() == (tmp_path / "release" / "other.jsonl").read_bytes()


def test_what_a_release_writes_as_objects_and_numbers_becomes_text():
    record = released_row(trace())
    record["conversations"][-1]["info"] |= {
        "instruction_constrain": {"b": 1, "a": [None]},
        "ground_truth": 4,
        "ppl": "2.5",
    }
    read = read_record(record)
    assert (read["constraints"], read["reference"], read["perplexity"]) == ('{"a": [null], "b": 1}', "4", 2.5)


# --- loaders ---------------------------------------------------------------------------------------------------------


def test_the_datasets_library_reads_every_configuration_and_the_json_lines(exported, tmp_path):
    from datasets import Features, get_dataset_config_names, load_dataset

    features = Features.from_arrow_schema(RELEASED)
    cache = str(tmp_path)
    names = get_dataset_config_names(str(exported))
    assert names == ["all", "code", "if", "math", "multiturn", "science"]
    whole = load_dataset(str(exported), split="train", cache_dir=cache)
    assert whole.features == features
    assert whole.to_list() == [row for name in names[1:] for row in lines(exported / f"{name}.jsonl")]
    for name in names[1:]:
        wanted = lines(exported / f"{name}.jsonl")
        loaded = load_dataset(str(exported), name, split="train", cache_dir=cache)
        assert loaded.features == features and loaded.to_list() == wanted
        shards = str(exported / f"parquet/{name}/*.parquet")
        assert load_dataset("parquet", data_files=shards, split="train", cache_dir=cache).to_list() == wanted
        typed = load_dataset(
            "json", data_files=str(exported / f"{name}.jsonl"), features=features, split="train", cache_dir=cache
        )
        assert typed.features == features and typed.to_list() == wanted
    # These tables are mapped into memory, which ends with the last that holds them, before their files go.
    del whole, loaded, typed
    gc.collect()


def test_null_first_and_text_later_is_read_where_the_types_are_named(study, tmp_path):
    """What breaks loaders that take the types from the first ten megabytes."""
    from datasets import load_dataset

    rows = [trace(str(n), reference=None, perplexity=None, thinking="x" * 400_000) for n in range(30)]
    rows.append(trace("30", constraints="{}", tests="[]", perplexity=2.0))
    folder = export(study, tmp_path / "out", rows)
    shards = load_dataset(str(folder), "math", split="train", cache_dir=str(tmp_path / "cache"))
    typed = load_dataset(
        "json",
        data_files=str(folder / "math.jsonl"),
        features=shards.features,
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert typed[30] == shards[30] == lines(folder / "math.jsonl")[30]
    assert typed[30]["conversations"][1]["info"]["instruction_constrain"] == "{}"


def test_croissant_is_valid_and_loads_the_records(exported):
    import mlcroissant as mlc

    dataset = mlc.Dataset(jsonld=str(exported / "croissant.json"))
    assert not dataset.metadata.issues.errors and not dataset.metadata.issues.warnings
    assert {record_set.id for record_set in dataset.metadata.record_sets} == {
        "code",
        "if",
        "math",
        "multiturn",
        "science",
    }
    digests = sums(exported)
    for file in dataset.metadata.distribution:
        if isinstance(file, mlc.FileObject):
            assert file.sha256 == digests[file.content_url]
    for name in ("math", "multiturn", "science"):
        loaded = [plain(row) for row in dataset.records(name)]
        wanted = [
            {
                f"{name}/system": row["system"],
                f"{name}/conversations": [
                    {
                        f"{name}/conversations/from": turn["from"],
                        f"{name}/conversations/value": turn["value"],
                        **{f"{name}/conversations/info/{key}": value for key, value in turn["info"].items()},
                    }
                    for turn in row["conversations"]
                ],
            }
            for row in lines(exported / f"{name}.jsonl")
        ]
        assert loaded == wanted


def plain(value):
    """mlcroissant gives text as bytes, and numbers as numpy's."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value


def test_croissant_that_is_not_valid_is_refused(exported):
    import mlcroissant as mlc

    manifest = json.loads((exported / "manifest.json").read_text())
    manifest["files"] = [{**file, "sha256": None} for file in manifest["files"]]
    with pytest.raises(mlc.ValidationError, match="sha256"):
        croissant(manifest)


def test_the_crate_is_read_back_with_every_file_and_its_digest(exported):
    from rocrate.rocrate import ROCrate

    written = json.loads((exported / "ro-crate-metadata.json").read_text())
    root = next(entity for entity in written["@graph"] if entity["@id"] == "./")
    assert root["datePublished"] == RELEASE["date"] and root["url"] == RELEASE["url"]
    crate = ROCrate(str(exported))
    assert crate.creator["name"] == RELEASE["creator"]
    assert "research only" in crate.license and "CC0-1.0" in crate.license
    digests = sums(exported)
    del digests["ro-crate-metadata.json"]
    assert {file.id: file["sha256"] for file in crate.data_entities} == digests
    action = crate.dereference("#export")
    assert len(action["result"]) == len([name for name in digests if name.endswith((".jsonl", ".parquet"))])
    assert crate.dereference("#teacher")["version"] == "a" * 40


def test_nothing_is_dated_where_the_configuration_has_no_date(study, tmp_path):
    import mlcroissant as mlc

    folder = export(study, tmp_path / "out", [trace()], publisher=Publication().model_dump(mode="json"))
    written = json.loads((folder / "ro-crate-metadata.json").read_text())
    assert not any("datePublished" in entity for entity in written["@graph"])
    assert not mlc.Dataset(jsonld=str(folder / "croissant.json")).metadata.issues.errors
    assert "the configuration says nothing in curation.release.creator" in (folder / "README.md").read_text()


# --- the manifest and the card ---------------------------------------------------------------------------------------


def sums(folder: Path) -> dict[str, str]:
    """The digests of SHA256SUMS by file."""
    return {
        name: digest for digest, name in (line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines())
    }


def test_every_file_is_there_with_its_digest_and_nothing_else(exported):
    there = {path.relative_to(exported).as_posix(): path for path in exported.rglob("*") if path.is_file()}
    digests = sums(exported)
    assert digests.keys() | {"SHA256SUMS"} == there.keys()
    for name, digest in digests.items():
        assert hashlib.sha256(there[name].read_bytes()).hexdigest() == digest
    assert not (exported / "other.jsonl").exists() and not (exported / "parquet/other").exists()
    assert list(exported.parent.glob(".steps*")) == []


def test_card_and_manifest_say_what_is_known(exported, study):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["rows"] == 20 and manifest["categories"]["math"] == {
        "rows": 16,
        "output_tokens": 112,
        "lowest_verify_score": 1.0,
    }
    assert manifest["strictest"] == NOT_KNOWN
    assert {source["source"]: source["asks"] for source in manifest["sources"]} == {
        "made_up": "nothing",
        "other": NOT_KNOWN,
    }
    assert set(manifest["settings"]["corpus"]["sources"]) == {"made_up"}
    assert manifest["ledger"][-1] == {"step": "match_datasets", "in": 20, "kept": 20, "dropped": {}}
    assert next(step for step in manifest["ledger"] if step["step"] == "clean_queries")["dropped"] == {
        "empty": 1,
        "has_url": 2,
    }
    assert manifest["trust"]["labelled_cases"][0] == {
        "category": "math",
        "wrong": 4,
        "wrong_passed": 1,
        "right": 3,
        "right_failed": 1,
        "undecided": 1,
    }
    assert manifest["code"] == code_version() and set(manifest["packages"]) >= {"python", "pyarrow", "mlcroissant"}
    collected = [
        read_table(path, export_dataset.COLLECTED, ["accepted"])
        for path in study.glob("verification/steps/*/attempts.parquet")
    ]
    accepted = sum(sum(table["accepted"].to_pylist()) for table in collected)
    assert sum(engine["accepted"] for engine in manifest["teacher"]["engines"]) == accepted
    card = (exported / "README.md").read_text()
    assert "| other | science | research only, see the card | not known | 1 |" in card
    assert "No traces, and so no files: other." in card
    assert "Without a licence that is known by name, so to be settled before use: other." in card
    assert "/elsewhere" not in card and "(local) rows.jsonl" in card
    for name in ("math.jsonl", "parquet/math/train-00000-of-00001.parquet"):
        assert sums(exported)[name] in card
    for told in (
        "WhichTeacher",
        "1 of 4",
        "org/model",
        "eprint = {2505.14464}",
        "has_url 2",
    ):
        assert told in card


def test_equal_inputs_give_equal_bytes_and_replace_what_was_there(study, tmp_path):
    first = export(study, tmp_path / "a" / "out")
    second = tmp_path / "b" / "out"
    (second / "left").mkdir(parents=True)
    killed = second.parent / ".out.abcd1234"
    killed.mkdir()
    export(study, second)
    assert sums(first) == sums(second) and not killed.exists()
    assert sorted(p.name for p in second.parent.iterdir()) == ["out"]


def test_what_fails_leaves_what_was_there(study, tmp_path):
    folder = export(study, tmp_path / "out")
    before = sums(folder)
    with pytest.raises(InputError, match="no traces"):
        export(study, folder, [])
    assert sums(folder) == before and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("licences", "asks"),
    [
        (["CC0-1.0", "MIT"], "attribution"),
        (["Apache-2.0", "CC-BY-SA-4.0", "ODC-BY-1.0"], "share alike"),
        (["CC-BY-SA-4.0", "CC-BY-NC-4.0"], "no commercial use, or no derivatives"),
        (["CC-BY-NC-4.0", "see the card"], NOT_KNOWN),
        (["MIT", ""], NOT_KNOWN),
        (["MIT or not"], NOT_KNOWN),
        (["Proprietary-1.0"], NOT_KNOWN),
        ([], NOT_KNOWN),
    ],
)
def test_the_strictest_licence(licences, asks):
    assert strictest(licences) == asks


@pytest.mark.parametrize(
    ("licence", "asks"),
    [
        ("cc-by-nc-sa-4.0", "no commercial use, or no derivatives"),
        ("CC-BY-NC-ND-4.0", "no commercial use, or no derivatives"),
        ("CC-BY-4.0", "attribution"),
        ("BSD-3-Clause", "attribution"),
        ("GPL-3.0-only", "share alike"),
        ("research only, see the card", NOT_KNOWN),
    ],
)
def test_what_a_licence_asks(licence, asks):
    assert duty(licence) == asks


def test_paths_leave_their_folders_behind():
    settings = {
        "model": "/models/deep/teacher",
        "template": "</think>\n/x",
        "sources": [{"path": "~/rows.jsonl"}],
        "n": 1,
    }
    assert without_places(settings) == {
        "model": "(local) teacher",
        "template": "</think>\n/x",
        "sources": [{"path": "(local) rows.jsonl"}],
        "n": 1,
    }


def test_ledgers_are_summed_over_shards():
    rows = [
        ("a", "in", 5),
        ("a", "kept", 3),
        ("a", "x", 2),
        ("b", "in", 3),
        ("b", "kept", 3),
        ("a", "in", 1),
        ("a", "x", 1),
    ]
    assert ledger_steps({"step": s, "reason": r, "rows": n} for s, r, n in rows) == [
        {"step": "a", "in": 6, "kept": 3, "dropped": {"x": 3}},
        {"step": "b", "in": 3, "kept": 3, "dropped": {}},
    ]


# --- checks ----------------------------------------------------------------------------------------------------------

TOKENS = {
    "Hugging Face token": "hf_" + "aB3" * 12,
    "API key": "sk-" + "Ab1" * 10,
    "AWS key": "AKIA" + "Z" * 16,
    "GitHub token": "ghp_" + "a1" * 18,
    "private key": "-----BEGIN RSA PRIVATE " + "KEY-----",
}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_secret_in_a_text_is_listed_and_one_in_the_settings_fails(kind, study, tmp_path):
    rows = [trace(str(number), thinking=f"Use {TOKENS[kind]}.") for number in range(7)]
    folder = export(study, tmp_path / "out", rows)
    card = (folder / "README.md").read_text()
    assert f"7 row(s) hold what looks like a {kind}" in card and "math.jsonl:5, ..." in card
    assert TOKENS[kind] not in card
    with pytest.raises(InputError, match=f"README.md holds what looks like a {kind}"):
        export(study, tmp_path / "no", settings={**SETTINGS, "curation": {"note": TOKENS[kind]}})
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "text", ["task-based-approaches-to-learning-things", "risk-1234567890123456789012", "hf_short", "AKIA"]
)
def test_words_are_no_secrets(text):
    assert list(secrets(text)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curation": {"note": "see /home/somebody/notes"}}, "names a path of this machine"),
        ({"curation": {"note": f"see {Path.cwd()}/notes"}}, "names a path of this machine"),
        ({"teacher": {**TEACHER, "revision": "0" * 40}}, "config key teacher.revision: no commit is named"),
        ({"teacher": {**TEACHER, "revision": None}}, "config key teacher.revision: no commit is named"),
    ],
)
def test_settings_that_cannot_be_published_fail_with_one_line(change, message, study, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        export(study, tmp_path / "out", settings={**SETTINGS, **change})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("block", "keys"),
    [
        ({"scorers": {"a": {"model": "org/a", "revision": None}}}, ["scorers.a.revision"]),
        ({"judges": [{"model": "x", "revision": None, "endpoint": {"kind": "chat"}}]}, []),
        ({"model": "./folder", "revision": None}, []),
        ({"model": "(local) folder", "revision": None}, []),
        ({"hub": "org/data", "revision": "0" * 40}, ["revision"]),
        ({"engine": "dataset", "model": "name", "revision": None, "traces": "org/t", "traces_revision": "b" * 40}, []),
        ({"engine": "dataset", "model": "name", "traces": "org/t", "traces_revision": None}, ["traces_revision"]),
        ({"engine": "openai", "model": "name", "revision": None}, []),
    ],
)
def test_commits_that_are_not_named(block, keys):
    assert list(unpinned(block)) == keys


def test_a_ledger_that_keeps_other_rows_fails(study, tmp_path, monkeypatch):
    monkeypatch.setattr(export_dataset, "read_rows", lambda *_: iter([trace()]))
    with pytest.raises(InputError, match="the ledger keeps 20 rows and 1 are exported"):
        export(study, tmp_path / "out", [trace(str(number)) for number in range(20)])


def cut_lines(folder: Path) -> None:
    path = folder / "math.jsonl"
    path.write_text(path.read_text().replace("1+1=2", "1+1=3", 1))


def cut_shard(folder: Path) -> None:
    path = folder / "parquet/math/train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


def add_file(folder: Path) -> None:
    (folder / "notes.txt").write_text("?")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_lines, "math.jsonl has another digest.*math.jsonl:1 is another row"),
        (cut_shard, "train-00000-of-00001.parquet has another digest.*math.jsonl:1 is another row"),
        (add_file, "SHA256SUMS and the folder differ: notes.txt"),
    ],
)
def test_a_damaged_export_fails(harm, message, exported, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    harm(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    with pytest.raises(InputError, match=message):
        release_checks.check(folder, manifest, ["README.md"])
