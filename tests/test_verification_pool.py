"""Rules in processes of their own: batches, deaths, hung processes, load; and the labelled cases, which run there."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from whichteacher.references import infer_type
from whichteacher.rule import InputError
from whichteacher.verifiers import pool
from whichteacher.verifiers.dispatch import structure
from whichteacher.verifiers.fitness import Fit, references_fit
from whichteacher.verifiers.outcome import Outcome
from whichteacher.verifiers.pool import RuleProcess, Task, run_rules

ROOT = Path(__file__).parents[1]
CASES = ROOT / "resources" / "verifier_cases"
HOSTILE = Task("math", (r"\boxed{9999999^{9999999}}", "7", "number"))
RIGHT = Task("math", (r"\boxed{\sqrt{12}}", r"2\sqrt{3}", "expression"))
WRONG = Task("math", (r"\boxed{\sqrt{12}}", r"3\sqrt{2}", "expression"))


def reasons(outcomes):
    return [outcome.reason for outcome in outcomes]


def test_a_hostile_answer_costs_its_own_verdict_alone():
    process = RuleProcess(1)
    try:
        assert reasons(process.run_many([RIGHT, HOSTILE, WRONG])) == ["same_value", "timeout", "other_value"]
    finally:
        process.close()


def test_answers_come_in_the_order_of_their_tasks_and_are_counted():
    tasks = [RIGHT, Task("math", (r"\boxed{4}", "4", "number")), WRONG, RIGHT, Task("math", ("none", "4", "number"))]
    counted = []
    outcomes = run_rules(tasks, 5, 2, counted.append)
    assert reasons(outcomes) == ["same_value", "same_text", "other_value", "same_value", "no_box"]
    assert sum(counted) == len(tasks)


def test_no_tasks_need_no_process(monkeypatch):
    monkeypatch.setattr(pool, "RuleProcess", None)
    assert run_rules([], 5, 2) == []
    assert reasons(run_rules([Task("math", (r"\boxed{5}", "4", "number"))], 5, 2)) == ["other_integer"]


def test_an_input_error_names_its_task():
    unknown = json.dumps({"instruction_id_list": ["no:such"], "kwargs": [{}]})
    with pytest.raises(InputError, match=r"^query q7: .*no:such"):
        run_rules([RIGHT, Task("constraints", ("answer", unknown), "query q7")], 5, 2)


def test_a_process_that_dies_is_replaced_within_its_batch(monkeypatch):
    process = RuleProcess(5)
    first = process._line

    def killed(started):
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
        monkeypatch.setattr(process, "_line", first)
        return first(started)

    try:
        assert process.run_many([RIGHT]) == [process.run(*RIGHT[:1], *RIGHT.arguments)]
        monkeypatch.setattr(process, "_line", killed)
        outcomes = process.run_many([HOSTILE, RIGHT])
        assert reasons(outcomes) == ["verifier_died", "same_value"]
        assert outcomes[0].evidence == {"status": -signal.SIGKILL}
    finally:
        process.close()


def test_verifiers_that_cannot_start_end_the_run(monkeypatch, tmp_path):
    """Rather than leaving every answer undecided."""
    (tmp_path / "broken").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (tmp_path / "broken").chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "broken"))
    with pytest.raises(InputError, match="cannot run here"):
        run_rules([RIGHT], 5)


def test_a_process_that_sleeps_is_given_up(monkeypatch):
    monkeypatch.setattr(pool, "_ASLEEP_SECONDS", 0.1)
    process = RuleProcess(5)
    try:
        assert process.run("math", *RIGHT.arguments).reason == "same_value"
        os.kill(process._process.pid, signal.SIGSTOP)
        assert reasons(process.run_many([WRONG, RIGHT])) == ["verifier_died", "same_value"]
    finally:
        process.close()


def test_a_process_that_computes_or_waits_for_a_processor_is_not_asleep():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    asleep = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        time.sleep(0.5)
        assert pool._activity(busy.pid) != pool._activity(busy.pid)
        seen = pool._activity(asleep.pid)
        while (again := pool._activity(asleep.pid)) != seen:  # it is still starting
            time.sleep(0.1)
            seen = again
        assert pool._activity(asleep.pid) == seen
    finally:
        for process in (busy, asleep):
            process.kill()
            process.communicate()


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_batches_hold_every_task_once(count):
    spans = list(pool._batches(count, 2))
    assert [index for span in spans for index in range(count)[span]] == list(range(count))
    assert all(span.stop - span.start <= 64 for span in spans)


# --- references ------------------------------------------------------------------------------------------------------


def test_references_are_checked_by_their_category():
    rows = [
        {"query_id": "a", "category": "math", "reference": r"2\sqrt{3}", "reference_type": "expression"},
        {"query_id": "b", "category": "math", "reference": r"\frac{3}{", "reference_type": "expression"},
        {"query_id": "c", "category": "science", "reference": "12 N", "reference_type": "number"},
        {"query_id": "d", "category": "general", "reference": None, "reference_type": None},
        {"query_id": "e", "category": "code", "reference": None, "reference_type": None},
        {"query_id": "f", "category": "math", "reference": "9999999^{9999999}+x", "reference_type": "expression"},
        {"query_id": "g", "category": "science", "reference": "The rate doubles.", "reference_type": "text"},
    ]
    assert references_fit(rows, 2, 2) == [
        Fit("a", True, "same_text"),
        Fit("b", False, "no_box"),
        Fit("c", True, "same_number"),
        Fit("d", None, "no_reference"),
        Fit("e", None, "other_verifier"),
        Fit("f", False, "timeout"),
        Fit("g", True, "same_text"),
    ]


# --- labelled cases --------------------------------------------------------------------------------------------------

FIELDS = {
    "case_id": str,
    "category": str,
    "trap": str,
    "text": str,
    "finish_reason": str,
    "reference": (str, type(None)),
    "reference_type": (str, type(None)),
    "right": bool,
    "expected": str,
    "note": str,
}


def read_cases(category):
    with (CASES / f"{category}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def verdicts(cases, category, jobs):
    """Our outcome of each case."""
    outcomes = {}
    tasks = {}
    for case in cases:
        answer = structure(case["text"], case["finish_reason"], "tags")
        kind = case["reference_type"] or infer_type(case["reference"], category)
        if isinstance(answer, Outcome):
            outcomes[case["case_id"]] = answer
        else:
            tasks[case["case_id"]] = Task(category, (answer, case["reference"], kind))
    outcomes.update(zip(tasks, run_rules(list(tasks.values()), 2, jobs), strict=True))
    return outcomes


@pytest.mark.parametrize(("category", "least"), [("math", 170), ("science", 60)])
def test_labelled_cases_are_well_formed(category, least):
    cases = read_cases(category)
    assert len(cases) >= least
    assert len({case["case_id"] for case in cases}) == len(cases)
    for case in cases:
        assert case.keys() == FIELDS.keys(), case["case_id"]
        assert all(isinstance(case[field], kind) for field, kind in FIELDS.items()), case["case_id"]
        assert case["category"] == category and case["expected"] in ("pass", "fail", "unknown")
    labels = Counter(case["right"] for case in cases)
    assert min(labels.values()) >= 0.3 * len(cases)


@pytest.mark.parametrize("category", ["math", "science"])
def test_wrong_verdicts_on_labelled_cases_are_those_the_docs_state(category):
    """The table of docs/verification.md is the one place that says how many there are."""
    docs = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
    stated = re.search(rf"\| `{category}.jsonl` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", docs)
    cases = read_cases(category)
    outcomes = verdicts(cases, category, 2)
    passed = sum(outcomes[case["case_id"]].score == 1 and not case["right"] for case in cases)
    failed = sum(outcomes[case["case_id"]].score == 0 and case["right"] for case in cases)
    unknown = sum(outcome.score is None for outcome in outcomes.values())
    assert [str(number) for number in (len(cases), passed, failed, unknown)] == list(stated.groups())


def test_verdicts_depend_neither_on_order_nor_on_batches():
    cases = [case for case in read_cases("math") if case["trap"] != "timeout"]
    cases = random.Random(5).sample(cases, 60)
    assert verdicts(cases, "math", 2) == verdicts(cases[::-1], "math", 1)
