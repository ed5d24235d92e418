"""Token n-grams that a teacher repeats across its accepted responses.

Reads NGRAM_TALLIES of all shards, writes NGRAM_COUNTS: the n-grams of ``size`` tokens that occur more than ``max_count`` times
in the teacher's data (the paper: 20 tokens, more than 20 times, section 2.2), most frequent first. Every occurrence counts,
also within one response.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from whichteacher.schemas import NGRAM_COUNTS, NGRAM_TALLIES
from whichteacher.tables import read_batches, write_batches

_ROWS = 2**16


def tallies(path: str) -> Iterator[tuple[bytes, int]]:
    """The n-grams of a shard and their counts, in order."""
    for rows in read_batches(path, NGRAM_TALLIES):
        yield from zip(rows["ngram"].to_pylist(), rows["count"].to_pylist(), strict=True)


def frequent(shards: Sequence[Iterator[tuple[bytes, int]]], size: int, max_count: int) -> Iterator[pa.Table]:
    """NGRAM_COUNTS rows of the n-grams that all shards together hold more than ``max_count`` times."""
    ngrams, counts = bytearray(), []
    for ngram, found in groupby(heapq.merge(*shards), key=itemgetter(0)):
        if (count := sum(map(itemgetter(1), found))) > max_count:
            ngrams += ngram
            counts.append(count)
    tokens = np.frombuffer(ngrams, dtype=">u4").reshape(-1, size)
    counted = np.array(counts, dtype=np.int64)
    order = np.argsort(-counted, kind="stable")
    for start in range(0, len(order), _ROWS):
        chosen = order[start : start + _ROWS]
        words = [" ".join(map(str, row)) for row in tokens[chosen].tolist()]
        yield pa.table({"ngram": words, "count": counted[chosen]}, schema=NGRAM_COUNTS)


def main(shards: Sequence[str], output: str, settings: dict[str, Any]) -> None:
    """Merge and write; ``settings`` is the block ``curation.ngrams`` as plain JSON types."""
    rows = frequent([tallies(shard) for shard in shards], settings["size"], settings["max_count"])
    write_batches(output, rows, NGRAM_COUNTS, settings)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(list(snakemake.input.tallies), snakemake.output.table, snakemake.params.ngrams)  # noqa: F821
