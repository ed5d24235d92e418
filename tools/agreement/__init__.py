"""How far our verdicts agree with those of other graders on data that others graded: one module per kind of verifier.

Each module has ``measure(data, jobs)``, which reads its files below the folder ``data`` and returns one :class:`Row` per set.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import score_samples

from whichteacher.references import infer_type
from whichteacher.schemas import BENCHMARK_PROBLEMS, SAMPLES, SCORED_SAMPLES
from whichteacher.tables import read_table, write_table


class Row(NamedTuple):
    """One set of graded answers: ``rows`` in all, of which ``agree`` and the three ways to differ.

    ``unknown`` counts the rows we leave undecided. ``disagreements`` lists those decided otherwise and those left undecided, each
    with ``id``, ``ours``, ``theirs`` and ``reason``.
    """

    set_name: str
    rows: int
    agree: int
    ours_pass_theirs_fail: int
    ours_fail_theirs_pass: int
    unknown: int
    notes: str
    disagreements: list[dict[str, Any]]


class Graded(NamedTuple):
    """One answer: our verdict (``pass``, ``fail`` or ``unknown``) with its reason, and whether the other grader passed it."""

    name: str
    ours: str
    theirs: bool
    reason: str


def tally(set_name: str, graded: Iterable[Graded], notes: str = "") -> Row:
    """The row of a set."""
    graded = list(graded)
    differ = [one for one in graded if one.ours != ("pass" if one.theirs else "fail")]
    return Row(
        set_name,
        len(graded),
        len(graded) - len(differ),
        sum(one.ours == "pass" for one in differ),
        sum(one.ours == "fail" for one in differ),
        sum(one.ours == "unknown" for one in differ),
        notes,
        [
            {
                "id": one.name,
                "ours": one.ours,
                "theirs": "pass" if one.theirs else "fail",
                "reason": one.reason,
            }
            for one in differ
        ],
    )


class Answered(NamedTuple):
    """One response of a model to one problem, which has a ``reference`` or ``tests`` (JSON, as in BENCHMARK_PROBLEMS)."""

    name: str
    category: str
    text: str
    reference: str | None = None
    tests: str | None = None


def score(answers: Sequence[Answered], theirs: Sequence[bool], jobs: int, answer_format: str = "tags") -> list[Graded]:
    """What ``score_samples``, the step that scores students, says of ``answers``, beside what ``theirs`` says."""
    problems, samples = [], []
    for number, answered in enumerate(answers):
        shared = {"problem_id": str(number), "benchmark": "graded", "difficulty": None, "reference": answered.reference}
        problems.append(
            {
                **shared,
                **dict.fromkeys(("starter_code", "lighteval_doc")),
                "category": answered.category,
                "prompt": "",
                "reference_type": infer_type(answered.reference, answered.category),
                "tests": answered.tests,
            }
        )
        samples.append(
            {
                **shared,
                **dict.fromkeys(("thinking", "answer", "lighteval_score")),
                "sample_id": answered.name,
                "student": "graded",
                "sample": 0,
                "prompt": "",
                "text": answered.text,
                "finish_reason": "stop",
                "output_tokens": 0,
                "lighteval_metric": "none",
            }
        )
    with tempfile.TemporaryDirectory(prefix="measure_agreement.") as folder:
        paths = [str(Path(folder, f"{name}.parquet")) for name in ("samples", "problems", "scored")]
        write_table(paths[0], samples, SAMPLES)
        write_table(paths[1], problems, BENCHMARK_PROBLEMS)
        score_samples.main(*paths, settings={}, answer_format=answer_format, jobs=jobs)
        scored = read_table(paths[2], SCORED_SAMPLES).to_pylist()
    return [
        Graded(row["sample_id"], row["verdict"], bool(passed), row["reason"])
        for row, passed in zip(scored, theirs, strict=True)
    ]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
