"""Which of a teacher's n-grams may be frequent: the counters whose sum over all shards is above ``max_count``.

Reads NGRAM_SKETCH of all shards, block by block, and writes CANDIDATE_COUNTERS.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from whichteacher.ngrams import candidate_counters
from whichteacher.rule import Progress
from whichteacher.schemas import CANDIDATE_COUNTERS, NGRAM_SKETCH
from whichteacher.tables import read_batches, read_provenance, write_batches


def blocks(sketch: str) -> Iterator[bytes]:
    """The counters of a sketch in order."""
    for rows in read_batches(sketch, NGRAM_SKETCH):
        yield from rows["counters"].to_pylist()


def main(sketches: Sequence[str], output: str, settings: dict[str, Any], step: str) -> None:
    """Search and write; ``settings`` is the block ``curation.ngrams`` as plain JSON types."""
    read = [(read_provenance(sketch)["bits"], blocks(sketch)) for sketch in sketches]
    bits, found = candidate_counters(read, settings["max_count"])

    def tables(progress: Progress) -> Iterator[pa.Table]:
        for numbers in found:
            progress.advance()
            if len(numbers):
                yield pa.table({"counter": numbers}, schema=CANDIDATE_COUNTERS)

    with Progress(step, 0, "blocks") as progress:
        rows = write_batches(output, tables(progress), CANDIDATE_COUNTERS, {"ngrams": settings, "bits": bits})
    print(f"{step}: {rows} of 2**{bits} counters are above {settings['max_count']}")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            list(snakemake.input.sketches),  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.ngrams,  # noqa: F821
            f"find_candidate_ngrams {snakemake.wildcards.teacher}",  # noqa: F821
        )
