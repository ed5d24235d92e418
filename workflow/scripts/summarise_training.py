"""What training each student took, and what was proved before it began.

Reads every student's summary (JSON), preflight (JSON) and ledger (LEDGER); writes a CSV with one row per student. Columns:

control, teacher, seed; traces, and of them too_long and control_token (left out for that reason), and the excluded_tokens of these; samples, tokens and
loss_tokens of one epoch; packed_rows of one epoch and fill (share of them that is no padding; empty without packing);
steps, tokens_seen and loss_tokens_seen over all epochs; seconds over all starts, tokens_per_second; devices, device_hours
(empty without GPUs); peak_memory (bytes, of the fullest device; without a GPU of the largest process); parameters;
neighbour_loss and own_loss (how far one packed sample's loss moves when all of its neighbour's tokens change, and when one of
its own does; empty where nothing was packed); accumulation_difference (of the loss of sequences one after another from their loss
at once, as a share of it) and repetition_difference (the larger share by which loss or gradient norm moves when it is taken again with
the same seed); digest (of the weights).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from whichteacher.schemas import LEDGER
from whichteacher.tables import read_frame, write_text


def student_row(folder: Path) -> dict[str, Any]:
    """The row of the student whose results lie in ``folder``, which ends in control, teacher and seed."""
    summary, preflight = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("summary", "preflight")
    )
    dropped = read_frame(folder / "rows.ledger.parquet", LEDGER).set_index("reason")["rows"]
    isolation = preflight["isolation"] or {}
    # Absent of students that the store has kept since before these were tried.
    accumulation, repetition = preflight.get("accumulation"), preflight.get("repetition")
    control, teacher, seed = folder.parts[-3:]
    return {
        "control": control,
        "teacher": teacher,
        "seed": int(seed),
        "traces": summary["rows"],
        **{reason: int(dropped.get(reason, 0)) for reason in ("too_long", "control_token")},
        "excluded_tokens": summary["excluded_tokens"],
        "samples": summary["samples"],
        "tokens": summary["tokens_per_epoch"],
        "loss_tokens": summary["loss_tokens_per_epoch"],
        **{name: summary[name] for name in ("packed_rows", "fill", "steps")},
        "tokens_seen": summary["tokens"],
        "loss_tokens_seen": summary["loss_tokens"],
        "seconds": summary["seconds"],
        "tokens_per_second": summary["tokens"] / summary["seconds"],
        **{name: summary[name] for name in ("devices", "device_hours", "peak_memory", "parameters")},
        "neighbour_loss": isolation.get("neighbour"),
        "own_loss": isolation.get("own"),
        "accumulation_difference": accumulation and abs(accumulation["apart"] / accumulation["together"] - 1),
        "repetition_difference": repetition and max(abs(again / first - 1) for first, again in repetition.values()),
        "digest": summary["digest"],
    }


def main(summaries: Sequence[str], output: str) -> None:
    """Write the table of the students of ``summaries``, in their order."""
    write_text(output, pd.DataFrame([student_row(Path(path).parent) for path in summaries]).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.input.summaries, snakemake.output[0])  # noqa: F821
