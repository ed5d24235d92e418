"""How often the token n-grams of one teacher's shard occur at most: the first pass to the frequent ones.

Reads a COLLECTED table, writes NGRAM_SKETCH: small counters, a tenth of the text's size at most, whose sum over the shards
says which n-grams may be frequent (see :mod:`whichteacher.ngrams`). Every window of ``size`` tokens in an accepted response
counts. The shard's tokens wait in a file beside the output while it runs, four bytes each.
"""

from pathlib import Path
from typing import Any

import numpy as np

from whichteacher.ngrams import TokenBatch, accepted_tokens, sketch_bits, sketch_blocks
from whichteacher.rule import Progress
from whichteacher.schemas import NGRAM_SKETCH
from whichteacher.tables import write_batches
from whichteacher.tokens import load_tokenizer


def main(attempts: str, output: str, settings: dict[str, Any], shards: int, step: str) -> None:
    """Count and write; ``settings`` is the block ``curation.ngrams`` as plain JSON types, ``shards`` how many there are."""
    tokenizer = load_tokenizer(settings["tokenizer"])
    size, max_count = settings["size"], settings["max_count"]
    scratch = Path(f"{output}.tokens")
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        lengths: list[int] = []
        with open(scratch, "wb") as file, Progress(f"{step}: counting tokens", 0, "responses") as progress:
            for batch in accepted_tokens(attempts, tokenizer):
                batch.tokens.tofile(file)
                lengths += np.diff(batch.bounds).tolist()
                progress.advance(len(batch.bounds) - 1)
        bounds = np.cumsum([0, *lengths], dtype=np.int64)
        # Copy on write: the compiled functions take writable arrays, and nothing is written.
        tokens = np.memmap(scratch, np.int32, "c").view(np.ndarray) if bounds[-1] else np.empty(0, np.int32)
        batch = TokenBatch(tokens, bounds)
        bits = sketch_bits(batch.windows(size), shards, max_count)
        blocks = sketch_blocks(batch, size, max_count, bits)
        write_batches(output, blocks, NGRAM_SKETCH, {"ngrams": settings, "bits": bits})
        print(f"{step}: {len(lengths)} responses, {bounds[-1]} tokens, 2**{bits} counters")
    finally:
        scratch.unlink(missing_ok=True)


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
