"""All checks of a study, in one list."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whichteacher.config import Study
from whichteacher.doctor import disk, hardware, models, rendering, services, tools
from whichteacher.doctor.findings import Finding

#: Rules whose jobs the configuration may leave out, and whether it asks for them.
_ASKED = {
    "train_teacher": lambda study: False,
    "doctor": lambda study: False,
    "import_traces": lambda study: any(each.engine == "dataset" for each in study.teachers.values()),
    "generate_responses": lambda study: any(each.engine != "dataset" for each in study.teachers.values()),
    "train_student": lambda study: study.training is not None,
    "evaluate_student": lambda study: bool(study.training or (study.evaluation and study.evaluation.models)),
    "score_perplexity": lambda study: bool(study.curation and study.curation.perplexity) and not study.audit,
}


def asked_of(study: Study, rules: Sequence[Mapping[str, Any]], name: str) -> dict[str, int]:
    """What the rules that this study uses ask for of the resource ``name``, by script."""
    return {
        rule["script"]: rule[name]
        for rule in rules
        if rule[name] is not None and _ASKED.get(rule["script"], lambda study: True)(study)
    }


def examine(
    study: Study,
    rules: Sequence[Mapping[str, Any]],
    conda_prefix: str | None,
    conda_envs: str,
    evaluation_python: str,
) -> list[Finding]:
    """Every finding about this machine and ``study``.

    ``rules`` hold ``script``, ``mem_mb`` and ``threads`` of the workflow's rules; ``conda_prefix`` is where conda environments are
    made (None: rules run without conda), ``conda_envs`` the folder of their lists.
    """
    conda = conda_prefix is not None
    machine = hardware.read_machine()
    hub = services.read_hub() if services.needs_hub(study) else None
    missing = services.missing_weights(study, hub) if hub else []
    places: dict[str, str | Path] = {
        "results": study.results,
        "store": study.store,
        "temporary files": tempfile.gettempdir(),
    }
    if missing:
        places["hub cache"] = hub.cache
    if conda:
        places["conda environments"] = conda_prefix
    needed = disk.estimate(study, missing, Path(conda_envs) if conda else None)
    memory = {rule: float(asked) * 2**20 for rule, asked in asked_of(study, rules, "mem_mb").items()}
    return [
        *hardware.check_gpus(study, machine),
        hardware.check_memory(study, machine, memory),
        hardware.check_cores(machine, asked_of(study, rules, "threads")),
        *hardware.check_shared_memory(study),
        hardware.check_open_files(study),
        *disk.check_disk(places, needed),
        disk.check_store(study.store),
        tools.check_python(),
        *([] if conda else tools.check_environments(study, evaluation_python)),
        *tools.check_programs(study, conda),
        *tools.check_sandbox(study),
        *models.check_revisions(study),
        *models.check_local_models(study),
        *models.check_files(study),
        *models.check_remote_code(study),
        *(services.check_hub(study, hub) if hub else []),
        *services.check_endpoints(study),
        *rendering.check_templates(study, hub),
        *rendering.check_student_template(study, hub, None if conda else evaluation_python),
    ]
