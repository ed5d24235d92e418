"""What the rules of the workflow ask for, read from Snakemake's own objects: imported by the Snakefile, so by itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def resources_of(rules: Iterable[Any]) -> list[dict[str, Any]]:
    """``script``, ``threads`` and ``mem_mb`` (of the first attempt; None where they depend on the job) of every rule that runs
    something."""
    return [
        {
            "script": Path(str(rule.script)).stem if rule.script else rule.name,
            "mem_mb": _first(rule, "mem_mb"),
            "threads": _first(rule, "_cores"),
        }
        for rule in rules
        if rule.script or rule.shellcmd
    ]


def _first(rule: Any, name: str) -> int | None:
    try:
        found = rule.resources[name].evaluate(None, input=None, attempt=1).value
    except (AttributeError, KeyError):  # it depends on wildcards or inputs, or the rule says nothing
        return None
    return found if isinstance(found, int) else None
