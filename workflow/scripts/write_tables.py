"""Tables 1 (pass@1) and 2 (mean length) of this run beside the paper's.

Reads the students' scores and the paper's two tables; writes each as CSV (control, benchmark, role, origin, teacher,
value, error: standard error over problems) and as Markdown (one line per control and benchmark, this run's teachers
left, the paper's right).
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from whichteacher.outcomes import ALL
from whichteacher.plotting import PAPER, PAPER_LABELS, THIS_RUN, read_published
from whichteacher.tables import write_text

COLUMNS = ["control", "benchmark", "role", "origin", "teacher", "value", "error"]


def prepare(
    run: pd.DataFrame,
    published: pd.DataFrame,
    controls: Sequence[str],
    benchmarks: Mapping[str, Mapping[str, str | None]],
) -> pd.DataFrame:
    """All cells of a table. ``run`` holds control, benchmark, teacher, value and error of this run."""
    roles = pd.DataFrame({"benchmark": list(benchmarks), "role": [found["role"] for found in benchmarks.values()]})
    ours = run.merge(roles, on="benchmark").assign(origin=THIS_RUN)
    students = published[published["statistic"] == "student"]
    paper = students.rename(columns={"item": "role"})[["role", "teacher", "value"]].merge(roles, on="role")
    paper = pd.concat([paper.assign(control=control) for control in controls]).assign(origin=PAPER)
    cells = pd.concat([ours, paper], ignore_index=True)
    order = {name: place for place, name in enumerate([*controls, *benchmarks])}
    cells = cells.sort_values(
        ["control", "benchmark"], key=lambda column: column.map(order), kind="stable", ignore_index=True
    )
    return cells[COLUMNS]


def to_markdown(
    cells: pd.DataFrame, benchmarks: Mapping[str, Mapping[str, str | None]], teachers: Mapping[str, str], title: str
) -> str:
    """The table as Markdown, with one decimal and the standard error where there is one."""
    heads = ["", *teachers.values(), "In place of", *(f"{label} (paper)" for label in PAPER_LABELS.values())]
    rule = ["---", *["---:"] * len(teachers), "---", *["---:"] * len(PAPER_LABELS)]
    lines = [title, "", f"| {' | '.join(heads)} |", f"| {' | '.join(rule)} |"]
    many = cells["control"].nunique() > 1
    for (control, benchmark), row in cells.groupby(["control", "benchmark"], sort=False):
        found = row.set_index(["origin", "teacher"])
        label = benchmarks[benchmark]["label"] + (f" ({control})" if many else "")
        ours = [_cell(found, THIS_RUN, teacher) for teacher in teachers]
        paper = [_cell(found, PAPER, teacher) for teacher in PAPER_LABELS]
        lines.append(f"| {label} | {' | '.join(ours)} | {benchmarks[benchmark]['role'] or '-'} | {' | '.join(paper)} |")
    return "\n".join(lines) + "\n"


def _cell(found: pd.DataFrame, origin: str, teacher: str) -> str:
    if (origin, teacher) not in found.index:
        return "-"
    cell = found.loc[(origin, teacher)]
    error = "" if pd.isna(cell["error"]) else f" ± {cell['error']:.1f}"
    return f"{cell['value']:,.1f}{error}"


def main(
    scores: str,
    published: Sequence[str],
    outputs: Mapping[str, str],
    controls: Sequence[str],
    teachers: Mapping[str, str],
    benchmarks: Mapping[str, Mapping[str, str | None]],
) -> None:
    """Write both tables. ``published`` are the paper's Tables 1 and 2, ``outputs`` table1_csv, table1_md, and so on."""
    read = pd.read_csv(scores, dtype={"seed": str})
    read = read[read["seed"] == ALL]
    keys = read[["control", "benchmark", "teacher"]]
    pass_at_1 = keys.assign(value=100 * read["pass_at_1"], error=100 * read["se_problems"])
    lengths = keys.assign(value=read["mean_tokens"], error=float("nan"))
    for name, run, path, title in (
        (
            "table1",
            pass_at_1,
            published[0],
            "**Table 1.** Pass@1 of the students of each teacher in percent, ± standard error over problems.",
        ),
        (
            "table2",
            lengths,
            published[1],
            "**Table 2.** Mean output tokens per sample of the students of each teacher.",
        ),
    ):
        cells = prepare(run, read_published(path), controls, benchmarks)
        write_text(outputs[f"{name}_csv"], cells.to_csv(index=False))
        write_text(outputs[f"{name}_md"], to_markdown(cells, benchmarks, teachers, title))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.scores,  # noqa: F821
            [snakemake.input.table1, snakemake.input.table2],  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
