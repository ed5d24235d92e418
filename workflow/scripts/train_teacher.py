"""Make one of the miniature's models from program-written traces: a teacher in one style, or the perplexity scorer.

Writes a model folder: weights, tokenizer, template, generation settings. The practice problems are drawn from a seed of
their own; the scorer practises on all styles in turn, so that it belongs to no teacher's family.

The shipped models under ``resources/teachers`` were made by this rule (`make teachers` makes them again).
"""

import random
from pathlib import Path
from typing import Any

from whichteacher.miniature.problems import CATEGORIES, draw_problem
from whichteacher.miniature.styles import STYLES, write_trace
from whichteacher.miniature.tokenizer import build_tokenizer
from whichteacher.responses import join_response
from whichteacher.training import build_model, render_samples, train

#: Far from every corpus seed, so that no practice set is a corpus.
_SEED = 20_250_514


def practice_rows(styles: tuple[str, ...], count: int, math_share: float) -> list[dict[str, Any]]:
    """``count`` solved problems, ``math_share`` of them mathematics, as turns and response."""
    rng = random.Random(_SEED)
    others = [category for category in CATEGORIES if category != "math"]
    rows = []
    for index in range(count):
        problem = draw_problem("math" if rng.random() < math_share else rng.choice(others), rng)
        response = join_response(*write_trace(problem, styles[index % len(styles)]))
        rows.append({"turns": [{"role": role, "content": text} for role, text in problem.turns], "response": response})
    return rows


def main(name: str, folder: str, practice: dict[str, Any]) -> None:
    """Train the model called ``name`` (a style, or ``scorer``) and save it in ``folder``.

    ``practice`` holds ``rows``, ``math_share``, ``architecture`` (see :func:`whichteacher.training.build_model`) and
    ``recipe`` (see :class:`whichteacher.config.Recipe`).
    """
    import torch

    styles = STYLES if name == "scorer" else (name,)
    tokenizer = build_tokenizer()
    model = build_model(practice["architecture"], tokenizer)
    rows = practice_rows(styles, practice["rows"], practice["math_share"])
    samples = render_samples(rows, tokenizer, "")
    train(model, tokenizer, samples, practice["recipe"], 0, Path(folder), f"train_teacher {name}")
    # Half the size to ship, and vLLM is told to serve it in float32.
    model.to(torch.bfloat16).save_pretrained(folder)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.wildcards.model, snakemake.output.model, snakemake.params.practice)  # noqa: F821
