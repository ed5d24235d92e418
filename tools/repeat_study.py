"""Run a miniature study on several corpus seeds and put the comparisons of its students side by side.

    .venv/bin/python tools/repeat_study.py config/config.yaml 1 2 3

The seed of the configuration uses its results folder, and each other one a folder below it (`results/seed2`, ...): its
corpus, its teachers' responses, its students and their scores are all drawn anew; the teachers and the benchmarks stay.
Writes `seeds.csv` beside the results.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]


def moved(value: Any, old: str, new: str) -> Any:
    """``value`` with every path at or below the folder ``old`` moved to ``new``."""
    if isinstance(value, dict):
        return {key: moved(inner, old, new) for key, inner in value.items()}
    if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
        return new + value[len(old) :]
    return value


def main(config: Path, seeds: list[int]) -> None:
    """Run the seeds one after the other; stops at the first that fails."""
    base = yaml.safe_load(config.read_text(encoding="utf-8"))
    tables = []
    for seed in seeds:
        folder = base["results"] if seed == base["miniature"]["seed"] else f"{base['results']}/seed{seed}"
        study = moved(base, base["results"], folder)
        study["miniature"]["seed"] = seed
        path = ROOT / base["results"] / f"seed{seed}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
        subprocess.run(
            [Path(sys.executable).parent / "snakemake", "--configfile", path, "--cores", "all"], cwd=ROOT, check=True
        )
        table = pd.read_csv(ROOT / folder / "statistics" / "student_comparison.csv")
        tables.append(table.assign(corpus_seed=seed))
    pd.concat(tables).to_csv(ROOT / base["results"] / "seeds.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
