"""Write config/config.yaml, config/test.yaml and workflow/schemas/config.schema.json from the configuration's models.

    .venv/bin/python tools/render_config.py

config.yaml holds every key with its description above it; of several entries of one kind (sources, teachers,
benchmarks) the first is complete, and the others hold what differs from the defaults.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from whichteacher.config import Study  # noqa: E402
from whichteacher.miniature.study import miniature_study, small_study  # noqa: E402

_SCHEMA_LINE = "# yaml-language-server: $schema=../workflow/schemas/config.schema.json\n"
_WIDTH = 120


def scalar(value: Any) -> str:
    """A value on one line, as YAML; lists and mappings in flow style."""
    # In double quotes what cannot be seen is written as an escape.
    seen = json.dumps(value, ensure_ascii=False).isprintable()
    inside = yaml.safe_dump(
        [value],
        default_flow_style=True,
        default_style='"' if isinstance(value, str) and not value.isprintable() else None,
        sort_keys=False,
        width=2**31,
        allow_unicode=seen,
    )
    return inside.strip()[1:-1]


def yaml_lines(block: BaseModel, indent: int, complete: bool) -> list[str]:
    """The YAML of a block: ``complete`` with every key and its description, else what differs from the defaults."""
    space = " " * indent
    lines: list[str] = []
    for key, field in type(block).model_fields.items():
        value = getattr(block, key)
        if not complete and not field.is_required() and value == field.get_default(call_default_factory=True):
            continue
        if complete and indent == 0:
            lines.append("")
        if complete and field.description:
            lines += textwrap.wrap(
                field.description, _WIDTH, initial_indent=f"{space}# ", subsequent_indent=f"{space}# "
            )
        brief = not complete and isinstance(value, BaseModel) and value.model_dump(mode="json", exclude_defaults=True)
        if brief and not any(isinstance(inner, dict) for inner in brief.values()):
            lines.append(f"{space}{key}: {scalar(brief)}")
        elif isinstance(value, BaseModel):
            lines += [f"{space}{key}:", *yaml_lines(value, indent + 2, complete)]
        elif isinstance(value, dict) and value and all(isinstance(entry, BaseModel) for entry in value.values()):
            lines.append(f"{space}{key}:")
            for number, (name, entry) in enumerate(value.items()):
                lines += [f"{space}  {name}:", *yaml_lines(entry, indent + 4, complete and number == 0)]
        else:
            plain = block.model_dump(mode="json")[key]
            line = f"{space}{key}: {scalar(plain)}"
            if isinstance(plain, list) and (
                len(line) > _WIDTH or any(isinstance(item, str) and not item.isprintable() for item in plain)
            ):
                lines += [f"{space}{key}:", *(f"{space}  - {scalar(item)}" for item in plain)]
            else:
                lines.append(line)
    return lines


def rendered() -> dict[str, str]:
    """The text of every generated file, by its path in the repository."""
    made = "Written by `make config` from workflow/whichteacher"
    full = [
        f"# The miniature study, and every key there is. {made}/config.py and",
        "# miniature/study.py: copy this file and edit the copy (`make study CONFIG=my.yaml`). config/README.md explains the keys.",
    ]
    small = [
        "# The miniature study in small, for tests and continuous integration.",
        f"# {made}/miniature/study.py.",
    ]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
    return {
        "config/config.yaml": _SCHEMA_LINE + "\n".join(full + yaml_lines(miniature_study(), 0, True)) + "\n",
        "config/test.yaml": _SCHEMA_LINE + "\n".join(small + yaml_lines(small_study(), 0, False)) + "\n",
        "workflow/schemas/config.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
    }


if __name__ == "__main__":
    for path, text in rendered().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
        print(path)
