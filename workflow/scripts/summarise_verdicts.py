"""What is known of the verdicts themselves: can they be trusted?

Reads every attempt (COLLECTED), the queries (QUERIES), what became of references against themselves (REFERENCE_CHECKS), the
labelled cases (LABELLED_CASES), the sample that was verified again (REVERIFIED) and the judgements asked for again (REJUDGED).
Writes CSVs:

- verdicts: attempts by teacher, category, verifier, verdict and reason, with their share of the teacher's attempts in the category;
- error_rates: per category the labelled cases, and how often a wrong answer passed (``false_pass``) and a right one did not
  (``false_fail``; ``unknown`` counts those that were left undecided), with Wilson intervals;
- agreement: per pair of graders, teacher and category how many attempts both pass, one of them, or neither, with Cohen's ``kappa``
  (empty where one of them says the same of all); ``changed`` are
  verdicts that differ under load;
- disagreements: the attempts behind it, at most :data:`SHOWN` per pair, with their answers;
- thresholds: what each threshold would pass, by teacher and category: attempts, and queries with one that passes. Queries that passed
  at the study's own were not tried again, so above it their number is a lower bound;
- score_quantiles: the scores of each teacher's decided attempts by category, because a threshold means another share in each;
- references: unfit ones by category and reason;
- contested: queries on which at least two teachers give the same answer against the reference, with that answer and how many
  teachers passed. The reference may be wrong; none is ever replaced.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from whichteacher.outcomes import ALL, by_teacher
from whichteacher.responses import END_THINK
from whichteacher.schemas import COLLECTED, LABELLED_CASES, QUERIES, REFERENCE_CHECKS, REJUDGED, REVERIFIED
from whichteacher.tables import read_frame, write_text

#: Disagreements listed per pair of graders and teacher.
SHOWN = 50
#: So much of an answer is listed.
_SHOWN_CHARACTERS = 300
#: Thresholds of the sweep: every twentieth.
SWEEP = tuple(step / 20 for step in range(21))
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_JUDGED = "judge_"
_LOAD = "under_load"


def verdict_counts(attempts: pd.DataFrame) -> pd.DataFrame:
    """Attempts (columns teacher, category, verifier, verdict, reason) counted, with their ``share`` in teacher and category."""
    keys = ["teacher", "category", "verifier", "verdict", "reason"]
    counts = attempts.groupby(keys, sort=True).size().reset_index(name="attempts")
    counts["share"] = counts["attempts"] / counts.groupby(["teacher", "category"])["attempts"].transform("sum")
    return counts


def threshold_sweep(attempts: pd.DataFrame) -> pd.DataFrame:
    """What each threshold of :data:`SWEEP` passes of ``attempts`` (teacher, category, query_id, verdict, score).

    Columns: teacher, category, threshold, ``attempts`` that were decided, ``passing`` and their ``share``; ``queries`` with a
    decided attempt, ``solved`` and ``solved_share``.
    """
    rows: list[dict[str, Any]] = []
    decided = attempts[attempts["verdict"] != "unknown"]
    for (teacher, category), group in decided.groupby(["teacher", "category"], sort=True):
        best = group.groupby("query_id")["score"].max()
        for threshold in SWEEP:
            passing, solved = int((group["score"] >= threshold).sum()), int((best >= threshold).sum())
            row = {"teacher": teacher, "category": category, "threshold": threshold}
            row |= {"attempts": len(group), "passing": passing, "share": passing / len(group)}
            rows.append(row | {"queries": len(best), "solved": solved, "solved_share": solved / len(best)})
    columns = ["teacher", "category", "threshold", "attempts", "passing", "share", "queries", "solved", "solved_share"]
    return pd.DataFrame(rows, columns=columns)


def score_quantiles(attempts: pd.DataFrame) -> pd.DataFrame:
    """Scores of the decided ``attempts`` by teacher and category: their number, mean and :data:`QUANTILES` (``q10``, ...)."""
    decided = attempts[attempts["verdict"] != "unknown"].groupby(["teacher", "category"], sort=True)["score"]
    named = {f"q{100 * level:.0f}": decided.quantile(level) for level in QUANTILES}
    return pd.DataFrame({"attempts": decided.size(), "mean": decided.mean(), **named}).reset_index()


def error_rates(cases: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Errors on the labelled cases (LABELLED_CASES) by category, and over all."""

    def rates(category: str, rows: pd.DataFrame) -> dict[str, Any]:
        row: dict[str, Any] = {"category": category, "cases": len(rows)}
        for name, group, verdict in (
            ("false_pass", rows[~rows["right"]], "pass"),
            ("false_fail", rows[rows["right"]], "fail"),
        ):
            count = int((group["verdict"] == verdict).sum())
            low, high = (
                proportion_confint(count, len(group), 1 - confidence, "wilson") if len(group) else (float("nan"),) * 2
            )
            share = count / len(group) if len(group) else float("nan")
            row |= {f"{name}_of": len(group), name: count, f"{name}_rate": share}
            row |= {f"{name}_low": low, f"{name}_high": high}
        row["unknown"] = int((rows["verdict"] == "unknown").sum())
        row["as_expected"] = int((rows["verdict"] == rows["expected"]).sum())
        return row

    told = [rates(category, rows) for category, rows in cases.groupby("category", sort=True)]
    return pd.DataFrame([*told, rates(ALL, cases)])


def opinions(again: pd.DataFrame, attempts: pd.DataFrame, rejudged: pd.DataFrame) -> pd.DataFrame:
    """Two graders' verdicts per row: columns teacher, category, attempt_id, pair, first, second, first_reason, second_reason.

    ``again`` are rows of REVERIFIED: the rules against themselves under load, and against a second opinion. ``attempts`` are
    all attempts, of which those that a judge decided tell what the rules had said. ``rejudged`` are rows of REJUDGED.
    """
    shared = ["teacher", "category", "attempt_id"]
    frames = []
    for pair, verdict, reason in (
        (_LOAD, "loaded_verdict", "loaded_reason"),
        (None, "second_verdict", "second_reason"),
    ):
        frame = again[shared].assign(
            pair=pair or again["second"],
            first=again["verdict"],
            second=again[verdict],
            first_reason=again["reason"],
            second_reason=again[reason],
        )
        frames.append(frame)
    judged = attempts[attempts["verifier"].str.startswith(_JUDGED)]
    before = [json.loads(evidence)["before"] for evidence in judged["evidence"]]
    frames.append(
        judged[shared].assign(
            pair=judged["verifier"],
            first=[told["verdict"] for told in before],
            second=judged["verdict"],
            first_reason=[told["reason"] for told in before],
            second_reason=judged["reason"],
        )
    )
    frames.append(
        rejudged[shared].assign(
            pair=rejudged["again"],
            first=rejudged["verdict"],
            second=rejudged["again_verdict"],
            first_reason=rejudged["reason"],
            second_reason=rejudged["again_reason"],
        )
    )
    return pd.concat(frames, ignore_index=True)


def kappa(both: int, first_only: int, second_only: int, neither: int) -> float | None:
    """Cohen's kappa of two graders that pass or do not; None where it has no value, as one of them says the same of all."""
    first, second = both + first_only, both + second_only
    total = first + second_only + neither
    if 0 in (first, total - first) or 0 in (second, total - second):
        return None
    return float(cohens_kappa([[both, first_only], [second_only, neither]]).kappa)


def agreement(pairs: pd.DataFrame) -> pd.DataFrame:
    """How often two graders agree: ``pairs`` of :func:`opinions`, counted by pair, category and teacher."""
    told = []
    for (pair, category, teacher), rows in pairs.groupby(["pair", "category", "teacher"], sort=True):
        first, second = rows["first"] == "pass", rows["second"] == "pass"
        masks = (first & second, first & ~second, ~first & second, ~first & ~second)
        counts = [int(mask.sum()) for mask in masks]
        changed = int((rows["first"] != rows["second"]).sum())
        told.append((pair, category, teacher, len(rows), *counts, changed, kappa(*counts)))
    cells = ["both_pass", "first_only", "second_only", "neither"]
    return pd.DataFrame(told, columns=["pair", "category", "teacher", "attempts", *cells, "changed", "kappa"])


def disagreements(pairs: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``pairs`` where one grader passes and the other does not, or load changes anything; ``texts`` holds
    attempt_id, query_id, reference and text of those that can be shown."""
    differ = ((pairs["first"] == "pass") != (pairs["second"] == "pass")) | (
        (pairs["pair"] == _LOAD) & (pairs["first"] != pairs["second"])
    )
    found = pairs[differ].sort_values(["pair", "teacher", "attempt_id"]).groupby(["pair", "teacher"]).head(SHOWN)
    found = found.merge(texts, on="attempt_id", how="left")
    answers = found["text"].fillna("").str.rsplit(END_THINK, n=1).str[-1].str.strip()
    return found.assign(answer=answers.str.slice(0, _SHOWN_CHARACTERS)).drop(columns="text")


def wrong_answers(attempts: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """(query, teacher, answer) of failed attempts whose evidence holds the answer that was compared."""
    failed = attempts[attempts["verdict"] == "fail"]
    for row in failed[["query_id", "teacher", "evidence"]].itertuples(index=False):
        evidence = json.loads(row.evidence)
        evidence = evidence.get("compared", evidence)
        if "answer" in evidence and "reference" in evidence:
            yield row.query_id, row.teacher, " ".join(str(evidence["answer"]).split())


def contested(attempts: pd.DataFrame, queries: pd.DataFrame) -> pd.DataFrame:
    """Queries on which two teachers or more give the same answer against the reference."""
    columns = ["query_id", "category", "reference", "answer", "teachers", "passed"]
    given = pd.DataFrame(wrong_answers(attempts), columns=["query_id", "teacher", "answer"]).drop_duplicates()
    groups = given.groupby(["query_id", "answer"])["teacher"].agg(["size", lambda names: " ".join(sorted(names))])
    groups.columns = ["size", "teachers"]
    shared = groups[groups["size"] > 1].reset_index()
    passed = attempts[attempts["verdict"] == "pass"].groupby("query_id")["teacher"].nunique()
    told = shared.merge(queries, on="query_id", how="left").assign(
        passed=shared["query_id"].map(passed).fillna(0).astype(int)
    )
    return told.sort_values(["passed", "size", "query_id"], ascending=[True, False, True], ignore_index=True)[columns]


def unfit_references(checks: pd.DataFrame) -> pd.DataFrame:
    """References by category and what became of them against themselves."""
    return checks.groupby(["category", "fit", "reason"], sort=True).size().reset_index(name="references")


def main(
    collected: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    checks: Sequence[str],
    cases: str,
    again: str,
    judged: Sequence[str],
    outputs: Mapping[str, str],
    confidence: float,
) -> None:
    """Write ``outputs``: a CSV for each of the names above. ``collected`` holds each teacher's files."""
    asked = read_frame(queries, QUERIES, ["query_id", "category", "reference"])
    columns = ["attempt_id", "query_id", "verdict", "score", "reason", "verifier", "evidence"]
    attempts = pd.concat(
        [read_frame(files, COLLECTED, columns).assign(teacher=teacher) for teacher, files in collected.items()]
    ).merge(asked[["query_id", "category"]], on="query_id", validate="many_to_one")
    sample = read_frame(again, REVERIFIED)
    rejudged = read_frame(judged, REJUDGED)
    pairs = opinions(sample, attempts, rejudged)
    shown = ["attempt_id", "query_id", "reference", "text"]
    texts = pd.concat([sample[shown], rejudged[shown]]).drop_duplicates("attempt_id")
    tables = {
        "verdicts": verdict_counts(attempts),
        "error_rates": error_rates(read_frame(cases, LABELLED_CASES), confidence),
        "agreement": agreement(pairs),
        "disagreements": disagreements(pairs, texts),
        "references": unfit_references(read_frame(checks, REFERENCE_CHECKS)),
        "contested": contested(attempts, asked),
        "thresholds": threshold_sweep(attempts),
        "score_quantiles": score_quantiles(attempts),
    }
    for name, table in tables.items():
        write_text(outputs[name], table.to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            by_teacher(snakemake.params.teachers, snakemake.input.collected),  # noqa: F821
            snakemake.input.queries,  # noqa: F821
            snakemake.input.checks,  # noqa: F821
            snakemake.input.cases,  # noqa: F821
            snakemake.input.again,  # noqa: F821
            list(snakemake.input.judged),  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            snakemake.params.confidence,  # noqa: F821
        )
