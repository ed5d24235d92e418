"""What students are trained on: exactly the intended tokens, the same for every seed but the order."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from train_student import main as train_student
from train_teacher import practice_rows

from whichteacher.config import Architecture, Recipe, Training
from whichteacher.miniature.problems import CATEGORIES, draw_problem
from whichteacher.miniature.styles import STYLES, write_trace
from whichteacher.miniature.teachers import check_digests, folder_digests
from whichteacher.miniature.tokenizer import build_tokenizer
from whichteacher.rule import InputError
from whichteacher.schemas import TRACES, TRAINING_LOG
from whichteacher.store import model_digest
from whichteacher.tables import read_frame, write_table
from whichteacher.training import Sample, build_model, check_tokenizer, fits, render_samples, train

SHAPE = Architecture(num_hidden_layers=1, tokenizer="").model_dump()
RECIPE = Recipe(
    learning_rate=1e-3, max_steps=3, batch_size=4, micro_batch_size=2, max_length=256, bf16=False,
    gradient_checkpointing=False,
).model_dump()  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def trace_of(problem, identifier: str) -> dict:
    thinking, answer = write_trace(problem, "steps")
    return {
        "query_id": identifier,
        "source": "made",
        "source_row": identifier,
        "category": problem.category,
        "licence": "Apache-2.0",
        "turns": [{"role": role, "content": content} for role, content in problem.turns],
        "reference": problem.reference,
        "reference_type": problem.reference_type,
        "tests": None,
        "constraints": None,
        "attempt_id": identifier,
        "teacher": "steps",
        "system": "",
        "prompt": "",
        "thinking": thinking,
        "answer": answer,
        "verify_score": 1.0,
        "attempts": 1,
        "output_tokens": 10,
        "cut_characters": 0,
        "perplexity": None,
    }


def solved(count: int, style: str = "steps") -> list[dict]:
    return practice_rows("test", (style,), count, 0.5)


def test_the_tokenizer_keeps_digits_apart_and_text_whole(tokenizer):
    assert tokenizer.tokenize("907") == ["9", "0", "7"]
    assert tokenizer.encode("<think>") == [tokenizer.convert_tokens_to_ids("<think>")]
    text = "naïve 數學 \t<answer>"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_loss_is_on_the_response_and_ends_with_the_end_token(tokenizer):
    rows = [
        {"turns": [{"role": "user", "content": "Compute 1 + 1."}], "response": "<think>2</think><answer>2</answer>"}
    ]
    (sample,) = render_samples(rows, tokenizer, "Be brief.")
    assert tokenizer.decode(sample.prompt) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nCompute 1 + 1.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(sample.completion) == rows[0]["response"] + "<|im_end|>"
    assert sample.completion[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_long_samples_are_excluded_not_cut():
    assert fits(Sample([1] * 10, [2] * 10), 20) and not fits(Sample([1] * 10, [2] * 11), 20)


def test_a_tokenizer_whose_padding_is_its_end_is_refused(tokenizer):
    import copy

    broken = copy.deepcopy(tokenizer)
    broken.pad_token = broken.eos_token
    with pytest.raises(InputError, match="padding token"):
        check_tokenizer(broken, "here")


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(CATEGORIES))
def test_every_style_ends_in_the_same_right_answer(rng, category):
    problem = draw_problem(category, rng)
    answers = {write_trace(problem, style)[1] for style in STYLES}
    assert len(answers) == 1
    if problem.reference is not None:
        assert f"\\boxed{{{problem.reference}}}" in answers.pop()


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_recheck_is_the_longest_and_leaps_the_shortest(rng):
    problem = draw_problem("math", rng)
    lengths = [len(write_trace(problem, style)[0]) for style in ("leaps", "steps", "recheck")]
    assert lengths == sorted(lengths)


def test_packed_samples_do_not_see_each_other(tokenizer):
    """Change one sample of a packed row: the logits of its neighbour must not move."""
    import torch

    model = build_model(SHAPE, tokenizer).eval()
    first, second = torch.arange(10, 40), torch.arange(50, 90)

    def packed_logits(first):
        ids = torch.cat([first, second])[None]
        positions = torch.cat([torch.arange(len(first)), torch.arange(len(second))])[None]
        with torch.inference_mode():
            return model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, len(first) :]

    with torch.inference_mode():
        alone = model(input_ids=second[None], use_cache=False).logits[0]
    assert torch.allclose(packed_logits(first), alone, atol=1e-5)
    assert torch.allclose(packed_logits(first), packed_logits(first.flip(0)), atol=1e-5)


def test_equal_seeds_give_equal_students_and_others_do_not(tokenizer, tmp_path):
    samples = render_samples(solved(60), tokenizer, "")
    logs, digests = {}, {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        logs[name] = train(build_model(SHAPE, tokenizer), tokenizer, samples, RECIPE, seed, tmp_path / name, "test")
        digests[name] = model_digest(str(tmp_path / name), None)
    assert [row["loss"] for row in logs["a"]] == [row["loss"] for row in logs["b"]]
    assert [row["loss"] for row in logs["a"]] != [row["loss"] for row in logs["c"]]
    assert digests["a"] == digests["b"] != digests["c"]
    assert logs["a"][-1]["step"] == 3


def test_a_batch_that_does_not_divide_is_one_clear_line(tokenizer, tmp_path):
    recipe = RECIPE | {"batch_size": 3}
    with pytest.raises(InputError, match="batch_size"):
        train(build_model(SHAPE, tokenizer), tokenizer, [], recipe, 0, tmp_path, "test")


def test_a_student_is_trained_from_a_dataset_and_can_be_loaded(tokenizer, tmp_path):
    import random

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer.save_pretrained(tmp_path / "tokenizer")
    rng = random.Random(0)
    problems = [draw_problem("math", rng) for _ in range(40)]
    traces = [trace_of(problem, f"{index:032x}") for index, problem in enumerate(problems)]
    traces.append({**traces[0], "query_id": "f" * 32, "thinking": "long " * 400})
    write_table(tmp_path / "d.parquet", traces, TRACES)
    training = Training(
        architecture=Architecture(num_hidden_layers=1, tokenizer=str(tmp_path / "tokenizer")), recipe=Recipe(**RECIPE)
    ).model_dump(mode="json", exclude={"seeds"})
    log, summary = tmp_path / "log.parquet", tmp_path / "summary.json"
    train_student(str(tmp_path / "d.parquet"), str(tmp_path / "model"), str(log), str(summary), training, 0)
    told = json.loads(summary.read_text())
    assert (told["rows"], told["excluded"], told["steps"]) == (41, 1, 3)
    assert told["digest"] == model_digest(str(tmp_path / "model"), None)
    losses = read_frame(log, TRAINING_LOG)
    assert list(losses["step"]) == [1, 2, 3] and (losses["loss"] > 0).all()
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    template = AutoTokenizer.from_pretrained(tmp_path / "model").chat_template
    assert template == tokenizer.chat_template
    assert student.generation_config.eos_token_id == tokenizer.eos_token_id


def test_the_shipped_models_are_as_recorded():
    root = Path(__file__).parents[1] / "resources" / "teachers"
    assert check_digests(root) is None
    assert set(folder_digests(root)) == set(json.loads((root / "digests.json").read_text()))
    assert all((root / name / "model.safetensors").is_file() for name in ("steps", "recheck", "leaps", "scorer"))
