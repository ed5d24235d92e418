"""Put the models that `snakemake teachers` made into `resources/teachers`, with the digest of every file.

For maintainers: after a change of the miniature's problems, styles or practice. Run by `make teachers`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from whichteacher.miniature.teachers import MODELS, folder_digests  # noqa: E402
from whichteacher.miniature.tokenizer import build_tokenizer  # noqa: E402

_SHIPPED = ("model.safetensors", "config.json", "generation_config.json")


def main(made: Path, target: Path) -> None:
    """Copy each model's weights and settings, and the one tokenizer into every folder."""
    tokenizer = build_tokenizer()
    shutil.rmtree(target, ignore_errors=True)
    tokenizer.save_pretrained(target / "tokenizer")
    for name in MODELS:
        tokenizer.save_pretrained(target / name)
        for file in _SHIPPED:
            shutil.copyfile(made / name / file, target / name / file)
    (target / "digests.json").write_text(json.dumps(folder_digests(target), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), ROOT / "resources" / "teachers")
