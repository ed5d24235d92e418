"""Identity, normal form and shard of a query; words."""

import unicodedata

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_corpus import shards_of

from whichteacher.queries import id_numbers, normalise, normalise_many, query_id, query_ids, shard_of
from whichteacher.schemas import QUERIES, SELECTED, TURNS
from whichteacher.selection import count_rows, selected_batches
from whichteacher.tables import TableError, as_table, write_batches
from whichteacher.words import split_words

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)
SPACE = st.text(" \t\n\r\u00a0\u2003\u3000", min_size=1, max_size=4)
#: Every white space there is, and what stands beside it in the tables of Unicode.
ODD = st.text(
    st.sampled_from([*map(chr, range(0x21)), *"\x7f\x85\xa0\u2003\u3000\u180e\u200be\u0301Å\u212b각ab"]), max_size=12
)
IDENTIFIER = st.integers(0, 2**128 - 1).map(lambda value: f"{value:032x}")


def user(text):
    return [{"role": "user", "content": text}]


@given(st.lists(TEXT, min_size=1), SPACE, SPACE, SPACE)
def test_white_space_does_not_matter(parts, between, before, after):
    spaced = before + between.join(parts) + after
    assert query_id(user(spaced)) == query_id(user(" ".join(parts)))


@given(TEXT)
def test_normal_form_is_stable_and_composed(text):
    once = normalise(text)
    assert normalise(once) == once == normalise(unicodedata.normalize("NFD", text))
    assert query_id(user(text)) == query_id(user(unicodedata.normalize("NFD", text)))


@given(TEXT, TEXT)
def test_roles_and_boundaries_of_turns_matter(first, second):
    both = [{"role": "user", "content": first}, {"role": "assistant", "content": second}]
    swapped = [{"role": "assistant", "content": first}, {"role": "user", "content": second}]
    assert query_id(both) != query_id(swapped)
    assert query_id(both) != query_id(user(first + second))


@given(TEXT, TEXT)
def test_different_texts_have_different_identities(first, second):
    assert (query_id(user(first)) == query_id(user(second))) == (normalise(first) == normalise(second))


def test_identity_never_changes():
    assert query_id(user("What is 347 + 285?")) == "f41135b1c207c795c282f126efd1e756"
    assert (
        query_id([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}])
        == "e8bc1141e83de73f99053266cd0b1d10"
    )


@given(st.lists(IDENTIFIER, min_size=2, max_size=20), st.integers(1, 5000))
def test_shards_are_ranges(identifiers, shards):
    places = [shard_of(identifier, shards) for identifier in sorted(identifiers)]
    assert places == sorted(places)
    assert set(places) <= set(range(shards))


def test_shards_are_equal_ranges():
    assert shard_of("0" * 32, 7) == 0
    assert shard_of("f" * 32, 7) == 6
    assert [shard_of(f"{value:x}" + "0" * 31, 4) for value in range(16)] == [value // 4 for value in range(16)]


def test_words():
    assert split_words("Compute 1,234.5 \u2212 x\u00d73.").words == ["compute", "1234.5", "-", "x", "*", "3"]
    assert split_words("$\\frac{1}{2}$ and (1,2)").words == ["frac", "1", "2", "and", "1", "2"]
    assert split_words("计算 12 加 3。").words == ["计", "算", "12", "加", "3"]
    assert split_words("One two. Three? ").edges == [0, 2, 3]
    assert split_words("Pay 34 of 5").numbers() == ["34", "5"]
    assert split_words("?!").words == []


@given(st.lists(TEXT | ODD, max_size=10))
def test_the_normal_form_of_many_is_that_of_each(texts):
    assert normalise_many(pl.Series(texts, dtype=pl.String)).to_list() == [normalise(text) for text in texts]


@given(
    st.lists(
        st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXT | ODD}),
            min_size=1,
            max_size=3,
        ),
        max_size=8,
    ),
    st.integers(0, 3),
)
def test_the_identities_of_many_are_those_of_each(rows, start):
    wanted = [query_id(turns) for turns in rows]
    assert query_ids(pa.array(rows, TURNS)).to_pylist() == wanted
    assert query_ids(pa.array(rows, TURNS)[start:]).to_pylist() == wanted[start:]


@given(st.lists(IDENTIFIER, max_size=20), st.integers(1, 70), st.integers(0, 3))
def test_the_shards_of_many_are_those_of_each(identifiers, shards, start):
    column = pa.chunked_array([pa.array(identifiers, pa.string())[start:], pa.array(identifiers, pa.string())])
    wanted = identifiers[start:] + identifiers
    assert [f"{high:016x}{low:016x}" for high, low in id_numbers(column).tolist()] == wanted
    assert shards_of(column, shards).tolist() == [shard_of(identifier, shards) for identifier in wanted]


def imported_tables(folder, **rows):
    """Tables of so many rows per source, in groups of three."""
    paths = []
    for source, count in rows.items():
        made = [
            dict.fromkeys(QUERIES.names)
            | {"query_id": f"{source}{row}", "source": source, "source_row": str(row), "category": "math"}
            | {"licence": "MIT", "turns": user(f"{source} {row}")}
            for row in range(count)
        ]
        paths.append(folder / f"{source}.parquet")
        groups = [as_table(made[start : start + 3], QUERIES) for start in range(0, count, 3)]
        write_batches(paths[-1], groups, QUERIES, {"source": source})
    return paths


def selection(*places):
    rows = [{"source": source, "row": row, "query_id": f"{source}{row}"} for source, row in places]
    return as_table(rows, SELECTED)


@given(st.lists(st.sampled_from([("b", row) for row in range(7)] + [("a", row) for row in range(4)]), unique=True))
def test_a_selection_gives_its_rows_and_no_others(tmp_path_factory, places):
    paths = imported_tables(tmp_path_factory.mktemp("imported"), b=7, a=4)
    wanted = sorted(places, key=lambda place: ("ba".index(place[0]), place[1]))
    found = list(selected_batches(paths, selection(*wanted), ["turns", "query_id"]))
    rows = [row for batch in found for row in batch.to_pylist()]
    assert [(row["source"], row["row"], row["query_id"]) for row in rows] == [(s, r, f"{s}{r}") for s, r in wanted]
    assert [row["turns"] for row in rows] == [user(f"{source} {row}") for source, row in wanted]
    assert all(0 < batch.num_rows <= 3 for batch in found)


def test_without_a_selection_every_row_comes(tmp_path):
    paths = imported_tables(tmp_path, b=7, a=4)
    assert count_rows(paths) == 11
    assert [batch.num_rows for batch in selected_batches(paths, None, ["query_id"])] == [3, 3, 1, 3, 1]


@pytest.mark.parametrize("place", [("a", 9), ("c", 0)])
def test_a_selection_of_other_tables_is_refused(tmp_path, place):
    with pytest.raises(TableError):
        list(selected_batches(imported_tables(tmp_path, b=7, a=4), selection(("b", 1), place), ["query_id"]))
