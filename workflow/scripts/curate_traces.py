"""The quality filters of one teacher and shard: structure, duplicates, perplexity, repetition, quoted
benchmark problems, frequent n-grams.

The paper has the first and the two after duplicates (section 2.2); duplicates and responses that hold a benchmark problem are
dropped where the config asks for it. Reads the shard's COLLECTED table, its queries, the duplicates, perplexities, frequent
n-grams and the responses that hold a problem (CONTAMINATED_RESPONSES); writes TRACES (one row per accepted
attempt that passes, by ``query_id``), its ledger and the dropped rows. Filters act in the order above and the first that
fails names the reason. A dropped trace leaves the other teachers' data alone: parity is the business of
``match_datasets``. No more than a part of the shard's responses is in memory.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whichteacher.ledger import Ledger
from whichteacher.ngrams import FrequentNgrams
from whichteacher.perplexity import read_limit, read_perplexities
from whichteacher.repetition import find_repeat
from whichteacher.responses import split_response
from whichteacher.rule import Progress
from whichteacher.schemas import (
    COLLECTED,
    CONTAMINATED_RESPONSES,
    DUPLICATE_TRACES,
    NGRAM_COUNTS,
    QUERIES,
    TRACES,
)
from whichteacher.structure import Fault, foreign_share, loop_characters, structure_fault
from whichteacher.tables import read_parts, read_table, write_batches
from whichteacher.tokens import Tokenizer, load_tokenizer

#: Of a phrase that the ledger shows, in characters.
_SHOWN = 200
_ATTEMPT = ("query_id", "attempt_id", "attempt", "prompt", "text", "thinking", "answer", "score", "accepted")


def form_fault(
    row: dict[str, Any], turns: Sequence[dict[str, str]], answer_format: str, settings: dict[str, Any]
) -> Fault | None:
    """What the structure filter (``settings``: ``curation.structure``) has against a response, None where nothing."""
    if fault := structure_fault(turns, row["text"], answer_format, settings["leaks"]):
        return fault
    parts = (row["thinking"], row["answer"])
    if settings["loops"] and (characters := max(map(loop_characters, parts))):
        return Fault("structure_loop", f"{characters} characters")
    if settings["max_foreign_share"] is not None:
        asked = "\n".join(turn["content"] for turn in turns if turn["role"] == "user")
        if (share := foreign_share(asked, "\n".join(parts))) > settings["max_foreign_share"]:
            return Fault("structure_foreign_script", f"{share:.3f} > {settings['max_foreign_share']}")
    return None


def system_prompt(prompt: str, teacher: dict[str, Any]) -> str:
    """The system prompt under which a response was made: the teacher's, or that of the release it comes from."""
    if teacher["engine"] != "dataset":
        return teacher["system_prompt"]
    first = json.loads(prompt)[0]  # published dialogues are kept as JSON
    return first["content"] if first["role"] == "system" else ""


def read_accepted(attempts: str, queries: str) -> Iterator[list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Each accepted attempt with its query, in the order of the table, a part of the table at a time.

    Raises :class:`ValueError` where a query is missing.
    """
    asked = read_table(queries, QUERIES)
    places = {identifier: place for place, identifier in enumerate(asked["query_id"].to_pylist())}
    for part in read_parts(attempts, COLLECTED, _ATTEMPT):
        accepted = part.filter(part["accepted"])
        found = [places.get(identifier) for identifier in accepted["query_id"].to_pylist()]
        if None in found:
            missing = accepted["query_id"][found.index(None)]
            raise ValueError(f"{attempts}: query {missing} is not in {queries}: collect the attempts again")
        chosen = asked.take(pa.array(found, pa.int64())).to_pylist()
        yield list(zip(accepted.to_pylist(), chosen, strict=True))


def repeated_phrase(tokens: np.ndarray, tokenizer: Tokenizer, settings: dict[str, Any]) -> str | None:
    """What a response repeats over and over, and how often; None where it does not. ``settings`` is
    ``curation.repetition``."""
    repeat = find_repeat(tokens, settings["min_tokens"], settings["min_times"])
    if repeat is None:
        return None
    phrase = tokenizer.decode(tokens[repeat.start : repeat.start + repeat.length].tolist())
    return f"{repeat.times} times: {phrase[:_SHOWN]}"


def quoted_problems(contaminated: str) -> dict[str, str]:
    """The first benchmark problem that an attempt's response holds and its query does not, by ``attempt_id``."""
    rows = read_table(
        contaminated, CONTAMINATED_RESPONSES, ["attempt_id", "benchmark", "problem_id", "query_flagged"]
    ).to_pylist()
    return {
        row["attempt_id"]: f"{row['benchmark']}/{row['problem_id']}"
        for row in reversed(rows)
        if not row["query_flagged"]
    }


def main(
    attempts: str,
    queries: str,
    perplexities: list[str],
    limits: list[str],
    frequent_ngrams: str,
    duplicates: list[str],
    outputs: dict[str, str],
    scope: str,
    teacher: dict[str, Any],
    curation: dict[str, Any],
    contaminated: str | None = None,
) -> None:
    """Filter and write; ``scope`` is ``teacher/shard``, ``teacher`` and ``curation`` are configuration blocks as plain
    JSON types."""
    ngrams, repetition = curation["ngrams"], curation["repetition"]
    tokenizer = load_tokenizer(ngrams["tokenizer"])
    frequent = FrequentNgrams(read_table(frequent_ngrams, NGRAM_COUNTS)["ngram"], ngrams["size"])
    perplexity = read_perplexities(perplexities)
    limit = read_limit(limits)
    stands_for = read_table(duplicates, DUPLICATE_TRACES, ["query_id", "kept"])
    repeated = dict(zip(stands_for["query_id"].to_pylist(), stands_for["kept"].to_pylist(), strict=True))
    name = scope.split("/")[0]
    quoting = quoted_problems(contaminated) if contaminated else {}
    count = pc.sum(read_table(attempts, COLLECTED, ["accepted"])["accepted"]).as_py() or 0
    ledger = Ledger("curate_traces", scope, count)

    def curate(row: dict[str, Any], query: dict[str, Any]) -> dict[str, Any] | None:
        """The row of TRACES of an accepted attempt; None where a filter drops it."""
        (tokens,) = tokenizer.encode([row["text"]])
        value = perplexity.get(row["attempt_id"])
        drop = partial(ledger.drop, row["query_id"])
        if fault := form_fault(row, query["turns"], teacher["answer_format"], curation["structure"]):
            return drop(*fault)
        if row["query_id"] in repeated:
            return drop("duplicate_response", repeated[row["query_id"]])
        if limit is not None and value is not None and value > limit:
            return drop("perplexity_above_threshold", f"{value:.6g} > {limit:.6g}")
        if repetition and (phrase := repeated_phrase(tokens, tokenizer, repetition)):
            return drop("repeated_phrase", phrase)
        if row["attempt_id"] in quoting:
            return drop("contaminated_response", quoting[row["attempt_id"]])
        text, thinking, answer = row["text"], row["thinking"], row["answer"]
        if (shared := frequent.first(tokens)) is not None:
            detail = tokenizer.decode(shared.tolist())
            if ngrams["action"] == "drop_row":
                return drop("frequent_ngram", detail)
            text = frequent.cut(text, tokenizer)
            thinking, answer, cut_fault = split_response(text, teacher["answer_format"])
            if cut_fault:
                return drop("frequent_ngram_in_structure", f"{cut_fault} without: {detail}")
            (tokens,) = tokenizer.encode([text])
        ledger.keep(1)
        return {
            **query,
            "attempt_id": row["attempt_id"],
            "teacher": name,
            "system": system_prompt(row["prompt"], teacher),
            "prompt": row["prompt"],
            "thinking": thinking,
            "answer": answer,
            "verify_score": row["score"],
            "attempts": row["attempt"] + 1,
            "output_tokens": len(tokens),
            "cut_characters": len(row["text"]) - len(text),
            "perplexity": value,
        }

    def traces() -> Iterator[pa.Table]:
        with Progress(f"curate_traces {scope}", count, "traces") as progress:
            for pairs in read_accepted(attempts, queries):
                if rows := [found for pair in pairs if (found := curate(*pair))]:
                    yield pa.Table.from_pylist(rows, schema=TRACES)
                progress.advance(len(pairs))

    write_batches(outputs["table"], traces(), TRACES, {"teacher": name, "curation": curation})
    ledger.write(outputs["ledger"], outputs["dropped"])


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.attempts,  # noqa: F821
            snakemake.input.queries,  # noqa: F821
            list(snakemake.input.perplexities),  # noqa: F821
            list(snakemake.input.limits),  # noqa: F821
            snakemake.input.ngrams,  # noqa: F821
            list(snakemake.input.duplicates),  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            f"{snakemake.wildcards.teacher}/{snakemake.wildcards.shard}",  # noqa: F821
            snakemake.params.teacher,  # noqa: F821
            snakemake.params.curation,  # noqa: F821
            snakemake.input.get("contaminated") or None,  # noqa: F821
        )
