"""Tokenizers and chat templates: whether they load, write a conversation, and go with what is expected of the answers."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from whichteacher.chat import CANONICAL, RENDERED, messages, template_bytes
from whichteacher.config import UNPINNED, ModelRef, Study
from whichteacher.doctor.findings import Finding
from whichteacher.doctor.models import Use, templates, tokenizers
from whichteacher.doctor.services import Hub
from whichteacher.places import locate
from whichteacher.responses import END_THINK, THINK
from whichteacher.rounds import template
from whichteacher.rule import InputError

#: What the evaluation's interpreter is told to do with a student's folder.
_COMPARE = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from whichteacher.chat import RENDERED, check_template
check_template(AutoTokenizer.from_pretrained(sys.argv[1]), Path(sys.argv[1]) / RENDERED)
"""
_COMPARE_SECONDS = 300
_PACKAGES = Path(__file__).resolve().parents[2]


def out_of_reach(model: Use | ModelRef, hub: Hub | None) -> str:
    """Why the files of a model cannot be looked at; empty where they can."""
    if model.is_local or hub is None:
        return ""
    if model.revision == UNPINNED:
        return "commits that are all zeros"
    return "" if hub.has("models", model.model, model.revision) else hub.barrier


def check_templates(study: Study, hub: Hub | None) -> list[Finding]:
    """The tokenizer and template of every model whose prompts are rendered here; ``hub`` is None where none is needed.

    Those that are fine are one finding, and so are those that cannot be looked at for one reason.
    """
    findings, fine, unseen = [], [], {}
    named = [*((use.key, use) for use in templates(study)), *tokenizers(study).items()]
    for key, model in named:
        if barrier := out_of_reach(model, hub):
            unseen.setdefault(barrier, []).append(key)
            continue
        if isinstance(model, Use):
            finding = check_template_of(f"template of {key}", model, *_asked(study, key))
        else:
            finding = check_tokenizer_of(f"tokenizer of {key}", model)
        if finding.state == "ok":
            fine.append(key)
        else:
            findings.append(finding)
    for barrier, keys in unseen.items():
        text = f"not checked: {barrier} ({', '.join(keys)})"
        findings.append(Finding("templates", "warning", text, "ask again where these models are at hand"))
    if fine:
        findings.append(Finding("templates", "ok", f"these load and write a question: {', '.join(fine)}"))
    return findings


def _asked(study: Study, key: str) -> tuple[str, str | None]:
    """The system prompt that a model is asked with, and its answer format (None of a judge or a scorer)."""
    block, _, name = key.rpartition(".")
    if block == "teachers":
        return study.teachers[name].system_prompt, study.teachers[name].answer_format
    if block == "evaluation.models":
        model = study.evaluation.models[name]
        own = study.evaluation.system_prompt if model.system_prompt is None else model.system_prompt
        return own, model.answer_format
    return "", None


def check_template_of(name: str, model: Use, system_prompt: str, answer_format: str | None) -> Finding:
    """Whether the template of ``model`` writes a conversation, and ends it so that a response can be of ``answer_format``."""
    try:
        render = template({"model": model.model, "revision": model.revision})
    except InputError as error:
        return Finding(name, "fault", " ".join(str(error).split()), "put its tokenizer's files beside the weights")
    try:
        (prompt,) = render([messages(CANONICAL["question"], system_prompt)])
    except Exception as error:  # whatever a template raises
        remedy = "remove the system prompt where it takes none, or take another model"
        return Finding(name, "fault", f"it fails at a question: {' '.join(str(error).split())}", remedy)
    end = prompt.rstrip()
    if answer_format and end.endswith(END_THINK):
        text = f"it closes {END_THINK} before the response, so no response has thinking"
        return Finding(name, "fault", text, "take a model whose template leaves thinking to it")
    if answer_format == "tags" and end.endswith(THINK):
        text = f"it opens {THINK} itself, as models do that write no answer tags; answer_format is tags"
        return Finding(name, "warning", text, "set answer_format: thinking_only unless its answers stand in tags")
    opens = f", and opens {THINK}" if end.endswith(THINK) else ""
    return Finding(name, "ok", f"it loads and writes a question{opens}")


def check_tokenizer_of(name: str, model: ModelRef) -> Finding:
    """Whether a tokenizer can be loaded, and reads text."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(locate(model.model), revision=model.revision)
        tokens = len(tokenizer.encode("What is 1 + 1?", add_special_tokens=False))
    except (OSError, TypeError, ValueError) as error:
        return Finding(name, "fault", f"{model.model}: {' '.join(str(error).split())}", "correct id and revision")
    return Finding(name, "ok", f"it loads and makes {tokens} tokens of a question")


def check_student_template(study: Study, hub: Hub | None, evaluation_python: str | None) -> list[Finding]:
    """Whether the student's tokenizer is fit for training, and writes the same prompts where students are evaluated."""
    if study.training is None:
        return []
    name, base = "template of students", study.training.base
    if base is not None and (barrier := out_of_reach(base, hub)):
        return [Finding(name, "warning", f"not checked: {barrier}", f"ask again where {base.model} is at hand")]
    return [compare_templates(name, study.training.model_dump(mode="json"), evaluation_python)]


def compare_templates(name: str, training: dict[str, Any], evaluation_python: str | None) -> Finding:
    """Load the student's tokenizer as training does, save it, and have ``evaluation_python`` (None: it is not at hand) write the same
    conversations."""
    from whichteacher.training import load_tokenizer

    try:
        tokenizer = load_tokenizer(training)
    except (InputError, OSError, ValueError) as error:
        return Finding(name, "fault", " ".join(str(error).split()), "take another base model or tokenizer")
    if evaluation_python is None:
        return Finding(name, "ok", "fit for training; `evaluate_student` will compare it in an environment of its own")
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        tokenizer.save_pretrained(folder)
        Path(folder, RENDERED).write_text(template_bytes(tokenizer), encoding="utf-8")
        try:
            command = [evaluation_python, "-c", _COMPARE, folder]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_COMPARE_SECONDS,
                check=False,
                env={**os.environ, "PYTHONPATH": str(_PACKAGES)},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding(name, "warning", f"not compared with evaluation: {error}", "see the environments")
    if done.returncode == 0:
        return Finding(name, "ok", f"evaluation writes the same {len(CANONICAL)} conversations as training")
    if "InputError" in done.stderr:
        remedy = "make setup; the packages of training and evaluation must agree on it"
        return Finding(name, "fault", "evaluation writes other prompts than training", remedy)
    told = (done.stderr.strip().splitlines() or ["no word"])[-1]
    return Finding(name, "fault", f"evaluation's Python cannot load the tokenizer ({told})", "make setup")
