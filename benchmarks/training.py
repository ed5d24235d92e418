"""What training costs beside the model's own arithmetic: how full packed rows are, and the time of an optimizer step.

    .venv/bin/python benchmarks/training.py packing [--samples 20000]
    .venv/bin/python benchmarks/training.py step [--steps 60] [--repeats 5] [--hidden 64 256] [--micro 1] [--parts]

`packing`: samples of each of the paper's teachers, packed as the training packs them (TRL's `pack_dataset` with the trainer's
arguments for the default recipe: rows of 32,768 tokens) and by TRL's other strategies, and one sample per row, padded to the
full row. Listed are the share of tokens in rows x 32,768 that is no padding, the samples that are cut (found in several rows,
or with tokens missing), the tokens lost, and the seconds, which include writing the packed rows, with their ratio to those of
`wrapped`, which does no more than cut the stream of tokens. All is counted in the rows that came out: every token is the number
of its sample. Lengths are drawn from the bins of Figure 3 (responses to mathematics; prompts are left out). Assumed, since the
figure does not say: lengths are uniform within a bin, and in its open bin, above 10,240, uniform up to 32,768.

`step`: seconds of an optimizer step of `train` against a bare loop of transformers (`loop`: forward, loss, backward, clipping,
fused AdamW, cosine schedule) on the same collated batches in the same order, which a first, untimed training hands over.
Collating, the trainer's metrics and the log of every step count as ours; the loop finds its batches in memory. Both run in turn,
repeated in this one process on one thread; who began a repeat comes last in the next. The first ten steps are left out. Ratios
are ours / loop of the medians of a repeat, by the clock and by processor time, which other work on the machine disturbs less:
their median over the repeats and their range. Fails unless the losses of all steps agree to 1e-4. The models are the
miniature's architecture and wider ones (`--hidden`), the rows the miniature's: program-written traces, packed to 384 tokens,
three rows to a step, `--micro` of them to a forward pass.

`--parts` also times the loop with TRL's language-model head (`loop+head`), and with the metrics that TRL takes from it too
(`loop+metrics`): why training on CPUs goes without them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "workflow" / "scripts")]

from whichteacher import training  # noqa: E402
from whichteacher.config import Architecture, Recipe  # noqa: E402

_STRATEGIES = ("bfd", "bfd_split", "wrapped")
_GOAL = 0.98
_LONGEST = 32_768
_WRITTEN_ROWS = 256
_SKIPPED = 10
_AGREEMENT = 1e-4
#: The miniature's recipe.
_RECIPE = {"learning_rate": 5e-3, "batch_size": 3, "max_length": 384, "bf16": False, "gradient_checkpointing": False}


# --- packing -------------------------------------------------------------------------------------------------------------


def draw_lengths(samples: int) -> dict[str, np.ndarray]:
    """Tokens of ``samples`` samples of each teacher."""
    figure = pd.read_csv(ROOT / "config" / "published" / "fig3_math_lengths.csv")
    drawn = {}
    for teacher, bins in figure[figure["statistic"] == "instances"].groupby("teacher", sort=False):
        bounds = np.array([_bounds(item) for item in bins["item"]])
        share = bins["value"].to_numpy() / bins["value"].sum()
        rng = np.random.default_rng(0)
        low, high = bounds[rng.choice(len(bins), samples, p=share)].T
        drawn[str(teacher)] = rng.integers(low + 1, high + 1)
    return drawn


def _bounds(item: str) -> tuple[int, int]:
    if item.startswith("<="):
        return 0, int(item[2:])
    if item.startswith(">"):
        return int(item[1:]), _LONGEST
    low, high = item.split("-")
    return int(low), int(high)


def write_numbered(path: Path, lengths: np.ndarray) -> None:
    """A file of samples as the training's, where every token of a sample is the sample's number."""
    schema = pa.schema([(name, pa.list_(pa.int32())) for name in ("input_ids", "labels")])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for start in range(0, len(lengths), _WRITTEN_ROWS):
            part = lengths[start : start + _WRITTEN_ROWS]
            tokens = np.repeat(np.arange(start, start + len(part), dtype=np.int32), part)
            offsets = pa.array(np.concatenate([[0], np.cumsum(part)]).astype(np.int32))
            rows = pa.ListArray.from_arrays(offsets, pa.array(tokens))
            writer.write_batch(pa.record_batch([rows, rows], schema=schema))


class Rows(NamedTuple):
    """What a strategy made of the samples."""

    rows: int
    tokens: int
    cut: int
    lost: int


def count_packed(packed: Any, lengths: np.ndarray, max_length: int) -> Rows:
    """Rows, tokens, samples that are cut and tokens that are lost."""
    rows = 0
    tokens, pieces = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    for table in packed.with_format("arrow").iter(_WRITTEN_ROWS):
        rows += table.num_rows
        column = table["input_ids"].combine_chunks()
        numbers = column.flatten().to_numpy()
        ends = np.cumsum(column.value_lengths().to_numpy())
        if np.diff(ends, prepend=0).max() > max_length:
            raise SystemExit("a packed row is too long")
        begins = np.append(True, numbers[1:] != numbers[:-1])
        begins[ends[:-1]] = True
        tokens += np.bincount(numbers, minlength=len(lengths))
        pieces += np.bincount(numbers[begins], minlength=len(lengths))
    cut = (pieces != 1) | (tokens != lengths)
    return Rows(rows, int(tokens.sum()), int(cut.sum()), int((lengths - tokens).sum()))


def packing(folder: Path, samples: int) -> None:
    """See the module's docstring."""
    from datasets import Dataset, disable_progress_bars
    from trl.data_utils import pack_dataset

    disable_progress_bars()
    settings = training._settings(Recipe().model_dump(), 0, folder / "work", None)
    length, ours, worst = settings.max_length, settings.packing_strategy, 1.0
    print(f"rows of {length:,} tokens, {samples:,} samples per teacher")
    print(
        f"{'':<18}{'strategy':<14}{'rows':>8}{'efficiency':>12}{'cut samples':>13}{'lost tokens':>13}{'seconds':>9} (ratio)"
    )
    for teacher, lengths in draw_lengths(samples).items():
        print(f"{teacher}: {lengths.mean():,.0f} tokens a sample")
        seconds, found = {}, {"one a row": Rows(samples, int(lengths.sum()), 0, 0)}
        for strategy in _STRATEGIES:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                write_numbered(Path(place) / "samples.arrow", lengths)
                dataset = Dataset.from_file(f"{place}/samples.arrow").select_columns(["input_ids", "labels"])
                began = time.monotonic()
                packed = pack_dataset(dataset, length, strategy, {"num_proc": settings.dataset_num_proc})
                seconds[strategy] = time.monotonic() - began
                found[strategy] = count_packed(packed, lengths, length)
        for strategy in (*_STRATEGIES, "one a row"):
            rows, tokens, cut, lost = found[strategy]
            share = tokens / (rows * length)
            worst = min(worst, share) if strategy == ours else worst
            took = ""
            if strategy in seconds:
                took = f"{seconds[strategy]:>9.1f} ({seconds[strategy] / seconds['wrapped']:.2f})"
            name = f"{strategy} (ours)" if strategy == ours else strategy
            print(f"{'':<18}{name:<14}{rows:>8,}{share:>12.2%}{cut:>13,}{lost:>13,}{took}")
    verdict = "reached" if worst >= _GOAL else f"missed by {(_GOAL - worst) * 100:.2f} points"
    print(f"packing: {ours} (ours) has an efficiency of {worst:.2%} or more: {_GOAL:.0%} {verdict}")


# --- step ----------------------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """Losses of the steps, and the clock and the processor time at the end of each."""

    losses: list[float]
    clock: list[float]
    processor: list[float]

    def seconds(self, by: str) -> float:
        """Median seconds of a step, the first ones left out."""
        return statistics.median(np.diff(getattr(self, by))[_SKIPPED - 1 :].tolist())


class Step(NamedTuple):
    """The collated batches of an optimizer step and the tokens with loss in them."""

    batches: list[dict[str, Any]]
    items: Any


class Case:
    """A model's size with all that both sides need."""

    def __init__(self, folder: Path, hidden: int, steps: int, micro: int) -> None:
        from train_teacher import practice_rows

        from whichteacher.miniature.styles import STYLES

        self.folder, self.steps = folder, steps
        self.recipe = Recipe(**_RECIPE, micro_batch_size=micro, max_steps=steps).model_dump()
        self.architecture = Architecture(tokenizer="./resources/teachers/tokenizer").model_dump()
        if hidden != self.architecture["hidden_size"]:
            self.architecture |= {
                "hidden_size": hidden,
                "intermediate_size": 3 * hidden,
                "num_attention_heads": hidden // 32,
            }
        self.tokenizer = training.load_tokenizer({"architecture": self.architecture, "base": None})
        # More than fill the rows, so that all steps are of one epoch.
        rows = practice_rows("benchmark", tuple(STYLES), 5 * 3 * steps, 0.5)
        samples = training.render_samples(rows, self.tokenizer, "")
        fitting = [sample for sample in samples if sample.length <= self.recipe["max_length"]]
        folder.mkdir()
        self.counts = training.write_samples(folder / "samples.arrow", fitting)
        self.data: list[Step] = []
        self.parameters = sum(weights.numel() for weights in self.model().parameters())

    def model(self) -> Any:
        """The model before training."""
        return training.build_model(self.architecture, self.tokenizer)

    def ours(self, record: bool = False) -> Run:
        """`train`, from outside; ``record`` keeps the batches."""
        from transformers import TrainerCallback
        from transformers.trainer import DEFAULT_CALLBACKS
        from trl import SFTTrainer

        clock: list[float] = []
        processor: list[float] = []

        class Marks(TrainerCallback):
            """Notes the end of every step."""

            def on_step_end(self, *_: Any, **__: Any) -> None:
                """Before the log is written: it counts in the next step."""
                clock.append(time.monotonic())
                processor.append(time.process_time())

        own = SFTTrainer.training_step

        def recorded(trainer: Any, model: Any, inputs: dict[str, Any], items: Any = None) -> Any:
            if trainer.state.global_step == len(self.data):
                self.data.append(Step([], items))
            names = ("input_ids", "labels", "position_ids")
            self.data[-1].batches.append({name: inputs[name].clone() for name in names})
            return own(trainer, model, inputs, items)

        with contextlib.ExitStack() as patches:
            patches.enter_context(mock.patch("transformers.trainer.DEFAULT_CALLBACKS", [*DEFAULT_CALLBACKS, Marks]))
            if record:
                patches.enter_context(mock.patch.object(SFTTrainer, "training_step", recorded))
            silent = patches.enter_context(open(os.devnull, "w", encoding="utf-8"))
            patches.enter_context(contextlib.redirect_stdout(silent))
            patches.enter_context(contextlib.redirect_stderr(silent))
            trained = training.train(
                self.model, self.tokenizer, self.folder / "samples.arrow", self.counts, self.recipe, 1,
                self.folder / "work", self.folder / "model", "benchmark",
            )  # fmt: skip
        return Run([row["loss"] for row in trained.log], clock, processor)

    def loop(self, head: tuple[str, ...] | None = None) -> Run:
        """The loop of transformers; ``head``: with TRL's language-model head and those of its outputs."""
        import torch
        from transformers import get_cosine_schedule_with_warmup

        recipe, model = self.recipe, self.model()
        if head is not None:
            from trl.trainer.utils import add_fused_lm_head

            add_fused_lm_head(model, outputs=head)
        model.train()
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(
            parameters,
            lr=recipe["learning_rate"],
            betas=(0.9, recipe["adam_beta2"]),
            eps=1e-8,
            weight_decay=recipe["weight_decay"],
            fused=True,
        )
        warmup = int(np.ceil(recipe["warmup"] * self.steps))
        scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, self.steps)
        run = Run([], [], [])
        for batches, items in self.data:
            loss = 0.0
            for batch in batches:
                if head is None:
                    part = model(**batch, use_cache=False, num_items_in_batch=items).loss
                else:
                    outputs = model(**batch, num_items_in_batch=items, fused_lm_head=True)
                    part = outputs.loss
                    for name in head[1:]:
                        (outputs[name].detach().sum() / outputs.label_mask.sum()).item()
                part.backward()
                loss += part.detach()
            torch.nn.utils.clip_grad_norm_(parameters, recipe["max_grad_norm"])
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            run.losses.append(float(loss))
            run.clock.append(time.monotonic())
            run.processor.append(time.process_time())
        return run


def step(folder: Path, steps: int, repeats: int, hidden: list[int], micro: int, parts: bool) -> None:
    """See the module's docstring."""
    import torch

    torch.set_num_threads(1)
    for size in hidden:
        case = Case(folder / str(size), size, steps, micro)
        case.ours(record=True)
        if len(case.data) != steps:
            raise SystemExit(f"{len(case.data)} steps were recorded")
        variants: dict[str, Callable[[], Run]] = {"ours": case.ours, "loop": case.loop}
        if parts:
            variants |= {
                "loop+head": lambda case=case: case.loop(("log_probs",)),
                "loop+metrics": lambda case=case: case.loop(("log_probs", "entropy", "is_top1")),
            }
        runs: dict[str, list[Run]] = {name: [] for name in variants}
        apart = 0.0
        for repeat in range(repeats):
            for name in list(variants)[:: 1 - 2 * (repeat % 2)]:
                runs[name].append(variants[name]())
            for name in variants:
                pairs = zip(runs[name][-1].losses, runs["loop"][-1].losses, strict=True)
                apart = max(apart, *(abs(mine / theirs - 1) for mine, theirs in pairs))
        print(
            f"hidden {size}, {case.architecture['num_hidden_layers']} layers, vocabulary {len(case.tokenizer):,}, "
            f"{case.parameters:,} parameters; {steps} steps of {3 // micro} x {micro} rows; {repeats} repeats; losses "
            f"differ by {apart:.1e} at most"
        )
        print(
            f"{'':<14}{'ms/step (lowest to highest)':<32}{'processor ms/step':<32}ratio to loop by the clock, by processor time"
        )
        for name in variants:
            cells = []
            for by in ("clock", "processor"):
                found = [run.seconds(by) * 1e3 for run in runs[name]]
                cells.append(f"{statistics.median(found):8.1f} ({min(found):.1f} to {max(found):.1f})")
            for by in ("clock", "processor"):
                ratios = [
                    mine.seconds(by) / base.seconds(by) for mine, base in zip(runs[name], runs["loop"], strict=True)
                ]
                cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
            print(f"{name:<14}{cells[0]:<32}{cells[1]:<32}{cells[2]}, {cells[3]}", flush=True)
        if apart > _AGREEMENT:
            raise SystemExit(f"step: the losses differ by {apart:.1e}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("packing").add_argument("--samples", type=int, default=20_000)
    command = commands.add_parser("step")
    command.add_argument("--steps", type=int, default=60)
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument("--hidden", type=int, nargs="+", default=[64, 256])
    command.add_argument("--micro", type=int, choices=(1, 3), default=1)
    command.add_argument("--parts", action="store_true")
    told = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="benchmark.") as folder:
        {"packing": packing, "step": step}[told.pop("command")](Path(folder), **told)


if __name__ == "__main__":
    main()
