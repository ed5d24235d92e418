"""Run a miniature study on several corpus seeds and put the comparisons of its students side by side.

    .venv/bin/python tools/repeat_study.py config/config.yaml 1 2 3

The seed of the configuration uses its results folder, and each other one a folder below it (`results/seed2`, ...): its
corpus, its teachers' responses, its students and their scores are all drawn anew; the teachers and the benchmarks stay.
Writes `seeds.csv` beside the results and prints it as a Markdown table: difference in points of pass@1 with its 95 %
interval, in bold where the interval excludes zero.
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


def markdown(table: pd.DataFrame) -> list[str]:
    """Lines of a Markdown table: one row per corpus seed and pair of teachers, one column per benchmark."""
    benchmarks = list(dict.fromkeys(table["benchmark"]))
    lines = ["| corpus seed | pair | " + " | ".join(benchmarks) + " |", "| ---: | --- |" + " ---: |" * len(benchmarks)]
    for (seed, a, b), rows in table.groupby(["corpus_seed", "teacher_a", "teacher_b"], sort=False):
        cells = []
        for row in rows.set_index("benchmark").loc[benchmarks].itertuples():
            text = f"{row.difference:+.1f} [{row.low:.1f}, {row.high:.1f}]"
            cells.append(f"**{text}**" if row.low > 0 or row.high < 0 else text)
        lines.append(f"| {seed} | {a} - {b} | " + " | ".join(cells) + " |")
    return lines


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
    seeds_table = pd.concat(tables)
    seeds_table.to_csv(ROOT / base["results"] / "seeds.csv", index=False)
    print("\n".join(markdown(seeds_table)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
