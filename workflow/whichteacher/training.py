"""Supervised fine-tuning on verified traces: rendering, exclusion, packing by TRL's trainer, checkpoints, the loss log.

The paper's recipe (section 3.1) is the shape of :class:`whichteacher.config.Recipe`. Loss is on the final response only.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from whichteacher.chat import CHAT_TEMPLATE, END_OF_TURN, PADDING, RENDERED, START_OF_TURN, messages, template_bytes
from whichteacher.places import locate
from whichteacher.preflight import check_training
from whichteacher.rule import InputError, Progress
from whichteacher.tables import write_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

#: Rows that are rendered and tokenised together.
BATCH_ROWS = 256
#: Tokens that a trace may hold as text: the parts of a response.
_PARTS = ("<think>", "</think>", "<answer>", "</answer>")
#: What is no part of the loss (PyTorch's convention).
_IGNORED = -100
_COMPLETE = "complete"
_SAMPLES = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


class Sample(NamedTuple):
    """One training sample: tokens of the rendered prompt, tokens of the response with its end token."""

    prompt: list[int]
    completion: list[int]

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.completion)


class Counts(NamedTuple):
    """What a file of samples holds, and the digest (sha256, hex) of all of its tokens in their order."""

    samples: int
    tokens: int
    loss_tokens: int
    digest: str


def render_samples(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, system_prompt: str
) -> list[Sample]:
    """Samples of ``rows`` (``turns``: the dialogue up to the user's last message, ``response``: what to learn).

    The tokenizer's own chat template renders the prompt, and no special token is added on top of it.
    """
    if not rows:
        return []
    prompts = [
        tokenizer.apply_chat_template(messages(row["turns"], system_prompt), tokenize=False, add_generation_prompt=True)
        for row in rows
    ]
    responses = [row["response"] + tokenizer.eos_token for row in rows]
    # Longer ones than the model is for are excluded by the caller, not warned of one by one.
    encoded = (tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] for texts in (prompts, responses))
    return [Sample(*parts) for parts in zip(*encoded, strict=True)]


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts that a tokenizer reads as structure, the parts of a response excepted. A row that holds one as text would
    end its turn, or begin another, in its middle."""
    texts = {START_OF_TURN, END_OF_TURN, PADDING, *tokenizer.all_special_tokens}
    return tuple(sorted(texts - set(_PARTS)))


def held_control_token(row: Mapping[str, Any], tokens: Iterable[str]) -> str | None:
    """The first of ``tokens`` that a row's turns or response hold as text."""
    texts = [*(turn["content"] for turn in row["turns"]), row["response"]]
    return next((token for token in tokens if any(token in text for text in texts)), None)


def write_samples(path: str | Path, samples: Iterable[Sample]) -> Counts:
    """Write ``samples`` as an Arrow stream (``input_ids``, and ``labels``: the same, -100 where a token carries no loss), a
    batch at a time: a dataset of the paper's size has some ten billion tokens."""
    found, digest = [0, 0, 0], hashlib.sha256()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _SAMPLES) as writer:
        for batch in _batches(samples):
            lengths = np.array([sample.length for sample in batch])
            prompts = np.array([len(sample.prompt) for sample in batch])
            tokens = np.fromiter((token for sample in batch for part in sample for token in part), np.int32)
            places = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            labels = np.where(places < np.repeat(prompts, lengths), np.int32(_IGNORED), tokens)
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
            writer.write_batch(
                pa.record_batch(
                    [pa.ListArray.from_arrays(offsets, pa.array(part)) for part in (tokens, labels)], schema=_SAMPLES
                )
            )
            for part in (lengths.astype(np.int64), tokens, labels):
                digest.update(part.tobytes())
            found = [found[0] + len(batch), found[1] + len(tokens), found[2] + int((labels != _IGNORED).sum())]
    return Counts(*found, digest.hexdigest())


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise :class:`InputError` unless turns can end and padding is another token than the end.

    A padding token that is also the end token masks the end out of the loss, and the student never stops
    (TRL threads 1623, 2059, 3091).
    """
    if tokenizer.eos_token is None or tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise InputError(
            f"{name}: the tokenizer needs an end token ({END_OF_TURN}) and a padding token ({PADDING}) of its own; "
            f"it has {tokenizer.eos_token!r} and {tokenizer.pad_token!r}"
        )
    if tokenizer.chat_template is None:
        raise InputError(f"{name}: the tokenizer has no chat template")
    if len(tokenizer.encode(tokenizer.eos_token, add_special_tokens=False)) != 1:
        raise InputError(f"{name}: the end token {tokenizer.eos_token!r} is not one token of this tokenizer's")
    template_bytes(tokenizer)  # raises where the template writes other bytes for training than for asking


def load_tokenizer(training: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The student's tokenizer with the project's template; ``training`` is the configuration block as plain JSON types."""
    from transformers import AutoTokenizer

    architecture, base = training["architecture"], training["base"]
    if architecture is not None:
        tokenizer = AutoTokenizer.from_pretrained(locate(architecture["tokenizer"]))
        check_tokenizer(tokenizer, architecture["tokenizer"])
        return tokenizer
    tokenizer = AutoTokenizer.from_pretrained(locate(base["model"]), revision=base["revision"])
    tokenizer.chat_template = CHAT_TEMPLATE
    # Qwen2.5's base tokenizer ends texts with <|endoftext|>, which then serves as padding; turns end with <|im_end|>.
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.eos_token = END_OF_TURN
    check_tokenizer(tokenizer, base["model"])
    return tokenizer


def load_student(training: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The student before training: a base model, or a seeded initialisation.

    Weights are float32 where nothing else keeps a copy of that precision: AdamW on bfloat16 weights loses small updates.
    """
    import torch
    from transformers import AutoModelForCausalLM

    architecture, base, recipe = training["architecture"], training["base"], training["recipe"]
    if architecture is not None:
        return build_model(architecture, tokenizer, recipe["attention"])
    copied = recipe["deepspeed"] is not None or recipe["lora"] is not None
    auto = torch.bfloat16 if recipe["bf16"] and copied and torch.cuda.is_available() else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(
            locate(base["model"]),
            revision=base["revision"],
            dtype={"auto": auto}.get(base["dtype"], base["dtype"]),
            attn_implementation=recipe["attention"],
        )
    except ImportError as error:
        raise InputError(
            f"config key training.recipe.attention (value {recipe['attention']}): {error}; sdpa needs nothing"
        ) from error
    _agree_on_ends(model, tokenizer)
    return model


def build_model(
    architecture: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, attention: str = "sdpa"
) -> PreTrainedModel:
    """A Llama-type model of ``architecture`` (keys of :class:`whichteacher.config.Architecture`) with seeded weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(architecture["seed"])
    shape = {name: value for name, value in architecture.items() if name not in ("tokenizer", "seed")}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            num_key_value_heads=architecture["num_attention_heads"],
            tie_word_embeddings=True,
            attn_implementation=attention,
            **shape,
        )
    )
    _agree_on_ends(model, tokenizer)
    return model


def _agree_on_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """One end and one padding token in tokenizer, model and generation settings, so that every engine stops at it."""
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id, config.bos_token_id = (
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
            None,
        )


class Trained(NamedTuple):
    """What a training reports: a row of TRAINING_LOG per optimizer step, its preflight, and what it took.

    ``packed_rows`` are the sequences of one epoch, ``peak_memory`` the bytes of the fullest device (without a GPU: of the
    largest process).
    """

    log: list[dict[str, Any]]
    preflight: dict[str, Any]
    packed_rows: int
    peak_memory: int
    parameters: int
    on_gpus: bool


def train(
    load: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    samples: Path,
    counts: Counts,
    recipe: Mapping[str, Any],
    seed: int,
    work: Path,
    folder: Path,
    step: str,
    checkpoint_steps: int | None = None,
) -> Trained:
    """Train the model that ``load`` gives on the file ``samples`` and save it with its tokenizer in ``folder``.

    ``recipe`` holds the keys of :class:`whichteacher.config.Recipe`, ``counts`` what the file holds. With
    ``checkpoint_steps`` a checkpoint is written to ``work`` every so many steps, and a training that finds one there goes on
    from it. Raises :class:`InputError` where the preflight finds that something else would be trained than intended.
    """
    from datasets import Dataset, disable_progress_bars
    from transformers import set_seed

    disable_progress_bars()
    settings = _settings(recipe, seed, work, checkpoint_steps)
    _join_processes(settings)
    # DeepSpeed's third stage shares weights out while they are loaded: by now it knows that it will.
    model = load()
    set_seed(seed)
    with Progress(step, 0, "steps") as progress:
        trainer = _make_trainer(model, tokenizer, Dataset.from_file(str(samples)), settings, recipe, progress)
        packed_rows, parameters = len(trainer.train_dataset), _parameters(trainer.model)
        recorder = _recorder(trainer, tokenizer, counts)
        trainer.add_callback(recorder)
        trainer.train(resume_from_checkpoint=_last_checkpoint(work, settings))
    memory = _peak_memory(trainer)
    _save(trainer, tokenizer, folder, recipe)
    log = [_log_row(entry) for entry in trainer.state.log_history if "loss" in entry]
    return Trained(log, recorder.preflight, packed_rows, memory, parameters, not settings.use_cpu)


def _settings(recipe: Mapping[str, Any], seed: int, work: Path, checkpoint_steps: int | None) -> SFTConfig:
    """TRL's arguments."""
    import torch
    from trl import SFTConfig

    on_gpu = torch.cuda.is_available()
    if recipe["liger"] and not on_gpu:
        raise InputError("config key training.recipe.liger (value true): Liger's kernels need a GPU: remove it")
    return SFTConfig(
        output_dir=str(work),
        seed=seed,
        data_seed=seed,
        learning_rate=recipe["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=recipe["warmup"],
        num_train_epochs=recipe["epochs"],
        max_steps=recipe["max_steps"] or -1,
        per_device_train_batch_size=recipe["micro_batch_size"],
        gradient_accumulation_steps=recipe["batch_size"] // (recipe["micro_batch_size"] * recipe["devices"]),
        max_length=recipe["max_length"],
        packing=recipe["packing"],
        packing_strategy="bfd",
        completion_only_loss=True,
        weight_decay=recipe["weight_decay"],
        adam_beta2=recipe["adam_beta2"],
        max_grad_norm=recipe["max_grad_norm"],
        bf16=recipe["bf16"] and on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=recipe["gradient_checkpointing"],
        use_liger_kernel=recipe["liger"],
        deepspeed=_deepspeed(recipe["deepspeed"], recipe["offload"]),
        ddp_backend="gloo" if not on_gpu and "RANK" in os.environ else None,
        logging_steps=1,
        save_strategy="no" if checkpoint_steps is None else "steps",
        save_steps=checkpoint_steps or 500,
        # Two, because the older goes before the newer is known to be complete.
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
    )


def _deepspeed(stage: str | None, offload: bool) -> dict[str, Any] | None:
    """DeepSpeed's settings for ZeRO stage 2 or 3; sizes follow the trainer's."""
    if stage is None:
        return None
    zero: dict[str, Any] = {"stage": 2 if stage == "zero2" else 3, "overlap_comm": True}
    if stage == "zero3":
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if stage == "zero3":
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }


def _join_processes(settings: SFTConfig) -> None:
    """Start the process group before any weight is loaded: ZeRO-3 counts the processes when it shares weights out, and
    would count one."""
    if settings.deepspeed is None:
        return
    import deepspeed

    _ = settings.device  # starts accelerate's state, which reads the launcher's variables
    deepspeed.init_distributed("gloo" if settings.use_cpu else "nccl")


def _make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Any,
    settings: SFTConfig,
    recipe: Mapping[str, Any],
    progress: Progress,
) -> SFTTrainer:
    """TRL's trainer, which counts what a resumed training would otherwise forget and adds it to every line of the log."""
    import torch
    from transformers import PrinterCallback
    from trl import SFTTrainer

    class StudentTrainer(SFTTrainer):
        """Counts loss tokens and the seconds of all starts; on CPUs the model's own loss takes the place of TRL's."""

        loss_tokens = 0
        seconds_before = 0.0
        started = time.monotonic()

        def take_up(self) -> None:
            """After a checkpoint was read: count on from where it was."""
            past = [entry for entry in self.state.log_history if "loss" in entry]
            self.started = time.monotonic()
            if past:
                self._total_train_tokens = int(past[-1]["num_tokens"])
                self.loss_tokens, self.seconds_before = past[-1]["loss_tokens"], past[-1]["seconds"]

        def get_batch_samples(self, *arguments: Any, **options: Any) -> tuple[list[Any], Any]:
            batches, items = super().get_batch_samples(*arguments, **options)
            self.loss_tokens += int(items or 0)
            return batches, items

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if not self.args.use_cpu:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            # TRL's head saves the memory of the logits. Its kernels are for GPUs, and without them a step of a narrow model
            # takes a third longer (benchmarks/training.py step --parts).
            inputs = {**inputs, "use_cache": False}
            loss = super(SFTTrainer, self).compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if self.model.training:
                mask = inputs.get("attention_mask")
                here = torch.tensor(inputs["input_ids"].numel()) if mask is None else mask.sum()
                self._total_train_tokens += int(self.accelerator.gather_for_metrics(here).sum())
                self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
            return loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "loss" in logs:
                logs["loss_tokens"] = self.loss_tokens
                logs["seconds"] = self.seconds_before + time.monotonic() - self.started
            super().log(logs, start_time)
            if "loss" in logs:
                rate = logs["num_tokens"] / logs["seconds"]
                progress.total = self.state.max_steps
                progress.advance(1, f"loss {logs['loss']:.3f}, {rate:.0f} tokens/s")

    trainer = StudentTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=dataset,
        args=settings,
        peft_config=_adapters(recipe["lora"]),
    )
    # It prints every step; ``progress`` tells how training fares, and the log's table holds the rest.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _adapters(lora: Mapping[str, Any] | None) -> Any:
    """peft's settings of the adapters, None for full fine-tuning."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _recorder(trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, counts: Counts) -> Any:
    """The callback that runs the preflight when all is set up, and marks checkpoints that are complete."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        """``preflight`` holds what :func:`whichteacher.preflight.check_training` found."""

        preflight: dict[str, Any]

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Take up the counts, then prove what will be trained on."""
            trainer.take_up()
            self.preflight = found = check_training(
                trainer, tokenizer, counts.samples, counts.tokens, counts.loss_tokens
            )
            if args.process_index == 0:
                told = f"{found['samples']} samples, {found['tokens']} tokens, {found['loss_tokens']} with loss, {found['rows']} rows"
                print(f"preflight passed: {told}", flush=True)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Mark the checkpoint once every process has written its part."""
            trainer.accelerator.wait_for_everyone()
            if args.process_index == 0:
                write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE, "")

    return Recorder()


def _last_checkpoint(work: Path, settings: SFTConfig) -> str | None:
    """The last checkpoint in ``work`` that was written to its end; those that were not are removed."""
    found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    complete = [path for path in found if (path / _COMPLETE).exists()]
    with settings.main_process_first(local=False):
        if settings.process_index == 0:
            for path in set(found) - set(complete):
                shutil.rmtree(path, ignore_errors=True)
    if not complete:
        return None
    print(f"going on from {complete[-1].name}")
    return str(complete[-1])


def _parameters(model: Any) -> int:
    """Parameters of the student, wherever DeepSpeed keeps them; adapters are none of them, they are merged."""
    return sum(
        getattr(weights, "ds_numel", weights.numel())
        for name, weights in model.named_parameters()
        if "lora_" not in name
    )


def _peak_memory(trainer: SFTTrainer) -> int:
    """Bytes, the most over all processes."""
    import torch

    if torch.cuda.is_available():
        here = torch.cuda.max_memory_allocated()
    else:
        here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    own = torch.tensor([here], dtype=torch.int64, device=trainer.accelerator.device)
    return int(trainer.accelerator.gather(own).max())


def _save(trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, folder: Path, recipe: Mapping[str, Any]) -> None:
    """An ordinary model folder: weights, tokenizer, template, generation settings; adapters are merged."""
    if recipe["lora"] is None:
        trainer.save_model(str(folder))
    elif trainer.is_world_process_zero():
        trainer.accelerator.unwrap_model(trainer.model).merge_and_unload().save_pretrained(folder)
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(str(folder))
        write_text(folder / RENDERED, template_bytes(tokenizer))
        # TRL leaves its arguments as a pickle, which holds paths and would change a model's identity for nothing.
        (folder / "training_args.bin").unlink(missing_ok=True)


def _log_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A row of TRAINING_LOG from an entry of the trainer's log."""
    return {
        "step": int(entry["step"]),
        "epoch": float(entry["epoch"]),
        "loss": float(entry["loss"]),
        "learning_rate": float(entry["learning_rate"]),
        "gradient_norm": float(entry["grad_norm"]) if "grad_norm" in entry else None,
        "tokens": int(entry["num_tokens"]),
        "loss_tokens": int(entry["loss_tokens"]),
        "seconds": float(entry["seconds"]),
    }
