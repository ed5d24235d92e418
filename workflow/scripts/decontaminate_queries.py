"""Remove queries that are, or are close to, problems of the benchmarks.

Reads the selection of deduplicated queries, their text in the imported tables, and all benchmarks. Every turn of a query is
compared with every problem in three ways: equal normalised text; weighted share of the problem's word n-grams found in the
query; cosine similarity of embeddings. Writes the selection (SELECTED) of the queries that are left, every flagged pair
with both texts and its score (CONTAMINATION), how many queries other thresholds would flag (CONTAMINATION_SWEEP), the ledger
and the dropped rows.

What a model has encoded is kept, part by part, in a folder beside the table of pairs, until the job is done: one that was
killed goes on from there.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from whichteacher.contamination import ProblemIndex
from whichteacher.embedding import Encoder, encoder_identity, load_encoder
from whichteacher.ledger import Ledger
from whichteacher.queries import normalise_many
from whichteacher.rule import Progress
from whichteacher.schemas import BENCHMARK_PROBLEMS, CONTAMINATION, CONTAMINATION_SWEEP, SELECTED
from whichteacher.selection import selected_batches
from whichteacher.store import digest
from whichteacher.tables import append_spool, as_table, atomic_path, read_spool, read_table, write_batches, write_table
from whichteacher.words import gather_words, tokenise

#: Queries compared at a time. A killed job loses at most so many embeddings.
_CHUNK_QUERIES = 8192
#: Similarities computed at a time: 64 MB.
_SCORES = 2**24
#: What the sweep asks about, besides the thresholds of the config.
_CONTAINMENTS = tuple(round(0.1 * step, 1) for step in range(1, 11))
_SIMILARITIES = tuple(round(0.7 + 0.02 * step, 2) for step in range(15))

#: A problem flagged for a query: its index, the method, the score, and whether the query falls for it.
Flag = tuple[int, str, float, bool]


class Turns(NamedTuple):
    """The turns of some queries: their texts, and per turn the place of its query."""

    contents: pl.Series
    owner: np.ndarray

    @classmethod
    def of(cls, turns: pa.Array) -> "Turns":
        """From an array of TURNS, each of at least one turn."""
        counts = turns.value_lengths().to_numpy(zero_copy_only=False)
        return cls(
            pl.Series(turns.flatten().field("content"), dtype=pl.String), np.repeat(np.arange(len(counts)), counts)
        )


class Findings(NamedTuple):
    """What was found in some queries: the flags of each, in the order exact, n-gram, embedding; per query the largest share of
    a problem's n-grams, the largest of a problem it falls for, and the largest similarity (0.0: none)."""

    flags: list[list[Flag]]
    share: np.ndarray
    falling_share: np.ndarray
    similarity: np.ndarray


class Similar(NamedTuple):
    """Pairs above the threshold, as rows of (query, problem, score), and the largest similarity of each query."""

    pairs: list[tuple[int, int, float]]
    best: np.ndarray


class Encoded:
    """The problems as vectors, for comparison with many queries.

    ``settings`` is ``corpus.decontaminate``; finished chunks are kept in the folder ``parts``, under a name made of
    everything that determines them, and taken from there.
    """

    def __init__(self, prompts: Sequence[str], settings: Mapping[str, Any], parts: Path | None = None) -> None:
        name, revision = settings["embedder"], settings["embedder_revision"]
        self._encode: Encoder = load_encoder(name, revision)
        self._similarity = settings["similarity"]
        self._problems = self._encode(prompts)
        self._parts = parts
        self._determined_by = [encoder_identity(name, revision), list(prompts), self._similarity]

    def compare(self, turns: Turns, queries: int) -> Similar:
        """Compare the turns of ``queries`` queries with all problems; the most similar turn of a query counts.

        Scores are rounded to six digits, below which they depend on the machine.
        """
        if self._parts is None:
            return self._compare(turns, queries)
        key = digest([self._determined_by, turns.contents.to_list(), turns.owner.tolist()])
        part = self._parts / f"{key}.npz"
        if part.exists():
            with np.load(part) as stored:
                pairs = zip(stored["query"].tolist(), stored["problem"].tolist(), stored["score"].tolist(), strict=True)
                return Similar(list(pairs), stored["best"])
        similar = self._compare(turns, queries)
        query, problem, score = np.array(similar.pairs, dtype=float).reshape(-1, 3).T
        with atomic_path(part) as temporary, open(temporary, "wb") as file:
            np.savez(file, query=query.astype(int), problem=problem.astype(int), score=score, best=similar.best)
        return similar

    def _compare(self, turns: Turns, queries: int) -> Similar:
        vectors = self._encode(turns.contents.to_list())
        best = np.zeros(queries)
        pairs: dict[tuple[int, int], float] = {}
        rows = max(1, _SCORES // len(self._problems))
        for start in range(0, len(vectors), rows):
            scores = vectors[start : start + rows] @ self._problems.T
            np.maximum.at(best, turns.owner[start : start + rows], np.round(scores.max(axis=1).astype(float), 6))
            for row, problem in np.argwhere(scores > self._similarity - 1e-6):
                score = round(float(scores[row, problem]), 6)
                pair = (int(turns.owner[start + row]), int(problem))
                if score > max(self._similarity, pairs.get(pair, 0.0)):
                    pairs[pair] = score
        return Similar([(*pair, score) for pair, score in sorted(pairs.items())], best)


def find_contamination(
    turns: Turns, queries: int, index: ProblemIndex, encoded: Encoded | None, containment: float
) -> Findings:
    """Compare the turns of ``queries`` queries with the problems, in every way.

    An n-gram flag of a problem that is not the same (other numbers, other telling words) does not make a query fall.
    """
    found = Findings([[] for _ in range(queries)], *np.zeros((3, queries)))
    normal = normalise_many(turns.contents)
    places: dict[int, list[int]] = {}
    for turn in index.exact_candidates(normal).tolist():
        places.setdefault(int(turns.owner[turn]), []).append(turn)
    for query, alike in places.items():
        found.flags[query] += [(problem, "exact", 1.0, True) for problem in index.exact(normal.gather(alike))]
    tokens = tokenise(turns.contents)
    bounds = np.searchsorted(turns.owner, np.arange(queries + 1))
    for query in np.unique(turns.owner[index.candidates(tokens)]).tolist():
        words = [gather_words(spoken) for spoken in tokens[int(bounds[query]) : int(bounds[query + 1])].to_list()]
        for problem, share, same in index.overlaps(words):
            found.share[query] = max(found.share[query], share)
            if same:
                found.falling_share[query] = max(found.falling_share[query], share)
            if share >= containment:
                found.flags[query].append((problem, "ngram", share, same))
    if encoded is not None:
        similar = encoded.compare(turns, queries)
        found.similarity[:] = similar.best
        for query, problem, score in similar.pairs:
            found.flags[query].append((problem, "embedding", score, True))
    return found


class Sweep:
    """How many queries each method flags, and would drop by itself, at other thresholds than those of the config.

    ``exact`` has the one threshold 1. An n-gram flag needs a share of at least the threshold, an embedding flag a similarity
    above it; without an embedder there are no lines of it.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._containments = np.array(sorted({*_CONTAINMENTS, settings["containment"]}))
        similarities = sorted({*_SIMILARITIES, settings["similarity"]}) if settings["embedder"] else []
        self._similarities = np.array(similarities)
        self._exact = 0
        self._ngram = np.zeros((2, len(self._containments)), dtype=int)
        self._embedding = np.zeros(len(similarities), dtype=int)

    def add(self, found: Findings) -> None:
        """Count the queries of ``found``."""
        self._exact += sum(any(method == "exact" for _, method, *_ in flags) for flags in found.flags)
        for counts, shares in zip(self._ngram, (found.share, found.falling_share), strict=True):
            # A share of 0 is no share, whatever the threshold.
            counts += (shares[shares > 0, None] >= self._containments).sum(axis=0)
        self._embedding += (found.similarity[:, None] > self._similarities).sum(axis=0)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of CONTAMINATION_SWEEP."""
        lines = [("exact", 1.0, self._exact, self._exact)]
        lines += [("ngram", *line) for line in zip(self._containments, *self._ngram, strict=True)]
        lines += [
            ("embedding", *line) for line in zip(self._similarities, self._embedding, self._embedding, strict=True)
        ]
        return [dict(zip(CONTAMINATION_SWEEP.names, line, strict=True)) for line in lines]


class Decontamination:
    """What becomes of the queries, chunk by chunk.

    ``problems`` is a table of BENCHMARK_PROBLEMS, ``settings`` is ``corpus.decontaminate``, and ``rows`` the number of queries.
    ``folder`` is where flagged pairs and finished embeddings wait; :meth:`close` removes it.
    """

    def __init__(self, problems: pa.Table, settings: Mapping[str, Any], rows: int, folder: Path) -> None:
        self._problems = problems.select(["benchmark", "problem_id", "prompt"]).to_pylist()
        prompts = [problem["prompt"] for problem in self._problems]
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._waiting, self._dropped = folder, folder / "pairs.arrow", folder / "dropped.arrow"
        # These two belong to one run; embeddings outlive it.
        self._waiting.unlink(missing_ok=True)
        self._dropped.unlink(missing_ok=True)
        self._index = ProblemIndex(prompts, settings["ngram"])
        self._encoded = Encoded(prompts, settings, folder) if settings["embedder"] and prompts else None
        self._containment, self._drop = settings["containment"], settings["drop"]
        self.ledger = Ledger("decontaminate_queries", "all", rows, self._dropped)
        self.sweep = Sweep(settings)

    def judge(self, queries: pa.Table) -> pa.Table:
        """The selection of those of ``queries`` (columns of SELECTED, ``source_row`` and ``turns``) that are left.

        The reason a query falls is the first method that found it: contaminated_exact, contaminated_ngram or
        contaminated_embedding.
        """
        turns = Turns.of(queries["turns"].combine_chunks())
        found = find_contamination(turns, queries.num_rows, self._index, self._encoded, self._containment)
        self.sweep.add(found)
        flagged = [query for query, flags in enumerate(found.flags) if flags]
        left = np.ones(queries.num_rows, dtype=bool)
        pairs: list[dict[str, Any]] = []
        for query, row in zip(flagged, queries.take(pa.array(flagged, pa.int64())).to_pylist(), strict=True):
            pairs += self._pairs(row, found.flags[query])
            left[query] = not (self._drop and any(falls for *_, falls in found.flags[query]))
        if pairs:
            append_spool(self._waiting, as_table(pairs, CONTAMINATION))
        self.ledger.keep(int(left.sum()))
        return queries.select(SELECTED.names).filter(pa.array(left))

    def _pairs(self, row: Mapping[str, Any], flags: Sequence[Flag]) -> Iterator[dict[str, Any]]:
        """The flagged pairs of one query, whose fall goes into the ledger."""
        text = "\n".join(turn["content"] for turn in row["turns"])
        for problem, method, score, falls in flags:
            known = self._problems[problem]
            yield {
                "query_id": row["query_id"],
                "source": row["source"],
                "benchmark": known["benchmark"],
                "problem_id": known["problem_id"],
                "method": method,
                "score": score,
                "dropped": falls,
                "query": text,
                "problem": known["prompt"],
            }
        cause = next(((self._problems[problem], method) for problem, method, _, falls in flags if falls), None)
        if self._drop and cause is not None:
            known, method = cause
            place = f"{row['source']}/{row['source_row']}"
            detail = f"{place}: {known['benchmark']}/{known['problem_id']}"
            self.ledger.drop(row["query_id"], f"contaminated_{method}", detail)

    def pairs(self) -> Iterator[pa.Table]:
        """All flagged pairs (CONTAMINATION), in the order of the queries."""
        return read_spool(self._waiting)

    def close(self) -> None:
        """Remove what waited."""
        shutil.rmtree(self._folder, ignore_errors=True)


def chunks(batches: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """``batches`` in pieces of at most ``rows`` rows."""
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def main(
    imported: Sequence[str],
    deduplicated: str,
    benchmarks: Sequence[str],
    settings: Mapping[str, Any],
    table: str,
    contamination: str,
    sweep: str,
    ledger: str,
    dropped: str,
) -> None:
    """Decontaminate the selection ``deduplicated`` of the tables ``imported`` against the tables ``benchmarks``."""
    problems = read_table(benchmarks, BENCHMARK_PROBLEMS)
    selected = read_table(deduplicated, SELECTED)
    waiting = Path(contamination).with_suffix(".parts")
    work = Decontamination(problems, settings, selected.num_rows, waiting)
    provenance = {"decontaminate": dict(settings), "problems": problems.num_rows}
    queries = chunks(selected_batches(imported, selected, ["query_id", "source_row", "turns"]), _CHUNK_QUERIES)
    with Progress("decontaminate_queries", selected.num_rows, "queries") as progress:

        def judged() -> Iterator[pa.Table]:
            for chunk in queries:
                yield work.judge(chunk)
                progress.advance(chunk.num_rows)

        write_batches(table, judged(), SELECTED, provenance)
    write_batches(contamination, work.pairs(), CONTAMINATION, provenance)
    write_table(sweep, work.sweep.rows(), CONTAMINATION_SWEEP, provenance)
    work.ledger.write(ledger, dropped)
    work.close()
    counts = work.ledger
    print(f"{counts.rows_in} queries, {counts.kept} kept, {counts.reasons.total()} contaminated")


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
