"""Make one of the miniature's models from program-written traces: the base, a teacher in one style, or the scorer.

Reads the base model (but for the base itself) and writes a model folder: weights, tokenizer, template, generation
settings. Each model draws its practice problems from a seed of its own.

`make teachers` runs the rule for all of them and puts the models into ``resources/teachers``.
"""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whichteacher.miniature.problems import CATEGORIES, draw_problem
from whichteacher.miniature.styles import write_trace
from whichteacher.miniature.tokenizer import build_tokenizer
from whichteacher.responses import join_response
from whichteacher.training import build_model, render_samples, train, write_samples


def practice_rows(name: str, styles: Sequence[str], count: int, math_share: float) -> list[dict[str, Any]]:
    """``count`` problems drawn for the model ``name``, ``math_share`` of them mathematics, as turns and response."""
    rng = random.Random(f"practice of {name}")
    others = [category for category in CATEGORIES if category != "math"]
    rows = []
    for index in range(count):
        problem = draw_problem("math" if rng.random() < math_share else rng.choice(others), rng)
        response = join_response(*write_trace(problem, styles[index % len(styles)]))
        rows.append({"turns": [{"role": role, "content": text} for role, text in problem.turns], "response": response})
    return rows


def main(name: str, base: str | None, folder: str, practice: dict[str, Any]) -> None:
    """Train the model called ``name`` from the folder ``base`` (None: from seeded weights) and save it in ``folder``.

    ``practice`` is what :func:`whichteacher.miniature.teachers.practice` gives.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = build_tokenizer()
    model = (
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if base
        else build_model(practice["architecture"], tokenizer)
    )
    rows = practice_rows(name, practice["styles"], practice["rows"], practice["math_share"])
    with tempfile.TemporaryDirectory(prefix="train_teacher.") as scratch:
        samples = Path(scratch) / "samples.arrow"
        counts = write_samples(samples, render_samples(rows, tokenizer, ""))
        train(
            lambda: model,
            tokenizer,
            samples,
            counts,
            practice["recipe"],
            0,
            Path(scratch),
            Path(folder),
            f"train_teacher {name}",
        )
    # Half the size to ship; vLLM is told to serve it in float32.
    model.to(torch.bfloat16).save_pretrained(folder)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.params.name,  # noqa: F821
            snakemake.input.get("base"),  # noqa: F821
            snakemake.output.model,  # noqa: F821
            snakemake.params.practice,  # noqa: F821
        )
