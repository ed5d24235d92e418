"""The way into the verifiers: rows in, verdicts out, in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from whichteacher.config import Verification
from whichteacher.responses import split_response
from whichteacher.rule import Progress
from whichteacher.sandbox import Job, Result, open_sandbox
from whichteacher.verifiers import code, constraints, math, science
from whichteacher.verifiers.outcome import Outcome, wrong
from whichteacher.verifiers.pool import Task, run_rules

if TYPE_CHECKING:
    import pandas as pd

#: The verifier of each category: its name, its version and the columns of a row it compares the answer with.
_RULES: dict[str, tuple[str, Callable[[], str], tuple[str, ...]]] = {
    "math": ("math", math.version, ("reference", "reference_type")),
    "code": ("code", code.version, ("tests",)),
    "science": ("science", science.version, ("reference", "reference_type")),
    "multi_turn": ("science", science.version, ("reference", "reference_type")),
    "general": ("science", science.version, ("reference", "reference_type")),
    "instruction_following": ("constraints", constraints.version, ("constraints",)),
}

#: Columns of QUERIES that answers are compared with.
REFERENCES = ["query_id", "category", "reference", "reference_type", "tests", "constraints"]


def rows_to_verify(attempts: pd.DataFrame, queries: pd.DataFrame, answer_format: str) -> list[dict[str, Any]]:
    """Attempts with the references of their queries, as the verifiers take them.

    Raises :class:`ValueError` for an attempt whose query is not in the shard.
    """
    rows = attempts.merge(queries, on="query_id", how="left", validate="many_to_one")
    unknown = rows.loc[rows["category"].isna(), "query_id"]
    if len(unknown):
        raise ValueError(f"attempts of query {unknown.iloc[0]}, which is not in this shard: generate the round again")
    rows = rows.astype(object).where(rows.notna(), None)
    return [{**row, "answer_format": answer_format} for row in rows.to_dict("records")]


def with_constraints(queries: pd.DataFrame, completed: pd.DataFrame) -> pd.DataFrame:
    """``queries`` with the constraints of ``completed`` (CONSTRAINTS) where they have none of their own."""
    found = queries["query_id"].map(completed.set_index("query_id")["constraints"])
    return queries.assign(constraints=queries["constraints"].where(queries["constraints"].notna(), found))


def structure(text: str, finish_reason: str, answer_format: str) -> Outcome | str:
    """The answer part of a complete response, or why the response cannot be right whatever it says."""
    if finish_reason == "length":
        return wrong("truncated")
    if finish_reason != "stop":
        return wrong("not_finished", finish_reason=finish_reason)
    parts = split_response(text, answer_format)
    return wrong(parts.fault) if parts.fault or parts.answer is None else parts.answer


def _verdict(row: Mapping[str, Any], outcome: Outcome, threshold: float) -> dict[str, Any]:
    """A row of VERDICTS."""
    name, version, _ = _RULES[row["category"]]
    return {
        "attempt_id": row["attempt_id"],
        "query_id": row["query_id"],
        **outcome.decided(threshold),
        "verifier": name,
        "verifier_version": version(),
        "evidence": json.dumps(outcome.evidence, sort_keys=True, ensure_ascii=False),
    }


def verify_many(
    rows: Sequence[Mapping[str, Any]], settings: Verification, jobs: int = 1, step: str = "verify"
) -> list[dict[str, Any]]:
    """A row of VERDICTS for each of ``rows``, in their order.

    A row holds ``attempt_id``, ``query_id``, ``category``, ``text``, ``finish_reason``, ``answer_format`` and the references of its query
    (``reference``, ``reference_type``, ``tests``, ``constraints``; those it lacks count as none). ``jobs`` rows are compared at once.
    No row stops the others: what cannot be decided is ``unknown`` for a stated reason. Raises
    :class:`whichteacher.rule.InputError` for an unknown instruction and where code cannot be run safely.
    """
    outcomes: dict[int, Outcome] = {}
    tasks: list[tuple[int, str]] = []
    for index, row in enumerate(rows):
        found = structure(row["text"], row["finish_reason"], row["answer_format"])
        if isinstance(found, Outcome):
            outcomes[index] = found
        else:
            tasks.append((index, found))
    needs_code = any(rows[index]["category"] == "code" and code.last_program(answer) for index, answer in tasks)
    limits = settings.sandbox
    run: Callable[[Job], list[Result]] = _no_sandbox
    if needs_code:
        sandbox = open_sandbox(limits.cpu_seconds, limits.memory_mb, limits.accept_risk, jobs)
        print(f"{step}: programs run isolated by {sandbox.backend}")
        run = sandbox.run

    def check_code(index: int, answer: str) -> Outcome:
        return code.check(answer, rows[index].get("tests"), settings.max_tests, settings.threshold_of("code"), run)

    by_rule = [(index, answer) for index, answer in tasks if rows[index]["category"] != "code"]
    by_tests = [(index, answer) for index, answer in tasks if rows[index]["category"] == "code"]
    with Progress(step, len(rows)) as progress:
        progress.advance(len(outcomes))
        compared = run_rules(
            [_task(rows[index], answer) for index, answer in by_rule], settings.deadline_seconds, jobs, progress.advance
        )
        outcomes |= {index: outcome for (index, _), outcome in zip(by_rule, compared, strict=True)}
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(check_code, index, answer): index for index, answer in by_tests}
            try:
                for future in as_completed(futures):
                    outcomes[futures[future]] = future.result()
                    progress.advance()
            finally:
                pool.shutdown(cancel_futures=True)
        # Once more alone: a program that was only slowed by its neighbours gets a fair trial.
        for index, answer in by_tests:
            if outcomes[index].reason == "timeout":
                outcomes[index] = check_code(index, answer)
    return [_verdict(row, outcomes[index], settings.threshold_of(row["category"])) for index, row in enumerate(rows)]


def _task(row: Mapping[str, Any], answer: str) -> Task:
    """The comparison of ``answer`` with what its category compares with."""
    name, _, columns = _RULES[row["category"]]
    return Task(name, (answer, *(row.get(column) for column in columns)), f"query {row['query_id']}")


def _no_sandbox(_: Job) -> list[Result]:
    raise OSError("a program turned up after none was found")
