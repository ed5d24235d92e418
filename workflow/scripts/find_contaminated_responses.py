"""Which responses of a teacher and shard hold a benchmark problem.

Reads every attempt (COLLECTED), the shard's queries (QUERIES), the flagged queries (CONTAMINATION) and all benchmarks. A response
is flagged as a query is: where it holds the configured share of a problem's word n-grams, its numbers in their order, and
its telling words. Writes every flagged pair (CONTAMINATED_RESPONSES), with how much of the problem the query holds: a
response that quotes its own query tells nothing new. No more than some megabytes of text are in memory.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from whichteacher.contamination import ProblemIndex
from whichteacher.rule import Progress
from whichteacher.schemas import BENCHMARK_PROBLEMS, COLLECTED, CONTAMINATED_RESPONSES, CONTAMINATION, QUERIES
from whichteacher.tables import read_parts, read_table, write_batches
from whichteacher.words import gather_words, split_texts, tokenise

#: Text that is compared together, in characters: its words take some thirty times as much memory.
_CHARACTERS = 8 * 2**20
#: Characters shown on each side of a quotation's first n-gram.
_AROUND = 200


def pieces(table: pa.Table) -> Iterator[pa.Table]:
    """``table`` in pieces of some megabytes of its column ``text``, or of one row."""
    place = np.cumsum(pc.utf8_length(table["text"]).to_numpy()) // _CHARACTERS
    bounds = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), table.num_rows]
    for start, end in itertools.pairwise(bounds):
        if end > start:
            yield table.slice(start, end - start)


def quotation(text: str, gram: Sequence[str]) -> str:
    """``text`` around the words of ``gram``; "" where they stand there in another form."""
    found = re.search(r"[\W_]*".join(map(re.escape, gram)), text, re.IGNORECASE)
    if found is None:
        return ""
    start, end = max(0, found.start() - _AROUND), found.end() + _AROUND
    return " ".join(text[start:end].split())


def find_quotations(
    responses: Sequence[str], dialogues: Sequence[Sequence[str]], index: ProblemIndex, containment: float
) -> Iterator[tuple[int, int, float, float, str]]:
    """(response, problem, share, share of the query, quotation) of every response that holds a problem.

    ``dialogues`` are the turns of the responses' queries, in the same order.
    """
    tokens = tokenise(pl.Series(responses, dtype=pl.String))
    for place in index.candidates(tokens, short=False).tolist():
        words = gather_words(tokens[place].to_list())
        held = [(problem, share) for problem, share, same in index.quoted(words) if same and share >= containment]
        if not held:
            continue
        asked = {problem: share for problem, share, _ in index.overlaps(split_texts(dialogues[place]))}
        for problem, share in held:
            told = quotation(responses[place], index.quotation(problem, words))
            yield place, problem, share, asked.get(problem, 0.0), told


def flagged_responses(
    batches: Iterable[pa.Table],
    dialogues: Mapping[str, Sequence[str]],
    problems: Sequence[Mapping[str, Any]],
    flagged: set[str],
    settings: Mapping[str, Any],
) -> Iterator[pa.Table]:
    """Rows of CONTAMINATED_RESPONSES for the attempts of ``batches`` (columns attempt_id, query_id and text), batch by batch.

    ``dialogues`` holds the turns of every query, ``problems`` rows of BENCHMARK_PROBLEMS, ``flagged`` the queries that fall for one
    of them, ``settings`` is ``corpus.decontaminate``.
    """
    index = ProblemIndex([problem["prompt"] for problem in problems], settings["ngram"])
    for batch in batches:
        attempts, queries = batch["attempt_id"].to_pylist(), batch["query_id"].to_pylist()
        asked = [dialogues[query] for query in queries]
        rows = [
            {
                "attempt_id": attempts[place],
                "query_id": queries[place],
                "benchmark": problems[problem]["benchmark"],
                "problem_id": problems[problem]["problem_id"],
                "share": share,
                "query_share": query_share,
                "query_flagged": queries[place] in flagged,
                "quotation": told,
                "problem": problems[problem]["prompt"],
            }
            for place, problem, share, query_share, told in find_quotations(
                batch["text"].to_pylist(), asked, index, settings["containment"]
            )
        ]
        if rows:
            yield pa.Table.from_pylist(rows, schema=CONTAMINATED_RESPONSES)


def main(
    attempts: str, shard: str, contamination: str, benchmarks: Sequence[str], settings: Mapping[str, Any], output: str
) -> None:
    """Compare the attempts of one teacher and shard with the problems of ``benchmarks``."""
    problems = read_table(benchmarks, BENCHMARK_PROBLEMS).to_pylist()
    found = read_table(contamination, CONTAMINATION, ["query_id", "dropped"])
    flagged = set(found.filter(found["dropped"])["query_id"].to_pylist())
    queries = read_table(shard, QUERIES, ["query_id", "turns"])
    said = [[turn["content"] for turn in turns] for turns in queries["turns"].to_pylist()]
    dialogues = dict(zip(queries["query_id"].to_pylist(), said, strict=True))
    with Progress("find_contaminated_responses", pq.read_metadata(attempts).num_rows) as progress:

        def told() -> Iterator[pa.Table]:
            for part in read_parts(attempts, COLLECTED, ["attempt_id", "query_id", "text"]):
                yield from pieces(part)
                progress.advance(part.num_rows)

        rows = flagged_responses(told() if problems else (), dialogues, problems, flagged, settings)
        count = write_batches(output, rows, CONTAMINATED_RESPONSES, {"decontaminate": dict(settings)})
    news = (
        pc.sum(pc.invert(read_table(output, CONTAMINATED_RESPONSES, ["query_flagged"])["query_flagged"])).as_py() or 0
    )
    print(f"{count} quoted problems, {news} of them in responses to queries that hold none")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.attempts,  # noqa: F821
            snakemake.input.shard,  # noqa: F821
            snakemake.input.contamination,  # noqa: F821
            list(snakemake.input.benchmarks),  # noqa: F821
            snakemake.params.decontaminate,  # noqa: F821
            snakemake.output.table,  # noqa: F821
        )
