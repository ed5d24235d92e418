"""The report: one self-contained HTML page that a browser opens from disk, without network or script.

Reads what the statistics and figures wrote, the single rows that choose_examples picked among them. Writes ``report.html``,
with its pictures inside and links to the data files relative to itself. The tables of its parts are made in
``whichteacher.report``.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from whichteacher.outcomes import ALL
from whichteacher.report.audit import build_audit
from whichteacher.report.corpus import (
    contamination_pairs,
    contamination_table,
    ledger_tables,
    planted_faults,
    quoting_table,
)
from whichteacher.report.costs import generation_costs
from whichteacher.report.datasets import balances
from whichteacher.report.formatting import number
from whichteacher.report.source import link, read
from whichteacher.report.students import (
    adaptivity,
    findings,
    flagged_apart,
    gaps,
    model_scores,
    paper_table,
    scores_by_cap,
    student_comparison,
    student_scores,
    variance,
)
from whichteacher.report.teachers import (
    attempts_summary,
    engines,
    equal_responses,
    example,
    perplexity_table,
    teacher_comparison,
    teacher_summary,
)
from whichteacher.report.training import packed_batches, training_costs, training_data
from whichteacher.report.verdicts import build_verdicts
from whichteacher.tables import versions, write_text

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
_PACKAGES = ("pandas", "pyarrow", "matplotlib", "jinja2")


def figure(name: str, svg: str, captions: Path, folder: Path) -> dict[str, str]:
    """One picture for the template, inside the page; its caption is a file of ``captions``, as Snakemake's own report has it."""
    title, least = FIGURES[name]
    caption = " ".join((captions / f"{name}.rst").read_text(encoding="utf-8").split())
    data = base64.b64encode(Path(svg).read_bytes()).decode("ascii")
    stem = link(Path(svg).with_suffix(""), folder)
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
    chosen = read(inputs["examples"], folder)
    pictures = {Path(svg).stem: figure(Path(svg).stem, svg, captions, folder) for svg in inputs["figures"]}
    benchmarks = study["evaluation"]["benchmarks"] if study["evaluation"] else {}
    labels = {name: benchmark["label"] for name, benchmark in benchmarks.items()}
    verdicts = {
        name.removeprefix("audit_"): read(path, folder) for name, path in inputs.items() if name.startswith("audit_")
    }
    page = {
        "study": study["study"],
        "miniature": study["miniature"] is not None,
        "trained": study["training"] is not None,
        "teachers": teachers,
        "audit": None,
        "figures": [pictures[name] for name in FIGURES if name in pictures and name not in _APART],
        "balances": [],
        "costs": None,
        "example": None,
        "judged": pictures["verdicts"],
        "thresholds": pictures["thresholds"],
        "verdicts": build_verdicts(verdicts, teachers),
        "flow": pictures["ledger"],
        "ledger": ledger_tables(read(inputs["ledger"], folder)),
        "sweep": pictures["contamination"],
        "contamination": chosen.part("flagged").table(contamination_table, labels),
        "pairs": contamination_pairs(chosen.content["pairs"], labels),
        "quoting": chosen.part("quoted").table(quoting_table, teachers, labels),
        "all_pairs": link(Path(inputs["examples"]).parents[1] / "corpus/contamination.parquet", folder),
        "planted": None,
        "engines": chosen.part("engines").table(engines, teachers),
        "versions": ", ".join(f"{name} {version}" for name, version in versions(*_PACKAGES).items()),
        "configuration": json.dumps(study, indent=2, ensure_ascii=False),
        "files": sorted({link(path, folder) for path in inputs["files"]}),
    }
    if study["audit"]:
        # Texts of others: no word of theirs stands for a missing value.
        told = {"keep_default_na": False, "na_values": [""]}
        page["audit"] = build_audit({Path(path).stem: read(path, folder, **told) for path in inputs["found"]}, teachers)
    else:
        page |= build_teachers(inputs, study, folder, teachers, pictures)
        page["example"] = example(chosen.content["example"], teachers, colours)
    if study["miniature"]:
        page["planted"] = planted_faults(chosen.part("planted"))
    if page["trained"]:
        page |= build_students(inputs, study, folder, teachers, colours, benchmarks, pictures)
    compared = not study["audit"]
    optional = {
        "audit": not compared,
        "finding": page["trained"],
        "tables": page["trained"],
        "figures": compared,
        "datasets": compared,
        "teachers": compared,
        "traces": page["example"] is not None,
        "training": page["trained"],
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
        "training": "Training",
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
    folder: Path,
    teachers: Mapping[str, str],
    pictures: Mapping[str, dict[str, str]],
) -> dict[str, Any]:
    """The part of the page that compares teachers and shows what they cost."""
    perplexity = study["curation"]["perplexity"]
    scorers = list(perplexity["scorers"]) if perplexity else []
    if scorers:
        model = perplexity["scorers"][scorers[0]]["model"]
        pictures["perplexities"]["caption"] += f" This run’s scorer is {scorers[0]} ({model})."
    summary, comparison = (read(inputs[name], folder) for name in ("teachers", "teacher_comparison"))
    of_all = summary.content["category"] == ALL
    all_categories, all_difficulties = (comparison.content[name] == ALL for name in ("category", "difficulty"))
    alpha = 1 - study["statistics"]["confidence"]
    compared = "Paired differences over queries, with intervals. Bold where the interval excludes zero and p after Holm agrees."
    by_difficulty = "The same by difficulty: thirds of each category by how many attempts failed over all teachers."
    measured = "Solved queries, lengths (tokens) and perplexity of the verified traces; length by difficulty: rank correlation."
    return {
        "queries": number(summary.content.loc[of_all, "queries"].max()),
        "summary": summary.part(of_all).table(teacher_summary, teachers, measured),
        "summary_by_category": summary.part(~of_all).table(teacher_summary, teachers, measured),
        **{
            name: comparison.part(rows).table(teacher_comparison, teachers, caption, alpha)
            for name, rows, caption in (
                ("comparison", all_categories & all_difficulties, compared),
                ("comparison_by_category", ~all_categories & all_difficulties, compared),
                ("comparison_by_difficulty", ~all_difficulties, by_difficulty),
            )
        },
        "attempts": pictures["attempts"],
        "attempts_summary": read(inputs["attempts_summary"], folder).table(attempts_summary, teachers),
        "perplexities": read(inputs["perplexities"], folder).table(perplexity_table, teachers) if scorers else None,
        "costs": read(inputs["costs"], folder).table(generation_costs, teachers),
        "balances": balances(
            [read(path, folder) for path in inputs["balances"]], study["curation"]["controls"], teachers
        ),
        "duplicates": read(inputs["duplicates"], folder).table(equal_responses, teachers),
    }


def build_students(
    inputs: Mapping[str, Any],
    study: Mapping[str, Any],
    folder: Path,
    teachers: Mapping[str, str],
    colours: Mapping[str, str],
    benchmarks: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, dict[str, str]],
) -> dict[str, Any]:
    """The part of the page that speaks of students."""
    labels = {name: benchmark["label"] for name, benchmark in benchmarks.items()}
    controls, alpha = study["curation"]["controls"], 1 - study["statistics"]["confidence"]
    comparison = read(inputs["student_comparison"], folder)
    rows = comparison.content
    shown = (rows["benchmark"] == ALL) & (rows["control"] == next(iter(controls)))
    conclusions = Path(inputs["conclusions"]).read_text(encoding="utf-8")
    conclusions = conclusions.replace("`", "").removeprefix("- ").strip().split("\n- ")
    # One control alone has nothing to compare its gap with.
    several = len(controls) > 1
    scores = read(inputs["scores"], folder, dtype={"seed": str})
    training = read(inputs["training"], folder)
    titles = {
        "table1": "Table 1. Pass@1 in percent, ± standard error over problems.",
        "table2": "Table 2. Mean output tokens per sample.",
    }
    return {
        "findings": findings(rows[shown], colours, conclusions if several else ()),
        "details": findings(rows[~shown], colours, conclusions if several else ()),
        "comparisons": len(rows),
        "differences": pictures["differences"],
        "student_comparison": comparison.table(student_comparison, teachers, labels, alpha),
        "tables": [
            read(inputs[name], folder).table(paper_table, title, teachers, benchmarks) for name, title in titles.items()
        ],
        "gaps": read(inputs["gap_by_control"], folder).table(gaps, teachers, labels) if several else None,
        "conclusions": conclusions,
        "student_details": [
            read(inputs[name], folder).table(make, teachers, labels)
            for name, make in (
                ("score_by_cap", scores_by_cap),
                ("adaptivity", adaptivity),
                ("variance_components", variance),
                ("scores_by_contamination", flagged_apart),
            )
        ],
        "students": scores.table(student_scores, teachers, labels),
        "models": (
            read(inputs["model_scores"], folder).table(model_scores, study["evaluation"]["models"], labels)
            if inputs["model_scores"]
            else None
        ),
        "training": training.table(training_costs, teachers),
        "trained_on": training.table(training_data, teachers),
        "batches": packed_batches(
            [read(path, folder) for path in inputs["preflights"]],
            [teachers[Path(path).parts[-3]] for path in inputs["preflights"]],
        ),
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
