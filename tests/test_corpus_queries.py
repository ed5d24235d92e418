"""Identity, normal form and shard of a query; words."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from whichteacher.queries import normalise, query_id, shard_of
from whichteacher.words import split_words

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)
SPACE = st.text(" \t\n\r\u00a0\u2003\u3000", min_size=1, max_size=4)
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
