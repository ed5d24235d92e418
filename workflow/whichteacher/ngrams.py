"""Token n-grams, as counting and filtering both see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def token_ngrams(tokens: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """The windows of ``size`` tokens, in order; none for a shorter sequence."""
    return zip(*(tokens[start:] for start in range(size)), strict=False)
