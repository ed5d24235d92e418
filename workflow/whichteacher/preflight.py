"""What a training will train on, proved on its own data, model and kernels before the first step.

Every trap here has cost somebody a training: a mask lost on its way to the loss (TRL threads 3484, 3781), an end token
without loss (1623, 2059, 3091), packed samples that see each other (3526, 3673), rows cut without a word, a loss that is a mean
per micro-batch and so depends on how a batch is divided (TRL 2175).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from whichteacher.rule import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTTrainer

_IGNORED = -100
_BATCH_ROWS = 256
#: Tokens of each of the two samples that the isolation is tried on, half of them of the prompt where it has so many.
_PROBE_TOKENS = 256
#: A neighbour may move a sample's loss by this share of what one token of its own moves it; rounding is far below, and a
#: visible neighbour moves it as much as its own tokens do.
_LEAK_SHARE = 0.05
#: Sequences of a batch that are tried at once and one after another.
_ACCUMULATED = 8
#: What the loss, or a gradient's norm, may differ by as a share of itself: kernels sum in other orders, bfloat16 has eight bits.
_ROUNDING = 0.01
_SHOWN_SAMPLES = 6
_SHOWN_CHARACTERS = 1000


class Packed(NamedTuple):
    """One sample as the model will see it: token ids, and labels (-100: no loss)."""

    tokens: list[int]
    labels: list[int]


def check_training(
    trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, samples: int, tokens: int, loss_tokens: int
) -> dict[str, Any]:
    """Check what ``trainer`` is about to train on against what it was given: so many samples, tokens and loss tokens.

    Returns the counts, how far a packed neighbour moves a sample's loss, what accumulation and repetition change, and the first
    samples decoded. Raises :class:`InputError` naming the first thing that is not as intended.
    """
    found = check_rows(trainer.train_dataset, trainer.args.max_length, tokenizer.eos_token_id)
    for name, wanted in (("samples", samples), ("tokens", tokens), ("loss_tokens", loss_tokens)):
        if found[name] != wanted:
            raise InputError(f"preflight: {found[name]} {name} would be trained on, {wanted} were written for it")
    shown = min(len(trainer.train_dataset), trainer.args.per_device_train_batch_size)
    rows = [trainer.train_dataset[number] for number in range(shown)]
    first = split_batch(trainer.data_collator(rows))
    for number, sample in enumerate(first):
        check_sample(sample, tokenizer, number)
    isolation = probe_isolation(trainer, first) if trainer.args.packing and len(first) > 1 else None
    if isolation is not None and isolation["neighbour"] > _LEAK_SHARE * isolation["own"]:
        raise InputError(
            f"preflight: packed samples see each other: a neighbour's tokens move a sample's loss by {isolation['neighbour']:.3g}, "
            f"one of its own by {isolation['own']:.3g}: choose another training.recipe.attention, or set packing to false"
        )
    parts = _parts(trainer)
    accumulation = probe_accumulation(trainer, parts)
    if not math.isclose(accumulation["together"], accumulation["apart"], rel_tol=_ROUNDING):
        raise InputError(
            f"preflight: {len(parts)} sequences have the loss {accumulation['together']:.5g} at once and "
            f"{accumulation['apart']:.5g} one after another: the loss does not count all loss tokens of a batch, so what is "
            "trained depends on training.recipe.micro_batch_size: choose another base model or attention"
        )
    repetition = probe_repetition(trainer, parts)
    if moved := [
        name for name, (first, again) in repetition.items() if not math.isclose(first, again, rel_tol=_ROUNDING)
    ]:
        raise InputError(
            f"preflight: with one seed, the {moved[0]} of the same sequences is {repetition[moved[0]][0]:.5g} and then "
            f"{repetition[moved[0]][1]:.5g}: something is drawn that the seed does not decide: choose another "
            "training.recipe.attention"
        )
    check_order(trainer)
    return {
        **found,
        "isolation": isolation,
        "accumulation": accumulation,
        "repetition": repetition,
        "batch": [decode(sample, tokenizer) for sample in first[:_SHOWN_SAMPLES]],
    }


def check_rows(dataset: Any, max_length: int, end: int) -> dict[str, int]:
    """Rows, samples, tokens, loss tokens and the longest row of a packed dataset (or of one with a sample per row).

    Raises :class:`InputError` where a row is longer than ``max_length`` or than its samples, and where a sample's loss is not on
    one run of its own tokens that ends with the sample, in its one token ``end``.
    """
    counts = {"rows": 0, "samples": 0, "tokens": 0, "loss_tokens": 0, "longest_row": 0}
    for table in dataset.with_format("arrow").iter(_BATCH_ROWS):
        rows = pc.list_value_length(table["input_ids"])
        packed = pc.list_flatten(table["seq_lengths"]) if "seq_lengths" in table.column_names else rows
        lengths, longest = packed.to_numpy(), pc.max(rows).as_py()
        tokens, labels = (pc.list_flatten(table[name]).to_numpy() for name in ("input_ids", "labels"))
        if lengths.sum() != len(tokens):
            raise InputError("preflight: the lengths of packed samples do not add up to their rows")
        if longest > max_length:
            raise InputError(f"preflight: a row of {longest} tokens is longer than max_length = {max_length}")
        for fault, samples in _faults(tokens, labels, lengths, end).items():
            if samples:
                raise InputError(f"preflight: {samples} of {len(lengths)} samples {fault}")
        found = (table.num_rows, len(lengths), len(tokens), int((labels != _IGNORED).sum()))
        for name, count in zip(("rows", "samples", "tokens", "loss_tokens"), found, strict=True):
            counts[name] += count
        counts["longest_row"] = max(counts["longest_row"], longest)
    return counts


def _faults(tokens: np.ndarray, labels: np.ndarray, lengths: np.ndarray, end: int) -> dict[str, int]:
    """How many of the samples of ``lengths``, laid one after the other, have which fault of their labels."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    loss = labels != _IGNORED
    before = np.concatenate([[False], loss[:-1]])
    before[starts] = False
    runs, closings, strays = (
        np.add.reduceat(marks.astype(np.int64), starts)
        for marks in (loss & ~before, loss & (tokens == end), loss & (labels != tokens))
    )
    return {
        "have loss on no token": int((runs == 0).sum()),
        "have loss on every token": int((loss[starts]).sum()),
        "have tokens without loss inside their response": int((runs > 1).sum()),
        "have loss on tokens that are not their own": int((strays > 0).sum()),
        "do not end with the one end token of their response": int(
            ((closings != 1) | (tokens[ends - 1] != end) | ~loss[ends - 1]).sum()
        ),
    }


def split_batch(batch: Mapping[str, Any]) -> list[Packed]:
    """The samples of a collated batch: parted where positions begin anew, or by the rows and their attention mask."""
    if "position_ids" in batch:
        (tokens,), (labels,), (positions,) = (batch[name].tolist() for name in ("input_ids", "labels", "position_ids"))
        starts = [place for place, position in enumerate(positions) if position == 0]
        ends = [*starts[1:], len(tokens)]
        return [Packed(tokens[start:end], labels[start:end]) for start, end in zip(starts, ends, strict=True)]
    return [
        Packed(tokens[: sum(mask)], labels[: sum(mask)])
        for tokens, labels, mask in zip(
            *(batch[name].tolist() for name in ("input_ids", "labels", "attention_mask")), strict=True
        )
    ]


def check_sample(sample: Packed, tokenizer: PreTrainedTokenizerBase, number: int) -> None:
    """Raise :class:`InputError` unless a sample reaches the model with its labels as they are in the dataset, and without a
    beginning of text that is doubled."""
    tokens, labels = sample
    where = f"preflight: sample {number} of the first collated batch"
    faults = _faults(*map(np.array, (tokens, labels, [len(tokens)])), tokenizer.eos_token_id)
    for fault in (name for name, count in faults.items() if count):
        raise InputError(f"{where} is of those that {fault}")
    if tokenizer.bos_token_id is not None and tokens[:2] == [tokenizer.bos_token_id] * 2:
        raise InputError(f"{where} begins with {tokenizer.bos_token!r} twice")


def probe_isolation(trainer: SFTTrainer, samples: Sequence[Packed]) -> dict[str, float]:
    """How far the loss of one packed sample moves when all tokens of its neighbour change (``neighbour``), and when its own
    first one does (``own``): through the trainer's collator, model, kernels and loss, with weights as they are."""
    first, second = (_probe(sample, _PROBE_TOKENS // 2) for sample in samples[:2])
    other = [*reversed(first.tokens)]
    if other == first.tokens:
        other = [*other[1:], second.tokens[0]]
    changed = [first.tokens[0] if first.tokens[0] != second.tokens[0] else first.tokens[-1], *second.tokens[1:]]

    def loss(neighbour: list[int], own: list[int]) -> float:
        row = [Packed(neighbour, [_IGNORED] * len(neighbour)), Packed(own, second.labels)]
        return _loss(trainer, [row], len(own))

    as_is = loss(first.tokens, second.tokens)
    return {
        "neighbour": abs(loss(other, second.tokens) - as_is),
        "own": abs(loss(first.tokens, changed) - as_is),
    }


def probe_accumulation(trainer: SFTTrainer, parts: Sequence[Packed]) -> dict[str, float]:
    """The loss of ``parts`` as sequences of one micro-batch (``together``), and as the sum over micro-batches of one sequence
    each (``apart``), of the same batch. Gradients are those of what is summed, so they agree where the losses do."""
    items = sum(_loss_tokens(part) for part in parts)
    return {
        "together": _loss(trainer, [[part] for part in parts], items),
        "apart": math.fsum(_loss(trainer, [[part]], items) for part in parts),
    }


def probe_repetition(trainer: SFTTrainer, parts: Sequence[Packed]) -> dict[str, tuple[float, float]]:
    """Loss and gradient norm of ``parts`` in training mode, dropout included, each twice from the training's seed.

    DeepSpeed takes gradients away as they come, so there it is the loss alone.
    """
    import torch

    model, items = trainer.model, sum(_loss_tokens(part) for part in parts)
    found: dict[str, tuple[float, ...]] = {"loss": (), "gradient norm": ()}
    for _ in range(2):
        with torch.random.fork_rng(), torch.set_grad_enabled(not trainer.is_deepspeed_enabled):
            torch.manual_seed(trainer.args.seed)
            inputs = trainer._prepare_inputs(trainer.data_collator([_row([part]) for part in parts]))
            with _uncounted(trainer):
                loss = trainer.compute_loss(
                    trainer.model_wrapped if trainer.is_deepspeed_enabled else model, inputs, num_items_in_batch=items
                )
            found["loss"] += (loss.item(),)
            if not trainer.is_deepspeed_enabled:
                loss.backward()
                norms = [weights.grad.norm() for weights in model.parameters() if weights.grad is not None]
                found["gradient norm"] += (float(torch.stack(norms).norm()),)
                model.zero_grad()
    return {name: values for name, values in found.items() if values}


def check_order(trainer: SFTTrainer) -> None:
    """Raise :class:`InputError` unless the training's seed decides which rows the first batches hold."""
    import torch

    loader, orders = trainer.callback_handler.train_dataloader, []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(trainer.args.seed)
            loader.set_epoch(0)  # as the trainer does before every epoch
            orders.append(list(islice(loader.batch_sampler, _ACCUMULATED)))
    if orders[0] != orders[1]:
        raise InputError(
            f"preflight: with one seed, the first batches hold the rows {orders[0][0][:_ACCUMULATED]} and then "
            f"{orders[1][0][:_ACCUMULATED]}: the order of the data does not come from the seed"
        )


def _parts(trainer: SFTTrainer) -> list[Packed]:
    """Parts of the first samples of the first rows, every one with more loss tokens than the one before where it has so many:
    a mean of means would differ from the mean."""
    rows = min(_ACCUMULATED, len(trainer.train_dataset))
    samples = [split_batch(trainer.data_collator([trainer.train_dataset[number]]))[0] for number in range(rows)]
    return [_probe(sample, _PROBE_TOKENS * (number + 1) // (2 * rows)) for number, sample in enumerate(samples)]


def _probe(sample: Packed, loss_tokens: int) -> Packed:
    """The middle of a sample, around the beginning of its response, of which ``loss_tokens`` stay: enough to show what is
    wrong, in little memory."""
    begin = next(place for place, label in enumerate(sample.labels) if label != _IGNORED)
    part = slice(max(0, begin - _PROBE_TOKENS // 2), begin + loss_tokens)
    return Packed(sample.tokens[part], sample.labels[part])


def _loss_tokens(part: Packed) -> int:
    return sum(label != _IGNORED for label in part.labels)


def _row(samples: Sequence[Packed]) -> dict[str, list[int]]:
    """A packed row, as the trainer's dataset holds it."""
    return {
        "input_ids": [token for sample in samples for token in sample.tokens],
        "labels": [label for sample in samples for label in sample.labels],
        "seq_lengths": [len(sample.tokens) for sample in samples],
    }


def _loss(trainer: SFTTrainer, rows: Sequence[Sequence[Packed]], items: int) -> float:
    """The trainer's loss on one micro-batch of packed rows, of a batch that has ``items`` loss tokens."""
    import torch

    model = trainer.model_wrapped
    training = model.training
    model.eval()
    try:
        # What dropout or a kernel may draw must not change what the training draws.
        with torch.random.fork_rng(), torch.no_grad():
            inputs = trainer._prepare_inputs(trainer.data_collator([_row(row) for row in rows]))
            loss = float(trainer.compute_loss(model, inputs, num_items_in_batch=items))
    finally:
        model.train(training)
    trainer._metrics["eval"].clear()
    return loss


@contextmanager
def _uncounted(trainer: SFTTrainer) -> Iterator[None]:
    """What is computed in training mode here is no part of the training's counts."""
    tokens = trainer._total_train_tokens
    try:
        yield
    finally:
        trainer._total_train_tokens = tokens
        trainer._metrics["train"].clear()


def decode(sample: Packed, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """A sample's text in runs, by what its labels say: without loss (``prompt``), with loss (``response``), the end token
    (``end``); each with its tokens, and cut where it is long."""
    runs = []
    for kind, tokens in _runs(sample, tokenizer.eos_token_id):
        text = tokenizer.decode(tokens, skip_special_tokens=False)
        if len(text) > _SHOWN_CHARACTERS:
            half = _SHOWN_CHARACTERS // 2
            text = f"{text[:half]} […{len(text) - 2 * half:,} characters…] {text[-half:]}"
        runs.append({"kind": kind, "tokens": len(tokens), "text": text})
    return runs


def _runs(sample: Packed, end: int) -> Iterator[tuple[str, list[int]]]:
    """Tokens of a sample in runs of one kind."""
    kind, run = "", []
    for token, label in zip(sample.tokens, sample.labels, strict=True):
        here = "prompt" if label == _IGNORED else "end" if label == end else "response"
        if here != kind and run:
            yield kind, run
            run = []
        kind = here
        run.append(token)
    yield kind, run
