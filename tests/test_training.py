"""What students are trained on: exactly the intended tokens, the same for every seed but the order."""

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from summarise_training import student_row
from train_student import launcher, read_rows
from train_student import main as train_student
from train_teacher import practice_rows

from whichteacher.chat import check_template, template_bytes
from whichteacher.config import TRAINING_RUNNING, Architecture, Recipe, Training
from whichteacher.miniature.problems import CATEGORIES, draw_problem
from whichteacher.miniature.styles import STYLES, write_trace
from whichteacher.miniature.teachers import check_digests, folder_digests
from whichteacher.miniature.tokenizer import build_tokenizer
from whichteacher.rule import InputError
from whichteacher.schemas import DROPPED, TRACES, TRAINING_LOG
from whichteacher.store import model_digest
from whichteacher.tables import read_frame, write_table
from whichteacher.training import build_model, check_tokenizer, render_samples, train, write_samples

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


def test_a_tokenizer_whose_padding_is_its_end_is_refused(tokenizer):
    import copy

    broken = copy.deepcopy(tokenizer)
    broken.pad_token = broken.eos_token
    with pytest.raises(InputError, match="padding token"):
        check_tokenizer(broken, "here")


def test_of_several_turns_the_last_response_alone_carries_loss(tokenizer):
    turns = [
        {"role": "user", "content": "Compute 1 + 1."},
        {"role": "assistant", "content": "<think>1+1</think><answer>2</answer>"},
        {"role": "user", "content": "Twice that."},
    ]
    (sample,) = render_samples([{"turns": turns, "response": "<think>2+2</think><answer>4</answer>"}], tokenizer, "")
    assert tokenizer.decode(sample.prompt).count("<answer>2</answer><|im_end|>") == 1
    assert tokenizer.decode(sample.completion) == "<think>2+2</think><answer>4</answer><|im_end|>"


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


def made(rows, folder: Path, tokenizer, recipe=RECIPE, seed=1, shape=SHAPE, **options):
    """A model trained on ``rows`` in ``folder``, without a store."""
    folder.mkdir()
    counts = write_samples(folder / "samples.arrow", render_samples(rows, tokenizer, ""))
    return train(
        lambda: build_model(shape, tokenizer),
        tokenizer,
        folder / "samples.arrow",
        counts,
        recipe,
        seed,
        folder / "work",
        folder / "model",
        "test",
        **options,
    )


def test_equal_seeds_give_equal_students_and_others_do_not(tokenizer, tmp_path):
    logs, digests = {}, {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        logs[name] = made(solved(60), tmp_path / name, tokenizer, seed=seed).log
        digests[name] = model_digest(str(tmp_path / name / "model"), None)
    assert [row["loss"] for row in logs["a"]] == [row["loss"] for row in logs["b"]]
    assert [row["loss"] for row in logs["a"]] != [row["loss"] for row in logs["c"]]
    assert digests["a"] == digests["b"] != digests["c"]
    assert logs["a"][-1]["step"] == 3


def test_one_large_batch_is_trained_as_many_small_ones(tokenizer, tmp_path):
    """Samples of very different lengths: a mean of means would weigh short rows more (transformers thread 34191)."""
    rows = solved(40) + solved(40, "recheck")
    logs = {
        micro: made(
            rows,
            tmp_path / f"{micro}",
            tokenizer,
            RECIPE | {"batch_size": 8, "micro_batch_size": micro, "max_length": 384},
        ).log
        for micro in (8, 1)
    }
    for whole, parts in zip(logs[8], logs[1], strict=True):
        assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert parts["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=1e-4)
        assert (parts["tokens"], parts["loss_tokens"]) == (whole["tokens"], whole["loss_tokens"])


def test_a_batch_that_does_not_divide_is_one_clear_line():
    with pytest.raises(ValidationError, match="batch_size 3 is no multiple of micro_batch_size x devices = 2"):
        Recipe(**RECIPE | {"batch_size": 3})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"offload": True}, "offload is DeepSpeed's"),
        ({"lora": {}, "deepspeed": "zero3"}, "use deepspeed zero2 or none with `lora`"),
        ({"attention": "fast"}, "attention"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(wrong, told):
    with pytest.raises(ValidationError, match=told):
        Recipe(**RECIPE | wrong)


def test_adapters_are_merged_into_an_ordinary_student(tokenizer, tmp_path):
    from safetensors.torch import load_file

    made(solved(60), tmp_path / "a", tokenizer, RECIPE | {"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}})
    before, after = build_model(SHAPE, tokenizer).state_dict(), load_file(tmp_path / "a/model/model.safetensors")
    assert set(after) <= set(before) and not any("lora" in name for name in after)
    moved = {name for name, weights in after.items() if not (weights == before[name]).all()}
    assert moved == {name for name in after if "proj" in name}


# --- preflight -------------------------------------------------------------------------------------------------------


def test_the_preflight_counts_decodes_and_proves_isolation(tokenizer, tmp_path):
    rows = solved(60)
    found = made(rows, tmp_path / "a", tokenizer).preflight
    samples = render_samples(rows, tokenizer, "")
    assert found["samples"] == 60
    assert found["tokens"] == sum(sample.length for sample in samples)
    assert found["loss_tokens"] == sum(len(sample.completion) for sample in samples)
    assert found["isolation"]["neighbour"] <= 1e-6 < 1e-4 < found["isolation"]["own"]
    assert found["accumulation"]["apart"] == pytest.approx(found["accumulation"]["together"], rel=1e-5)
    assert set(found["repetition"]) == {"loss", "gradient norm"}
    assert all(first == again > 0 for first, again in found["repetition"].values())
    for runs in found["batch"]:
        assert [run["kind"] for run in runs] == ["prompt", "response", "end"]
        assert runs[0]["text"].endswith("<|im_start|>assistant\n") and runs[2]["text"] == "<|im_end|>"
        assert runs[1]["text"] in {row["response"] for row in rows}


def _keep_cache(monkeypatch):
    """Every layer's attention sees the cache's mask, which knows nothing of packed samples."""
    from transformers import LlamaModel

    forward = LlamaModel.forward
    monkeypatch.setattr(
        LlamaModel, "forward", lambda self, *args, **kwargs: forward(self, *args, **kwargs | {"use_cache": True})
    )


def _mask_of_ones(monkeypatch):
    """What a collator for padded rows would add."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling.torch_call

    def collated(self, examples):
        batch = collate(self, examples)
        return {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}

    monkeypatch.setattr(DataCollatorForLanguageModeling, "torch_call", collated)


@pytest.mark.parametrize("leak", [_keep_cache, _mask_of_ones])
def test_packed_samples_that_see_each_other_end_the_run(leak, tokenizer, tmp_path, monkeypatch):
    leak(monkeypatch)
    with pytest.raises(InputError, match="packed samples see each other"):
        made(solved(60), tmp_path / "a", tokenizer)


def test_a_loss_that_hangs_on_how_a_batch_is_divided_ends_the_run(tokenizer, tmp_path, monkeypatch):
    """The mean of each micro-batch, as of a model whose loss knows nothing of the whole batch."""
    from transformers import Trainer

    whole = Trainer.compute_loss
    monkeypatch.setattr(
        Trainer,
        "compute_loss",
        lambda self, model, inputs, return_outputs=False, num_items_in_batch=None: whole(
            self, model, inputs, return_outputs
        ),
    )
    with pytest.raises(InputError, match=r"8 sequences have the loss .* at once and .* one after another"):
        made(solved(60), tmp_path / "a", tokenizer)


def test_what_no_seed_decides_ends_the_run(tokenizer, tmp_path, monkeypatch):
    """A model that draws from elsewhere than PyTorch's generators."""
    from transformers import LlamaForCausalLM

    forward, scales = LlamaForCausalLM.forward, iter(range(1, 1000))

    def scaled(self, *args, **kwargs):
        found = forward(self, *args, **kwargs)
        return found if not self.training else found.__class__(loss=found.loss * next(scales), logits=found.logits)

    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    with pytest.raises(InputError, match=r"with one seed, the loss of the same sequences is .* and then"):
        made(solved(60), tmp_path / "a", tokenizer)


def test_an_order_that_no_seed_decides_ends_the_run(tokenizer, tmp_path, monkeypatch):
    from accelerate.data_loader import SeedableRandomSampler
    from torch.utils.data import RandomSampler

    orders = itertools.cycle([lambda rows: rows, reversed])
    for sampler in (SeedableRandomSampler, RandomSampler):
        monkeypatch.setattr(sampler, "__iter__", lambda self: iter(next(orders)(range(len(self.data_source)))))
    with pytest.raises(InputError, match="with one seed, the first batches hold the rows"):
        made(solved(60), tmp_path / "a", tokenizer)


def _relabelled(change):
    """A write_samples whose labels ``change`` has been at."""
    write_right = write_samples

    def write(path, samples):
        counts = write_right(path, samples)
        table = pa.ipc.open_stream(path.read_bytes()).read_all()
        labels = [change(list(labels)) for labels in table["labels"].to_pylist()]
        table = table.set_column(1, table.schema.field("labels"), pa.array(labels, table.schema.field("labels").type))
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        return counts._replace(loss_tokens=sum(label != -100 for row in labels for label in row))

    return write


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda labels: [*labels[:-1], -100], "60 of 60 samples do not end with the one end token"),
        (
            lambda labels: [7 if label == -100 else label for label in labels],
            "60 of 60 samples have loss on every token",
        ),
        (lambda labels: [-100] * len(labels), "60 of 60 samples have loss on no token"),
        (lambda labels: [*labels[:-3], -100, *labels[-2:]], "have tokens without loss inside their response"),
        (lambda labels: [*labels[:-2], 7, labels[-1]], "have loss on tokens that are not their own"),
    ],
    ids=["no end", "loss on the prompt", "no loss", "a hole", "another token"],
)
def test_loss_elsewhere_than_on_the_response_ends_the_run(change, told, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("test_training.write_samples", _relabelled(change))
    with pytest.raises(InputError, match=told):
        made(solved(60), tmp_path / "a", tokenizer)


def test_samples_that_went_missing_end_the_run(tokenizer, tmp_path, monkeypatch):
    write = write_samples

    def wrote_more(path, samples):
        return write(path, samples)._replace(samples=61)

    monkeypatch.setattr("test_training.write_samples", wrote_more)
    with pytest.raises(InputError, match="preflight: 60 samples would be trained on, 61 were written for it"):
        made(solved(60), tmp_path / "a", tokenizer)


def test_tokens_that_were_cut_end_the_run(tokenizer, tmp_path):
    """TRL cuts what is longer than a packed row."""
    with pytest.raises(InputError, match="samples do not end with the one end token of their response"):
        made(solved(60), tmp_path / "a", tokenizer, RECIPE | {"max_length": 100})


def test_a_template_that_writes_other_bytes_is_shown_with_a_diff(tokenizer, tmp_path):
    import copy

    trained = tmp_path / "chat_template.rendered.json"
    trained.write_text(template_bytes(tokenizer))
    check_template(tokenizer, trained)
    other = copy.deepcopy(tokenizer)
    other.chat_template = other.chat_template.replace(
        "assistant\\n' }}{%- endif %}", "assistant\\n<think>' }}{%- endif %}"
    )
    assert other.chat_template != tokenizer.chat_template
    with pytest.raises(InputError, match="not as prompt, response and end token"):
        check_template(other, trained)
    other.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<|im_start|> ")
    with pytest.raises(InputError, match=r"(?s)writes other prompts than those it was trained with.*\n-.*\n\+"):
        check_template(other, trained)


def test_the_template_writes_the_same_bytes_as_ever(tokenizer):
    assert hashlib.sha256(template_bytes(tokenizer).encode()).hexdigest() == (
        "e7d043b398030be218a1caf21663323f77d74e5be2c1c1da5f9c35ca64fe96fa"
    )


# --- students --------------------------------------------------------------------------------------------------------


def dataset_of(folder: Path, tokenizer, count=40) -> Path:
    """A dataset of ``count`` good traces, one that is too long and one that holds a token of the template."""
    tokenizer.save_pretrained(folder / "tokenizer")
    rng = random.Random(0)
    traces = [trace_of(draw_problem("math", rng), f"{index:032x}") for index in range(count)]
    traces.append({**traces[0], "query_id": "e" * 32, "thinking": "a <|im_end|> b"})
    traces.append({**traces[0], "query_id": "f" * 32, "thinking": "long " * 400})
    write_table(folder / "d.parquet", traces, TRACES)
    return folder / "d.parquet"


def student(folder: Path, dataset: Path, checkpoint_steps=100, name="parallel/steps/0", **recipe) -> Path:
    """Train as the rule does; the folder of the outputs."""
    training = Training(
        architecture=Architecture(num_hidden_layers=1, tokenizer=str(dataset.parent / "tokenizer")),
        recipe=Recipe(**RECIPE | recipe),
    ).model_dump(mode="json", exclude={"seeds", *TRAINING_RUNNING})
    outputs = {"model": "model", "log": "log.parquet", "preflight": "preflight.json", "summary": "summary.json"}
    outputs |= {kind: f"rows.{kind}.parquet" for kind in ("ledger", "dropped")}
    train_student(
        str(dataset),
        {kind: str(folder / path) for kind, path in outputs.items()},
        str(dataset.parent / "store"),
        training,
        {"checkpoint_steps": checkpoint_steps, "nodes": 1},
        0,
        name,
    )
    return folder


def losses(folder: Path) -> pd.DataFrame:
    return read_frame(folder / "log.parquet", TRAINING_LOG).drop(columns="seconds")


def test_a_student_is_trained_from_a_dataset_and_can_be_loaded(tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = student(tmp_path / "parallel" / "steps" / "0", dataset_of(tmp_path, tokenizer))
    told = json.loads((folder / "summary.json").read_text())
    assert (told["rows"], told["excluded"], told["samples"], told["steps"]) == (42, 2, 40, 3)
    whole = render_samples([row for rows in read_rows(str(tmp_path / "d.parquet")) for row in rows], tokenizer, "")
    assert sum(sample.length for sample in whole) == told["tokens_per_epoch"] + told["excluded_tokens"]
    assert told["digest"] == model_digest(str(folder / "model"), None)
    assert 0.8 < told["fill"] <= 1 and told["peak_memory"] > 2**20 and told["device_hours"] is None
    dropped = read_frame(folder / "rows.dropped.parquet", DROPPED)
    assert dict(zip(dropped["query_id"].str[0], dropped["reason"], strict=True)) == {
        "e": "control_token",
        "f": "too_long",
    }
    assert dropped["detail"].tolist()[0] == "<|im_end|>"
    row = student_row(folder)
    assert (row["teacher"], row["traces"], row["too_long"], row["control_token"]) == ("steps", 42, 1, 1)
    assert row["neighbour_loss"] < row["own_loss"] / 100
    assert row["accumulation_difference"] < 1e-5 and row["repetition_difference"] == 0
    log = losses(folder)
    assert list(log["step"]) == [1, 2, 3] and (log["loss"] > 0).all() and (log["loss_tokens"].diff()[1:] > 0).all()
    loaded = AutoModelForCausalLM.from_pretrained(folder / "model")
    template = AutoTokenizer.from_pretrained(folder / "model").chat_template
    assert template == tokenizer.chat_template
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    card = ModelCard.load(folder / "model" / "README.md")
    assert card.data.library_name == "transformers" and "Student of steps, control parallel, seed 0" in card.text


def test_no_sample_that_fits_is_one_clear_line(tokenizer, tmp_path):
    with pytest.raises(InputError, match=r"none of its 42 samples fits into training\.recipe\.max_length = 16"):
        student(tmp_path / "out", dataset_of(tmp_path, tokenizer), max_length=16)
    assert not list((tmp_path / "store" / "students").iterdir())


def test_a_student_that_was_finished_is_taken_from_the_store(tokenizer, tmp_path, capsys):
    dataset = dataset_of(tmp_path, tokenizer)
    first = student(tmp_path / "first", dataset)
    # Other rows that are left out, another name, other checkpoints: the same student.
    table = pq.read_table(dataset)
    pq.write_table(table.slice(0, table.num_rows - 1), dataset)
    capsys.readouterr()
    again = student(tmp_path / "again", dataset, checkpoint_steps=1, name="own_passes/steps/0")
    assert "the store holds this student" in capsys.readouterr().out
    assert (again / "log.parquet").read_bytes() == (first / "log.parquet").read_bytes()
    assert (again / "model/model.safetensors").samefile(first / "model/model.safetensors")
    assert "control own_passes" in (again / "model/README.md").read_text()
    before, after = (json.loads((folder / "summary.json").read_text()) for folder in (first, again))
    assert after.pop("excluded_tokens") < before.pop("excluded_tokens")
    assert after == before | {"rows": 41, "excluded": 1}
    student(tmp_path / "other", dataset, learning_rate=2e-3)
    assert len(list((tmp_path / "store" / "students").iterdir())) == 2


#: A process that trains as :func:`student` does.
_PROGRAM = """
import sys
from pathlib import Path
from test_training import student
student(Path(sys.argv[1]), Path(sys.argv[2]), checkpoint_steps=2, max_steps=30)
"""


def test_killed_it_goes_on_from_its_last_complete_checkpoint_and_ends_as_if_it_had_not_been(
    tokenizer, tmp_path, capsys
):
    dataset = dataset_of(tmp_path, tokenizer)
    root = Path(__file__).parents[1]
    paths = [str(root / part) for part in ("tests", "workflow", "workflow/scripts")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _PROGRAM, tmp_path / "killed", dataset]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while run.poll() is None and not list(tmp_path.glob("store/students/*/unfinished/checkpoint-1[0-9]/complete")):
        time.sleep(0.02)
    run.kill()
    assert run.wait() == -signal.SIGKILL, "it ended before it could be killed"
    # A checkpoint that was being written looks like one, and is later than the others.
    (unfinished,) = tmp_path.glob("store/students/*/unfinished")
    last = max(unfinished.glob("checkpoint-*/complete"), key=lambda path: path.stat().st_mtime).parent
    shutil.copytree(last, unfinished / "checkpoint-29", ignore=shutil.ignore_patterns("complete", "optimizer.pt"))
    resumed = student(tmp_path / "killed", dataset, checkpoint_steps=2, max_steps=30)
    assert f"going on from {last.name}" in capsys.readouterr().out
    (tmp_path / "store").rename(tmp_path / "store_of_the_killed")
    undisturbed = student(tmp_path / "undisturbed", dataset, max_steps=30)
    pd.testing.assert_frame_equal(losses(resumed), losses(undisturbed))
    digests = {json.loads((folder / "summary.json").read_text())["digest"] for folder in (resumed, undisturbed)}
    assert len(digests) == 1
    left = sorted(path.name for path in tmp_path.glob("store_of_the_killed/students/*/*"))
    assert left == ["finished", "lock"]


@pytest.mark.skipif(not shutil.which("g++"), reason="DeepSpeed builds its CPU operations with g++")
def test_two_processes_under_deepspeed_train_what_one_trains(tokenizer, tmp_path):
    dataset = dataset_of(tmp_path, tokenizer)
    one = student(tmp_path / "one", dataset)
    for stage in ("zero2", "zero3"):
        two = student(tmp_path / stage, dataset, micro_batch_size=1, devices=2, deepspeed=stage)
        expected, found = losses(one), losses(two)
        for column in ("loss", "learning_rate", "gradient_norm"):
            assert list(found[column]) == pytest.approx(list(expected[column]), rel=1e-4), (stage, column)
        assert list(found["tokens"]) == list(expected["tokens"])
        summaries = [json.loads((folder / "summary.json").read_text()) for folder in (one, two)]
        assert summaries[0]["parameters"] == summaries[1]["parameters"]
        weights = [load_weights(folder / "model/model.safetensors") for folder in (one, two)]
        for name, values in weights[0].items():
            assert weights[1][name].shape == values.shape
            assert float((weights[1][name].float() - values).abs().max()) < 1e-4, (stage, name)


def load_weights(path: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(path)


def test_several_nodes_are_reached_through_slurm(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="several nodes need a Slurm job"):
        launcher(16, 2)
    (tmp_path / "srun").touch(0o755)
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho node-a\necho node-b\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node-[a-b]")
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    command = launcher(16, 2)
    assert command[:5] == ["srun", "--overlap", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert {"--nnodes=2", "--nproc-per-node=8", "--rdzv-endpoint=node-a:20041", "--rdzv-id=41"} <= set(command)


def test_the_shipped_models_are_as_recorded():
    root = Path(__file__).parents[1] / "resources" / "teachers"
    assert check_digests(root) is None
    assert set(folder_digests(root)) == set(json.loads((root / "digests.json").read_text()))
    assert all((root / name / "model.safetensors").is_file() for name in ("steps", "recheck", "leaps", "scorer"))
