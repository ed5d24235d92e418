"""Token n-grams that a teacher repeats across its accepted responses.

Reads COLLECTED tables, writes NGRAM_COUNTS: the n-grams of ``size`` tokens that occur more than ``max_count`` times in the
teacher's data (the paper: 20 tokens, more than 20 times, section 2.2). Every occurrence counts, also within one response.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from whichteacher.ngrams import token_ngrams
from whichteacher.places import locate
from whichteacher.schemas import COLLECTED, NGRAM_COUNTS
from whichteacher.tables import read_table, write_table


def frequent(sequences: Iterable[list[int]], size: int, max_count: int) -> list[dict[str, Any]]:
    """NGRAM_COUNTS rows of the n-grams seen more than ``max_count`` times, most frequent first."""
    counts: Counter[tuple[int, ...]] = Counter()
    for tokens in sequences:
        counts.update(token_ngrams(tokens, size))
    found = [(ngram, count) for ngram, count in counts.items() if count > max_count]
    return [
        {"ngram": " ".join(map(str, ngram)), "count": count}
        for ngram, count in sorted(found, key=lambda item: (-item[1], item[0]))
    ]


def main(attempts: list[str], output: str, settings: dict[str, Any]) -> None:
    """Count and write; ``settings`` is the block ``curation.ngrams`` as plain JSON types."""
    from transformers import AutoTokenizer

    reference = settings["tokenizer"]
    tokenizer = AutoTokenizer.from_pretrained(locate(reference["model"]), revision=reference["revision"])
    collected = read_table(attempts, COLLECTED, ["text", "accepted"])
    texts = collected.filter(collected["accepted"])["text"].to_pylist()
    sequences = (tokenizer.encode(text, add_special_tokens=False) for text in texts)
    write_table(output, frequent(sequences, settings["size"], settings["max_count"]), NGRAM_COUNTS, settings)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(list(snakemake.input.attempts), snakemake.output.table, snakemake.params.ngrams)  # noqa: F821
