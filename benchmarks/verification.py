"""What verifying mathematics costs beside math-verify in a plain loop, where the two differ, and what hostile answers cost.

    .venv/bin/python benchmarks/verification.py DATA [--jobs 2] [--repeats 3] [--integers 20000] [--deadline 10]

DATA is a folder with `verification/real_predictions_graded.jsonl`: pairs of a reference and the prediction of a model.

The baseline is math-verify as its documentation has it, `verify(parse("$reference$"), parse("$prediction$"))` with its default
time limits, called in a loop in one process; its clock starts after the import. Ours is what the rule `verify_responses` calls,
`verify_many` with so many jobs on whole responses with the prediction in a box and the types that the import gives the
references; its clock starts before its processes do, and counts their CPU time. Each repeat runs either once, in turn, each in a
fresh process. Ratios are baseline / ours, the median over the repeats and their range.

The mix is every pair; the integers are the pairs of two integers, repeated to so many rows, and a tenth of that for the baseline.
Every pair on which the two decide otherwise is listed with the trap that explains it; one without makes the benchmark fail.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

_INTEGER = re.compile(r"[+-]?\d+")

#: What explains a difference, by our reason.
TRAPS = {
    "timeout": "beyond the deadline: unknown, not wrong",
    "out_of_reach": "too large to write out: unknown, not wrong",
    "unproven": "equal wherever one looks, but not simplified: unknown, not wrong",
    "reference_unreadable": "the reference cannot be read: unknown, not wrong",
    "no_box": "no closed box",
    "other_unit": "units",
    "base_missing": "bases",
    "other_cardinality": "a part of what was asked for",
    "several_boxes": "several boxes",
    "other_brackets": "brackets",
    "other_text": "words are no products of letters",
    "decimal_comma": "decimal comma",
}

#: What explains a difference in value, by what one of the two is written with.
NOTATIONS = {
    r"\d[eE][+-]?\d": "powers of ten: 3e8 is no product with e",
    r"\d[x×]\s*10": "a number read in part: 1.2x10⁻³ is not 1.2",
    r"\d(?:eV|Å)": "units",
    r"_\{\\[a-z]|E_": "subscripts that math-verify does not read",
    r"\d,\d{3}": "groups of three digits",
}

#: Answers that cost a naive verifier its time, its memory or its life.
HOSTILE = {
    "a power that no machine writes out": r"\boxed{9999999^{9999999}}",
    "a tower of powers": r"\boxed{9^{9^{9^{9^{9}}}}}",
    "a huge factorial": r"\boxed{(10^{9})!}",
    "a huge binomial coefficient": r"\boxed{\binom{10^{9}}{5 \cdot 10^{8}}}",
    "100 kB of digits": r"\boxed{" + "7" * 100_000 + "}",
    "100 kB of sums": r"\boxed{" + "1+" * 50_000 + "1}",
    "10,000 brackets deep": r"\boxed{" + "(" * 10_000 + "1" + ")" * 10_000 + "}",
    "25 brackets deep": r"\boxed{" + "(" * 25 + "x" + ")" * 25 + "}",
    "10,000 open boxes": r"\boxed{" * 10_000 + "1",
    "25 fractions deep": r"\boxed{" + r"\frac{1}{" * 25 + "x" + "}" * 25 + "}",
    "an integral": r"\boxed{\int_0^1 e^{\sin(x^{x})} \cos(x^{x^{2}}) dx}",
    "a sum of many terms": r"\boxed{\sum_{k=1}^{10^{9}} \frac{1}{k^{k}+\sin k}}",
}


def read_pairs(data: Path) -> list[dict[str, Any]]:
    """Rows with ``id``, ``gold`` and ``pred``."""
    with (data / "verification" / "real_predictions_graded.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def integers(pairs: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """``count`` pairs of two integers, over and over."""
    whole = [pair for pair in pairs if _INTEGER.fullmatch(pair["gold"]) and _INTEGER.fullmatch(pair["pred"])]
    return list(islice(cycle(whole), count))


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def run_baseline(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """math-verify in a plain loop, in this process."""
    from math_verify import parse, verify

    wall, cpu = time.perf_counter(), _cpu()
    verdicts = [verify(parse(f"${pair['gold']}$"), parse(f"${pair['pred']}$")) for pair in pairs]
    return {
        "wall": time.perf_counter() - wall,
        "cpu": _cpu() - cpu,
        "verdicts": [["pass" if verdict else "fail", ""] for verdict in verdicts],
    }


def run_ours(pairs: list[dict[str, Any]], jobs: int, deadline: float) -> dict[str, Any]:
    """``verify_many``, in this process and those it starts."""
    from whichteacher.config import Verification
    from whichteacher.references import infer_type
    from whichteacher.responses import join_response
    from whichteacher.verifiers.dispatch import verify_many

    rows = [
        {
            "attempt_id": pair["id"],
            "query_id": pair["id"],
            "category": "math",
            "text": join_response("It can be calculated.", rf"\boxed{{{pair['pred']}}}"),
            "finish_reason": "stop",
            "answer_format": "tags",
            "reference": pair["gold"],
            "reference_type": infer_type(pair["gold"], "math"),
        }
        for pair in pairs
    ]
    settings = Verification(deadline_seconds=deadline)
    wall, cpu = time.perf_counter(), _cpu()
    verdicts = verify_many(rows, settings, jobs)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": _cpu() - cpu,
        "verdicts": [[verdict["verdict"], verdict["reason"]] for verdict in verdicts],
    }


def measure(side: str, data: Path, count: int, jobs: int, deadline: float) -> dict[str, Any]:
    """One side (``ours`` or ``baseline``) in a process of its own, on the mix (``count`` 0) or on so many integers."""
    command = [sys.executable, __file__, data, "--side", side, "--integers", count]
    command += ["--jobs", jobs, "--deadline", deadline]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, data: Path, counts: tuple[int, int], arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Print the ratios of one set; returns what either side said in the last repeat. ``counts`` are those of :func:`measure`."""
    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    for repeat in range(arguments.repeats):
        theirs = measure("baseline", data, counts[0], arguments.jobs, arguments.deadline)
        ours = measure("ours", data, counts[1], arguments.jobs, arguments.deadline)
        each = [[1000 * side[clock] / len(side["verdicts"]) for side in (theirs, ours)] for clock in ratios]
        for clock, (one, other) in zip(ratios, each, strict=True):
            ratios[clock].append(one / other)
        told = ", ".join(
            f"{clock} {one:.3f} / {other:.3f} = {one / other:.1f}"
            for clock, (one, other) in zip(ratios, each, strict=True)
        )
        print(f"{name}, repeat {repeat}: math-verify / ours, ms per pair: {told}", flush=True)
    for clock, values in ratios.items():
        print(
            f"{name}: {clock} ratio {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})",
            flush=True,
        )
    return theirs["verdicts"], ours["verdicts"]


def trap_of(pair: dict[str, Any], ours: list[str]) -> str | None:
    """What explains that math-verify says otherwise; None where nothing does."""
    if ours[1] in TRAPS:
        return TRAPS[ours[1]]
    both = f"{pair['gold']} {pair['pred']}"
    return next((trap for pattern, trap in NOTATIONS.items() if re.search(pattern, both)), None)


def list_differences(pairs: list[dict[str, Any]], theirs: list[list[str]], ours: list[list[str]]) -> bool:
    """Print the pairs decided otherwise; whether each has its trap."""
    explained = True
    differ = [(pair, one, other) for pair, one, other in zip(pairs, theirs, ours, strict=True) if one[0] != other[0]]
    print(f"decided otherwise: {len(differ)} of {len(pairs)}")
    for pair, one, other in differ:
        trap = trap_of(pair, other)
        explained = explained and trap is not None
        print(
            f"  {pair['id']}: math-verify {one[0]}, ours {other[0]} ({other[1]}): {trap or 'UNEXPLAINED'}: "
            f"{pair['gold'][:60]} | {pair['pred'][:60]}"
        )
    return explained


def try_hostile(deadline: float) -> bool:
    """Print what each hostile answer costs one process; whether it costs no more than its deadline and the process goes on."""
    from whichteacher.verifiers.pool import RuleProcess

    process, held = RuleProcess(deadline), True
    process.run("math", r"\boxed{\sqrt{4}}", "2", "number")
    print(f"hostile answers, deadline {deadline:g} s of CPU time")
    for name, answer in HOSTILE.items():
        wall, cpu = time.perf_counter(), _cpu()
        outcome = process.run("math", answer, "17", "number")
        wall = time.perf_counter() - wall
        after = process.run("math", r"\boxed{\sqrt{4}}", "2", "number")
        process.close()
        cpu = _cpu() - cpu
        # A process of the verifier takes a second to start, and may be started twice here.
        held = held and outcome.score != 1 and after.score == 1 and cpu < deadline + 4
        told = "unknown" if outcome.score is None else "fail"
        print(
            f"  {name}: {wall:.2f} s wall, {cpu:.2f} s CPU with start: {told} ({outcome.reason}); next: {after.reason}"
        )
        process = RuleProcess(deadline)
    return held


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--integers", type=int, default=20_000)
    parser.add_argument("--deadline", type=float, default=10.0)
    parser.add_argument("--side", choices=("ours", "baseline"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.data)
    if arguments.side:
        chosen = integers(pairs, arguments.integers) if arguments.integers else pairs
        run = run_baseline if arguments.side == "baseline" else None
        found = run(chosen) if run else run_ours(chosen, arguments.jobs, arguments.deadline)
        print(json.dumps(found))
        return
    theirs, ours = compare("mix", arguments.data, (0, 0), arguments)
    explained = list_differences(pairs, theirs, ours)
    counts = (max(1, arguments.integers // 10), arguments.integers)
    theirs, ours = compare("integers", arguments.data, counts, arguments)
    explained = list_differences(integers(pairs, counts[0]), theirs, ours[: counts[0]]) and explained
    if not try_hostile(arguments.deadline) or not explained:
        sys.exit("verification: a difference without a reason, or a hostile answer that cost more than its deadline")


if __name__ == "__main__":
    main()
