"""A dataset in the schema of the published ones: six JSONL files, one per category, and a card.

Reads TRACES; writes a folder with code, if, math, multiturn, other and science ``.jsonl`` (keys and types of the data
cards of AM-Thinking-v1-Distilled and AM-Qwen3-Distilled) and ``README.md``. A category without traces gives an empty file.
"""

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from whichteacher.responses import join_response
from whichteacher.schemas import TRACES
from whichteacher.tables import read_table

#: File names of the release, by category.
FILES = {
    "code": "code",
    "instruction_following": "if",
    "math": "math",
    "multi_turn": "multiturn",
    "general": "other",
    "science": "science",
}
_INFO = (
    "source",
    "category",
    "ground_truth",
    "test_case",
    "instruction_constrain",
    "think_content",
    "answer_content",
    "verify_score",
    "model_name",
    "ppl",
)


def released_row(trace: dict[str, Any]) -> dict[str, Any]:
    """One TRACES row as a released record: ``system`` and ``conversations`` of ``from``, ``value``, ``info``.

    The user's last message carries the reference, the final response everything; earlier turns only say where they come
    from. The cards leave open which turn carries which key.
    """
    origin = {"source": trace["source"], "category": FILES[trace["category"]]}
    reference = origin | {
        "ground_truth": trace["reference"],
        "test_case": trace["tests"],
        "instruction_constrain": trace["constraints"],
    }
    outcome = reference | {
        "think_content": trace["thinking"],
        "answer_content": trace["answer"],
        "verify_score": trace["verify_score"],
        "model_name": trace["teacher"],
        "ppl": trace["perplexity"],
    }
    turns = [("human" if turn["role"] == "user" else "assistant", turn["content"], origin) for turn in trace["turns"]]
    turns[-1] = (*turns[-1][:2], reference)
    turns.append(("assistant", join_response(trace["thinking"], trace["answer"]), outcome))
    return {
        "system": trace["system"],
        "conversations": [
            {"from": role, "value": value, "info": {key: info.get(key) for key in _INFO}} for role, value, info in turns
        ],
    }


def card(traces: list[dict[str, Any]], control: str, label: str, study: str) -> str:
    """The card: front matter the hub reads, rows and licences per source, how the data was made."""
    from huggingface_hub import DatasetCardData

    sources = Counter((trace["source"], trace["licence"]) for trace in traces)
    front = DatasetCardData(
        language=["en"],
        task_categories=["text-generation"],
        pretty_name=f"{label} traces ({study}, {control})",
        configs=[
            {"config_name": name, "data_files": f"{name}.jsonl"}
            for category, name in FILES.items()
            if any(trace["category"] == category for trace in traces)
        ],
    )
    lines = [
        "---",
        front.to_yaml(),
        "---",
        "",
        f"# {label} traces",
        "",
        f"{len(traces)} verified responses of the teacher *{label}*, control `{control}` of the study `{study}`, made by",
        "WhichTeacher. Every response passed its category's verifier; `verify_score` is its score.",
        "",
        "| source | licence | rows |",
        "| --- | --- | ---: |",
        *(f"| {source} | {licence} | {rows} |" for (source, licence), rows in sorted(sources.items())),
        "",
    ]
    return "\n".join(lines)


def main(dataset: str, folder: str, control: str, label: str, study: str) -> None:
    """Write the folder; it takes its place in one step."""
    traces = read_table(dataset, TRACES).to_pylist()
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for category, name in FILES.items():
            with open(temporary / f"{name}.jsonl", "w", encoding="utf-8") as file:
                for trace in traces:
                    if trace["category"] == category:
                        file.write(json.dumps(released_row(trace), ensure_ascii=False) + "\n")
        (temporary / "README.md").write_text(card(traces, control, label, study), encoding="utf-8")
        temporary.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.dataset,  # noqa: F821
            snakemake.output.folder,  # noqa: F821
            snakemake.wildcards.control,  # noqa: F821
            snakemake.params.label,  # noqa: F821
            snakemake.params.study,  # noqa: F821
        )
