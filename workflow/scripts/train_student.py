"""Train one student on one dataset with one seed.

Reads a dataset (TRACES) and writes the student as an ordinary model folder (safetensors, tokenizer, template, generation
settings), its loss per optimizer step (TRAINING_LOG) and a summary: rows in, rows excluded for their length, tokens,
loss tokens, steps, seconds, parameters and the digest of the weights.

With several devices or DeepSpeed the same file runs as a program under torchrun, one process per device.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from whichteacher.responses import join_response
from whichteacher.rule import InputError
from whichteacher.schemas import TRACES, TRAINING_LOG
from whichteacher.store import model_digest
from whichteacher.tables import read_table, write_json, write_table
from whichteacher.training import fits, load_student, render_samples, train


def read_rows(dataset: str) -> list[dict[str, Any]]:
    """Turns and response of every trace, in the order of ``query_id``: the same queries come in the same order for
    every teacher, whatever the order of the file."""
    table = read_table(dataset, TRACES, ["query_id", "turns", "thinking", "answer"]).sort_by("query_id")
    return [
        {"turns": row["turns"], "response": join_response(row["thinking"], row["answer"])} for row in table.to_pylist()
    ]


def main(
    dataset: str, model: str, log: str, summary: str, training: dict[str, Any], seed: int, step: str = "train_student"
) -> None:
    """Train and write; see the module's docstring. ``training`` is the configuration block as plain JSON types.

    Raises :class:`InputError` if no sample fits into ``max_length``.
    """
    started = time.monotonic()
    recipe = training["recipe"]
    student, tokenizer = load_student(training)
    samples = render_samples(read_rows(dataset), tokenizer, training["system_prompt"])
    kept = [sample for sample in samples if fits(sample, recipe["max_length"])]
    if not kept:
        raise InputError(
            f"{dataset}: none of its {len(samples)} samples fits into training.recipe.max_length = {recipe['max_length']}"
        )
    rows = train(student, tokenizer, kept, recipe, seed, Path(model), step)
    if int(os.environ.get("RANK", "0")) == 0:
        write_table(log, rows, TRAINING_LOG, {"training": training, "seed": seed})
        write_json(
            summary,
            {
                "rows": len(samples),
                "excluded": len(samples) - len(kept),
                "tokens": rows[-1]["tokens"],
                "tokens_per_epoch": sum(len(sample.prompt) + len(sample.completion) for sample in kept),
                "loss_tokens_per_epoch": sum(len(sample.completion) for sample in kept),
                "steps": rows[-1]["step"],
                "seconds": time.monotonic() - started,
                "devices": recipe["devices"],
                "parameters": sum(parameter.numel() for parameter in student.parameters()),
                "digest": model_digest(model, None),
            },
        )


def launch(arguments: dict[str, Any], devices: int) -> None:
    """Run :func:`main` with ``arguments`` under torchrun, ``devices`` processes on this machine."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as job:
        json.dump(arguments, job)
        job.flush()
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
        if subprocess.run([*command, __file__, job.name], check=False).returncode:
            raise RuntimeError("training failed in one of its processes; the log says where")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        job = {
            "dataset": snakemake.input.dataset,  # noqa: F821
            "model": snakemake.output.model,  # noqa: F821
            "log": snakemake.output.log,  # noqa: F821
            "summary": snakemake.output.summary,  # noqa: F821
            "training": snakemake.params.training,  # noqa: F821
            "seed": snakemake.params.seed,  # noqa: F821
            "step": "train_student " + "/".join(snakemake.wildcards),  # noqa: F821
        }
        plan = job["training"]["recipe"]
        if plan["devices"] > 1 or plan["deepspeed"]:
            launch(job, plan["devices"])
        else:
            main(**job)
elif __name__ == "__main__":
    main(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
