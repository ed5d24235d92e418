"""How far the verifiers agree with other graders, on a folder of graded answers.

    .venv/bin/python tools/measure_agreement.py DATA [--jobs 2] [--only math,code,constraints]

Prints a Markdown table with one line per set, and below it every answer on which we differ, with our reason.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from agreement import Row

PARTS = ("math", "code", "constraints")


def markdown(rows: Sequence[Row]) -> str:
    """The table, and the disagreements of each set."""
    lines = [
        "| set | rows | agree | ours pass, theirs fail | ours fail, theirs pass | ours unknown | notes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {row.set_name} | {row.rows} | {row.agree} ({row.agree / max(row.rows, 1):.1%}) | {row.ours_pass_theirs_fail} "
        f"| {row.ours_fail_theirs_pass} | {row.unknown} | {row.notes} |"
        for row in rows
    ]
    for row in rows:
        if row.disagreements:
            lines += ["", f"{row.set_name}:", ""]
            lines += [
                f"- {one['id']}: ours {one['ours']}, theirs {one['theirs']}: {one['reason']}"
                for one in row.disagreements
            ]
    return "\n".join(lines)


def main(data: Path, jobs: int, parts: Sequence[str]) -> None:
    """Measure ``parts`` and print the table."""
    if not data.is_dir():
        sys.exit(f"measure_agreement: no folder {data}: name the folder of graded answers")
    rows = [row for part in parts for row in import_module(f"agreement.{part}").measure(data, jobs)]
    print(markdown(rows))


def _parts(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    return chosen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=_parts, default=list(PARTS), help="parts, with commas between")
    arguments = parser.parse_args()
    main(arguments.data, arguments.jobs, arguments.only)
