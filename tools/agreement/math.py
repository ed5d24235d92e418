"""Mathematics and science: cases of other verifiers, answers that others graded, and references against themselves.

Our rules take the last box of the answer part. Where a set has bare answers or formulas, they are put into a box; prose without a
box stays prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from agreement import Answered, Graded, Row, read_rows, score, tally
from whichteacher.config import Verification
from whichteacher.references import infer_type
from whichteacher.responses import ANSWER, END_ANSWER, END_THINK, join_response
from whichteacher.verifiers.fitness import references_fit
from whichteacher.verifiers.math import last_boxed
from whichteacher.verifiers.outcome import Outcome
from whichteacher.verifiers.pool import Task, run_rules

_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
_DEADLINE = Verification.model_fields["deadline_seconds"].default


def measure(data: Path, jobs: int) -> list[Row]:
    """The rows of mathematics and science."""
    return [
        *_other_cases(data, jobs),
        *_graded_answers(data, jobs),
        *_references(data, jobs),
    ]


def verify(pairs: Iterable[tuple[str, str | None]], category: str, jobs: int) -> list[Outcome]:
    """Our outcomes for (answer part, reference), with the types that the import would give the references."""
    rule = "math" if category == "math" else "science"
    tasks = [Task(rule, (answer, reference, infer_type(reference, category))) for answer, reference in pairs]
    return run_rules(tasks, _DEADLINE, jobs)


def word(outcome: Outcome) -> str:
    """The verdict of an outcome."""
    return "unknown" if outcome.score is None else "pass" if outcome.score == 1 else "fail"


def boxed(text: str) -> str:
    """``text`` if it has a box, else its last formula in one, or the whole of it."""
    if last_boxed(text) is not None:
        return text
    return rf"\boxed{{{last_formula(text)}}}"


def last_formula(text: str) -> str:
    """The last box of ``text``, else its last formula, else the whole of it."""
    if (found := last_boxed(text)) is not None:
        return found
    formulas = [display or inline for display, inline in _FORMULA.findall(text)]
    return (formulas[-1] if formulas else text).strip()


def answer_part(text: str) -> str:
    """What stands behind the thinking, without tags."""
    return text.rpartition(END_THINK)[2].replace(ANSWER, "").replace(END_ANSWER, "").strip()


def _compare(
    name: str,
    rows: list[dict[str, Any]],
    pair: Callable[[Mapping[str, Any]], tuple[str, str | None]],
    theirs: str,
    jobs: int,
    identity: str = "id",
    category: str = "math",
    notes: str = "",
) -> Row:
    outcomes = verify(map(pair, rows), category, jobs)
    graded = [
        Graded(str(row[identity]), word(outcome), bool(row[theirs]), outcome.reason)
        for row, outcome in zip(rows, outcomes, strict=True)
    ]
    return tally(name, graded, notes)


def _other_cases(data: Path, jobs: int) -> Iterable[Row]:
    folder = data / "verification"
    rows = [row for row in read_rows(folder / "math_verify_lighteval_cases.jsonl") if not row["disputed"]]
    yield _compare(
        "Math-Verify and LightEval cases",
        rows,
        lambda row: (boxed(answer_part(row["pred"])), last_formula(row["gold"])),
        "expected",
        jobs,
        notes="without the disputed ones",
    )
    yield _compare(
        "NeMo-Skills cases",
        read_rows(folder / "nemo_math_equal_cases.jsonl"),
        lambda row: (rf"\boxed{{{row['pred']}}}", row["gold"]),
        "expected",
        jobs,
    )
    rows = [
        {**row, "gold": gold, "id": f"{row['id']}/{number}"}
        for row in read_rows(folder / "open_instruct_verifier_cases.jsonl")
        for number, gold in enumerate(row["gold"] if isinstance(row["gold"], list) else [row["gold"]])
        if not isinstance(row["gold"], list) or len(row["gold"]) == 1
    ]
    yield _compare(
        "open-instruct cases",
        rows,
        lambda row: (answer_part(row["pred"]), row["gold"]),
        "expected",
        jobs,
        category="general",
        notes="as general questions; those with several references left out",
    )


def _graded_answers(data: Path, jobs: int) -> Iterable[Row]:
    rows = read_rows(data / "verification" / "real_predictions_graded.jsonl")
    agreed = [row for row in rows if row["label"] is not None]
    disputed = [row for row in rows if row["label"] is None]
    for name, chosen, theirs in (
        ("graded predictions, graders agree", agreed, "label"),
        ("graded predictions, graders differ: math-verify", disputed, "math_verify"),
        ("graded predictions, graders differ: Qwen's grader", disputed, "qwen_grader"),
    ):
        answers = [
            Answered(str(row["id"]), "math", join_response("Let me see.", rf"\boxed{{{row['pred']}}}"), row["gold"])
            for row in chosen
        ]
        yield tally(name, score(answers, [row[theirs] for row in chosen], jobs))
    yield from _real_outputs(data / "outputs", jobs)


def _real_outputs(folder: Path, jobs: int) -> Iterable[Row]:
    """Whole responses of models, scored as those of students are: from a table of samples, by ``score_samples``."""
    rows = read_rows(folder / "r1_distill_math500_20.jsonl")
    yield tally(
        "R1 and its distilled models on MATH-500",
        score(
            [Answered(f"{row['item_id']}/{row['run']}", "math", row["full_response"], row["gold"]) for row in rows],
            [row["upstream_is_correct"] for row in rows],
            jobs,
            "thinking_only",
        ),
        "the label is false wherever its own extraction failed",
    )
    rows = read_rows(folder / "qwen3b_before_after_rlvr.jsonl")
    yield tally(
        "Qwen2.5-3B before and after RLVR",
        score(
            [
                Answered(
                    f"{row['problem_id']}/{row['model']}",
                    "math",
                    join_response("Let me see.", answer_part(row["response"])),
                    row["gold"],
                )
                for row in rows
            ],
            [row["upstream_correct"] for row in rows],
            jobs,
        ),
    )
    rows = read_rows(folder / "gsm8k_labelled_solutions.jsonl")
    yield tally(
        "GSM8K solutions",
        score(
            [
                Answered(
                    f"{row['problem_id']}/{row['model']}",
                    "math",
                    join_response(row["solution"], rf"\boxed{{{row['solution'].rpartition('A:')[2].strip()}}}"),
                    row["gold"],
                )
                for row in rows
            ],
            [row["is_correct"] for row in rows],
            jobs,
        ),
    )


def _references(data: Path, jobs: int) -> Iterable[Row]:
    """Every reference must be fit, which counts as passed by others."""
    folder = data / "benchmarks"
    sets = (
        ("MATH-500", "math500", "answer", "math"),
        ("AIME 2024", "aime2024", "answer", "math"),
        ("AMC 2023", "amc23", "answer", "math"),
        ("GSM8K", "gsm8k_test", "answer", "math"),
        ("SciBench numbers", "scibench", "answer_number", "science"),
        ("SciBench formulas", "scibench", "answer_latex", "science"),
        ("MMLU letters", "mmlu_stem", "answer", "science"),
    )
    for name, file, column, category in sets:
        rows = [
            {
                "query_id": row["id"],
                "category": category,
                "reference": row[column],
                "reference_type": infer_type(row[column], category),
            }
            for row in read_rows(folder / f"{file}.jsonl")
        ]
        fits = references_fit(rows, _DEADLINE, jobs)
        graded = [Graded(fit.query_id, "pass" if fit.fit else "fail", True, fit.reason) for fit in fits]
        yield tally(f"{name} against themselves", graded, "fit for rules or not")
    rows = [
        {**row, "theirs": True, "gold": f"({row['answer']}) {row['choices'][row['answer_index']]}"}
        for row in read_rows(folder / "mmlu_stem.jsonl")
    ]
    yield _compare(
        "MMLU option texts",
        rows,
        lambda row: (rf"\boxed{{{row['choices'][row['answer_index']]}}}", row["gold"]),
        "theirs",
        jobs,
        category="science",
        notes="the option's text against letter and text",
    )
