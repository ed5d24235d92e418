"""Bring one benchmark into the table of problems.

Reads the benchmark's file, or its data set on the hub, like a source of queries, but strictly: a benchmark is scored
whole or not at all, so a row that cannot be used is an error.
"""

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whichteacher import livecodebench
from whichteacher.code_tests import code_tests_of
from whichteacher.problems import check_selection, digest_of
from whichteacher.references import infer_type
from whichteacher.rows import (
    ColumnReader,
    Fault,
    Row,
    answer_of,
    answer_type_of,
    label_of,
    read_rows,
    turns_of,
)
from whichteacher.rule import InputError
from whichteacher.schemas import BENCHMARK_PROBLEMS
from whichteacher.tables import write_table

_AIME_ANSWERS = range(1000)


def to_problem(taken: Mapping[str, Any], number: int, benchmark: str, category: str) -> dict[str, Any]:
    """One row of BENCHMARK_PROBLEMS from the mapped values of a row. Raises :class:`Fault`."""
    turns = turns_of(taken)
    if len(turns) != 1:
        raise Fault("wrong_turns", f"{len(turns)} turns; a problem is one message")
    reference = answer_of(taken.get("answer"))
    problem = {
        "problem_id": label_of(taken["id"], "id") if "id" in taken else str(number),
        "benchmark": benchmark,
        "category": category,
        "prompt": turns[0]["content"],
        "reference": reference,
        "reference_type": answer_type_of(taken.get("answer_type")) or infer_type(reference, category),
        "tests": code_tests_of(taken.get("tests"), taken.get("language"), taken.get("checker"), turns[0]["content"]),
        "difficulty": _level(taken.get("difficulty")),
        "starter_code": taken.get("starter_code"),
        "lighteval_doc": None,
    }
    needed = "reference" if category == "math" else "tests"
    if problem[needed] is None:
        raise Fault("missing_column", f"no {'answer' if needed == 'reference' else 'tests'}")
    return problem


def _level(value: Any) -> int | None:
    try:
        return None if value is None else int(label_of(value, "difficulty"))
    except ValueError as error:
        raise Fault("wrong_type", f"difficulty {value!r} is no whole number") from error


def in_window(value: Any, date_from: str | None, date_to: str | None) -> bool:
    """Whether a contest date (``YYYY-MM-DD`` and whatever follows, or a date) lies in the window, ends included.

    Raises :class:`Fault` where it is no date.
    """
    text = value.isoformat() if isinstance(value, datetime.date) else str(value)
    try:
        day = datetime.date.fromisoformat(text[:10])
    except ValueError as error:
        raise Fault("wrong_type", f"contest date {value!r} is no YYYY-MM-DD") from error
    first = datetime.date.fromisoformat(date_from) if date_from else datetime.date.min
    last = datetime.date.fromisoformat(date_to) if date_to else datetime.date.max
    return first <= day <= last


def select_problems(rows: Iterator[Row], name: str, benchmark: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The benchmark's problems inside its date window, without the excluded ones, in the order of the file.

    Raises :class:`InputError` on a row that cannot be used, an id that repeats, an AIME answer that is no integer from
    0 to 999, or another number of problems than expected.
    """
    key = f"evaluation.benchmarks.{name}"
    place = benchmark.get("path") or benchmark["hub"]
    lcb = benchmark.get("layout") == "livecodebench"
    reader = ColumnReader(columns_of(benchmark), key)
    problems: list[dict[str, Any]] = []
    excluded, left_out = set(benchmark.get("exclude") or []), []
    faults: list[tuple[str, Fault]] = []
    aime = benchmark["category"] == "math" and (benchmark["role"] or "").startswith("AIME")
    for row in rows:
        try:
            if row.fault:
                raise row.fault
            taken = reader.take(row.values)
            if lcb:
                # Before the tests, which take most of the time, are unpacked.
                taken["date"] = taken["contest_date"]
            if "date" in taken and not in_window(taken["date"], benchmark.get("date_from"), benchmark.get("date_to")):
                continue
            taken = livecodebench.read_problem(taken) if lcb else taken
            problem = to_problem(taken, row.number, name, benchmark["category"])
            if problem["problem_id"] in excluded:
                left_out.append(problem["problem_id"])
                continue
            if aime and not is_aime_answer(problem["reference"]):
                answer = problem["reference"]
                raise Fault("wrong_type", f"answer {answer!r} is no integer from 0 to 999, as every AIME answer is")
            problems.append(problem)
        except Fault as fault:
            faults.append((row.location, fault))
    reader.check(place)
    if faults:
        location, fault = faults[0]
        more = f" ({len(faults)} such rows)" if len(faults) > 1 else ""
        raise InputError(
            f"{location}: {fault.detail}{more}: mend the file of benchmark {name}, or its mapping in {key}"
        )
    check_selection(problems, key, place, benchmark.get("expected_problems"))
    if left_out:
        print(f"{name}: {len(left_out)} of {len(excluded)} excluded problems left out: {', '.join(left_out)}")
    return problems


def columns_of(benchmark: Mapping[str, Any]) -> dict[str, str | None]:
    """The columns that are read of a benchmark's file, by the names used here."""
    if benchmark.get("layout") == "livecodebench":
        return {column: column for column in livecodebench.COLUMNS}
    return {**benchmark["columns"], "date": benchmark.get("date_column")}


def is_aime_answer(answer: str) -> bool:
    """Whether ``answer`` is an integer from 0 to 999, leading zeros allowed."""
    return answer.isascii() and answer.isdigit() and int(answer) in _AIME_ANSWERS


def main(name: str, benchmark: Mapping[str, Any], table: str) -> None:
    """Import the benchmark ``name`` with the settings ``benchmark``."""
    problems = select_problems(read_rows({**benchmark, "columns": columns_of(benchmark)}), name, benchmark)
    place = Path(benchmark["path"]).name if benchmark.get("path") else benchmark["hub"]
    window = [benchmark.get("date_from"), benchmark.get("date_to")]
    chosen = digest_of(problems)
    provenance = {"benchmark": name, "from": place, "revision": benchmark.get("revision"), "window": window}
    provenance["ids_sha256"] = chosen
    write_table(table, problems, BENCHMARK_PROBLEMS, provenance)
    print(f"{name}: {len(problems)} problems, sha256 of their ids {chosen}")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.params.name, snakemake.params.benchmark, snakemake.output.table)  # noqa: F821
