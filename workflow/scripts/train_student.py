"""Train one student on one dataset with one seed.

Reads a dataset (TRACES) and writes the student as an ordinary model folder (safetensors, tokenizer, template, generation
settings, card), its log per optimizer step (TRAINING_LOG), what was proved before the first step (JSON, see
:func:`whichteacher.preflight.check_training`), the ledger of its rows with those dropped (LEDGER, DROPPED), and a summary
(JSON): rows, excluded and the tokens these have, samples, tokens and loss tokens of one epoch, packed rows and their fill,
tokens and loss tokens trained on, steps, seconds over all starts, devices, device hours (None without GPUs), peak memory in
bytes, parameters, the digest of the weights.

The student is made in the store, with checkpoints, and kept there: killed, it goes on from its last checkpoint, and where the
same student was ever finished it is not trained again. With several devices or DeepSpeed this file also runs as a program
under torchrun, one process per device.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whichteacher.ledger import Ledger
from whichteacher.responses import join_response
from whichteacher.rule import InputError
from whichteacher.schemas import TRACES, TRAINING_LOG
from whichteacher.store import digest, model_digest
from whichteacher.student_place import FACTS, StudentPlace, student_key
from whichteacher.tables import read_parts, versions, write_json, write_table
from whichteacher.training import (
    BATCH_ROWS,
    Counts,
    Sample,
    Trained,
    control_tokens,
    held_control_token,
    load_student,
    load_tokenizer,
    render_samples,
    train,
    write_samples,
)

_SAMPLES = "samples.arrow"
_REFUSED = "refused.txt"
_CARD = Path(__file__).resolve().parents[1] / "report" / "student_card.md"


def read_rows(dataset: str) -> Iterator[list[dict[str, Any]]]:
    """Batches of rows with query id, turns and response, in the order of ``query_id``: the same queries come in the same
    order for every teacher. Raises :class:`InputError` where the file has another order."""
    last = ""
    for part in read_parts(dataset, TRACES, ["query_id", "turns", "thinking", "answer"], BATCH_ROWS):
        rows = [
            {
                "query_id": row["query_id"],
                "turns": row["turns"],
                "response": join_response(row["thinking"], row["answer"]),
            }
            for row in part.to_pylist()
        ]
        ids = [last, *(row["query_id"] for row in rows)]
        if ids != sorted(ids):
            raise InputError(f"{dataset}: its rows are not in the order of query_id: make the dataset again")
        last = ids[-1]
        yield rows


class Selection:
    """The samples to train on, of a dataset. Longer ones are excluded and never cut (paper, section 3.1), and so are rows whose
    text holds a token of the template's.

    ``ledger`` has both once all samples were taken, and ``excluded_tokens`` how many tokens they had.
    """

    def __init__(self, dataset: str, tokenizer: Any, system_prompt: str, max_length: int, student: str) -> None:
        self.ledger = Ledger("train_student", student, 0)
        self.excluded_tokens = 0
        self._dataset, self._tokenizer, self._system_prompt = dataset, tokenizer, system_prompt
        self._max_length = max_length

    def __iter__(self) -> Iterator[Sample]:
        structure = control_tokens(self._tokenizer)
        for rows in read_rows(self._dataset):
            self.ledger.rows_in += len(rows)
            for row, sample in zip(rows, render_samples(rows, self._tokenizer, self._system_prompt), strict=True):
                held, length = held_control_token(row, structure), sample.length
                if held is None and length <= self._max_length:
                    self.ledger.keep(1)
                    yield sample
                    continue
                self.excluded_tokens += length
                if held is not None:
                    self.ledger.drop(row["query_id"], "control_token", held)
                else:
                    self.ledger.drop(row["query_id"], "too_long", f"{length} tokens")


def main(
    dataset: str,
    outputs: Mapping[str, str],
    store: str,
    training: dict[str, Any],
    running: Mapping[str, Any],
    seed: int,
    student: str,
    threads: int = 1,
) -> None:
    """Train and write; see the module's docstring.

    ``outputs`` holds the paths ``model``, ``log``, ``preflight``, ``ledger``, ``dropped`` and ``summary``; ``training`` is the
    configuration block as plain JSON types, ``running`` what changes no student (``checkpoint_steps``, ``nodes``).
    Raises :class:`InputError` if no sample fits into ``max_length``, or the preflight finds a fault.
    """
    recipe = training["recipe"]
    tokenizer = load_tokenizer(training)
    chosen = Selection(dataset, tokenizer, training["system_prompt"], recipe["max_length"], student)
    ledger = chosen.ledger
    # Beside the students, to be renamed; under the output's own name, so that the next start overwrites what a killed one left.
    scratch = Path(store) / "students" / f".{digest(str(Path(outputs['model']).resolve()))}.{_SAMPLES}"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        counts = write_samples(scratch, chosen)
        if not counts.samples:
            raise InputError(
                f"{dataset}: none of its {ledger.rows_in} samples fits into training.recipe.max_length = {recipe['max_length']}"
            )
        ledger.write(outputs["ledger"], outputs["dropped"])
        key = student_key(training, counts.digest, tokenizer.get_vocab(), seed)
        place = StudentPlace(store, key)
        job = {
            **{"store": store, "key": key, "training": training, "seed": seed, "student": student},
            **{"counts": counts._asdict(), "checkpoint_steps": running["checkpoint_steps"]},
        }
        with place.held():
            finished = place.finished.exists()
            if not finished:
                place.unfinished.mkdir(exist_ok=True)
                # An earlier start's file holds the same, and what was packed from it lies beside it.
                if not (place.unfinished / _SAMPLES).exists():
                    scratch.replace(place.unfinished / _SAMPLES)
        if finished:
            print(f"the store holds this student: {key}")
        elif recipe["devices"] > 1 or recipe["deepspeed"]:
            launch(job, recipe["devices"], running["nodes"], threads)
        else:
            make(**job)
    finally:
        scratch.unlink(missing_ok=True)
    place.deliver({name: outputs[Path(name).stem] for name in ("model", "log.parquet", "preflight.json")})
    facts = json.loads((place.finished / FACTS).read_text(encoding="utf-8"))
    # Not in the store: another study, or another control, may have the same student under another name.
    write_card(Path(outputs["model"]), training, seed, student, facts)
    told = {"rows": ledger.rows_in, "excluded": ledger.rows_in - ledger.kept, "excluded_tokens": chosen.excluded_tokens}
    write_json(outputs["summary"], {**told, **facts})


def make(
    store: str,
    key: str,
    training: dict[str, Any],
    seed: int,
    student: str,
    counts: dict[str, Any],
    checkpoint_steps: int,
) -> None:
    """Make the student of ``key`` in the store: in each of its processes at once, of which the first writes."""
    place, recipe = StudentPlace(store, key), training["recipe"]
    tokenizer = load_tokenizer(training)

    def run() -> Trained:
        return train(
            lambda: load_student(training, tokenizer),
            tokenizer,
            place.unfinished / _SAMPLES,
            Counts(**counts),
            recipe,
            seed,
            place.unfinished,
            place.unfinished / "model",
            f"train_student {student}",
            checkpoint_steps,
        )

    if int(os.environ.get("RANK", "0")):
        run()
        return
    with place.held():
        if place.finished.exists():  # by the job that was waited for
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise SystemExit(1)  # the launcher ends the others
            return
        trained = run()
        with place.finishing() as folder:
            (place.unfinished / "model").rename(folder / "model")
            last = trained.log[-1]
            facts = {
                "samples": counts["samples"],
                "tokens_per_epoch": counts["tokens"],
                "loss_tokens_per_epoch": counts["loss_tokens"],
                "packed_rows": trained.packed_rows,
                "fill": counts["tokens"] / (trained.packed_rows * recipe["max_length"]) if recipe["packing"] else None,
                "tokens": last["tokens"],
                "loss_tokens": last["loss_tokens"],
                "steps": last["step"],
                "seconds": last["seconds"],
                "devices": recipe["devices"],
                "device_hours": last["seconds"] * recipe["devices"] / 3600 if trained.on_gpus else None,
                "peak_memory": trained.peak_memory,
                "parameters": trained.parameters,
                "digest": model_digest(str(folder / "model"), None),
                "key": key,
                "packages": versions("torch", "transformers", "trl", "accelerate"),
            }
            write_table(folder / "log.parquet", trained.log, TRAINING_LOG, {"training": training, "seed": seed})
            write_json(folder / "preflight.json", trained.preflight)
            write_json(folder / FACTS, facts)


def write_card(folder: Path, training: Mapping[str, Any], seed: int, student: str, facts: Mapping[str, Any]) -> None:
    """The model card, by huggingface_hub. It holds no time and no path of the machine: equal students have equal cards."""
    from huggingface_hub import ModelCard, ModelCardData

    base, architecture = training["base"], training["architecture"]
    control, teacher, _ = student.split("/")
    data = ModelCardData(
        base_model=base["model"] if base and base["revision"] else None,
        base_model_relation="finetune" if base and base["revision"] else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["whichteacher", "sft", "trl"],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_CARD),
        control=control,
        teacher=teacher,
        seed=seed,
        base=base,
        architecture=architecture,
        system_prompt=training["system_prompt"],
        recipe=training["recipe"],
        facts=facts,
    )
    card.save(folder / "README.md")


def launch(job: dict[str, Any], devices: int, nodes: int, threads: int) -> None:
    """Run :func:`make` under torchrun, one process per device; on several nodes through Slurm's ``srun``.

    Raises :class:`InputError` with the words of the process that refused, :class:`RuntimeError` where one failed.
    """
    place = StudentPlace(job["store"], job["key"])
    file, refused = place.unfinished / "job.json", place.unfinished / _REFUSED
    write_json(file, job)
    refused.unlink(missing_ok=True)
    command = [*launcher(devices, nodes), __file__, str(file)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(max(1, threads * nodes // devices)),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    failed = subprocess.run(command, env=environment, check=False).returncode
    if failed and not place.finished.exists():
        if refused.exists():
            raise InputError(refused.read_text(encoding="utf-8"))
        raise RuntimeError("training failed in one of its processes; the log says where")


def launcher(devices: int, nodes: int) -> list[str]:
    """The beginning of the command that starts ``devices`` processes, on this machine or, in a Slurm job, on ``nodes``.

    Raises :class:`InputError` where several nodes are asked for outside of a Slurm job.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={devices // nodes}"]
    if nodes == 1:
        return [*torchrun, "--standalone"]
    listed = os.environ.get("SLURM_JOB_NODELIST")
    if listed is None or shutil.which("srun") is None:
        raise InputError(
            f"config key training.nodes (value {nodes}): several nodes need a Slurm job: use profiles/slurm"
        )
    hosts = subprocess.run(
        ["scontrol", "show", "hostnames", listed], capture_output=True, text=True, check=True
    ).stdout.split()
    # A port of the job's own: two jobs may share a node.
    port = 20000 + int(os.environ["SLURM_JOB_ID"]) % 20000
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={hosts[0]}:{port}", f"--rdzv-id={os.environ['SLURM_JOB_ID']}"]
    # The job itself runs as a step of the first node, whose processors and GPUs it shares with this one.
    step = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    return [*step, *torchrun, f"--nnodes={nodes}", *meeting]


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        main(
            snakemake.input.dataset,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            snakemake.params.store,  # noqa: F821
            snakemake.params.training,  # noqa: F821
            snakemake.config["running"]["training:"],  # noqa: F821
            snakemake.params.seed,  # noqa: F821
            "/".join(snakemake.wildcards),  # noqa: F821
            snakemake.threads,  # noqa: F821
        )
elif __name__ == "__main__":
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        make(**told)
    except InputError as error:
        (Path(sys.argv[1]).parent / _REFUSED).write_text(str(error), encoding="utf-8")
        raise
