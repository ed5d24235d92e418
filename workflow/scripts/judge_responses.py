"""Ask one judge about the attempts of a teacher, shard and round that rules cannot decide.

Reads the attempts (ATTEMPTS), the shard's queries (QUERIES) and the verdicts so far (VERDICTS, by rule or of another judge);
writes the verdicts again, in the same order, with those of the judge in the place of the ones it was asked about. What the judge
says lands in the store first, under its prompt, model and settings: equal answers are judged once, and a job that finds
everything there starts no engine.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from whichteacher import judging
from whichteacher.config import Verification
from whichteacher.engines.respond import Request, respond
from whichteacher.rounds import renderer, spec_of
from whichteacher.schemas import ATTEMPTS, QUERIES, VERDICTS
from whichteacher.tables import read_frame, read_table, write_table
from whichteacher.verifiers.dispatch import structure
from whichteacher.verifiers.outcome import Outcome


def rows_to_judge(
    attempts: pd.DataFrame,
    queries: Sequence[Mapping[str, Any]],
    verdicts: pd.DataFrame,
    judge: Mapping[str, Any],
    answer_format: str,
) -> dict[int, dict[str, Any]]:
    """The rows that ``judge`` is asked about, by their place among ``verdicts``: category, turns, reference and answer part.

    Raises :class:`ValueError` for a verdict whose attempt or query is missing.
    """
    by_query = {query["query_id"]: query for query in queries}
    by_attempt = attempts.set_index("attempt_id")[["text", "finish_reason"]]
    rows: dict[int, dict[str, Any]] = {}
    for place, verdict in enumerate(verdicts.to_dict("records")):
        query = by_query.get(verdict["query_id"])
        if query is None or verdict["attempt_id"] not in by_attempt.index:
            raise ValueError(
                f"verdict on attempt {verdict['attempt_id']}: not of this round and shard: verify it again"
            )
        category = query["category"]
        if category not in judge["categories"] or not judging.is_judged(
            category, verdict["verdict"], verdict["reason"], query["reference"]
        ):
            continue
        answer = structure(*by_attempt.loc[verdict["attempt_id"]], answer_format)
        if isinstance(answer, str):
            rows[place] = {**query, "answer": answer}
    return rows


def judged_verdict(
    verdict: Mapping[str, Any], outcome: Outcome, threshold: float, verifier: str, version: str
) -> dict[str, Any]:
    """The row of VERDICTS that takes the place of ``verdict``, which stays in its evidence."""
    before = {name: verdict[name] for name in ("verifier", "verdict", "score", "reason")}
    evidence = {"before": before, "compared": json.loads(verdict["evidence"]), **outcome.evidence}
    return {
        **verdict,
        **outcome.decided(threshold),
        "verifier": verifier,
        "verifier_version": version,
        "evidence": json.dumps(evidence, sort_keys=True, ensure_ascii=False),
    }


def main(
    attempts: str,
    shard: str,
    verdicts: str,
    output: str,
    name: str,
    judge: dict[str, Any],
    running: dict[str, Any],
    verification: dict[str, Any],
    answer_format: str,
    store: str,
) -> None:
    """Write the verdicts of one round with those of the judge ``name`` among them."""
    drawn = read_frame(attempts, ATTEMPTS, ["attempt_id", "text", "finish_reason"])
    queries = read_table(shard, QUERIES, ["query_id", "category", "turns", "reference"]).to_pylist()
    table = read_frame(verdicts, VERDICTS)
    chosen = rows_to_judge(drawn, queries, table, judge, answer_format)
    spec = spec_of(judge, running)
    prompts = renderer(judge)(judging.chats_of(list(chosen.values()), judge["engine"])) if chosen else []
    responses = respond([Request(prompt, 0) for prompt in prompts], spec, store, f"judge_responses {name}")
    thresholds = Verification.model_validate(verification)
    rows = table.to_dict("records")
    reasons: Counter[str] = Counter()
    for (place, row), response in zip(chosen.items(), responses, strict=True):
        category = row["category"]
        outcome = judging.outcome_of(category, judge["engine"], response)
        task = "reward" if judge["engine"] == "reward" else judging.PROMPTS[category]
        version = f"{task}+{judge['model']}@{(judge['revision'] or response.model_digest)[:12]}"
        rows[place] = judged_verdict(rows[place], outcome, thresholds.threshold_of(category), f"judge_{name}", version)
        reasons[f"{category} {outcome.reason}"] += 1
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    print(f"judge_responses {name}: {len(chosen)} of {len(table)} attempts judged ({told or 'none needed it'})")
    write_table(
        output, pa.Table.from_pylist(rows, schema=VERDICTS), VERDICTS, {"judge": judge, "settings": verification}
    )


if "snakemake" in globals() and __name__ == "__main__":  # vLLM imports this again in processes of its own
    import os

    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        main(
            snakemake.input.attempts,  # noqa: F821
            snakemake.input.shard,  # noqa: F821
            snakemake.input.verdicts,  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.wildcards.judge,  # noqa: F821
            snakemake.params.judge,  # noqa: F821
            snakemake.config["running"][f"judge:{snakemake.wildcards.judge}"],  # noqa: F821
            snakemake.params.verification,  # noqa: F821
            snakemake.params.answer_format,  # noqa: F821
            snakemake.params.store,  # noqa: F821
        )
