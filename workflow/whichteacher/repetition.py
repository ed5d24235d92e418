"""Phrases that a response repeats over and over, one right after the other: what a model that is caught in a loop writes."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

#: As in whichteacher.ngrams; what hashes call equal is compared by its tokens.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Repeat(NamedTuple):
    """A phrase of ``length`` tokens, the first at ``start``, that stands there ``times`` times in a row."""

    start: int
    length: int
    times: int


def find_repeat(tokens: np.ndarray, min_tokens: int, min_times: int) -> Repeat | None:
    """The shortest phrase of at least ``min_tokens`` tokens that ``tokens`` (int32) hold ``min_times`` times in a row (two or
    more), None where there is none. Of several of that length it is the first.

    A phrase may consist of a shorter one that repeats. The time grows with n log(n)**2 for n tokens at worst.
    """
    if len(tokens) < min_tokens * min_times:
        return None
    start, length, times = _find(tokens, min_tokens, min_times, _MULTIPLIER)
    return Repeat(start, length, times) if times else None


@numba.njit(cache=True)
def _find(tokens: np.ndarray, min_tokens: int, min_times: int, multiplier: np.uint64) -> tuple[int, int, int]:
    """A phrase of p tokens stands k times in a row where at least (k - 1) * p tokens in a row equal the one p further on. Such
    a stretch holds a multiple of its shortest length: those alone are looked at."""
    count = len(tokens)
    hashes, powers = np.zeros(count + 1, np.uint64), np.ones(count + 1, np.uint64)
    for place in range(count):
        hashes[place + 1] = hashes[place] * multiplier + np.uint64(tokens[place])
        powers[place + 1] = powers[place] * multiplier
    for length in range(min_tokens, count // min_times + 1):
        needed = (min_times - 1) * length
        for middle in range(0, count - length, needed):
            if tokens[middle] != tokens[middle + length]:
                continue
            after = _agree(hashes, powers, middle, middle + length, count - middle - length, 1)
            before = _agree(hashes, powers, middle, middle + length, middle, -1)
            if before + after < needed:
                continue
            # Hashes may collide, and then call too much equal.
            after = _count_equal(tokens, middle, middle + length, after, 1)
            before = _count_equal(tokens, middle - 1, middle + length - 1, before, -1)
            if before + after >= needed:
                return middle - before, length, (before + after) // length + 1
    return 0, 0, 0


@numba.njit(cache=True)
def _agree(hashes: np.ndarray, powers: np.ndarray, one: int, other: int, most: int, step: int) -> int:
    """How many tokens, at most ``most``, have equal hashes from ``one`` and ``other`` on (``step`` 1), or up to them (-1)."""
    low, high = 0, most
    while low < high:
        length = (low + high + 1) // 2
        first, second = (one, other) if step > 0 else (one - length, other - length)
        if (
            hashes[first + length] - hashes[first] * powers[length]
            == hashes[second + length] - hashes[second] * powers[length]
        ):
            low = length
        else:
            high = length - 1
    return low


@numba.njit(cache=True)
def _count_equal(tokens: np.ndarray, one: int, other: int, most: int, step: int) -> int:
    """How many tokens, at most ``most``, are equal from ``one`` and ``other`` on, forwards (``step`` 1) or backwards (-1)."""
    equal = 0
    while equal < most and tokens[one + step * equal] == tokens[other + step * equal]:
        equal += 1
    return equal
