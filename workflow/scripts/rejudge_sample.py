"""Ask one judge about a sample of what judges decided: the judge itself with reference and answer in the other order, or a second one.

Reads the attempts with their verdicts (COLLECTED) and the queries (QUERIES); writes REJUDGED. No verdict rests on it: it tells how far
judgements depend on the order of what is shown, and on who judges. The sample of a teacher are the judged attempts with the
smallest identifiers, as in reverify_sample. What the judge says lands in the store.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher import judging
from whichteacher.config import Verification
from whichteacher.engines.respond import Request, respond
from whichteacher.outcomes import by_teacher
from whichteacher.rounds import renderer, spec_of
from whichteacher.schemas import COLLECTED, QUERIES, REJUDGED
from whichteacher.tables import read_frame, select_rows, write_table
from whichteacher.verifiers.dispatch import structure

#: Categories whose question shows a reference and an answer.
_ORDERED = frozenset({"math", "science"})
_COLUMNS = ["attempt_id", "query_id", "text", "finish_reason", "verifier", "verdict", "score", "reason"]


def draw(
    collected: Sequence[str], categories: pd.Series, name: str, judge: Mapping[str, Any], size: int
) -> list[dict[str, Any]]:
    """The sample of one teacher: judged attempts by identifier, with their ``category`` (``categories``, by query_id).

    A second judge is asked about every other judge's decisions in its categories, a first one about its own where the
    order of what it is shown can be changed. What a judge left undecided is not in it.
    """
    found = read_frame(collected, COLLECTED, ["attempt_id", "query_id", "verifier", "verdict"])
    found = found.assign(category=found["query_id"].map(categories))
    asked = set(judge["categories"]) if judge["second"] else set(judge["categories"]) & _ORDERED
    judged = found["verifier"].str.startswith("judge_") if judge["second"] else found["verifier"] == f"judge_{name}"
    chosen = found[judged & found["category"].isin(asked) & (found["verdict"] != "unknown")]
    chosen = chosen.sort_values("attempt_id").head(size)
    rows = select_rows(collected, COLLECTED, _COLUMNS, "attempt_id", chosen["attempt_id"]).to_pylist()
    return [{**row, "category": category} for row, category in zip(rows, chosen["category"], strict=True)]


def main(
    collected: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    output: str,
    name: str,
    judge: dict[str, Any],
    running: dict[str, Any],
    formats: Mapping[str, str],
    settings: dict[str, Any],
    sample: int,
    store: str,
) -> None:
    """Write what the judge ``name`` says. ``collected`` holds each teacher's files, ``formats`` its answer format."""
    categories = read_frame(queries, QUERIES, ["query_id", "category"]).set_index("query_id")["category"]
    rows = [
        {**row, "teacher": teacher}
        for teacher, files in collected.items()
        for row in draw(files, categories, name, judge, sample)
    ]
    ids = {row["query_id"] for row in rows}
    asked = {
        query["query_id"]: query
        for query in select_rows(queries, QUERIES, ["query_id", "turns", "reference"], "query_id", ids).to_pylist()
    }
    rows = [
        {
            **row,
            **asked[row["query_id"]],
            "answer": structure(row["text"], row["finish_reason"], formats[row["teacher"]]),
        }
        for row in rows
    ]
    swapped = not judge["second"]
    prompts = renderer(judge)(judging.chats_of(rows, judge["engine"], swapped)) if rows else []
    step = f"rejudge_sample {name}"
    responses = respond([Request(prompt, 0) for prompt in prompts], spec_of(judge, running), store, step)
    thresholds = Verification.model_validate(settings)
    again = f"{'swapped' if swapped else 'second'}_{name}"
    told = []
    for row, response in zip(rows, responses, strict=True):
        outcome = judging.outcome_of(row["category"], judge["engine"], response)
        decided = outcome.decided(thresholds.threshold_of(row["category"]))
        told.append({**row, "again": again, **{f"again_{key}": decided[key] for key in ("verdict", "score", "reason")}})
    write_table(
        output,
        [{key: row[key] for key in REJUDGED.names} for row in told],
        REJUDGED,
        {"judge": judge, "settings": settings, "sample": sample},
    )


if "snakemake" in globals() and __name__ == "__main__":  # vLLM imports this again in processes of its own
    import os

    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        main(
            by_teacher(list(snakemake.params.formats), snakemake.input.collected),  # noqa: F821
            list(snakemake.input.queries),  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.wildcards.judge,  # noqa: F821
            snakemake.params.judge,  # noqa: F821
            snakemake.config["running"][f"judge:{snakemake.wildcards.judge}"],  # noqa: F821
            snakemake.params.formats,  # noqa: F821
            snakemake.params.verification,  # noqa: F821
            snakemake.params.sample,  # noqa: F821
            snakemake.params.store,  # noqa: F821
        )
