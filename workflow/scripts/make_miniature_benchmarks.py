"""Make the miniature's held-out benchmarks.

Reads nothing. Writes one JSON-lines file per benchmark; the problems follow from the benchmark's name and their number
alone, never from the seed of the corpus.
"""

import json
from collections.abc import Mapping

from whichteacher.miniature.benchmarks import make_benchmark
from whichteacher.tables import write_text


def benchmark_rows(benchmark: str, count: int) -> list[dict]:
    """The rows of a benchmark's file: the columns of a source, and ``difficulty``."""
    return [
        {**problem.row(f"{benchmark}-{number:04d}"), "difficulty": problem.difficulty}
        for number, problem in enumerate(make_benchmark(benchmark, count))
    ]


def main(problems: Mapping[str, int], paths: Mapping[str, str]) -> None:
    """Write ``problems[benchmark]`` problems to ``paths[benchmark]``."""
    for benchmark, count in problems.items():
        rows = benchmark_rows(benchmark, count)
        write_text(paths[benchmark], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"{benchmark}: {len(rows)} problems")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        problems = snakemake.params.problems  # noqa: F821
        main(problems, dict(zip(problems, snakemake.output, strict=True)))  # noqa: F821
