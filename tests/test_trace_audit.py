"""The audit of published traces: layouts told apart, and a release with every fault planted once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from summarise_audit import TABLES, length_caps

from whichteacher.config import ConfigError, check_config
from whichteacher.contamination import ProblemIndex
from whichteacher.inspection import FAULTS, SIGNS, find_faults, find_signs
from whichteacher.published import ODDITIES, layout_of, read_query, read_trace
from whichteacher.rows import Fault
from whichteacher.rule import InputError
from whichteacher.words import split_words

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PROSE = (
    "We begin by writing down what is known, then we look for a relation between the unknown quantities, and after some "
    "algebra the whole problem comes down to one linear equation, which is solved by moving every constant to one side "
    "and dividing by the coefficient that is left over there."
)


def am(question, response, **info):
    """A row of the layout ``am``; the references stand in the info of the question."""
    asked = {key: info.pop(key) for key in ("ground_truth", "test_case", "instruction_constrain") if key in info}
    return {
        "system": info.pop("system", "Think first."),
        "conversations": [
            {"from": "human", "value": question, "info": {"source": "made", **asked}},
            {"from": "assistant", "value": response, "info": {"verify_score": 1.0, "ppl": 2.0, **info}},
        ],
    }


def said(thinking, answer):
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def chat(question, response, **more):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": response}]
    return {"messages": turns, **more}


def write_lines(path, rows):
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


# --- layouts ---------------------------------------------------------------------------------------------------------

MARKED = "<|begin_of_thought|>\n\nAdd.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n4\n\n<|end_of_solution|>"


def conversation(question, response):
    return {"conversations": [{"from": "user", "value": question}, {"from": "assistant", "value": response}]}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("row", "layout", "why"),
    [
        (am("Q?", said("t", "4"), ground_truth="4"), "am", "conversations with info"),
        (conversation("Q?", MARKED), "open_thoughts", "conversations with thought marks"),
        (conversation("Q?", "<think>t</think>4"), "open_thoughts", "conversations without info or marks"),
        (chat("Q?", "<think>t</think>4"), "messages", "messages without info"),
        (
            {
                "messages": [
                    {"role": "user", "content": "Q?", "info": {"reference_answer": "4"}},
                    {"role": "assistant", "content": "4"},
                ]
            },
            "am_r1",
            "messages with info",
        ),
    ],
)
def test_a_layout_is_told_from_the_rows_and_says_why(tmp_path, row, layout, why, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([row] * 3), path)
    else:
        write_lines(path, [row] * 3)
    found = layout_of(path, "a", "auto")
    assert found.layout == layout and found.why.startswith(f"3 {why} of the first 3 rows; references: 3 ")
    read_trace(row, layout)


def test_the_layout_of_most_rows_is_that_of_the_file_and_a_given_one_is_kept(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [chat("Q?", "4"), b"no json", chat("Q?", "4"), am("Q?", "4")])
    assert layout_of(path, "a.jsonl", "auto").layout == "messages"
    told = layout_of(path, "a.jsonl", "am")
    assert told.layout == "am" and told.why.startswith("given; 1 of the first 4 rows look like it")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_of_something_else_is_told_with_its_columns(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"question": ["Q?"], "response": ["4"]}), path)
    else:
        write_lines(path, [{"question": "Q?", "response": "4"}])
    with pytest.raises(InputError, match="conversations or messages; its columns are: question, response"):
        layout_of(path, "a", "auto")


def test_references_are_found_where_releases_keep_them():
    assert read_query(am("Q?", "4", ground_truth=4), "am")[1].answer == "4"
    assert read_query(chat("Q?", "4", expected_answer="4"), "messages")[1].places == ("expected_answer of the row",)
    tests = read_query(am("Q?", "4", test_case='{"inputs": ["1\\n"], "outputs": ["2\\n"]}'), "am")[1].tests
    assert json.loads(tests)["call_type"] == "std"
    assert read_query(chat("Q?", "4"), "messages")[1][:4] == (None, None, None, ())


@pytest.mark.parametrize(
    "info",
    [
        {"test_case": "{"},
        {"instruction_constrain": "be brief"},
        {"instruction_constrain": {"instruction_id_list": ["no:such"], "kwargs": [{}]}},
        {"instruction_constrain": {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"x": 1}]}},
        {
            "instruction_constrain": {
                "instruction_id_list": ["length_constraints:number_words"],
                "kwargs": [{"num_words": "9", "relation": "at least"}],
            }
        },
        {"ground_truth": [1]},
    ],
)
def test_a_reference_that_cannot_be_read_is_none_and_said(info):
    row = am("Q?", said("t", "4"), **info)
    turns, references = read_query(row, "am")
    assert turns[0]["content"] == "Q?" and references[:3] == (None, None, None)
    assert isinstance(references.fault, Fault)
    assert read_trace(row, "am").oddities == ("reference_unreadable",)


# --- faults and signs ------------------------------------------------------------------------------------------------

TURNS = [{"role": "user", "content": "What is 2 + 2?"}]
OPEN = f"<think>t</think>{PROSE}"


@pytest.mark.parametrize(
    ("turns", "text", "conversion", "faults"),
    [
        (TURNS, said("t", "4"), "", []),
        (TURNS, "4", "", ["thinking_missing"]),
        (TURNS, "<think>t", "", ["thinking_not_closed"]),
        (TURNS, said("t", "4"), "think_prefilled", ["thinking_not_opened"]),
        (TURNS, said(" ", "4"), "", ["thinking_empty"]),
        (TURNS, "<think>t</think>", "", ["answer_missing"]),
        (TURNS, "<think>t</think><answer>4", "", ["answer_not_closed"]),
        (TURNS, said("t", " "), "", ["answer_empty"]),
        (TURNS, "<think>t</think>So: <answer>4</answer>", "", ["text_outside_tags"]),
        (TURNS, said("<think>t", "4"), "", ["tags_repeated"]),
        (
            [*TURNS, {"role": "assistant", "content": said("t", "4")}, {"role": "user", "content": "And 3 + 3?"}],
            said("t", "6"),
            "",
            ["tags_in_earlier_turns"],
        ),
        (TURNS, said("t<|im_end|>", "4"), "", ["template_tokens"]),
        (TURNS, said("<thinking>t</thinking>", "4"), "", ["foreign_tags"]),
        (TURNS, said("二加二等于四。", "四"), "", ["other_script"]),
        (TURNS, said("t", "So it is four. " * 30), "", ["loop"]),
    ],
)
def test_every_fault_is_found_and_no_other(turns, text, conversion, faults):
    assert find_faults(turns, text, conversion) == faults


def test_every_fault_has_a_case():
    marks = next(mark for mark in test_every_fault_is_found_and_no_other.pytestmark if mark.name == "parametrize")
    assert {fault for case in marks.args[1] for fault in case[3]} == set(FAULTS)


@pytest.mark.parametrize(
    ("text", "conversion", "signs"),
    [
        (said("t", "4"), "", []),
        (said("t", PROSE[:-1]), "", []),  # the model closed its answer itself
        (OPEN + "</answer>", "answer_tags_added", []),
        (OPEN.removesuffix("."), "answer_tags_added", ["no_end"]),
        (f"{OPEN} Hence f(2", "answer_tags_added", ["no_end"]),
        (f"{OPEN}\n- one point\n- another", "answer_tags_added", []),
        ("<think>We look for", "", ["tag_open"]),
        ("<think>t</think><answer>4", "", ["tag_open"]),
        (r"<think>t</think>It is \boxed{\frac{1}{2}", "", ["box_open"]),
        (r"<think>t</think>It is \boxed{\{1, 2\}}.", "", []),
        ("<think>t</think>```python\nprint(1)", "", ["fence_open"]),
        ("forty-two", "", []),
    ],
)
def test_signs_of_truncation(text, conversion, signs):
    assert find_signs(text, conversion, "stop", False) == signs
    assert find_signs(text, conversion, "stop", True) == []
    assert find_signs(text, conversion, "length", True) == ["stated"]


def test_a_length_that_many_have_exactly_is_a_limit():
    spread = list(range(100, 2000, 3))
    assert length_caps(pd.Series([*spread, *[4096] * 40]).to_numpy()) == [4096]
    assert length_caps(pd.Series([*spread, *[150] * 40]).to_numpy()) == []  # short ones are answers, not limits
    assert length_caps(pd.Series(spread * 40).to_numpy()) == []
    assert length_caps(pd.Series([], dtype=int).to_numpy()) == []


def test_short_problems_are_looked_for_in_queries_alone():
    index = ProblemIndex(["Compute 34 + 5 now.", "How many positive divisors has the number 196 in all, please?"], 8)
    text = split_words("Compute 34 + 5 now. How many positive divisors has the number 196 in all, please?")
    assert [found.problem for found in index.overlaps([text])] == [0, 1]
    assert [found.problem for found in index.quoted(text)] == [1] and index.short == 1


# --- configuration ---------------------------------------------------------------------------------------------------


def audit_config(**release):
    return {"study": "mine", "audit": {"releases": {"one": release}}}


def test_only_the_files_are_needed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in ("data/b.jsonl", "data/deep/a.parquet", "code.jsonl", "data/README.md"):
        (tmp_path / name).write_text("")
    study = check_config(audit_config(files={"math": "data", "code": "./code.jsonl"}))
    assert study.corpus.sources["one_math"].files == ["data/b.jsonl", "data/deep/a.parquet"]
    assert study.teachers["one"].traces == "." and study.results == "results/mine"
    assert study.teachers["one"].traces_files == ["data/b.jsonl", "data/deep/a.parquet", "code.jsonl"]
    assert not study.corpus.decontaminate.drop and not study.corpus.deduplicate.drop and study.corpus.shards == 1


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (audit_config(files={"math": "no.jsonl"}), "audit.releases.one: no.jsonl: no such file"),
        (audit_config(files={}), "config key audit.releases.one.files"),
        (audit_config(files={"sums": "a.jsonl"}), "config key audit.releases.one.files.sums"),
        (audit_config(hub="org/data", files={"math": "a.jsonl"}), "revision None of 'org/data' is no commit"),
        ({**audit_config(files={"math": "a.jsonl"}), "teachers": {"a": {}}}, "remove `teachers`"),
    ],
)
def test_faults_of_an_audits_configuration_are_told(config, told):
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert told in str(error.value) and len(str(error.value).splitlines()) == 1


# --- everything, planted once ----------------------------------------------------------------------------------------

SUMS = [(17 * n + 3, 11 * n + 5) for n in range(40)]


def question(n):
    return f"A shelf in row {n} holds {SUMS[n][0]} red and {SUMS[n][1]} blue volumes. How many volumes is that?"


def thought(n, extra=""):
    return f"Red and blue together: {SUMS[n][0]} plus {SUMS[n][1]} gives {sum(SUMS[n])} volumes.{extra}"


def right(n, extra=""):
    return said(thought(n, extra), f"\\boxed{{{sum(SUMS[n])}}}")


def good(n, response=None, **info):
    return am(question(n), response or right(n), ground_truth=str(sum(SUMS[n])), **info)


PROBLEMS = [
    "In the village of Oru each of the 23 houses has either 4 or 7 windows, and there are 122 windows. How many have 7?",
    "Seventeen ferries cross the strait of Lum every 36 minutes. After how many minutes have they crossed 204 times together?",
]


def planted():
    """Rows with one fault each, by what is planted; "" are rows without any."""
    multi = good(20)
    multi["conversations"][:0] = [
        {"from": "human", "value": "What is 1 + 1?", "info": {}},
        {"from": "assistant", "value": said("One and one.", "2"), "info": {}},
    ]
    unscored, unperplexed = good(21), good(22)
    del unscored["conversations"][1]["info"]["verify_score"]
    del unperplexed["conversations"][1]["info"]["ppl"]
    near = f"Please read with care. {PROSE} {question(26)}"
    return [
        *(("", good(n)) for n in range(4)),
        ("they pass it, we fail it", good(5, said(thought(5), "\\boxed{7}"))),
        ("they fail it, we pass it", good(6, verify_score=0.0)),
        ("no_reference", am(question(7), right(7))),
        ("reference_unreadable", am(question(8), right(8), ground_truth=[8])),
        ("thinking_missing", good(9, f"\\boxed{{{sum(SUMS[9])}}}")),
        ("thinking_not_closed", good(10, f"<think>{thought(10)}")),
        ("answer_missing", good(11, f"<think>{thought(11)}</think>")),
        ("answer_not_closed", good(12, f"<think>{thought(12)}</think><answer>\\boxed{{{sum(SUMS[12])}}}")),
        ("text_outside_tags", good(13, f"{right(13)} Done.")),
        ("tags_repeated", good(14, right(14).replace("<think>", "<think><think>"))),
        ("template_tokens", good(15, right(15, " <|im_end|>"))),
        ("foreign_tags", good(16, right(16, " <reflection>"))),
        ("thinking_field_differs", good(17, think_content="Something else.")),
        ("answer_field_differs", good(18, answer_content="Something else.")),
        ("score_not_a_number", good(19, verify_score="1.0")),
        ("tags_in_earlier_turns", multi),
        ("score_missing", unscored),
        ("perplexity_missing", unperplexed),
        ("perplexity_not_a_number", good(23, ppl="2.0")),
        ("loop", good(24, right(24, " Let us check it once more." * 12))),
        ("stated", good(25, finish_reason="length")),
        ("near", am(near, right(26), ground_truth=str(sum(SUMS[26])))),
        ("near", am(near.replace("Please read", "Do read"), right(26, " Yes."), ground_truth=str(sum(SUMS[26])))),
        ("system", good(27, system="Answer like a pirate.")),
        ("query", am(PROBLEMS[0], said(f"The problem: {PROBLEMS[0]} Ten.", "\\boxed{10}"), ground_truth="10")),
        ("response", good(28, right(28, f" That reminds me of this: {PROBLEMS[1]}"))),
        ("box_open", good(29, said(thought(29), "\\boxed{7"))),
        ("same response", am("What do you think of the sea at night?", said("Calm.", "\\boxed{1}"), ground_truth="1")),
        ("same response", am("What do you think of the woods at dawn?", said("Calm.", "\\boxed{1}"), ground_truth="1")),
        ("other answer", good(0, right(0, " Surely."))),
        ("repeated answer", good(1)),
        ("invalid_json", b'{"conversations": '),
    ]


def run(folder, *targets):
    command = [
        "snakemake",
        "-s",
        ROOT / "Snakefile",
        "--configfile",
        folder / "mine.yaml",
        "-d",
        folder,
        "--cores",
        "2",
    ]
    return subprocess.run(
        [sys.executable, "-m", *map(str, command), *targets],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Path:
    """The folder of an audit of the planted release and of a small one beside it."""
    folder = tmp_path_factory.mktemp("audited")
    write_lines(folder / "planted.jsonl", [row for _, row in planted()])
    others = [chat(question(n), f"<think>\n{thought(n)}\n</think>\n\n\\boxed{{{sum(SUMS[n])}}}") for n in range(3)]
    pq.write_table(pa.Table.from_pylist(others), folder / "other.parquet")
    write_lines(
        folder / "problems.jsonl", [{"id": f"p{n}", "problem": p, "answer": "10"} for n, p in enumerate(PROBLEMS)]
    )
    config = {
        "study": "mine",
        "results": "results",
        "audit": {
            "releases": {
                "planted": {"files": {"math": "./planted.jsonl"}, "model": "org/made", "licence": "CC0-1.0"},
                "other": {"files": {"math": ["./other.parquet"]}},
            }
        },
        "evaluation": {
            "benchmarks": {
                "made": {
                    "label": "Made",
                    "role": "MATH500",
                    "path": "./problems.jsonl",
                    "category": "math",
                    "columns": {"id": "id", "prompt": "problem", "answer": "answer"},
                }
            }
        },
        "curation": {"ngrams": {"tokenizer": {"model": "./resources/teachers/tokenizer"}}},
        "verification": {"audit": {"sample": 0}},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = run(folder, "audit")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return folder


def table(folder, name):
    return pd.read_csv(folder / "results" / "statistics" / "audit" / f"{name}.csv")


def places(*kinds):
    """file:line of what is planted under these names."""
    return [f"planted.jsonl:{line}" for line, (kind, _) in enumerate(planted(), 1) if kind in kinds]


@pytest.mark.study
def test_every_planted_fault_is_found_where_it_stands_and_no_other(audited):
    faults = table(audited, "faults")
    found = faults[faults["release"] == "planted"].set_index("fault")
    kinds = {kind for kind, _ in planted()}
    expected = (set(FAULTS) | set(ODDITIES) | {"score_missing", "perplexity_missing"}) & kinds
    # A response whose box stays open is not cut off where its answer tag is closed.
    assert set(found.index) == expected and len(expected) == 17
    for fault in expected:
        assert found.loc[fault, ["rows", "example"]].tolist() == [1, places(fault)[0]], fault
    other = faults[faults["release"] == "other"]
    assert other.empty


@pytest.mark.study
def test_verdicts_are_compared_with_the_publishers(audited):
    verified = table(audited, "verification")
    ours = verified[verified["release"] == "planted"].set_index("published")
    apart = table(audited, "disagreements")
    assert set(apart["location"]) == set(places("they pass it, we fail it", "they fail it, we pass it", "box_open"))
    assert (apart[apart["kind"] == "they fail it, we pass it"]["location"].tolist()) == places(
        "they fail it, we pass it"
    )
    assert ours.loc["pass", "malformed"] == 7
    assert ours.loc["fail", "pass"] == 1 and ours.loc["pass", "unknown"] == 2 and ours.loc["no score", "pass"] == 1
    other = verified[verified["release"] == "other"].set_index("published")
    assert other.index.tolist() == ["no score"] and other.loc["no score", "pass"] == 3


@pytest.mark.study
def test_duplicates_of_every_kind_are_counted(audited):
    rows = table(audited, "duplicates")
    found = {
        row["kind"]: (row["rows"], row["example"]) for row in rows[rows["release"] == "planted"].to_dict("records")
    }
    assert found == {
        "rows whose query stood before in the same file": (2, places("other answer")[0]),
        "queries nearly equal to another": (1, places("near")[1]),
        "rows that repeat an answer to their query word by word": (1, pytest.approx(float("nan"), nan_ok=True)),
        "queries with several different answers": (1, "planted.jsonl:1"),
        "responses that answer several queries word by word": (2, places("same response")[0]),
    }
    shared = table(audited, "shared").iloc[0]
    assert shared[["first", "second", "queries", "both_pass"]].tolist() == ["planted", "other", 3, 3]


@pytest.mark.study
def test_what_a_query_quotes_is_told_from_what_a_response_adds(audited):
    counts = table(audited, "contamination").set_index("kind")["rows"]
    assert counts.to_dict() == {
        "queries that are a benchmark problem": 1,
        "traces of such queries": 1,
        "of these, responses that quote a problem": 1,
        "responses that hold a problem their query does not": 1,
    }
    quoted = table(audited, "quotations").iloc[0]
    assert quoted["location"] == places("response")[0] and quoted["problem"] == PROBLEMS[1]
    assert "That reminds me of this: Seventeen ferries" in quoted["quotation"]


@pytest.mark.study
def test_truncation_is_stated_or_suspected(audited):
    signs = table(audited, "truncation")
    found = {row["sign"]: (row["rows"], row["example"]) for row in signs.to_dict("records")}
    assert found["stated"] == (1, places("stated")[0]) and found["box_open"] == (1, places("box_open")[0])
    assert found["tag_open"][0] == 2 and found["tag_open"][1] in places("thinking_not_closed", "answer_not_closed")
    assert found["thinking_unended"] == (1, places("thinking_missing")[0])
    assert found.keys() == {"stated", "tag_open", "box_open", "thinking_unended"} < set(SIGNS)


@pytest.mark.study
def test_what_cannot_be_checked_is_listed_with_its_reason(audited):
    rows = table(audited, "unchecked")
    own = rows[rows["release"] == "planted"]
    reasons = dict(zip(own["what"] + ": " + own["why"], own["rows"], strict=True))
    assert reasons["whether the answer is right: no reference answer, tests or constraints"] == 2
    assert reasons["anything: unreadable row: invalid_json (see the ledger)"] == 1
    assert reasons["agreement with the publisher: no verify_score"] == 1
    assert (
        reasons["rephrased or translated benchmark problems: no embedder in the configuration: only copies are found"]
        > 30
    )
    assert "which model wrote it" in set(rows[rows["release"] == "other"]["what"])
    dropped = pd.read_parquet(audited / "results/generation/planted/traces.dropped.parquet")
    assert dropped["detail"].str.startswith(f"{places('invalid_json')[0]}: ").sum() == 1


@pytest.mark.study
def test_the_audits_report_has_its_section_and_none_of_students(audited):
    page = (audited / "results" / "report.html").read_text(encoding="utf-8")
    assert '<section id="audit">' in page and "What could not be checked" in page
    for absent in ("finding", "tables", "figures", "teachers", "traces", "costs"):
        assert f'<section id="{absent}">' not in page and f'href="#{absent}"' not in page
    assert page.index('id="audit"') < page.index('id="verdicts"')
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert sorted(path.stem for path in (audited / "results/statistics/audit").iterdir()) == sorted(TABLES)
    assert run(audited, "audit").stderr.count("Nothing to be done") == 1


@pytest.mark.study
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_browser_shows_the_audit(audited):
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    page = f"file://{audited}/results/report.html"
    told = subprocess.run([*browser, "--dump-dom", page], capture_output=True, text=True, check=False, timeout=120)
    assert "What is in these traces?" in told.stdout and "That reminds me of this" in told.stdout


def test_a_study_that_audits_nothing_says_so(tmp_path):
    config = yaml.safe_load((ROOT / "config" / "test.yaml").read_text(encoding="utf-8"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    done = run(tmp_path, "-n", "audit")
    assert done.returncode and "this study audits no published traces" in done.stdout + done.stderr


# --- real traces -----------------------------------------------------------------------------------------------------


def real(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def real_releases(folder):
    """The shared real responses as releases, and their configuration. What became of their answers is said by their sources."""
    math = {"r1": [], "distilled": [], "before": [], "after": []}
    for row in real("outputs/r1_distill_math500_20.jsonl"):
        name = "r1" if row["model"] == "DeepSeek-R1" else "distilled"
        score = float(row["upstream_is_correct"])
        math[name].append(chat(row["problem"], row["full_response"], answer=row["gold"], verify_score=score))
    for row in real("outputs/qwen3b_before_after_rlvr.jsonl"):
        name = "before" if row["model"] == "qwen2.5-3b-instruct" else "after"
        score = float(row["upstream_correct"])
        math[name].append(chat(row["problem"], row["response"], answer=row["gold"], verify_score=score))
    # Programs alone were published, without the words around them.
    problems = {row["question_id"]: row for row in real("code/livecodebench_problems.jsonl") if row["kind"] == "stdin"}
    programs = []
    for row in real("code/livecodebench_submissions.jsonl"):
        if problem := problems.get(row["question_id"]):
            cases = [(case["stdin"], case["stdout"]) for case in problem["public_tests"] or () if case["validated"]]
            cases += [(case["input"], case["expected"]) for case in problem["revealed_tests"] or ()]
            tests = {"inputs": [given for given, _ in cases], "outputs": [wanted for _, wanted in cases]}
            text = f"<think>\nNot published.\n</think>\n\n```python\n{row['code']}\n```"
            score = float(row["passed"])
            programs.append(chat(problem["statement"], text, tests=tests if cases else None, verify_score=score))
    for name, rows in {**math, "programs": programs}.items():
        write_lines(folder / f"{name}.jsonl", rows)
    columns = {"id": "id", "prompt": "problem", "answer": "answer"}
    benchmark = {"role": "MATH500", "category": "math", "columns": columns}
    return {
        "study": "real",
        "results": "results",
        "audit": {
            "releases": {
                **{name: {"files": {"math": f"./{name}.jsonl"}} for name in math},
                "programs": {"files": {"code": "./programs.jsonl"}},
            }
        },
        "evaluation": {
            "benchmarks": {
                "math500": {**benchmark, "label": "MATH-500", "path": str(DATA / "benchmarks" / "math500.jsonl")},
                "aime2024": {**benchmark, "label": "AIME 2024", "path": str(DATA / "benchmarks" / "aime2024.jsonl")},
            }
        },
        "curation": {"ngrams": {"tokenizer": {"model": "./resources/teachers/tokenizer"}}},
        "verification": {"audit": {"sample": 0}},
    }


@pytest.mark.study
@pytest.mark.skipif(not DATA.exists(), reason="needs the shared test data")
def test_real_traces(tmp_path):
    """What docs/audit.md says of them: `pytest -s` prints it."""
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(real_releases(tmp_path), sort_keys=False))
    done = run(tmp_path, "audit")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    with pd.option_context("display.width", 200, "display.max_columns", None, "display.max_colwidth", 60):
        for name in ("releases", "verification", "faults", "truncation", "contamination", "duplicates", "shared"):
            print(f"\n{name}\n{table(tmp_path, name).to_string(index=False)}")
    verified = table(tmp_path, "verification").set_index(["release", "published"])
    # The source's extraction fails on ten right answers (SOURCES.md); whoever passes is rarely failed.
    assert verified.loc[("r1", "fail"), "pass"] + verified.loc[("distilled", "fail"), "pass"] >= 7
    faults = table(tmp_path, "faults").set_index(["release", "fault"])["share"]
    assert faults["before", "thinking_missing"] > 0.95 and faults["after", "answer_not_closed"] > 0.5
    assert verified.loc[("programs", "pass"), "fail"] <= 0.02 * verified.loc[("programs", "pass"), "pass"]
