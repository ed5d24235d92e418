"""How often the token n-grams of one teacher's shard occur at most: the first pass to the frequent ones.

Reads a COLLECTED table, writes NGRAM_SKETCH: small counters, a tenth of the text's size at most, whose sum over the shards
says which n-grams may be frequent (see :mod:`whichteacher.ngrams`). Every window of ``size`` tokens in an accepted response
counts. The shard's tokens wait in a file beside the output while it runs, four bytes each.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from whichteacher.ngrams import TokenBatch, accepted_tokens, sketch_bits, sketch_blocks
from whichteacher.rule import Progress
from whichteacher.schemas import NGRAM_SKETCH
from whichteacher.tables import write_batches
from whichteacher.tokens import load_tokenizer


def sketch(
    batches: Iterable[TokenBatch], output: str, settings: dict[str, Any], shards: int, progress: Progress
) -> tuple[int, int]:
    """Count the windows of ``batches``, one of ``shards`` shards, and write their sketch. Returns how many tokens there are, and
    the counters as a power of two."""
    size, max_count = settings["size"], settings["max_count"]
    scratch = Path(f"{output}.tokens")
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        lengths = [np.empty(0, np.int64)]
        with open(scratch, "wb") as file:
            for batch in batches:
                batch.tokens.tofile(file)
                lengths.append(np.diff(batch.bounds))
                progress.advance(len(lengths[-1]))
        bounds = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        # Copy on write: the compiled functions take writable arrays, and nothing is written.
        tokens = np.memmap(scratch, np.int32, "c").view(np.ndarray) if bounds[-1] else np.empty(0, np.int32)
        shard = TokenBatch(tokens, bounds)
        bits = sketch_bits(shard.windows(size), shards, max_count)
        provenance = {"ngrams": settings, "bits": bits}
        write_batches(output, sketch_blocks(shard, size, max_count, bits), NGRAM_SKETCH, provenance)
        return int(bounds[-1]), bits
    finally:
        scratch.unlink(missing_ok=True)


def main(attempts: str, output: str, settings: dict[str, Any], shards: int, step: str) -> None:
    """Count and write; ``settings`` is the block ``curation.ngrams`` as plain JSON types, ``shards`` how many there are."""
    tokenizer = load_tokenizer(settings["tokenizer"])
    with Progress(step, 0, "responses") as progress:
        tokens, bits = sketch(accepted_tokens(attempts, tokenizer), output, settings, shards, progress)
    print(f"{step}: {tokens} tokens, 2**{bits} counters")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.attempts,  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.ngrams,  # noqa: F821
            snakemake.params.shards,  # noqa: F821
            f"count_ngrams {snakemake.wildcards.teacher}/{snakemake.wildcards.shard}",  # noqa: F821
        )
