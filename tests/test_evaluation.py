"""evaluate_student, run as the rule runs it: a command in LightEval's environment, on a store filled beforehand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pytest
import score_samples
from evaluate_student import ENVIRONMENT, parse_arguments, read_problems
from tokenizers import processors
from transformers import AutoTokenizer

from whichteacher.chat import RENDERED, messages, template_bytes
from whichteacher.engines.specs import VllmSpec, request_keys
from whichteacher.rule import InputError
from whichteacher.schemas import BENCHMARK_PROBLEMS, SAMPLES, SCORED_SAMPLES
from whichteacher.store import Store, model_digest
from whichteacher.tables import read_provenance, read_table, write_table

REPOSITORY = Path(__file__).parents[1]
PYTHON = Path(os.environ.get("WHICHTEACHER_EVALUATION_PYTHON", REPOSITORY / ".venv-evaluation" / "bin" / "python"))
needs_lighteval = pytest.mark.skipif(not PYTHON.exists(), reason="no evaluation environment: run make setup")

SYSTEM = "Think first, then answer."
SUFFIX = "Give the final answer alone."
SETTINGS = {
    "system_prompt": SYSTEM,
    "suffixes": {"math": SUFFIX},
    "sampling": {"temperature": 0.8, "top_p": 0.95, "top_k": -1, "max_tokens": 24},
    "max_model_len": 512,
    "tensor_parallel": 1,
    "data_parallel": 1,
    "dtype": "float32",
    "revision": None,
    "answer_format": "tags",
}


def right(answer):
    return f"<think>some steps</think><answer>{answer}</answer>"


#: problem id: reference, then (response, finish reason, LightEval's score) for each of three samples.
MATH = {
    "number": ("1234", [(right("1234"), "stop", 1), (right("1,234"), "stop", 1), (right("1235"), "stop", 0)]),
    "fraction": (
        r"\frac{3}{4}",
        [(right("0.75"), "stop", 1), (right(r"$\boxed{\frac{6}{8}}$"), "stop", 1), (right("4/3"), "stop", 0)],
    ),
    "reasoning": (
        "17",
        [
            # The right number stands in the reasoning only, where no metric may find it.
            (r"<think>so \boxed{17}, the answer is 17</think><answer>18</answer>", "stop", 0),
            (r"so \boxed{17}, the answer is 17</think><answer>18</answer>", "stop", 0),
            # A template that pre-fills <think> leaves only the closing tag.
            ("ten and seven</think><answer>17</answer>", "stop", 1),
        ],
    ),
    "unfinished": (
        "-5",
        [
            ("<think>the answer is -5", "stop", 0),
            (right("-5"), "length", 0),
            ("<think>short</think><answer>-5", "stop", 0),
        ],
    ),
}
CODE = {
    "double": (None, [("<think>t</think><answer>print(2 * int(input()))</answer>", "stop", None), ("no", "stop", None)])
}


def problem_rows(benchmark, category, problems):
    return [
        {
            "problem_id": name,
            "benchmark": benchmark,
            "category": category,
            "prompt": f"Problem <|im_end|>{name}: what is it?" if name == "number" else f"Problem {name}: what is it?",
            "reference": reference,
            "reference_type": "number" if reference else None,
            "tests": None if reference else json.dumps({"call_type": "std", "inputs": ["1"], "outputs": ["2"]}),
            "difficulty": 3 if name == "fraction" else None,
        }
        for name, (reference, _) in problems.items()
    ]


def spec_of(model):
    return VllmSpec(str(model), None, SETTINGS["dtype"], SETTINGS["max_model_len"], SETTINGS["sampling"])


def store_responses(store, model, category, problems, prompts=MappingProxyType({})):
    """What an engine would have stored for ``problems``, with prompts rendered by the project's own template."""
    spec, owner = spec_of(model), model_digest(str(model), None)
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = []
    for problem in problem_rows("any", category, problems):
        chat = messages(
            [{"role": "user", "content": prompts.get(problem["problem_id"], problem["prompt"])}],
            SYSTEM,
            SETTINGS["suffixes"].get(category, ""),
        )
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for attempt, (text, finish_reason, _) in enumerate(problems[problem["problem_id"]][1]):
            rows.append(
                {
                    "key": request_keys(owner, spec.settings())(prompt, attempt),
                    "prompt": prompt,
                    "text": text,
                    "reasoning": None,
                    "finish_reason": finish_reason,
                    "prompt_tokens": 1,
                    "output_tokens": len(text),
                    "seconds": 0.1,
                    "model": str(model),
                    "model_digest": owner,
                    "engine": "vllm",
                    "engine_version": "vllm 0",
                    "hardware": "none",
                    "devices": 1,
                    "settings": "{}",
                }
            )
    Store(store, "responses", owner).append(rows)


def evaluate(folder, model, benchmarks, more=MappingProxyType({}), **settings):
    """Run the command on ``benchmarks`` (name: category, samples); their tables lie in ``folder``. ``more`` holds further
    keys of some."""
    blocks = {
        name: {"category": category, "samples": samples, "layout": None, "task": None}
        for name, (category, samples) in benchmarks.items()
    }
    for name, keys in more.items():
        blocks[name].update(keys)
    command = [PYTHON, REPOSITORY / "workflow" / "scripts" / "evaluate_student.py"]
    command += ["--student", "parallel/steps/0", "--model", model, "--store", folder / "store"]
    command += ["--problems", *(folder / f"{name}.problems.parquet" for name in benchmarks)]
    command += ["--samples", *(folder / f"{name}.parquet" for name in benchmarks)]
    command += ["--settings", json.dumps({**SETTINGS, "benchmarks": blocks, **settings}), "--log", folder / "log"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, cwd=folder)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, tiny_model):
    """A student evaluated on a mathematics and a code benchmark, everything from the store."""
    folder = tmp_path_factory.mktemp("evaluated")
    # Two benchmarks' names a careless harness could confuse with a file and with a built-in task.
    (folder / "sums").write_text("a file of the benchmark's name")
    for name, category, problems in (("sums", "math", MATH), ("aime24", "code", CODE)):
        write_table(folder / f"{name}.problems.parquet", problem_rows(name, category, problems), BENCHMARK_PROBLEMS)
        store_responses(folder / "store", tiny_model, category, problems)
    done = evaluate(folder, tiny_model, {"sums": ("math", 3), "aime24": ("code", 2)})
    assert done.returncode == 0, done.stderr + (folder / "log").read_text()
    return folder


@needs_lighteval
def test_every_stored_sample_is_scored_by_its_answer_alone(evaluated):
    rows = read_table(evaluated / "sums.parquet", SAMPLES).to_pylist()
    assert [(row["problem_id"], row["sample"]) for row in rows] == [(name, n) for name in MATH for n in range(3)]
    expected = {name: [float(score) for *_, score in samples] for name, (_, samples) in MATH.items()}
    assert {name: [row["lighteval_score"] for row in rows if row["problem_id"] == name] for name in MATH} == expected
    assert {row["lighteval_metric"] for row in rows} == {"avg@n:n=3"}
    assert {row["student"] for row in rows} == {"parallel/steps/0"}
    assert {row["problem_id"]: row["difficulty"] for row in rows}["fraction"] == 3


@needs_lighteval
def test_no_engine_starts_when_the_store_holds_everything(evaluated):
    log = (evaluated / "log").read_text()
    assert "14 of 14 responses are in the store" in log
    assert "LightEval avg@n:n=3 0.4167" in log


@needs_lighteval
def test_prompts_are_those_of_training_and_the_code_prompt_is_unchanged(evaluated):
    math, code = (read_table(evaluated / f"{name}.parquet", SAMPLES).to_pylist()[-1] for name in ("sums", "aime24"))
    assert math["prompt"] == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
        f"<|im_start|>user\nProblem unfinished: what is it?\n{SUFFIX}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "<|im_start|>user\nProblem double: what is it?<|im_end|>\n" in code["prompt"]


@needs_lighteval
def test_code_is_drawn_but_never_run_by_lighteval(evaluated):
    rows = read_table(evaluated / "aime24.parquet", SAMPLES).to_pylist()
    assert [row["lighteval_score"] for row in rows] == [None, None]
    assert {row["lighteval_metric"] for row in rows} == {"none"}
    assert rows[0]["answer"] == "print(2 * int(input()))"
    assert rows[1]["answer"] is None


@needs_lighteval
def test_provenance_names_what_made_the_samples(evaluated, tiny_model):
    provenance = read_provenance(evaluated / "sums.parquet")
    assert provenance["model_digest"] == model_digest(str(tiny_model), None)
    assert provenance["settings"]["benchmarks"] == {
        "sums": {"category": "math", "samples": 3, "layout": None, "task": None}
    }
    assert provenance["packages"]["lighteval"]
    assert str(evaluated) not in json.dumps(provenance)


@needs_lighteval
def test_new_samples_are_generated_and_the_old_ones_kept(evaluated, tiny_model, tmp_path):
    """One real engine start: a benchmark is added, with more prompt tokens than one step takes, and a fourth sample."""
    for path in evaluated.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "store").symlink_to(evaluated / "store")
    added = problem_rows(
        "added", "math", {f"number {number}" + ", and" * 10: (str(number), []) for number in range(50)}
    )
    write_table(tmp_path / "added.problems.parquet", added, BENCHMARK_PROBLEMS)
    done = evaluate(tmp_path, tiny_model, {"sums": ("math", 4), "aime24": ("code", 2), "added": ("math", 1)})
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    assert "14 of 68 responses are in the store" in (tmp_path / "log").read_text()
    assert (tmp_path / "aime24.parquet").read_bytes() == (evaluated / "aime24.parquet").read_bytes()
    old, new = (read_table(folder / "sums.parquet", SAMPLES).to_pylist() for folder in (evaluated, tmp_path))
    assert [row["text"] for row in new if row["sample"] < 3] == [row["text"] for row in old]
    assert [row["problem_id"] for row in new if row["sample"] == 3] == list(MATH)
    assert all(row["lighteval_metric"] == "avg@n:n=4" for row in new)
    drawn = [*(row for row in new if row["sample"] == 3), *read_table(tmp_path / "added.parquet", SAMPLES).to_pylist()]
    assert len(drawn) == 4 + 50
    assert all(1 <= row["output_tokens"] <= SETTINGS["sampling"]["max_tokens"] for row in drawn)
    assert len({row["sample_id"] for row in [*new, *drawn]}) == len(new) + 50


@needs_lighteval
def test_a_prompt_is_never_cut(evaluated, tiny_model, tmp_path):
    (tmp_path / "sums.problems.parquet").write_bytes((evaluated / "sums.problems.parquet").read_bytes())
    done = evaluate(tmp_path, tiny_model, {"sums": ("math", 3)}, max_model_len=64)
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("ERROR in")]
    assert len(error) == 1
    assert "evaluate_student (control=parallel, teacher=steps, seed=0)" in error[0]
    assert "evaluation.max_model_len (value 64)" in error[0]
    assert "of sums has" in error[0]
    assert not (tmp_path / "sums.parquet").exists()


@needs_lighteval
def test_a_student_that_would_be_asked_in_other_bytes_than_it_was_trained_in_is_not_asked(tmp_path, tiny_model):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    trained = template_bytes(AutoTokenizer.from_pretrained(model))
    (model / RENDERED).write_text(trained.replace("assistant", "Assistant"))
    write_table(tmp_path / "sums.problems.parquet", problem_rows("sums", "math", MATH), BENCHMARK_PROBLEMS)
    done = evaluate(tmp_path, model, {"sums": ("math", 1)})
    assert done.returncode == 1
    assert "its chat template writes other prompts than those it was trained with" in done.stderr
    assert "Assistant" in done.stderr and "engine started" not in done.stderr


def with_bos(model, folder):
    """A copy of ``model`` whose template writes a token that its tokenizer would add once more, as Llama's and DeepSeek's do."""
    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = next(token for token in tokenizer.get_vocab() if token.startswith("<|") and "start" in token)
    tokenizer.bos_token = start
    tokenizer.chat_template = f"{{{{ '{start}' }}}}" + tokenizer.chat_template
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.convert_tokens_to_ids(start))]
    )
    tokenizer.save_pretrained(folder)
    twice = AutoTokenizer.from_pretrained(folder)(f"{start}a")["input_ids"]
    assert twice[:2] == [tokenizer.bos_token_id] * 2, "this tokenizer would double it"
    return folder


@needs_lighteval
def test_nothing_is_added_to_what_the_template_wrote(tmp_path, tiny_model):
    """One real engine start: the prompt has as many tokens as the rendered text, and no more."""
    model = with_bos(tiny_model, tmp_path / "model")
    write_table(tmp_path / "sums.problems.parquet", problem_rows("sums", "math", MATH), BENCHMARK_PROBLEMS)
    done = evaluate(tmp_path, model, {"sums": ("math", 1)}, max_model_len=1024)
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    tokenizer = AutoTokenizer.from_pretrained(model)
    stored = pa.concat_tables(Store(tmp_path / "store", "responses", model_digest(str(model), None)).tables())
    for prompt, tokens in zip(stored["prompt"].to_pylist(), stored["prompt_tokens"].to_pylist(), strict=True):
        assert prompt.count(tokenizer.bos_token) >= 1
        assert tokens == len(tokenizer(prompt, add_special_tokens=False)["input_ids"])


@needs_lighteval
def test_a_model_that_thinks_natively_is_split_at_its_last_mark(tmp_path, tiny_model):
    """And LiveCodeBench's problems are asked in LightEval's words, with their starter code."""
    answers = {"number": ("1234", [("ten and more</think>So \\boxed{1234}.", "stop", 1)])}
    write_table(tmp_path / "sums.problems.parquet", problem_rows("sums", "math", answers), BENCHMARK_PROBLEMS)
    store_responses(tmp_path / "store", tiny_model, "math", answers)
    code = [{**row, "starter_code": "class Solution:\n    pass"} for row in problem_rows("lcb", "code", CODE)]
    write_table(tmp_path / "lcb.problems.parquet", code, BENCHMARK_PROBLEMS)
    done = evaluate(
        tmp_path,
        tiny_model,
        {"sums": ("math", 1), "lcb": ("code", 1)},
        {"lcb": {"layout": "livecodebench"}},
        answer_format="thinking_only",
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    (row,) = read_table(tmp_path / "sums.parquet", SAMPLES).to_pylist()
    assert (row["thinking"], row["answer"], row["lighteval_score"]) == ("ten and more", "So \\boxed{1234}.", 1.0)
    (row,) = read_table(tmp_path / "lcb.parquet", SAMPLES).to_pylist()
    assert "Question: Problem double: what is it?" in row["prompt"]
    assert "```python\nclass Solution:\n    pass\n```" in row["prompt"]


@needs_lighteval
def test_a_metric_never_averages_over_samples_that_were_not_drawn():
    """LightEval's pass@k divides by the metric's n, however few samples there are."""
    program = (
        "from lighteval.models.model_output import ModelResponse\n"
        "from lighteval.tasks.requests import Doc\n"
        "from whichteacher.lighteval_backend import Task\n"
        "doc = Doc(query='', choices=['$\\\\boxed{2}$'], gold_index=0)\n"
        "compute = Task('sums', 'math', 3, '', None).scoring().sample_level_fn.compute\n"
        "print(compute(doc=doc, model_response=ModelResponse(text=['2', '3', '2'])))\n"
        "compute(doc=doc, model_response=ModelResponse(text=['2', '3']))\n"
    )
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY / "workflow")}
    done = subprocess.run([PYTHON, "-c", program], env=environment, capture_output=True, text=True)
    assert "'avg@n:n=3': 0.666" in done.stdout, done.stderr
    assert "2 samples were drawn where the metric averages 3" in done.stderr


#: As openai/gsm8k has them; LightEval's metric wants the number behind the last ####.
SUMS = [
    {"question": "Ann has 3 nets and buys 4. How many has she?", "answer": "3 + 4 = 7\n#### 7"},
    {"question": "A boat takes 6 people. How many do 5 boats take?", "answer": "5 * 6 = 30\n#### 30"},
]


def import_lighteval(folder, task, rows=(), **settings):
    """Import a task of LightEval from the file of ``rows`` as the rule does."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    block = {"task": task, "path": "rows.jsonl", "revision": None, "category": "task", "exclude": []}
    command = [PYTHON, REPOSITORY / "workflow" / "scripts" / "import_task.py", "--benchmark", "named"]
    command += ["--settings", json.dumps({"expected_problems": None, **block, **settings})]
    command += ["--table", folder / "named.problems.parquet", "--log", folder / "import.log"]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY / "workflow")}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, cwd=folder)


@needs_lighteval
def test_a_task_of_lighteval_is_a_benchmark_by_its_name(tmp_path, tiny_model):
    done = import_lighteval(tmp_path, "gsm8k", SUMS, expected_problems=2)
    assert done.returncode == 0, done.stderr
    problems = read_table(tmp_path / "named.problems.parquet", BENCHMARK_PROBLEMS).to_pylist()
    assert [problem["problem_id"] for problem in problems] == ["0", "1"]
    assert problems[0]["prompt"] == "Question: Ann has 3 nets and buys 4. How many has she?\nAnswer:"
    assert problems[0]["reference"] == SUMS[0]["answer"]

    texts = {"0": [("7", "stop", 1), ("8", "stop", 0)], "1": [("30", "stop", 1), ("30", "length", 0)]}
    prompts = {problem["problem_id"]: problem["prompt"] for problem in problems}
    answers = {name: (None, [(right(text), end, score) for text, end, score in texts[name]]) for name in texts}
    store_responses(tmp_path / "store", tiny_model, "task", answers, prompts)
    done = evaluate(tmp_path, tiny_model, {"named": ("task", 2)}, {"named": {"task": "gsm8k"}})
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    rows = read_table(tmp_path / "named.parquet", SAMPLES).to_pylist()
    assert [row["lighteval_score"] for row in rows] == [1, 0, 1, 0]
    assert {row["lighteval_metric"] for row in rows} == {"extractive_match:n=2"}

    paths = [str(tmp_path / f"named{end}") for end in (".parquet", ".problems.parquet", ".scored.parquet")]
    score_samples.main(*paths, settings={}, answer_format="tags", jobs=1)
    scored = read_table(paths[2], SCORED_SAMPLES).to_pylist()
    assert [(row["verdict"], row["reason"]) for row in scored] == [
        ("pass", "lighteval"),
        ("fail", "lighteval"),
        ("pass", "lighteval"),
        ("fail", "truncated"),
    ]


@needs_lighteval
@pytest.mark.parametrize(
    ("task", "rows", "said"),
    [
        ("gsm9k", SUMS, "LightEval has no task 'gsm9k'"),
        ("lambada:standard", SUMS, "scores no written answers one by one"),
        ("lcb:codegeneration", SUMS, "would run programs without a sandbox"),
        ("gsm8k", [{"problem": "1 + 1"}], "not the columns LightEval's gsm8k reads"),
        ("gsm8k", [], "no problem selected"),
    ],
)
def test_a_task_that_is_none_or_does_not_fit_its_data_is_said_in_one_line(tmp_path, task, rows, said):
    done = import_lighteval(tmp_path, task, rows)
    assert done.returncode != 0
    assert not (tmp_path / "named.problems.parquet").exists()
    line = next(line for line in done.stderr.splitlines() if line.startswith("ERROR in import_task"))
    assert said in line
    assert "Traceback" not in done.stderr


def test_problem_ids_are_unique_and_no_benchmark_is_empty(tmp_path):
    path = tmp_path / "sums.parquet"
    rows = problem_rows("sums", "math", MATH)
    write_table(path, [*rows, rows[0]], BENCHMARK_PROBLEMS)
    with pytest.raises(InputError, match="problem number of benchmark sums is there twice"):
        read_problems({"sums": path})
    write_table(path, [], BENCHMARK_PROBLEMS)
    with pytest.raises(InputError, match="has no problems"):
        read_problems({"sums": path})


def test_the_command_needs_neither_lighteval_nor_vllm_to_be_read():
    paths = ["--model", "m", "--problems", "p", "q", "--samples", "r", "s", "--store", "t", "--log", "u"]
    told = parse_arguments(["--student", "a/b/0", "--settings", '{"dtype": "auto"}', *paths])
    assert told.settings == {"dtype": "auto"}
    assert told.problems == [Path("p"), Path("q")]
    assert "lighteval" not in sys.modules
