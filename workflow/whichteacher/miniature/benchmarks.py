"""The problems of the miniature's benchmarks: the same whatever the seed of the corpus."""

from __future__ import annotations

import random

from whichteacher.miniature.problems import Problem, draw_benchmark
from whichteacher.rule import InputError

#: Benchmarks are held out by their own seed, so students of every corpus are scored on the same problems.
BENCHMARK_SEED = "held out"

#: Draws without a new problem after which a generator counts as exhausted.
_PATIENCE = 1000


def make_benchmark(benchmark: str, count: int) -> list[Problem]:
    """The first ``count`` distinct problems of ``benchmark``. Raises :class:`InputError` where there are not so many."""
    rng = random.Random(f"{BENCHMARK_SEED}/{benchmark}")
    problems: dict[str, Problem] = {}
    patience = _PATIENCE
    while len(problems) < count:
        problem = draw_benchmark(benchmark, rng)
        patience = patience - 1 if problem.prompt in problems else _PATIENCE
        problems.setdefault(problem.prompt, problem)
        if not patience:
            raise InputError(
                f"benchmark {benchmark}: only {len(problems)} distinct problems found, {count} wanted: lower config key "
                f"miniature.problems.{benchmark}"
            )
    return list(problems.values())
