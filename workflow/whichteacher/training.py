"""Supervised fine-tuning on verified traces: rendering, exclusion of long samples, TRL's trainer, the loss log.

The paper's recipe (section 3.1) is the shape of :class:`whichteacher.config.Recipe`. Loss is on the final response only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from whichteacher.chat import END_OF_TURN, PADDING, messages
from whichteacher.places import locate
from whichteacher.rule import InputError, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Sample(NamedTuple):
    """One training sample: tokens of the rendered prompt, tokens of the response with its end token."""

    prompt: list[int]
    completion: list[int]


def render_samples(
    rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, system_prompt: str
) -> list[Sample]:
    """Samples of ``rows`` (``turns``: the dialogue up to the user's last message, ``response``: what to learn).

    The tokenizer's own chat template renders the prompt, and no special token is added on top of it.
    """
    samples = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(
            messages(row["turns"], system_prompt), tokenize=False, add_generation_prompt=True
        )
        samples.append(
            Sample(
                tokenizer.encode(prompt, add_special_tokens=False),
                tokenizer.encode(row["response"] + tokenizer.eos_token, add_special_tokens=False),
            )
        )
    return samples


def fits(sample: Sample, max_length: int) -> bool:
    """Whether a sample is trained on. The paper excludes longer ones and never cuts them (section 3.1)."""
    return len(sample.prompt) + len(sample.completion) <= max_length


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


def load_student(training: Mapping[str, Any]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The student before training: a base model with the project's template, or a seeded initialisation.

    ``training`` is the configuration block of that name as plain JSON types.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    architecture, base = training["architecture"], training["base"]
    if architecture is not None:
        tokenizer = AutoTokenizer.from_pretrained(locate(architecture["tokenizer"]))
        check_tokenizer(tokenizer, architecture["tokenizer"])
        return build_model(architecture, tokenizer), tokenizer
    from whichteacher.chat import CHAT_TEMPLATE

    tokenizer = AutoTokenizer.from_pretrained(locate(base["model"]), revision=base["revision"])
    tokenizer.chat_template = CHAT_TEMPLATE
    # Qwen2.5's base tokenizer ends texts with <|endoftext|>, which then serves as padding; turns end with <|im_end|>.
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.eos_token = END_OF_TURN
    check_tokenizer(tokenizer, base["model"])
    dtype = {"auto": torch.bfloat16 if training["recipe"]["bf16"] else torch.float32}.get(base["dtype"], base["dtype"])
    model = AutoModelForCausalLM.from_pretrained(locate(base["model"]), revision=base["revision"], dtype=dtype)
    _agree_on_ends(model, tokenizer)
    return model, tokenizer


def build_model(architecture: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
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


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sample],
    recipe: Mapping[str, Any],
    seed: int,
    folder: Path,
    step: str,
) -> list[dict[str, Any]]:
    """Train ``model`` on ``samples`` and save it with its tokenizer in ``folder``.

    ``recipe`` holds the keys of :class:`whichteacher.config.Recipe`. Returns one row of TRAINING_LOG per optimizer step.
    """
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    rows: list[dict[str, Any]] = []
    start = time.monotonic()

    class Recorder(TrainerCallback):
        """Collects the loss of every step."""

        def __init__(self, progress: Progress) -> None:
            self.progress = progress

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Learn how many steps there will be."""
            self.progress.total = state.max_steps

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            """Keep one row per step."""
            if "loss" in logs:
                rows.append(
                    {
                        "step": state.global_step,
                        "epoch": float(logs["epoch"]),
                        "loss": float(logs["loss"]),
                        "learning_rate": float(logs["learning_rate"]),
                        "tokens": int(logs["num_tokens"]),
                        "seconds": time.monotonic() - start,
                    }
                )
                rate = rows[-1]["tokens"] / rows[-1]["seconds"]
                self.progress.advance(1, f"loss {rows[-1]['loss']:.3f}, {rate:.0f} tokens/s")

    disable_progress_bars()
    set_seed(seed)
    accumulation, rest = divmod(recipe["batch_size"], recipe["micro_batch_size"] * recipe["devices"])
    if rest or not accumulation:
        raise InputError(
            f"config key training.recipe.batch_size (value {recipe['batch_size']}): no multiple of micro_batch_size x devices = "
            f"{recipe['micro_batch_size'] * recipe['devices']}"
        )
    on_gpu = torch.cuda.is_available()
    with Progress(step, 0, "steps") as progress:
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict(
                {
                    "input_ids": [sample.prompt + sample.completion for sample in samples],
                    "completion_mask": [[0] * len(sample.prompt) + [1] * len(sample.completion) for sample in samples],
                }
            ),
            callbacks=[Recorder(progress)],
            args=SFTConfig(
                output_dir=str(folder),
                seed=seed,
                data_seed=seed,
                learning_rate=recipe["learning_rate"],
                lr_scheduler_type="cosine",
                warmup_steps=recipe["warmup"],
                num_train_epochs=recipe["epochs"],
                max_steps=recipe["max_steps"] or -1,
                per_device_train_batch_size=recipe["micro_batch_size"],
                gradient_accumulation_steps=accumulation,
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
                deepspeed=_deepspeed(recipe["deepspeed"]),
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=on_gpu,
            ),
        )
        trainer.train()
    trainer.save_model(str(folder))
    tokenizer.save_pretrained(str(folder))
    # TRL leaves its arguments as a pickle, which holds paths and would change a model's identity for nothing.
    (folder / "training_args.bin").unlink(missing_ok=True)
    return rows


def _deepspeed(stage: str | None) -> dict[str, Any] | None:
    """DeepSpeed's settings for ZeRO stage 2 or 3; sizes follow the trainer's."""
    if stage is None:
        return None
    return {
        "zero_optimization": {
            "stage": 2 if stage == "zero2" else 3,
            "overlap_comm": True,
            "stage3_gather_16bit_weights_on_model_save": stage == "zero3",
        },
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
