"""How often the n-grams that may be frequent occur in one teacher's shard, exactly: the second pass.

Reads a COLLECTED table and the teacher's CANDIDATE_COUNTERS, writes NGRAM_TALLIES: the windows of the accepted responses that
have a candidate for a counter, with their counts. They are compared by their tokens.
"""

from collections.abc import Iterable
from typing import Any

from whichteacher.ngrams import TokenBatch, WindowTable, accepted_tokens
from whichteacher.rule import Progress
from whichteacher.schemas import CANDIDATE_COUNTERS, NGRAM_TALLIES
from whichteacher.tables import read_batches, read_provenance, write_batches
from whichteacher.tokens import load_tokenizer


def tally(
    batches: Iterable[TokenBatch], candidates: str, output: str, settings: dict[str, Any], progress: Progress
) -> None:
    """Count the windows of ``batches`` that have a candidate for a counter, and write them."""
    counters = (rows["counter"].to_numpy() for rows in read_batches(candidates, CANDIDATE_COUNTERS))
    table = WindowTable.of_candidates(settings["size"], counters, read_provenance(candidates)["bits"])
    if table.marked:
        for batch in batches:
            table.count(batch)
            progress.advance(len(batch.bounds) - 1)
    write_batches(output, table.tallies(), NGRAM_TALLIES, settings)


def main(attempts: str, candidates: str, output: str, settings: dict[str, Any], step: str) -> None:
    """Count and write; ``settings`` is the block ``curation.ngrams`` as plain JSON types."""
    tokenizer = load_tokenizer(settings["tokenizer"])
    with Progress(step, 0, "responses") as progress:
        tally(accepted_tokens(attempts, tokenizer), candidates, output, settings, progress)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.attempts,  # noqa: F821
            snakemake.input.candidates,  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.ngrams,  # noqa: F821
            f"count_candidate_ngrams {snakemake.wildcards.teacher}/{snakemake.wildcards.shard}",  # noqa: F821
        )
