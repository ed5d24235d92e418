"""Phrases repeated one right after the other: found where a plain search finds one, in time that does not explode."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whichteacher import repetition
from whichteacher.repetition import Repeat, find_repeat


def plain(tokens: list[int], min_tokens: int, min_times: int) -> Repeat | None:
    """The shortest phrase, of these the first, by trying all."""
    for length in range(min_tokens, len(tokens) // min_times + 1):
        for start in range(len(tokens)):
            times = 1
            while (
                tokens[start + times * length :][:length] == tokens[start:][:length]
                and len(tokens[start + times * length :][:length]) == length
            ):
                times += 1
            if times >= min_times:
                return Repeat(start, length, times)
    return None


TOKENS = st.one_of(
    st.lists(st.integers(0, 2), max_size=40),
    # A phrase, repeated, in the middle of others.
    st.builds(
        lambda before, phrase, times, after: before + phrase * times + after,
        st.lists(st.integers(0, 3), max_size=9),
        st.lists(st.integers(0, 3), min_size=1, max_size=6),
        st.integers(1, 6),
        st.lists(st.integers(0, 3), max_size=9),
    ),
)


@settings(deadline=None, max_examples=300)
@given(TOKENS, st.integers(1, 6), st.integers(2, 5))
def test_what_is_found_is_what_a_plain_search_finds(tokens, min_tokens, min_times):
    assert find_repeat(np.array(tokens, dtype=np.int32), min_tokens, min_times) == plain(tokens, min_tokens, min_times)


@settings(deadline=None)
@given(TOKENS, st.integers(1, 6), st.integers(2, 5))
def test_a_collision_is_no_repetition(tokens, min_tokens, min_times):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repetition, "_MULTIPLIER", np.uint64(0))
        found = find_repeat(np.array(tokens, dtype=np.int32), min_tokens, min_times)
    assert found == plain(tokens, min_tokens, min_times)


def test_a_long_response_that_nearly_repeats_is_searched_to_the_end():
    stretch = np.tile(np.arange(30, dtype=np.int32), 9)
    tokens = np.concatenate([np.append(stretch, 1000 + place).astype(np.int32) for place in range(120)])
    assert len(tokens) > 32_000
    assert find_repeat(tokens, 20, 10) is None
    assert find_repeat(np.append(tokens, np.tile(np.arange(7, 407, dtype=np.int32), 10)), 20, 10).length == 400
