"""Remove queries that are, or are close to, problems of the benchmarks.

Reads the deduplicated queries and all benchmarks. Every turn of a query is compared with every problem in three ways:
equal normalised text; share of the problem's word n-grams found in the query; cosine similarity of embeddings. Writes
the queries that are left, every flagged pair with both texts and its score, the ledger and the dropped rows.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from whichteacher.embedding import Encoder, load_encoder
from whichteacher.ledger import Ledger
from whichteacher.queries import normalise
from whichteacher.rule import Progress
from whichteacher.schemas import BENCHMARK_PROBLEMS, CONTAMINATION, SELECTED
from whichteacher.selection import selected_batches
from whichteacher.tables import read_table, write_table
from whichteacher.words import Words, split_words

_CHUNK_QUERIES = 2048
_COLUMNS = ["query_id", "source", "source_row", "turns"]

#: A problem flagged for a query: its index, the method, the score, and whether the query falls for it.
Flag = tuple[int, str, float, bool]


class ProblemIndex:
    """The benchmarks' problems, ready for comparison with many queries."""

    def __init__(self, prompts: Sequence[str], ngram: int) -> None:
        self.ngram = ngram
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._ngrams: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._short: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._sizes: list[int] = []
        self._numbers: list[list[str]] = []
        for problem, prompt in enumerate(prompts):
            self._exact[normalise(prompt)].append(problem)
            split = split_words(prompt)
            grams = _ngrams(split.words, ngram)
            for gram in grams:
                self._ngrams[gram].append(problem)
            if not grams and split.words:
                self._short[tuple(split.words)].append(problem)
            self._sizes.append(len(grams))
            self._numbers.append(split.numbers())

    def exact(self, contents: Sequence[str]) -> list[int]:
        """Problems whose normalised text is that of a turn."""
        return sorted({problem for content in contents for problem in self._exact.get(normalise(content), ())})

    def containment(self, contents: Sequence[str]) -> dict[int, tuple[float, bool]]:
        """Per problem that shares n-grams with the turns: the share of its distinct n-grams found there, and whether
        the problem's numbers are found too, in their order.

        A problem of fewer words than an n-gram counts as found, with a share of 1, where its whole word sequence stands
        in a turn from one sentence edge to another: "Compute 34 + 5" is not found in "Compute 34 + 5 - 12".
        """
        turns = [split_words(content) for content in contents]
        grams = set().union(*(_ngrams(turn.words, self.ngram) for turn in turns))
        hits = Counter(problem for gram in grams for problem in self._ngrams.get(gram, ()))
        numbers = [number for turn in turns for number in turn.numbers()]
        found = {
            problem: (count / self._sizes[problem], _in_order(self._numbers[problem], numbers))
            for problem, count in hits.items()
        }
        for turn in turns:
            for span in _sentence_spans(turn, self.ngram):
                found.update((problem, (1.0, True)) for problem in self._short.get(span, ()))
        return found


def _ngrams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def _sentence_spans(turn: Words, longest: int) -> Iterator[tuple[str, ...]]:
    """Runs of fewer than ``longest`` words that begin and end at a sentence's edge."""
    for position, start in enumerate(turn.edges):
        for end in turn.edges[position + 1 :]:
            if end - start >= longest:
                break
            yield tuple(turn.words[start:end])


def _in_order(wanted: Sequence[str], there: Sequence[str]) -> bool:
    """Whether ``wanted`` is a subsequence of ``there``."""
    rest = iter(there)
    return all(number in rest for number in wanted)


def similar_pairs(
    contents: Sequence[Sequence[str]], problems: np.ndarray, encode: Encoder, similarity: float
) -> Iterator[tuple[int, int, float]]:
    """Query, problem and score wherever the most similar turn of a query is more similar to the problem than
    ``similarity``. ``problems`` are the problems' vectors; scores are rounded to six digits, below which they depend on
    the machine."""
    owner = np.repeat(np.arange(len(contents)), [len(turns) for turns in contents])
    scores = encode([turn for turns in contents for turn in turns]) @ problems.T
    best: dict[tuple[int, int], float] = {}
    for row, problem in np.argwhere(scores > similarity - 1e-6):
        score = round(float(scores[row, problem]), 6)
        pair = (int(owner[row]), int(problem))
        if score > max(similarity, best.get(pair, 0.0)):
            best[pair] = score
    yield from ((query, problem, score) for (query, problem), score in sorted(best.items()))


def flag_queries(
    contents: Sequence[Sequence[str]], prompts: Sequence[str], settings: Mapping[str, Any]
) -> list[list[Flag]]:
    """The flags of each query: exact, then n-gram, then embedding. ``settings`` is ``corpus.decontaminate``.

    An n-gram flag without the problem's numbers does not make a query fall: with other numbers it is another problem.
    """
    index = ProblemIndex(prompts, settings["ngram"])
    encode = load_encoder(settings["embedder"], settings["embedder_revision"]) if settings["embedder"] else None
    vectors = encode(prompts) if encode and prompts else None
    flags: list[list[Flag]] = [[] for _ in contents]
    with Progress("decontaminate_queries", len(contents), "queries") as progress:
        for start in range(0, len(contents), _CHUNK_QUERIES):
            chunk = contents[start : start + _CHUNK_QUERIES]
            for query, turns in enumerate(chunk, start):
                flags[query] += [(problem, "exact", 1.0, True) for problem in index.exact(turns)]
                for problem, (share, same_numbers) in sorted(index.containment(turns).items()):
                    if share >= settings["containment"]:
                        flags[query].append((problem, "ngram", share, same_numbers))
            if vectors is not None:
                for query, problem, score in similar_pairs(chunk, vectors, encode, settings["similarity"]):
                    flags[start + query].append((problem, "embedding", score, True))
            progress.advance(len(chunk))
    return flags


def decontaminate(
    queries: pa.Table, problems: pa.Table, settings: Mapping[str, Any]
) -> tuple[pa.Table, list[dict[str, Any]], Ledger]:
    """The queries that are left, the flagged pairs (rows of CONTAMINATION), and the ledger.

    The reason a query falls is the first method that found it: contaminated_exact, contaminated_ngram or
    contaminated_embedding.
    """
    rows = queries.select(_COLUMNS).to_pylist()
    known = problems.select(["benchmark", "problem_id", "prompt"]).to_pylist()
    contents = [[turn["content"] for turn in row["turns"]] for row in rows]
    flags = flag_queries(contents, [problem["prompt"] for problem in known], settings)
    ledger = Ledger("decontaminate_queries", "all", len(rows))
    pairs, kept = [], []
    for row, turns, found in zip(rows, contents, flags, strict=True):
        for problem, method, score, falls in found:
            pairs.append(
                {
                    "query_id": row["query_id"],
                    "source": row["source"],
                    **{name: known[problem][name] for name in ("benchmark", "problem_id")},
                    "method": method,
                    "score": score,
                    "dropped": falls,
                    "query": "\n".join(turns),
                    "problem": known[problem]["prompt"],
                }
            )
        cause = next(((known[p], method) for p, method, _, falls in found if falls), None)
        kept.append(cause is None)
        if cause:
            problem, method = cause
            place = f"{row['source']}/{row['source_row']}"
            detail = f"{place}: {problem['benchmark']}/{problem['problem_id']}"
            ledger.drop(row["query_id"], f"contaminated_{method}", detail)
    left = queries.filter(pa.array(kept, pa.bool_()))
    ledger.keep(left.num_rows)
    return left, pairs, ledger


def main(
    imported: Sequence[str],
    deduplicated: str,
    benchmarks: Sequence[str],
    settings: Mapping[str, Any],
    table: str,
    contamination: str,
    ledger: str,
    dropped: str,
) -> None:
    """Decontaminate the selection ``deduplicated`` of the tables ``imported`` against the tables ``benchmarks``."""
    problems = read_table(benchmarks, BENCHMARK_PROBLEMS)
    selected = read_table(deduplicated, SELECTED)
    queries = pa.concat_tables(selected_batches(imported, selected, _COLUMNS))
    left, pairs, counts = decontaminate(queries, problems, settings)
    write_table(table, left, SELECTED, {"decontaminate": dict(settings), "problems": problems.num_rows})
    write_table(contamination, pairs, CONTAMINATION)
    counts.write(ledger, dropped)
    print(f"{counts.rows_in} queries, {counts.kept} kept, {len(counts.dropped)} contaminated")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            list(snakemake.input.imported),  # noqa: F821
            snakemake.input.deduplicated,  # noqa: F821
            list(snakemake.input.benchmarks),  # noqa: F821
            snakemake.params.decontaminate,  # noqa: F821
            **dict(snakemake.output.items()),  # noqa: F821
        )
