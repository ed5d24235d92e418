"""The quality filters of one teacher: structure, perplexity, repetition, frequent n-grams (paper section 2.2).

Reads the teacher's COLLECTED tables, the queries, perplexities and frequent n-grams; writes TRACES (one row per accepted
attempt that passes), its ledger and the dropped rows. Filters act in the order above and the first that fails names the
reason. A dropped trace leaves the other teachers' data alone: parity is the business of ``match_datasets``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from whichteacher.ledger import Ledger
from whichteacher.ngrams import FrequentNgrams
from whichteacher.repetition import find_repeat
from whichteacher.responses import split_response
from whichteacher.schemas import COLLECTED, NGRAM_COUNTS, PERPLEXITIES, QUERIES, TRACES
from whichteacher.tables import read_table, write_table
from whichteacher.tokens import Tokenizer, load_tokenizer

#: Of a phrase that the ledger shows, in characters.
_SHOWN = 200


def structure_fault(turns: Sequence[dict[str, str]], text: str, answer_format: str) -> str | None:
    """What is wrong with the dialogue that ``text`` completes, None where nothing is.

    The paper asks for an even number of turns and both segments; user and assistant must also alternate.
    """
    roles = [turn["role"] for turn in turns] + ["assistant"]
    if len(roles) % 2:
        return "structure_odd_turns"
    if roles != ["user", "assistant"] * (len(roles) // 2):
        return "structure_roles"
    fault = split_response(text, answer_format).fault
    return f"structure_{fault}" if fault else None


def repeated_phrase(tokens: np.ndarray, tokenizer: Tokenizer, settings: dict[str, Any]) -> str | None:
    """What a response repeats over and over, and how often; None where it does not. ``settings`` is
    ``curation.repetition``."""
    repeat = find_repeat(tokens, settings["min_tokens"], settings["min_times"])
    if repeat is None:
        return None
    phrase = tokenizer.decode(tokens[repeat.start : repeat.start + repeat.length].tolist())
    return f"{repeat.times} times: {phrase[:_SHOWN]}"


def main(
    attempts: list[str],
    queries: list[str],
    perplexities: list[str],
    frequent_ngrams: str,
    outputs: dict[str, str],
    name: str,
    teacher: dict[str, Any],
    curation: dict[str, Any],
) -> None:
    """Filter and write; ``teacher`` and ``curation`` are configuration blocks as plain JSON types."""
    ngrams = curation["ngrams"]
    tokenizer = load_tokenizer(ngrams["tokenizer"])
    frequent = FrequentNgrams(read_table(frequent_ngrams, NGRAM_COUNTS)["ngram"], ngrams["size"])
    scored = read_table(perplexities, PERPLEXITIES)
    perplexity = dict(zip(scored["attempt_id"].to_pylist(), scored["perplexity"].to_pylist(), strict=True))
    limit = ((curation["perplexity"] or {}).get("thresholds") or {}).get(name)
    by_id = {row["query_id"]: row for row in read_table(queries, QUERIES).to_pylist()}

    collected = read_table(attempts, COLLECTED)
    accepted = collected.filter(collected["accepted"]).sort_by("query_id").to_pylist()
    ledger = Ledger("curate_traces", name, len(accepted))
    traces = []
    for row in accepted:
        query = by_id[row["query_id"]]
        text, thinking, answer = row["text"], row["thinking"], row["answer"]
        (tokens,) = tokenizer.encode([text])
        value = perplexity.get(row["attempt_id"])
        if fault := structure_fault(query["turns"], text, teacher["answer_format"]):
            ledger.drop(row["query_id"], fault)
            continue
        if limit is not None and value is not None and value > limit:
            ledger.drop(row["query_id"], "perplexity_above_threshold", f"{value:.3f} > {limit}")
            continue
        if curation["repetition"] and (phrase := repeated_phrase(tokens, tokenizer, curation["repetition"])):
            ledger.drop(row["query_id"], "repeated_phrase", phrase)
            continue
        if (shared := frequent.first(tokens)) is not None:
            detail = tokenizer.decode(shared.tolist())
            if ngrams["action"] == "drop_row":
                ledger.drop(row["query_id"], "frequent_ngram", detail)
                continue
            text = frequent.cut(text, tokenizer)
            thinking, answer, fault = split_response(text, teacher["answer_format"])
            if fault:
                ledger.drop(row["query_id"], "frequent_ngram_in_structure", f"{fault} without: {detail}")
                continue
            (tokens,) = tokenizer.encode([text])
        ledger.keep(1)
        traces.append(
            {
                **query,
                "attempt_id": row["attempt_id"],
                "teacher": name,
                "system": teacher["system_prompt"],
                "prompt": row["prompt"],
                "thinking": thinking,
                "answer": answer,
                "verify_score": row["score"],
                "attempts": row["attempt"] + 1,
                "output_tokens": len(tokens),
                "cut_characters": len(row["text"]) - len(text),
                "perplexity": value,
            }
        )
    write_table(outputs["table"], traces, TRACES, {"teacher": name, "curation": curation})
    ledger.write(outputs["ledger"], outputs["dropped"])


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            list(snakemake.input.attempts),  # noqa: F821
            list(snakemake.input.queries),  # noqa: F821
            list(snakemake.input.perplexities),  # noqa: F821
            snakemake.input.ngrams,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            snakemake.wildcards.teacher,  # noqa: F821
            snakemake.params.teacher,  # noqa: F821
            snakemake.params.curation,  # noqa: F821
        )
