"""How the miniature's shipped models were made: what they practise on, their shape and recipe."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from whichteacher.config import Recipe
from whichteacher.miniature.styles import STYLES

#: What ships: the teachers, and the scorer of perplexities.
MODELS = (*STYLES, "scorer")
#: What the models start from: it practised worked steps and ships nowhere.
BASE = "base"

#: Problems each model practises on, and the share of mathematics. Leaps are the hardest to learn.
PRACTICE_ROWS = {BASE: 48_000, "steps": 32_000, "recheck": 32_000, "leaps": 64_000, "scorer": 12_000}
MATH_SHARE = 0.6
#: The styles a model practises in, in turn; the scorer knows all, so that it belongs to no teacher's family.
PRACTICE_STYLES = {BASE: ("steps",), "scorer": STYLES} | {style: (style,) for style in STYLES}

_ARCHITECTURE = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "max_position_embeddings": 1024,
    "initializer_range": 0.08,
    "seed": 0,
}


def practice(name: str) -> dict[str, Any]:
    """Everything that decides the weights of the model ``name``, as plain JSON types."""
    recipe = Recipe(
        learning_rate=4e-3 if name == BASE else 2e-3,
        epochs=1,
        batch_size=4,
        micro_batch_size=1,
        max_length=384,
        bf16=False,
        gradient_checkpointing=False,
    )
    return {
        "rows": PRACTICE_ROWS[name],
        "styles": list(PRACTICE_STYLES[name]),
        "math_share": MATH_SHARE,
        "architecture": _ARCHITECTURE,
        "recipe": recipe.model_dump(mode="json"),
    }


def folder_digests(root: Path) -> dict[str, str]:
    """sha256 of every file below ``root`` but the record itself, by relative path."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "digests.json"
    }


def check_digests(root: Path) -> str | None:
    """What is wrong with the shipped models below ``root``, None where they are as recorded in ``digests.json``."""
    recorded = json.loads((root / "digests.json").read_text(encoding="utf-8"))
    found = folder_digests(root)
    wrong = sorted(name for name in recorded if found.get(name) != recorded[name])
    if wrong:
        return f"{root / wrong[0]}: missing or not as shipped: restore it (git checkout -- {root})"
    return None
