"""The quality filters of one teacher: structure, perplexity, frequent n-grams (paper section 2.2).

Reads the teacher's COLLECTED tables, the queries, perplexities and frequent n-grams; writes TRACES (one row per accepted
attempt that passes), its ledger and the dropped rows. Filters act in the order above and the first that fails names the
reason. A dropped trace leaves the other teachers' data alone: parity is the business of ``match_datasets``.
"""

from collections.abc import Sequence
from typing import Any

from whichteacher.ledger import Ledger
from whichteacher.ngrams import token_ngrams
from whichteacher.perplexity import read_limit, read_perplexities
from whichteacher.places import locate
from whichteacher.responses import split_response
from whichteacher.schemas import COLLECTED, NGRAM_COUNTS, QUERIES, TRACES
from whichteacher.tables import read_table, write_table


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


def main(
    attempts: list[str],
    queries: list[str],
    perplexities: list[str],
    limits: list[str],
    ngrams: str,
    outputs: dict[str, str],
    name: str,
    teacher: dict[str, Any],
    curation: dict[str, Any],
) -> None:
    """Filter and write; ``teacher`` and ``curation`` are configuration blocks as plain JSON types."""
    from transformers import AutoTokenizer

    reference = curation["ngrams"]["tokenizer"]
    tokenizer = AutoTokenizer.from_pretrained(locate(reference["model"]), revision=reference["revision"])
    size = curation["ngrams"]["size"]
    frequent = {tuple(map(int, text.split())) for text in read_table(ngrams, NGRAM_COUNTS)["ngram"].to_pylist()}
    perplexity = read_perplexities(perplexities)
    limit = read_limit(limits)
    by_id = {row["query_id"]: row for row in read_table(queries, QUERIES).to_pylist()}

    collected = read_table(attempts, COLLECTED)
    accepted = collected.filter(collected["accepted"]).sort_by("query_id").to_pylist()
    ledger = Ledger("curate_traces", name, len(accepted))
    traces = []
    for row in accepted:
        query = by_id[row["query_id"]]
        tokens = tokenizer.encode(row["text"], add_special_tokens=False)
        value = perplexity.get(row["attempt_id"])
        fault = structure_fault(query["turns"], row["text"], teacher["answer_format"])
        if fault:
            ledger.drop(row["query_id"], fault)
        elif limit is not None and value is not None and value > limit:
            ledger.drop(row["query_id"], "perplexity_above_threshold", f"{value:.6g} > {limit:.6g}")
        elif frequent and (shared := next((n for n in token_ngrams(tokens, size) if n in frequent), None)):
            ledger.drop(row["query_id"], "frequent_ngram", tokenizer.decode(list(shared)))
        else:
            ledger.keep(1)
            traces.append(
                {
                    **query,
                    "attempt_id": row["attempt_id"],
                    "teacher": name,
                    "system": teacher["system_prompt"],
                    "prompt": row["prompt"],
                    "thinking": row["thinking"],
                    "answer": row["answer"],
                    "verify_score": row["score"],
                    "attempts": row["attempt"] + 1,
                    "output_tokens": len(tokens),
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
            list(snakemake.input.limits),  # noqa: F821
            snakemake.input.ngrams,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            snakemake.wildcards.teacher,  # noqa: F821
            snakemake.params.teacher,  # noqa: F821
            snakemake.params.curation,  # noqa: F821
        )
