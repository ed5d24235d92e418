"""Frequent n-grams: as many as a plain count finds, over any shards, whatever collides; what is done to them."""

import random
import re
from collections import Counter
from pathlib import Path

import count_candidate_ngrams
import count_ngrams
import curate_traces
import find_candidate_ngrams
import find_frequent_ngrams
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whichteacher import ngrams
from whichteacher.config import Ngrams, Repetition, Structure
from whichteacher.ngrams import FrequentNgrams, TokenBatch, WindowTable, candidate_counters, sketch_bits, sketch_blocks
from whichteacher.responses import split_response
from whichteacher.rule import InputError
from whichteacher.schemas import COLLECTED, DROPPED, LEDGER, NGRAM_COUNTS, QUERIES, TRACES
from whichteacher.tables import read_table, write_batches, write_table
from whichteacher.tokens import load_tokenizer

TOKENIZER = {"model": "./resources/teachers/tokenizer", "revision": None, "dtype": "auto"}
RESPONSES = st.lists(st.lists(st.integers(0, 2), max_size=30), max_size=8)


def arrays(responses: list[list[int]]) -> list[np.ndarray]:
    return [np.array(tokens, dtype=np.int32) for tokens in responses]


def counted(shards: list[list[list[int]]], size: int, max_count: int) -> dict[tuple[int, ...], int]:
    """The frequent n-grams, as the four rules find them."""
    sketches = []
    for shard in shards:
        batch = TokenBatch.of(arrays(shard))
        bits = sketch_bits(batch.windows(size), len(shards), max_count)
        blocks = [rows["counters"][0].as_py() for rows in sketch_blocks(batch, size, max_count, bits)]
        sketches.append((bits, iter(blocks)))
    bits, found = candidate_counters(sketches, max_count)
    candidates = list(found)
    tallies = []
    for shard in shards:
        table = WindowTable.of_candidates(size, candidates, bits)
        table.count(TokenBatch.of(arrays(shard)))
        rows = pa.concat_tables([*table.tallies(), ngrams.NGRAM_TALLIES.empty_table()])
        tallies.append(iter(zip(rows["ngram"].to_pylist(), rows["count"].to_pylist(), strict=True)))
    rows = pa.concat_tables([*find_frequent_ngrams.frequent(tallies, size, max_count), NGRAM_COUNTS.empty_table()])
    words = [tuple(map(int, ngram.split())) for ngram in rows["ngram"].to_pylist()]
    counts = rows["count"].to_pylist()
    assert words == sorted(words, key=lambda word: (-counts[words.index(word)], word))
    return dict(zip(words, counts, strict=True))


def expected(shards: list[list[list[int]]], size: int, max_count: int) -> dict[tuple[int, ...], int]:
    windows = Counter(
        tuple(tokens[start : start + size])
        for shard in shards
        for tokens in shard
        for start in range(len(tokens) - size + 1)
    )
    return {window: count for window, count in windows.items() if count > max_count}


@settings(deadline=None, max_examples=30)
@given(st.lists(RESPONSES, min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 20))
def test_frequent_ngrams_are_those_of_a_plain_count(shards, size, max_count):
    assert counted(shards, size, max_count) == expected(shards, size, max_count)


@settings(deadline=None, max_examples=30)
@given(st.lists(RESPONSES, min_size=1, max_size=3), st.integers(2, 5), st.integers(1, 6))
def test_windows_that_collide_are_told_apart(shards, size, max_count):
    with pytest.MonkeyPatch.context() as patch:
        # The hash of a window is that of its last token.
        patch.setattr(ngrams, "_MULTIPLIER", np.uint64(0))
        assert counted(shards, size, max_count) == expected(shards, size, max_count)


@pytest.mark.parametrize("max_count", [2, 254, 300])
def test_sketches_of_any_size_and_part_add_up(monkeypatch, max_count):
    """Shards of unequal size have sketches of unequal size, counters may not all fit, and counts exceed a byte."""
    rng = random.Random(0)
    shards = [[[rng.randrange(3) for _ in range(50)] for _ in range(rows)] for rows in (0, 2, 60, 400)]
    whole = counted(shards, 4, max_count)
    assert whole == expected(shards, 4, max_count)
    assert (len(whole) > 0) and max(whole.values()) > 255
    monkeypatch.setattr(ngrams, "_BLOCK_BITS", 6)
    bits = [sketch_bits(TokenBatch.of(arrays(shard)).windows(4), 4, max_count) for shard in shards]
    assert len(set(bits)) > 1 and max(bits) - min(bits) > 4
    monkeypatch.setattr(ngrams, "_TABLE_BITS", 8)
    monkeypatch.setattr(ngrams, "_MARK_BITS", 7)
    monkeypatch.setattr(ngrams, "_FIRST_ENTRIES", 2)
    assert counted(shards, 4, max_count) == whole


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 40))
def test_counters_add_up_to_the_highest_and_stay_there(counts, limit):
    planes = ngrams.sketch_planes(limit)
    total = np.zeros((planes, 2**ngrams._BLOCK_BITS // 64), dtype=np.uint64)
    for count in counts:
        block = np.zeros(2**ngrams._BLOCK_BITS, dtype=np.uint8)
        block[[0, 77]] = count, count // 2
        ngrams._add_sliced(total, next(ngrams._refine(iter([ngrams._slice_bits(block, planes)]), 0, planes)))
    above = np.unpackbits(ngrams._above(total, limit).view(np.uint8), bitorder="little")
    sums = {0: sum(counts), 77: sum(count // 2 for count in counts)}
    assert np.flatnonzero(above).tolist() == [place for place, value in sums.items() if value > limit]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40), st.sets(st.tuples(*[st.integers(0, 2)] * 3), max_size=9))
def test_a_table_finds_its_windows_and_no_others(tokens, wanted):
    table = WindowTable.of_windows(np.array(sorted(wanted), dtype=np.int32).reshape(-1, 3))
    starts = [start for start in range(len(tokens) - 2) if tuple(tokens[start : start + 3]) in wanted]
    assert table.starts(np.array(tokens, dtype=np.int32)).tolist() == starts


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TOKENIZER)


def known(tokenizer, phrases: list[str], size: int) -> FrequentNgrams:
    found = set()
    for phrase in phrases:
        (tokens,) = tokenizer.encode([phrase])
        found |= {" ".join(map(str, tokens[start : start + size])) for start in range(len(tokens) - size + 1)}
    return FrequentNgrams(pa.chunked_array([sorted(found)], pa.string()), size)


def test_a_cut_leaves_no_frequent_ngram(tokenizer):
    phrase = "27+35=62"  # a token per character, more or less
    frequent = known(tokenizer, [phrase], 4)
    text = f"é日 {phrase}and{phrase} ends 🙂"
    assert frequent.cut(text, tokenizer) == "é日 and ends 🙂"
    assert frequent.cut("nothing of it", tokenizer) == "nothing of it"
    # What a cut brings together is frequent again.
    assert frequent.cut(f"a {phrase[:4]}{phrase}{phrase[4:]} b", tokenizer) == "a  b"
    assert known(tokenizer, [], 4).cut(text, tokenizer) == text
    # Tokens that share a character fall with it.
    assert known(tokenizer, ["日🙂"], 2).cut("a日🙂b", tokenizer) == "ab"


def fill_columns(schema: pa.Schema, **values) -> dict:
    """A row with ``values``; what is not named is empty, 0 or null."""
    empty = {"string": "", "int64": 0, "double": 0.0, "bool": False}
    return {field.name: None if field.nullable else empty.get(str(field.type)) for field in schema} | values


class Study:
    """The rules from attempts to traces on a folder."""

    def __init__(self, folder, rows):
        self.folder = folder
        self.attempts = []
        for shard, texts in enumerate(rows):
            table = []
            for number, text in enumerate(texts):
                parts = split_response(text)
                table.append(
                    fill_columns(
                        COLLECTED,
                        attempt_id=f"{shard}-{number}",
                        query_id=f"{shard}{number:03}",
                        text=text,
                        thinking=parts.thinking,
                        answer=parts.answer,
                        accepted=not text.startswith("refused"),
                    )
                )
            self.attempts.append(str(folder / f"attempts{shard}.parquet"))
            write_table(self.attempts[-1], table, COLLECTED)
            turns = [{"role": "user", "content": "?"}]
            write_table(
                folder / f"queries{shard}.parquet",
                [fill_columns(QUERIES, query_id=row["query_id"], turns=turns) for row in table],
                QUERIES,
            )

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.parquet")

    def find(self, settings: dict) -> None:
        shards = range(len(self.attempts))
        for shard in shards:
            count_ngrams.main(self.attempts[shard], self.path(f"sketch{shard}"), settings, len(shards), "test")
        sketches = [self.path(f"sketch{shard}") for shard in shards]
        find_candidate_ngrams.main(sketches, self.path("candidates"), settings, "test")
        for shard in shards:
            count_candidate_ngrams.main(
                self.attempts[shard], self.path("candidates"), self.path(f"tallies{shard}"), settings, "test"
            )
        find_frequent_ngrams.main([self.path(f"tallies{shard}") for shard in shards], self.path("frequent"), settings)

    def curate(self, curation: dict) -> tuple[list[dict], list[dict]]:
        """The traces and the dropped rows, of all shards."""
        traces, dropped = [], []
        for shard, attempts in enumerate(self.attempts):
            outputs = {name: self.path(f"{name}{shard}") for name in ("table", "ledger", "dropped")}
            curate_traces.main(
                attempts,
                self.path(f"queries{shard}"),
                [],
                [],
                self.path("frequent"),
                [],
                outputs,
                f"t/{shard}",
                {"answer_format": "tags", "system_prompt": "", "engine": "vllm"},
                {"structure": Structure().model_dump(), **curation},
            )
            lines = {row["reason"]: row["rows"] for row in read_table(outputs["ledger"], LEDGER).to_pylist()}
            assert lines["in"] == sum(lines.values()) - lines["in"]
            traces += read_table(outputs["table"], TRACES).to_pylist()
            dropped += read_table(outputs["dropped"], DROPPED).to_pylist()
        return traces, dropped


PHRASE = " As an aside, 27 + 35 = 62 holds."


def wrap(thinking: str, answer: str = "62") -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(ngrams, "_RESPONSES", 5)
    rng = random.Random(0)
    sums = [f"So {rng.randrange(10**6)} is {rng.randrange(10**6)}." for _ in range(40)]
    rows = [
        [wrap(f"{sums[0]}{PHRASE}{PHRASE}{sums[1]}"), *(wrap(text) for text in sums[2:12])],
        [wrap(f"{text}{PHRASE}") for text in sums[12:18]] + ["refused" + PHRASE * 9],
        [wrap(PHRASE), *(wrap(text) for text in sums[20:])],
    ]
    study = Study(tmp_path, rows)
    study.settings = Ngrams(tokenizer=TOKENIZER, size=12, max_count=8).model_dump(mode="json")
    study.sums = sums
    return study


def test_the_rules_find_and_drop(study, tokenizer):
    study.find(study.settings)
    rows = read_table(study.path("frequent"), NGRAM_COUNTS).to_pylist()
    # Nine of them are accepted, two in one response.
    assert {row["count"] for row in rows} == {9}
    assert all(tokenizer.decode(list(map(int, row["ngram"].split()))) in PHRASE for row in rows)
    traces, dropped = study.curate({"ngrams": study.settings, "repetition": None})
    assert {row["reason"] for row in dropped} == {"frequent_ngram"} and len(dropped) == 8
    assert all(row["detail"] in PHRASE for row in dropped)
    assert len(traces) == 38 - 8 and {row["cut_characters"] for row in traces} == {0}


def test_the_rules_find_and_cut(study, tokenizer):
    study.find(study.settings)
    cut = {**study.settings, "action": "drop_span"}
    traces, dropped = study.curate({"ngrams": cut, "repetition": None})
    ((query, reason, detail),) = [(row["query_id"], row["reason"], row["detail"]) for row in dropped]
    assert (query, reason) == ("2000", "frequent_ngram_in_structure")
    assert re.match(r"thinking_empty without: .*aside", detail)
    whole = {row["query_id"]: row for row in traces if row["cut_characters"]}
    assert len(whole) == 7
    assert whole["0000"]["thinking"].startswith(study.sums[0]) and PHRASE not in whole["0000"]["thinking"]
    for row in whole.values():
        text = wrap(row["thinking"], row["answer"])
        assert row["output_tokens"] == tokenizer.count([text])[0]
        assert row["cut_characters"] % len(PHRASE) == 0


def test_no_ngram_is_frequent_where_no_response_is_accepted(tmp_path):
    study = Study(tmp_path, [["refused"], []])
    settings = Ngrams(tokenizer=TOKENIZER).model_dump(mode="json")
    study.find(settings)
    assert read_table(study.path("frequent"), NGRAM_COUNTS).num_rows == 0
    assert study.curate({"ngrams": settings, "repetition": None}) == ([], [])


def test_equal_text_gives_equal_bytes(study):
    names = ["sketch0", "candidates", "tallies0", "frequent"]
    study.find(study.settings)
    before = {name: Path(study.path(name)).read_bytes() for name in names}
    study.find(study.settings)
    assert before == {name: Path(study.path(name)).read_bytes() for name in names}
    assert not list(study.folder.glob("*.tokens"))


def test_a_response_that_repeats_a_phrase_is_dropped(tmp_path):
    loop = "Wait, let me check 12 again. "
    study = Study(tmp_path, [[wrap("fine"), wrap(loop * 3), wrap("Now " + loop * 4 + "done")]])
    settings = Ngrams(tokenizer=TOKENIZER).model_dump(mode="json")
    study.find(settings)
    repetition = Repetition(min_tokens=8, min_times=4).model_dump(mode="json")
    traces, dropped = study.curate({"ngrams": settings, "repetition": repetition})
    assert len(traces) == 2
    assert dropped[0]["reason"] == "repeated_phrase"
    assert re.match(r"4 times: ", dropped[0]["detail"]) and "check 12 again" in dropped[0]["detail"] + loop
    assert len(study.curate({"ngrams": settings, "repetition": None})[0]) == 3


def test_a_tokenizer_without_places_cannot_cut(tokenizer, monkeypatch):
    monkeypatch.setattr(type(tokenizer.own), "is_fast", False)
    with pytest.raises(InputError, match="use action drop_row"):
        tokenizer.locate_tokens("x")


def test_tables_are_read_in_parts_whatever_their_row_groups(tmp_path):
    from whichteacher.tables import TableError, read_parts

    path = tmp_path / "t.parquet"
    parts = [pa.table({"ngram": [str(start + i) for i in range(50)], "count": [1] * 50}) for start in (0, 50)]
    write_batches(path, parts, NGRAM_COUNTS)
    read = list(read_parts(path, NGRAM_COUNTS, ["ngram"], 30))
    assert max(part.num_rows for part in read) <= 30
    assert pa.concat_tables(read)["ngram"].to_pylist() == [str(i) for i in range(100)]
    with pytest.raises(TableError, match="'text' is missing"):
        next(read_parts(path, COLLECTED, ["text"], 30))
