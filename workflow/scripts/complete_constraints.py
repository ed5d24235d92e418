"""Ask a judge for the constraints of instruction-following queries that came without any (paper section 2.2).

Reads a shard (QUERIES); writes CONSTRAINTS, one row per such query. They belong to the query, not to a teacher: every teacher
is held to the same ones. A query of which the judge writes down nothing usable keeps none, for a stated reason, and its
answers stay undecided.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from whichteacher import judging
from whichteacher.engines.respond import Request, Response, respond
from whichteacher.rounds import renderer, spec_of
from whichteacher.schemas import CONSTRAINTS, QUERIES
from whichteacher.tables import read_table, write_table

_CATEGORY = "instruction_following"


def constraint_row(query_id: str, response: Response) -> dict[str, Any]:
    """The row of CONSTRAINTS that a judge's response makes."""
    row = {"query_id": query_id, "constraints": None, "detail": None}
    if response.finish_reason != "stop":
        return {**row, "reason": f"judge_{response.finish_reason}"}
    try:
        found, faults = judging.read_constraints(response.text)
    except ValueError as error:
        return {**row, "reason": "judge_unreadable", "detail": str(error)}
    detail = "; ".join(faults) or None
    return {**row, "constraints": found, "reason": "completed" if found else "none_found", "detail": detail}


def main(shard: str, output: str, name: str, judge: dict[str, Any], running: dict[str, Any], store: str) -> None:
    """Write the constraints that the judge ``name`` finds."""
    queries: Sequence[dict[str, Any]] = [
        query
        for query in read_table(shard, QUERIES, ["query_id", "category", "turns", "constraints"]).to_pylist()
        if query["category"] == _CATEGORY and not query["constraints"]
    ]
    chats = [judging.ask(_CATEGORY, query["turns"]) for query in queries]
    prompts = renderer(judge)(chats) if chats else []
    requests = [Request(prompt, 0) for prompt in prompts]
    responses = respond(requests, spec_of(judge, running), store, f"complete_constraints {name}")
    rows = [constraint_row(query["query_id"], response) for query, response in zip(queries, responses, strict=True)]
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(row["reason"] for row in rows).items()))
    print(f"complete_constraints {name}: {len(rows)} queries without constraints ({told or 'none'})")
    write_table(output, rows, CONSTRAINTS, {"judge": judge, "prompt": judging.PROMPTS[_CATEGORY]})


if "snakemake" in globals() and __name__ == "__main__":  # vLLM imports this again in processes of its own
    import os

    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        main(
            snakemake.input.shard,  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.name,  # noqa: F821
            snakemake.params.judge,  # noqa: F821
            snakemake.config["running"][f"judge:{snakemake.params.name}"],  # noqa: F821
            snakemake.params.store,  # noqa: F821
        )
