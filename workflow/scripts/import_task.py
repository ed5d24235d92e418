"""Bring a task of LightEval into the table of problems (BENCHMARK_PROBLEMS), as :mod:`import_benchmark` brings other benchmarks.

A command of its own, because LightEval needs its own environment.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from whichteacher.problems import check_selection, digest_of
from whichteacher.rule import logged
from whichteacher.schemas import BENCHMARK_PROBLEMS
from whichteacher.tables import versions, write_table


def main(name: str, settings: dict[str, Any], table: Path) -> None:
    """Import the benchmark ``name`` with the settings of its configuration."""
    from whichteacher.lighteval_tasks import read_problems

    task, revision, path = settings["task"], settings["revision"], settings["path"]
    excluded = set(settings["exclude"])
    read = read_problems(name, task, settings["category"], revision, path)
    problems = [problem for problem in read if problem["problem_id"] not in excluded]
    place = path or f"LightEval's task {task}"
    check_selection(problems, f"evaluation.benchmarks.{name}", place, settings["expected_problems"])
    provenance = {
        "benchmark": name,
        "from": f"lighteval {task}",
        "revision": revision,
        "ids_sha256": digest_of(problems),
    }
    write_table(table, problems, BENCHMARK_PROBLEMS, {**provenance, "packages": versions("lighteval", "datasets")})
    print(f"{name}: {len(problems)} problems of LightEval's {task}, sha256 of their ids {provenance['ids_sha256']}")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Import a task of LightEval as a benchmark.")
    parser.add_argument("--benchmark", required=True, help="its name in the configuration")
    parser.add_argument("--settings", required=True, type=json.loads, help="its settings, as JSON")
    parser.add_argument("--table", required=True, type=Path, help="table of BENCHMARK_PROBLEMS to write")
    parser.add_argument("--log", required=True, type=Path, help="log file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    told = parse_arguments()
    with logged(SimpleNamespace(rule="import_task", log=[told.log], wildcards={"benchmark": told.benchmark})):
        main(told.benchmark, told.settings, told.table)
