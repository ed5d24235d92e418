"""The report: one self-contained HTML page that a browser opens from disk, without network or script.

Reads what the statistics and figures wrote, the single rows that choose_examples picked among them. Writes ``report.html``,
with its pictures inside and links to the data files relative to itself.
"""

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from whichteacher.outcomes import ALL
from whichteacher.plotting import PAPER, PAPER_LABELS, THIS_RUN
from whichteacher.tables import versions, write_text
from whichteacher.traces import shorten

#: Figure -> title, least width on a narrow screen (then it scrolls in its own box). Captions: workflow/report/captions.
FIGURES = {
    "differences": ("Paired differences between students.", "30rem"),
    "scores": ("Figure 1. Pass@1 per benchmark.", "46rem"),
    "category_shares": ("Figure 2. Shares of the categories.", "42rem"),
    "length_histogram": ("Figure 3. Lengths of mathematics traces.", "36rem"),
    "lengths": ("Figure 4. Trace lengths.", "44rem"),
    "perplexities": ("Figure 5. Perplexity of the traces.", "36rem"),
    "attempts": ("Attempts to a first pass.", "42rem"),
    "training_loss": ("Figure 6. Training loss.", "38rem"),
    "ledger": ("From rows to datasets.", "46rem"),
    "verdicts": ("Verdicts.", "42rem"),
    "thresholds": ("Scores, and what other thresholds would pass.", "42rem"),
    "contamination": ("Thresholds of decontamination.", "36rem"),
}
#: Figures that stand in a section of their own, not among those of the paper.
_APART = ("differences", "attempts", "ledger", "contamination", "verdicts", "thresholds")
#: Contested references shown.
_SHOWN_CONTESTED = 50
#: Columns that tables leave out where they hold one value.
CONSTANT = ("Control", "Category", "Difficulty", "Expected")
_PACKAGES = ("pandas", "pyarrow", "scipy", "statsmodels", "matplotlib", "jinja2")

Table = dict[str, Any]


# --- numbers and tables ----------------------------------------------------------------------------------------------


def number(value: float | None, decimals: int = 0, unit: str = "") -> str:
    """A number for readers: grouped, with a true minus, an en dash where there is none."""
    if value is None or pd.isna(value):
        return "–"
    text = f"{value:,.{decimals}f}".replace("-", "−")
    return f"{text} {unit}" if unit else text


def percent(value: float | None) -> str:
    """A share as percent with one decimal."""
    return number(None if value is None else 100 * value, 1, "%")


def duration(seconds: float) -> str:
    """Seconds as the largest fitting unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return number(seconds / size, 1, unit)
    return number(seconds, 1, "s")


def p_value(value: float) -> str:
    """A p value to two digits, never as zero."""
    if pd.isna(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def bounded(row: Mapping[str, Any], value: str, low: str, high: str, decimals: int = 1) -> str:
    """A number of a row with its bounds, where it has any."""
    told = number(row[value], decimals)
    return told if pd.isna(row[low]) else f"{told} [{number(row[low], decimals)}, {number(row[high], decimals)}]"


def interval(row: Mapping[str, Any], decimals: int) -> str:
    """A difference with its bounds."""
    sign = "+" if row["difference"] > 0 and not pd.isna(row["low"]) else ""
    return sign + bounded(row, "difference", "low", "high", decimals)


def excludes_zero(row: Mapping[str, Any]) -> bool:
    """Whether the interval of a row lies on one side of zero."""
    return bool(row["low"] > 0 or row["high"] < 0)


def pair(row: Mapping[str, Any], teachers: Mapping[str, str]) -> str:
    """The two teachers of a row, on one line."""
    return f"{teachers[row['teacher_a']]} − {teachers[row['teacher_b']]}".replace(" ", "\u00a0")


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[int] = (0,)) -> Table:
    """A table for the template. ``text`` are the places of the columns that hold text; a row may end in a bool: bold.

    The columns of :data:`CONSTANT` are left out where all rows say the same there.
    """
    found = list(rows)
    places = [
        place for place, head in enumerate(heads) if head not in CONSTANT or len({row[place] for row in found}) > 1
    ]
    return {
        "caption": caption,
        "columns": [{"head": heads[place], "number": place not in text} for place in places],
        "rows": [{"cells": [row[place] for place in places], "sure": row[-1] is True} for row in found],
    }


# --- students --------------------------------------------------------------------------------------------------------


def findings(comparison: pd.DataFrame, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """The sentences of some rows of the comparison, the largest difference first."""
    ordered = comparison.reindex(comparison["difference"].abs().sort_values(ascending=False, kind="stable").index)
    return [
        {
            "sentence": row["conclusion"],
            "sure": excludes_zero(row),
            "colour": colours[row["teacher_a"] if row["difference"] > 0 else row["teacher_b"]],
        }
        for row in ordered.to_dict("records")
    ]


def student_comparison(
    comparison: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str], alpha: float
) -> Table:
    """All rows of the comparison of students; ``alpha`` is 1 - confidence."""
    names = {**benchmarks, ALL: "All"}
    rows = [
        (
            pair(row, teachers),
            row["control"],
            names[row["benchmark"]],
            number(row["problems"]),
            number(row["score_a"], 1),
            number(row["score_b"], 1),
            interval(row, 1),
            p_value(row["p"]),
            p_value(row["p_holm"]),
            number(row["problems_needed"]),
            excludes_zero(row) and row["p_holm"] < alpha,
        )
        for row in comparison.to_dict("records")
    ]
    heads = ("Teachers", "Control", "Benchmark", "Problems", "First", "Second", "Difference", "p", "p, Holm", "Needed")
    caption = (
        "Students compared: pass@1 in percent, difference in points with its interval; needed: problems at which the "
        "half-width would equal the difference. Bold where the interval excludes zero and p after Holm agrees."
    )
    return table(caption, heads, rows, text=(0, 1, 2))


def paper_table(
    cells: pd.DataFrame, title: str, teachers: Mapping[str, str], benchmarks: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Table 1 or 2: this run left, the paper right."""
    rows = []
    for (control, benchmark), group in cells.groupby(["control", "benchmark"], sort=False):
        found = group.set_index(["origin", "teacher"])
        row = [benchmarks[benchmark]["label"], control]
        for origin, name in [*((THIS_RUN, name) for name in teachers), *((PAPER, name) for name in PAPER_LABELS)]:
            if origin == PAPER and name == next(iter(PAPER_LABELS)):
                row.append(benchmarks[benchmark]["role"] or "–")
            if (origin, name) not in found.index:
                row.append("–")
                continue
            cell = found.loc[(origin, name)]
            row.append(number(cell["value"], 1) + ("" if pd.isna(cell["error"]) else f" ± {number(cell['error'], 1)}"))
        rows.append(row)
    heads = (
        "Benchmark",
        "Control",
        *teachers.values(),
        "In place of",
        *(f"{n} (paper)" for n in PAPER_LABELS.values()),
    )
    return table(title, heads, rows, text=(0, 1, 2 + len(teachers)))


def student_scores(scores: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """Every student on every benchmark."""
    rows = [
        (
            teachers[row["teacher"]],
            row["control"],
            str(row["seed"]),
            benchmarks[row["benchmark"]],
            number(100 * row["pass_at_1"], 1),
            number(100 * row["se_samples"], 1),
            number(100 * row["se_problems"], 1),
            number(row["mean_tokens"], 1),
            percent(row["truncated"]),
            percent(row["no_answer"]),
            number(100 * row["lighteval"], 1),
        )
        for row in scores.to_dict("records")
    ]
    heads = ("Teacher", "Control", "Seed", "Benchmark", "Pass@1", "SE, samples", "SE, problems", "Tokens", "Cut off")
    caption = "Students: pass@1 with its standard errors, LightEval’s own metric beside ours, and how responses ended."
    return table(caption, (*heads, "No answer", "LightEval"), rows, text=(0, 1, 2, 3))


def gaps(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """Whether the gap between two teachers' students closes under each control."""
    shown = [
        (
            pair(row, teachers),
            benchmarks.get(row["benchmark"], "All together"),
            row["control"],
            interval(row, 1),
            bounded(row, "change", "change_low", "change_high"),
            percent(row["remaining"]),
            row["verdict"],
        )
        for row in rows.to_dict("records")
    ]
    heads = ("Students of", "Benchmark", "Under", "Difference", "Change", "Remains", "Verdict")
    caption = (
        "Does the gap close where length, format or another property is held equal? Points of pass@1 with intervals; a gap "
        "closes only where the change itself is shown."
    )
    return table(caption, heads, shown, text=(0, 1, 2, 6))


def scores_by_cap(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """Pass@1 if longer responses counted as wrong: a column per cap."""
    caps = rows[["cap_share", "cap_tokens"]].drop_duplicates().sort_values("cap_share").to_dict("records")
    wide = rows.pivot(index=["control", "teacher", "benchmark"], columns="cap_share", values="pass_at_1")
    wide = wide.reindex(rows[["control", "teacher", "benchmark"]].drop_duplicates().itertuples(index=False, name=None))
    shown = [
        (
            teachers[teacher],
            control,
            benchmarks[benchmark],
            *(number(100 * cells[cap["cap_share"]], 1) for cap in caps),
        )
        for (control, teacher, benchmark), cells in wide.iterrows()
    ]
    heads = ("Teacher", "Control", "Benchmark", *(f"{cap['cap_tokens']:,} tokens" for cap in caps))
    return table("Pass@1 if every response longer than the cap counted as wrong.", heads, shown, text=(0, 1, 2))


def adaptivity(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """How much longer students answer harder problems."""
    shown = [
        (
            teachers[row["teacher"]],
            row["control"],
            benchmarks[row["benchmark"]],
            row["difficulty"] if isinstance(row["difficulty"], str) else "–",
            number(row["problems"]),
            bounded(row, "slope", "low", "high", 2),
        )
        for row in rows.to_dict("records")
    ]
    heads = ("Teacher", "Control", "Benchmark", "Difficulty is", "Problems", "Slope")
    caption = (
        "Slope of log output tokens on difficulty: a level of the benchmark’s own (stated), or from solved by all to solved "
        "by none of the other teachers’ students (estimated)."
    )
    return table(caption, heads, shown, text=(0, 1, 2, 3))


def variance(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """What makes the scores uncertain."""
    parts = ("problem", "seed", "problem_seed", "sampling")
    shown = [
        (
            teachers[row["teacher"]],
            row["control"],
            benchmarks[row["benchmark"]],
            *(number(row[part], 2) for part in (*parts, "standard_error")),
        )
        for row in rows.to_dict("records")
    ]
    heads = ("Teacher", "Control", "Benchmark", "Problems", "Seeds", "Problems x seeds", "Sampling", "Standard error")
    caption = (
        "What makes a score uncertain: parts of its variance in points squared, and the root of their sum in points."
    )
    return table(caption, heads, shown, text=(0, 1, 2))


def flagged_apart(rows: pd.DataFrame, teachers: Mapping[str, str], benchmarks: Mapping[str, str]) -> Table:
    """Scores on the problems that the corpus or a response knew, and on the others."""
    shown = [
        (
            teachers[row["teacher"]],
            row["control"],
            benchmarks[row["benchmark"]],
            number(row["problems_flagged"]),
            *(number(100 * row[f"pass_at_1_{part}"], 1) for part in ("flagged", "unflagged")),
        )
        for row in rows.to_dict("records")
    ]
    heads = ("Teacher", "Control", "Benchmark", "Flagged problems", "Pass@1 on these", "On the others")
    caption = "Problems that a query of the corpus fell for, or that a response holds, apart from the others."
    return table(caption, heads, shown, text=(0, 1, 2))


def model_scores(scores: pd.DataFrame, models: Mapping[str, Mapping[str, Any]], benchmarks: Mapping[str, str]) -> Table:
    """The models evaluated beside the students on every benchmark."""
    rows = [
        (
            models[row["model"]]["label"],
            benchmarks[row["benchmark"]],
            number(100 * row["pass_at_1"], 1),
            number(100 * row["se_samples"], 1),
            number(100 * row["se_problems"], 1),
            "–" if pd.isna(row["low"]) else f"{number(row['low'], 1)} to {number(row['high'], 1)}",
            number(row["mean_tokens"], 1),
            percent(row["truncated"]),
            percent(row["no_answer"]),
            number(100 * row["lighteval"], 1),
        )
        for row in scores.to_dict("records")
    ]
    heads = ("Model", "Benchmark", "Pass@1", "SE, samples", "SE, problems", "Expected", "Tokens", "Cut off")
    caption = "Models evaluated beside the students, on the same problems and with the same sampling."
    return table(caption, (*heads, "No answer", "LightEval"), rows, text=(0, 1))


def training_costs(summaries: Mapping[str, Mapping[str, Any]], teachers: Mapping[str, str]) -> Table:
    """What training each student took; ``summaries`` by name ``control/teacher/seed``."""
    rows = []
    for student, summary in summaries.items():
        control, teacher, seed = student.split("/")
        rows.append(
            (
                teachers[teacher],
                control,
                seed,
                number(summary["rows"]),
                number(summary["excluded"]),
                number(summary["steps"]),
                number(summary["tokens"]),
                number(summary["parameters"]),
                duration(summary["seconds"]),
            )
        )
    heads = ("Teacher", "Control", "Seed", "Traces", "Too long", "Steps", "Tokens seen", "Parameters", "Time")
    return table("Training", heads, rows, text=(0, 1, 2))


# --- teachers --------------------------------------------------------------------------------------------------------


def teacher_summary(summary: pd.DataFrame, teachers: Mapping[str, str], caption: str) -> Table:
    """Rows of the summary of teachers."""
    rows = [
        (
            teachers[row["teacher"]],
            row["category"].replace("_", " "),
            number(row["queries"]),
            percent(row["acceptance"]),
            percent(row["first_pass"]),
            number(row["attempts_to_pass"], 2),
            number(row["gave_up"]),
            number(row["length_mean"], 1),
            number(row["length_median"], 1),
            number(row["length_by_difficulty"], 2),
            number(row["perplexity_mean"], 2),
        )
        for row in summary.to_dict("records")
    ]
    heads = ("Teacher", "Category", "Queries", "Solved", "At first attempt", "Attempts to pass", "Given up")
    lengths = ("Mean length", "Median", "Length by difficulty", "Perplexity")
    return table(caption, (*heads, *lengths), rows, text=(0, 1))


_PERPLEXITIES = (
    "Perplexity of the accepted responses, before any filter. The first scorer filters and is that of the figure and the export. A "
    "scorer favours its own family: an order of the teachers that holds under one scorer alone says little about them."
)
_MEASURES = {
    "acceptance": "Solved (share)",
    "first_pass": "Solved at the first attempt (share)",
    "attempts": "Attempts drawn",
    "spent_tokens": "Tokens spent",
    "restricted_attempts": "Attempts, given-up ones censored",
    "tokens_per_verified": "Tokens per verified trace",
    "price_per_verified": "Price per verified trace",
    "attempts_to_pass": "Attempts to pass",
    "length": "Length of the trace (tokens)",
    "perplexity": "Perplexity",
    "thinking_answer_ratio": "Thinking per answer (characters)",
    "answer_position": "First right answer (share of thinking)",
    "tail_characters": "Thinking after that (characters)",
    "repeated_share": "Repeated 8-grams (share)",
    "self_corrections": "Words of self-correction",
    "restarts": "Restarts (sentences)",
    "formula_share": "Formulas (share of thinking)",
    "code_share": "Code (share of thinking)",
    "foreign_share": "Letters of other scripts (share)",
    "loop_characters": "Loop at the end (characters)",
}


def perplexity_table(summary: pd.DataFrame, teachers: Mapping[str, str], caption: str) -> Table:
    """Rows of the perplexities of accepted responses, scorer by scorer."""
    ordered = summary.sort_values("scorer", key=lambda names: names.map(list(names.unique()).index), kind="stable")
    rows = [
        (
            row["scorer"],
            teachers[row["teacher"]],
            number(row["scored"]),
            number(row["cut"]),
            number(row["overlong"] + row["other_unscored"]),
            *(number(row[name], 2) for name in ("mean", "q1", "median", "q3", "q99", "pooled")),
            number(row["limit"], 2),
            number(row["above"]),
        )
        for row in ordered.to_dict("records")
    ]
    heads = (
        "Scorer",
        "Teacher",
        "Scored",
        "Of these cut",
        "Not scored",
        "Mean",
        "Quartile",
        "Median",
        "Quartile",
        "99%",
    )
    return table(caption, (*heads, "Over all tokens", "Limit", "Above it"), rows, text=(0, 1))


def measure_label(measure: str) -> str:
    """What a measure of the comparison is called; ``perplexity_<scorer>`` comes and goes with the scorers."""
    return _MEASURES.get(measure) or f"Perplexity ({measure.removeprefix('perplexity_')})"


def teacher_comparison(comparison: pd.DataFrame, teachers: Mapping[str, str], caption: str, alpha: float) -> Table:
    """Rows of the comparison of teachers, measure by measure; ``alpha`` is 1 - confidence."""
    known = list(_MEASURES)
    place = {name: known.index(name if name in _MEASURES else "perplexity") for name in comparison["measure"].unique()}
    ordered = comparison.sort_values("measure", key=lambda names: names.map(place), kind="stable")
    rows = [
        (
            measure_label(row["measure"]),
            pair(row, teachers),
            row["category"].replace("_", " "),
            row["difficulty"],
            number(row["queries"]),
            number(row["mean_a"], 2),
            number(row["mean_b"], 2),
            interval(row, 2),
            p_value(row["p_holm"]),
            excludes_zero(row) and row["p_holm"] < alpha,
        )
        for row in ordered.to_dict("records")
    ]
    heads = ("Measure", "Teachers", "Category", "Difficulty", "Queries", "First", "Second", "Difference", "p, Holm")
    return table(caption, heads, rows, text=(0, 1, 2, 3))


def attempts_summary(summary: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """Attempts per query up to the horizon, given-up queries as censored."""
    rows = [
        (
            teachers[row["teacher"]],
            row["category"].replace("_", " "),
            number(row["queries"]),
            number(row["passed"]),
            number(row["given_up"]),
            number(row["horizon"]),
            bounded(row, "restricted_mean", "low", "high", 2),
        )
        for row in summary.to_dict("records")
    ]
    heads = ("Teacher", "Category", "Queries", "Passed", "Given up", "Horizon", "Attempts per query")
    caption = "Attempts per query if none gets more than the horizon, up to which the curves of all teachers are known."
    return table(caption, heads, rows, text=(0, 1))


#: Measures of equal responses: what is counted, and of what the share is.
_EQUAL = {
    "equal_responses": ("traces equal to one of another query", "traces"),
    "repeated_responses": ("attempts with the response of an earlier one", "attempts after the first"),
    "repeated_answers": ("attempts with the answer of an earlier one", "attempts after the first"),
    "shared_responses": ("equal traces of both", "queries that both solved"),
}


def equal_responses(duplicates: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """How much of each teacher's data is there more than once; rows of summarise_duplicates."""
    rows = []
    for row in duplicates.to_dict("records"):
        what, of = _EQUAL[row["measure"]]
        names = " and ".join(teachers[name] for name in (row["teacher"], row["other"]) if not pd.isna(name))
        rows.append((names, what, of, number(row["of"]), number(row["found"]), percent(row["share"])))
    heads = ("Teacher", "What is equal", "Of", "Number of these", "Equal", "Share")
    caption = (
        "Equal responses: the same text but for white space and tags. Kept unless curation.drop_duplicates is set, which "
        "drops all but one of equal traces of different queries."
    )
    return table(caption, heads, rows, text=(0, 1, 2))


def generation_costs(costs: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """What each teacher's traces cost, over all categories and in each."""
    rows = [
        (
            teachers[row["teacher"]],
            row["category"],
            number(row["attempts"]),
            number(row["output_tokens"]),
            percent(row["unaccepted_tokens"]),
            duration(row["seconds"]),
            number(row["verified"]),
            bounded(row, "tokens_per_verified", "tokens_low", "tokens_high"),
            number(row["seconds_per_verified"], 3, "s"),
            number(1000 * row["device_hours_per_verified"], 3),
            number(1000 * row["price_per_verified"], 2),
        )
        for row in costs.to_dict("records")
    ]
    heads = ("Teacher", "Category", "Attempts", "Tokens", "In vain", "Engine time", "Verified", "Tokens per verified")
    more = ("Time per verified", "Device-hours per 1,000", "Price per 1,000")
    caption = (
        "Generation: all attempts, those that failed included. In vain: the share of the tokens that went into attempts "
        "nobody accepted. A device is a GPU, or an engine on CPUs; prices only where the configuration names one."
    )
    return table(caption, (*heads, *more), rows, text=(0, 1))


def engines(rows: Sequence[Mapping[str, str]], teachers: Mapping[str, str]) -> Table:
    """Which model, engine and verifiers made each teacher's attempts."""
    shown = [
        (teachers[row["teacher"]], row["model"], row["model_digest"][:12], row["engine"], row["verifiers"])
        for row in rows
    ]
    heads = ("Teacher", "Model", "Digest", "Engine", "Verifiers")
    return table("What made and judged the attempts", heads, shown, text=range(len(heads)))


def example(
    found: Mapping[str, Any] | None, teachers: Mapping[str, str], colours: Mapping[str, str]
) -> dict[str, Any] | None:
    """The example of choose_examples as the page shows it: the first right answer stands apart."""
    if found is None:
        return None
    shown = []
    for trace in found["traces"]:
        thinking, start, end = trace["thinking"], trace["start"], trace["end"]
        facts = [f"{trace['output_tokens']:,} tokens", f"accepted at attempt {trace['attempts']}"]
        if end is not None:
            facts.append(f"right answer after {end / len(thinking):.0%} of the thinking")
        shown.append(
            {
                "label": teachers[trace["teacher"]],
                "colour": colours[trace["teacher"]],
                "facts": ", ".join(facts),
                "before": thinking[:start],
                "found": thinking[start:end] if end is not None else "",
                "after": thinking[end:] if end is not None else "",
                "answer": trace["answer"],
            }
        )
    return {"turns": found["turns"], "reference": found["reference"] or "none", "traces": shown}


# --- verdicts --------------------------------------------------------------------------------------------------------

#: Pairs of graders, by what the statistics call them: the first and the second.
_PAIRS = {
    "under_load": "once, and again under load",
    "plain_math_verify": "our rules, and math-verify alone",
    "all_tests": "the first tests, and all tests",
    "same_text": "our rules, and equal text",
    "whole_response": "the answer part, and the whole response",
}


def _share(row: Mapping[str, Any], name: str) -> str:
    """An error rate with its interval and what it is of."""
    if not row[f"{name}_of"]:
        return "–"
    low, high = (number(100 * row[f"{name}_{bound}"], 1) for bound in ("low", "high"))
    return (
        f"{number(row[name])} of {number(row[f'{name}_of'])}: {number(100 * row[f'{name}_rate'], 1)} % [{low}, {high}]"
    )


def pair_name(pair: str) -> str:
    """Two graders, in words."""
    kind, _, name = pair.partition("_")
    told = {
        "judge": f"the rules, and the judge {name}",
        "swapped": f"the judge {name}, and again with the answer before the reference",
        "second": f"the judge, and the judge {name}",
    }
    return _PAIRS.get(pair) or told[kind]


def build_verdicts(inputs: Mapping[str, Any], teachers: Mapping[str, str]) -> dict[str, Any]:
    """The section about the verdicts themselves, from the tables of summarise_verdicts."""
    tables = {
        name.removeprefix("audit_"): pd.read_csv(path) for name, path in inputs.items() if name.startswith("audit_")
    }
    rates, pairs, shown = tables["error_rates"], tables["agreement"], tables["disagreements"]
    loaded = pairs[pairs["pair"] == "under_load"]
    references, contested = tables["references"], tables["contested"]
    unfit = references[~references["fit"].astype(bool)]
    reasons = [
        (
            teachers[row["teacher"]],
            row["category"].replace("_", " "),
            row["verifier"],
            row["verdict"],
            row["reason"],
            number(row["attempts"]),
            percent(row["share"]),
        )
        for row in tables["verdicts"].to_dict("records")
    ]
    return {
        "rates": table(
            "Labelled answers whose truth is known",
            ("Kind", "Cases", "Wrong ones passed", "Right ones failed", "Undecided"),
            [
                (
                    row["category"].replace("_", " "),
                    number(row["cases"]),
                    _share(row, "false_pass"),
                    _share(row, "false_fail"),
                    number(row["unknown"]),
                )
                for row in rates.to_dict("records")
            ],
        ),
        "loaded": {"attempts": number(loaded["attempts"].sum()), "changed": int(loaded["changed"].sum())},
        "agreement": table(
            "Two ways to grade the same attempts",
            (
                "Graders",
                "Category",
                "Teacher",
                "Attempts",
                "Both pass",
                "First only",
                "Second only",
                "Neither",
                "Kappa",
            ),
            [
                (
                    pair_name(row["pair"]),
                    row["category"].replace("_", " "),
                    teachers[row["teacher"]],
                    *(number(row[name]) for name in ("attempts", "both_pass", "first_only", "second_only", "neither")),
                    "–" if pd.isna(row["kappa"]) else number(row["kappa"], 2),
                    row["first_only"] + row["second_only"] > 0,
                )
                for row in pairs[pairs["pair"] != "under_load"].to_dict("records")
            ],
            text=(0, 1, 2),
        ),
        "disagreements": [
            {
                "pair": pair_name(row["pair"]),
                "teacher": teachers[row["teacher"]],
                "query_id": row["query_id"],
                "told": f"{row['first']} ({row['first_reason']}), then {row['second']} ({row['second_reason']})",
                "reference": shorten(str(row["reference"])),
                "answer": str(row["answer"]),
            }
            for row in shown.fillna("–").to_dict("records")
        ],
        "checked": number(references["references"].sum()),
        "unfit": int(unfit["references"].sum()),
        "references": table(
            "References that fail against themselves",
            ("Category", "Reason", "References"),
            [(row["category"], row["reason"], number(row["references"])) for row in unfit.to_dict("records")],
            text=(0, 1),
        ),
        "contested_count": len(contested),
        "contested": table(
            "Queries on which teachers agree against the reference",
            ("Query", "Category", "Reference", "Their answer", "Teachers", "Teachers that passed"),
            [
                (
                    row["query_id"],
                    row["category"],
                    shorten(str(row["reference"])),
                    shorten(str(row["answer"])),
                    ", ".join(teachers[name] for name in row["teachers"].split()),
                    number(row["passed"]),
                )
                for row in contested.head(_SHOWN_CONTESTED).to_dict("records")
            ],
            text=(0, 1, 2, 3, 4),
        ),
        "scores": table(
            "Scores of decided attempts",
            ("Category", "Teacher", "Attempts", "Mean", "10 %", "25 %", "Median", "75 %", "90 %"),
            [
                (
                    row["category"].replace("_", " "),
                    teachers[row["teacher"]],
                    number(row["attempts"]),
                    *(number(row[name], 2) for name in ("mean", "q10", "q25", "q50", "q75", "q90")),
                )
                for row in tables["score_quantiles"].sort_values(["category", "teacher"]).to_dict("records")
            ],
            text=(0, 1),
        ),
        "reasons": table(
            "Verdicts and their reasons",
            ("Teacher", "Category", "Verifier", "Verdict", "Reason", "Attempts", "Share"),
            reasons,
            text=(0, 1, 2, 3, 4),
        ),
    }


# --- audit -----------------------------------------------------------------------------------------------------------

#: The tables of an audit: caption, then per column of the CSV its head and how it is shown ("text", "number" or "percent").
_AUDIT_TABLES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "releases": (
        "What was read",
        {
            "release": ("Release", "text"),
            "files": ("Files", "number"),
            "rows": ("Rows", "number"),
            "unreadable": ("Not usable", "number"),
            "repeated": ("Repeated answers", "number"),
            "traces": ("Traces", "number"),
            "queries": ("Different queries", "number"),
            "tokens": ("Tokens", "number"),
        },
    ),
    "layouts": (
        "Layout of each file, and why it was taken for that",
        {
            "release": ("Release", "text"),
            "file": ("File", "text"),
            "layout": ("Layout", "text"),
            "rows": ("Rows", "number"),
            "unreadable": ("Unreadable", "number"),
            "why": ("Why", "text"),
        },
    ),
    "unchecked": (
        "What could not be checked here, and why",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "what": ("Not checked", "text"),
            "why": ("Why", "text"),
            "rows": ("Rows", "number"),
        },
    ),
    "verification": (
        "The publisher’s verdict (rows) against ours (columns); not whole: cut off, or without both parts, so no look was taken "
        "at the answer; agreement: of the answers that both decided",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "published": ("Published", "text"),
            "pass": ("We pass", "number"),
            "fail": ("We fail", "number"),
            "malformed": ("Not whole", "number"),
            "unknown": ("Undecided", "number"),
            "agreement": ("Agreement", "percent"),
        },
    ),
    "faults": (
        "Faults of the text and its fields",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "fault": ("Fault", "text"),
            "meaning": ("That is", "text"),
            "rows": ("Traces", "number"),
            "share": ("Share", "percent"),
            "example": ("For example", "text"),
        },
    ),
    "systems": (
        "System messages: how many different ones, and the most frequent",
        {
            "release": ("Release", "text"),
            "different": ("Different", "number"),
            "system": ("Message", "text"),
            "rows": ("Traces", "number"),
            "share": ("Share", "percent"),
        },
    ),
    "truncation": (
        "Responses that were cut off, or are suspected to be",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "sign": ("Sign", "text"),
            "meaning": ("That is", "text"),
            "rows": ("Traces", "number"),
            "share": ("Share", "percent"),
            "example": ("For example", "text"),
        },
    ),
    "lengths": (
        "Tokens per response",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "traces": ("Traces", "number"),
            "mean": ("Mean", "number"),
            "p1": ("1 %", "number"),
            "p5": ("5 %", "number"),
            "p25": ("25 %", "number"),
            "p50": ("Median", "number"),
            "p75": ("75 %", "number"),
            "p95": ("95 %", "number"),
            "p99": ("99 %", "number"),
            "max": ("Longest", "number"),
        },
    ),
    "repetition": (
        "Repetition: share of a response’s word 8-grams that stood before in it",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "traces": ("Traces", "number"),
            "median": ("Median", "percent"),
            "above_0.3": ("Above 30 %", "number"),
            "above_0.5": ("Above 50 %", "number"),
            "above_0.8": ("Above 80 %", "number"),
            "worst": ("Most", "percent"),
            "example": ("There", "text"),
        },
    ),
    "duplicates": (
        "Duplicates",
        {
            "release": ("Release", "text"),
            "kind": ("Kind", "text"),
            "rows": ("Count", "number"),
            "example": ("For example", "text"),
        },
    ),
    "duplicate_pairs": (
        "Nearly equal queries, the least alike first",
        {"similarity": ("Similarity", "percent"), "query": ("Query of", "text"), "like": ("is like that of", "text")},
    ),
    "contamination": (
        "Benchmark problems in queries and responses",
        {
            "release": ("Release", "text"),
            "benchmark": ("Benchmark", "text"),
            "kind": ("What", "text"),
            "rows": ("Count", "number"),
        },
    ),
    "shared": (
        "Two releases on the queries that both answer; decided: by rule for both",
        {
            "first": ("First", "text"),
            "second": ("Second", "text"),
            "queries": ("Shared queries", "number"),
            "decided": ("Decided", "number"),
            "both_pass": ("Both right", "number"),
            "first_only": ("First alone", "number"),
            "second_only": ("Second alone", "number"),
            "neither": ("Neither", "number"),
            "tokens_first": ("Median tokens, first", "number"),
            "tokens_second": ("Second", "number"),
        },
    ),
    "licences": (
        "Licences, as the configuration names them; a query of several releases counts once",
        {
            "release": ("Release", "text"),
            "category": ("Kind", "text"),
            "licence": ("Licence", "text"),
            "queries": ("Queries", "number"),
        },
    ),
}
#: Columns that name a release, and show its label.
_OF_RELEASE = ("release", "first", "second")


def audit_table(name: str, rows: pd.DataFrame, teachers: Mapping[str, str]) -> Table:
    """One table of the audit for the template."""
    caption, columns = _AUDIT_TABLES[name]

    def cell(column: str, kind: str, value: Any) -> str:
        if column in _OF_RELEASE:
            return teachers[value]
        if kind == "text":
            return "–" if pd.isna(value) else str(value).replace("_", " ") if column == "category" else str(value)
        return percent(value) if kind == "percent" else number(value)

    told = [
        tuple(cell(column, kind, row[column]) for column, (_, kind) in columns.items())
        for row in rows.to_dict("records")
    ]
    text = [place for place, (_, kind) in enumerate(columns.values()) if kind == "text"]
    return table(caption, [head for head, _ in columns.values()], told, text=text)


def build_audit(files: Sequence[str], teachers: Mapping[str, str]) -> dict[str, Any]:
    """The section about published traces, from the tables of summarise_audit."""
    frames = {Path(path).stem: pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in files}
    verified, quoted = frames["verification"], frames["quotations"]
    whole = verified[verified["category"] == ALL] if (verified["category"] == ALL).any() else verified
    decided = whole[whole["published"] != "no score"]
    return {
        "tables": {name: audit_table(name, frames[name], teachers) for name in _AUDIT_TABLES},
        "traces": number(frames["releases"]["traces"].sum()),
        "checked": number(verified.loc[verified["category"] != ALL, ["pass", "fail"]].to_numpy().sum()),
        "against": number(_off_diagonal(verified)),
        "scored": bool(len(decided)),
        "quoted": len(quoted),
        "disagreements": [
            {
                "release": teachers[row["release"]],
                "kind": row["kind"],
                "place": row["location"],
                "told": f"published score {row['published_score']:g}, our reason: {row['reason']}",
                "reference": row["reference"],
                "answer": row["answer"],
            }
            for row in frames["disagreements"].fillna({"reference": "–", "answer": "–"}).to_dict("records")
        ],
        "quotations": [
            {
                "release": teachers[row["release"]],
                "place": f"{row['benchmark']}, {row['problem_id']}",
                "location": row["location"],
                "share": percent(row["share"]),
                "query_share": percent(row["query_share"]),
                "quotation": row["quotation"],
                "problem": row["problem"],
            }
            for row in quoted.fillna({"quotation": "–"}).to_dict("records")
        ],
    }


def _off_diagonal(verified: pd.DataFrame) -> int:
    """Traces on which the publisher and we say opposite things."""
    apart = verified[verified["category"] != ALL]
    passed, failed = apart[apart["published"] == "pass"], apart[apart["published"] == "fail"]
    return int(passed["fail"].sum() + failed["pass"].sum())


# --- corpus ----------------------------------------------------------------------------------------------------------


#: Why the datasets of a control are as they are, by kind.
_KINDS = {
    "parallel": "the queries that every teacher solved",
    "own_passes": "all that each teacher solved",
    "equal_rows": "own passes, cut to the rows of the smallest teacher",
    "equal_tokens": "own passes, cut to the response tokens of the smallest teacher",
    "length_matched": "own passes, as many of each category and bin of length for every teacher",
    "perplexity_matched": "own passes, as many of each category and bin of perplexity for every teacher",
    "length_perplexity_matched": "own passes, as many of each category and bin of length and perplexity for every teacher",
    "score_quantile": "the best-scored of each category of what each teacher solved",
    "format_normalised": "the queries that every teacher solved, with the text in one format; its perplexity is not known",
}


def balance_table(rows: pd.DataFrame, control: str, kind: str, teachers: Mapping[str, str]) -> Table:
    """How alike the datasets of one control are; ``rows`` of its balance."""
    heads = ("Teacher", "Category", "Solved", "In the dataset", "Tokens", "Mean length", "Median", "Perplexity")
    differences = ("Length apart before", "Length apart", "Perplexity apart before", "Perplexity apart")
    caption = (
        f"{control}: {_KINDS[kind]}. Apart: this teacher’s mean less that of the others, in standard deviations, of all that was "
        "solved (before) and in the dataset."
    )
    shown = [
        (
            teachers[row["teacher"]],
            row["category"].replace("_", " "),
            number(row["rows_before"]),
            number(row["rows"]),
            number(row["tokens"]),
            number(row["length_mean"], 1),
            number(row["length_median"], 1),
            number(row["perplexity_mean"], 3),
            *(
                number(row[f"{measure}_difference{suffix}"], 2)
                for measure in ("length", "perplexity")
                for suffix in ("_before", "")
            ),
        )
        for row in rows.to_dict("records")
    ]
    return table(caption, (*heads, *differences), shown, text=(0, 1))


def balances(
    paths: Sequence[str], controls: Mapping[str, Mapping[str, Any]], teachers: Mapping[str, str]
) -> list[dict[str, Table]]:
    """The balance of every control, over all categories and in each; ``paths`` in the order of ``controls``."""
    found = []
    for path, (name, control) in zip(paths, controls.items(), strict=True):
        rows = pd.read_csv(path)
        whole = rows["category"] == ALL
        found.append(
            {
                "whole": balance_table(rows[whole], name, control["kind"], teachers),
                "by_category": balance_table(rows[~whole], name, control["kind"], teachers),
            }
        )
    return found


def ledger_tables(lines: pd.DataFrame) -> list[Table]:
    """One table per step, in the order of the ledger."""
    tables = []
    for step, rows in lines.groupby("step", sort=False):
        shown = []
        for scope, group in rows.groupby("scope", sort=False):
            counts = group.set_index("reason")["rows"]
            reasons = counts.drop(["in", "kept"])
            told = ", ".join(f"{reason} {number(count)}" for reason, count in reasons.items()) or "–"
            shown.append((scope, number(counts["in"]), number(counts["kept"]), number(reasons.sum()), told))
        tables.append(table(step, ("Scope", "In", "Kept", "Dropped", "Reasons"), shown, text=(0, 4)))
    return tables


def contamination_table(flagged: Sequence[Mapping[str, Any]], benchmarks: Mapping[str, str]) -> Table:
    """Flagged queries by benchmark and method."""
    rows = [
        (
            benchmarks.get(row["benchmark"], row["benchmark"]),
            row["method"],
            number(row["flagged"]),
            number(row["dropped"]),
        )
        for row in flagged
    ]
    return table(
        "Queries close to a benchmark problem", ("Benchmark", "Method", "Flagged", "Dropped"), rows, text=(0, 1)
    )


def quoting_table(
    quoted: Sequence[Mapping[str, Any]], teachers: Mapping[str, str], benchmarks: Mapping[str, str]
) -> Table:
    """Responses of each teacher that hold a benchmark problem."""
    rows = [
        (
            teachers[row["teacher"]],
            benchmarks.get(row["benchmark"], row["benchmark"]),
            number(row["query_does_not"]),
            number(row["query_does"]),
        )
        for row in quoted
    ]
    heads = ("Teacher", "Benchmark", "Their query does not", "Their query does")
    return table("Responses that hold a benchmark problem, by whether their query holds one", heads, rows, text=(0, 1))


def contamination_pairs(groups: Sequence[Mapping[str, Any]], benchmarks: Mapping[str, str]) -> list[dict[str, Any]]:
    """The flagged pairs of choose_examples as the page shows them."""
    return [
        {
            "method": group["method"],
            "total": number(group["total"]),
            "pairs": [
                {
                    **pair,
                    "place": f"{benchmarks.get(pair['benchmark'], pair['benchmark'])}, {pair['problem_id']}",
                    "score": number(pair["score"], 3),
                }
                for pair in group["pairs"]
            ],
        }
        for group in groups
    ]


def planted_faults(planted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What became of the planted rows."""
    rows, right = [], 0
    for row in planted:
        wanted = row["planted"] if row["should_stay"] else 0
        right += row["planted"] - abs(row["kept"] - wanted)
        counts = (number(row["planted"] - row["kept"]), number(row["kept"]))
        fate = "stay" if wanted else "go"
        rows.append((row["kind"].replace("_", " "), number(row["planted"]), fate, *counts))
    heads = ("Kind", "Planted", "Should", "Dropped", "Kept")
    total = sum(row["planted"] for row in planted)
    return {"right": right, "total": total, "table": table("Planted rows", heads, rows, text=(0, 2))}


# --- the page --------------------------------------------------------------------------------------------------------


def figure(name: str, svg: str, captions: Path, folder: Path) -> dict[str, str]:
    """One picture for the template, inside the page; its caption is a file of ``captions``, as Snakemake's own report has it."""
    title, least = FIGURES[name]
    caption = " ".join((captions / f"{name}.rst").read_text(encoding="utf-8").split())
    data = base64.b64encode(Path(svg).read_bytes()).decode("ascii")
    stem = Path(os.path.relpath(svg, folder)).with_suffix("").as_posix()
    return {
        "name": name,
        "title": title,
        "caption": caption,
        "least": least,
        "source": f"data:image/svg+xml;base64,{data}",
        "data": f"{stem}.csv",
        "png": f"{stem}.png",
    }


def build(inputs: Mapping[str, Any], study: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Everything the template shows. ``inputs`` are the rule's inputs by name, ``folder`` is where the page will lie."""
    teachers = {name: teacher["label"] for name, teacher in study["teachers"].items()}
    colours = {name: teacher["colour"] for name, teacher in study["teachers"].items()}
    captions = Path(inputs["template"]).parent / "captions"
    chosen = json.loads(Path(inputs["examples"]).read_text(encoding="utf-8"))
    pictures = {Path(svg).stem: figure(Path(svg).stem, svg, captions, folder) for svg in inputs["figures"]}
    benchmarks = study["evaluation"]["benchmarks"] if study["evaluation"] else {}
    labels = {name: benchmark["label"] for name, benchmark in benchmarks.items()}
    page = {
        "study": study["study"],
        "miniature": study["miniature"] is not None,
        "trained": study["training"] is not None,
        "teachers": teachers,
        "audit": build_audit(inputs["found"], teachers) if study["audit"] else None,
        "figures": [pictures[name] for name in FIGURES if name in pictures and name not in _APART],
        "balances": [],
        "costs": None,
        "training": None,
        "example": None,
        "judged": pictures["verdicts"],
        "thresholds": pictures["thresholds"],
        "verdicts": build_verdicts(inputs, teachers),
        "flow": pictures["ledger"],
        "ledger": ledger_tables(pd.read_csv(inputs["ledger"])),
        "sweep": pictures["contamination"],
        "contamination": contamination_table(chosen["flagged"], labels),
        "pairs": contamination_pairs(chosen["pairs"], labels),
        "quoting": quoting_table(chosen["quoted"], teachers, labels),
        "all_pairs": f"{Path(os.path.relpath(inputs['examples'], folder)).parents[1].as_posix()}/corpus/contamination.parquet",
        "planted": None,
        "engines": engines(chosen["engines"], teachers),
        "versions": ", ".join(f"{name} {version}" for name, version in versions(*_PACKAGES).items()),
        "configuration": json.dumps(study, indent=2, ensure_ascii=False),
        "files": sorted({Path(os.path.relpath(path, folder)).as_posix() for path in inputs["files"]}),
    }
    if not study["audit"]:
        page |= build_teachers(inputs, study, teachers, pictures)
        page["example"] = example(chosen["example"], teachers, colours)
    if study["miniature"]:
        page["planted"] = planted_faults(chosen["planted"])
    if page["trained"]:
        page |= build_students(inputs, study, teachers, colours, benchmarks, pictures)
    compared = not study["audit"]
    optional = {
        "audit": not compared,
        "finding": page["trained"],
        "tables": page["trained"],
        "figures": compared,
        "datasets": compared,
        "teachers": compared,
        "traces": page["example"] is not None,
        "costs": compared,
    }
    names = {
        "audit": "Audit",
        "finding": "Finding",
        "tables": "Scores",
        "figures": "Figures",
        "teachers": "Teachers",
        "traces": "Traces",
        "datasets": "Datasets",
        "costs": "Costs",
        "verdicts": "Verdicts",
        "ledger": "Ledger",
        "contamination": "Contamination",
        "settings": "Settings",
        "files": "Files",
    }
    page["sections"] = [(anchor, name) for anchor, name in names.items() if optional.get(anchor, True)]
    return page


def build_teachers(
    inputs: Mapping[str, Any],
    study: Mapping[str, Any],
    teachers: Mapping[str, str],
    pictures: Mapping[str, dict[str, str]],
) -> dict[str, Any]:
    """The part of the page that compares teachers and shows what they cost."""
    perplexity = study["curation"]["perplexity"]
    scorers = list(perplexity["scorers"]) if perplexity else []
    if scorers:
        model = perplexity["scorers"][scorers[0]]["model"]
        pictures["perplexities"]["caption"] += f" This run’s scorer is {scorers[0]} ({model})."
    summary = pd.read_csv(inputs["teachers"])
    comparison = pd.read_csv(inputs["teacher_comparison"])
    everything = (comparison["category"] == ALL) & (comparison["difficulty"] == ALL)
    by_category = (comparison["category"] != ALL) & (comparison["difficulty"] == ALL)
    alpha = 1 - study["statistics"]["confidence"]
    compared = "Paired differences over queries, with intervals. Bold where the interval excludes zero and p after Holm agrees."
    measured = "Solved queries, lengths (tokens) and perplexity of the verified traces; length by difficulty: rank correlation."
    return {
        "queries": number(summary.loc[summary["category"] == ALL, "queries"].max()),
        "summary": teacher_summary(summary[summary["category"] == ALL], teachers, measured),
        "summary_by_category": teacher_summary(summary[summary["category"] != ALL], teachers, measured),
        "comparison": teacher_comparison(comparison[everything], teachers, compared, alpha),
        "comparison_by_category": teacher_comparison(comparison[by_category], teachers, compared, alpha),
        "comparison_by_difficulty": teacher_comparison(
            comparison[comparison["difficulty"] != ALL],
            teachers,
            "The same by difficulty: thirds of each category by how many attempts failed over all teachers.",
            alpha,
        ),
        "attempts": pictures["attempts"],
        "attempts_summary": attempts_summary(pd.read_csv(inputs["attempts_summary"]), teachers),
        "perplexities": perplexity_table(pd.read_csv(inputs["perplexities"]), teachers, _PERPLEXITIES)
        if scorers
        else None,
        "costs": generation_costs(pd.read_csv(inputs["costs"]), teachers),
        "balances": balances(inputs["balances"], study["curation"]["controls"], teachers),
        "duplicates": equal_responses(pd.read_csv(inputs["duplicates"]), teachers),
    }


def build_students(
    inputs: Mapping[str, Any],
    study: Mapping[str, Any],
    teachers: Mapping[str, str],
    colours: Mapping[str, str],
    benchmarks: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, dict[str, str]],
) -> dict[str, Any]:
    """The part of the page that speaks of students."""
    labels = {name: benchmark["label"] for name, benchmark in benchmarks.items()}
    comparison = pd.read_csv(inputs["student_comparison"])
    control = next(iter(study["curation"]["controls"]))
    together = (comparison["benchmark"] == ALL) & (comparison["control"] == control)
    summaries = {}
    for path in inputs["summaries"]:
        student = "/".join(Path(path).parts[-4:-1])
        summaries[student] = json.loads(Path(path).read_text(encoding="utf-8"))
    return {
        "findings": findings(comparison[together], colours),
        "details": findings(comparison[~together], colours),
        "comparisons": len(comparison),
        "differences": pictures["differences"],
        "student_comparison": student_comparison(comparison, teachers, labels, 1 - study["statistics"]["confidence"]),
        "tables": [
            paper_table(
                pd.read_csv(inputs["table1"]),
                "Table 1. Pass@1 in percent, ± standard error over problems.",
                teachers,
                benchmarks,
            ),
            paper_table(pd.read_csv(inputs["table2"]), "Table 2. Mean output tokens per sample.", teachers, benchmarks),
        ],
        # One control alone has nothing to compare its gap with.
        "gaps": gaps(pd.read_csv(inputs["gap_by_control"]), teachers, labels)
        if len(study["curation"]["controls"]) > 1
        else None,
        "conclusions": Path(inputs["conclusions"]).read_text(encoding="utf-8").removeprefix("- ").strip().split("\n- "),
        "student_details": [
            build_table(pd.read_csv(inputs[name]), teachers, labels)
            for name, build_table in (
                ("score_by_cap", scores_by_cap),
                ("adaptivity", adaptivity),
                ("variance_components", variance),
                ("scores_by_contamination", flagged_apart),
            )
        ],
        "students": student_scores(pd.read_csv(inputs["scores"], dtype={"seed": str}), teachers, labels),
        "models": (
            model_scores(pd.read_csv(inputs["model_scores"]), study["evaluation"]["models"], labels)
            if inputs["model_scores"]
            else None
        ),
        "training": training_costs(summaries, teachers),
    }


def environment(folder: Path) -> Environment:
    """The template engine: everything is escaped, and a name the page lacks is an error."""
    loader = FileSystemLoader(folder)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)


def main(inputs: Mapping[str, Any], output: str, study: Mapping[str, Any]) -> None:
    """Write the page. ``study`` is the whole configuration as plain types."""
    template = Path(inputs["template"])
    page = build(inputs, study, Path(output).parent)
    css = Markup(Path(inputs["css"]).read_text(encoding="utf-8"))  # our own file: nothing in it to escape
    write_text(output, environment(template.parent).get_template(template.name).render(page, css=css))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(dict(snakemake.input.items()), snakemake.output[0], snakemake.params.study)  # noqa: F821
