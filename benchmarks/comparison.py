"""Whether the intervals of the statistics cover what they say, and what summaries of many traces cost.

    .venv/bin/python benchmarks/comparison.py coverage [--studies 400]
    .venv/bin/python benchmarks/comparison.py summaries [--queries 200000] [--traces 2000]

``coverage`` makes studies whose truth is known and counts how many intervals hold it, beside a baseline of the textbook on the same
data: the t interval, the delta method or Greenwood's margins. Two standard errors of a count stand beside it.

``summaries`` makes the tables of three teachers (attempts without text, measures) and of traces with text, and runs each step in a
process of its own. Rows per second and the peak of memory stand beside those of the baseline, which only reads the same columns
with pyarrow: all at once for the steps that hold a row of numbers per query, a part at a time for the one that reads text.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# As Snakemake sets them for a rule of one thread.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

ROOT = Path(__file__).resolve().parents[1]
# Last, because a module of the standard library has this file's name.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "workflow" / "scripts")]

import compare_teachers  # noqa: E402
import measure_traces  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import summarise_attempts  # noqa: E402
import summarise_costs  # noqa: E402
import summarise_teachers  # noqa: E402
from scipy import stats  # noqa: E402
from statsmodels.duration.survfunc import SurvfuncRight  # noqa: E402

from whichteacher import outcomes  # noqa: E402
from whichteacher.config import CATEGORIES  # noqa: E402
from whichteacher.ratios import Sums, bootstrap_ratio, compare_ratios  # noqa: E402
from whichteacher.resampling import PairedScores, bootstrap_mean, nested_bootstrap, problem_differences  # noqa: E402
from whichteacher.schemas import TRACE_MEASURES, TRACES  # noqa: E402
from whichteacher.survival import kaplan_meier, pseudo_values  # noqa: E402
from whichteacher.tables import read_parts, write_table  # noqa: E402

NOMINAL = 0.95
RESAMPLES = 1000
Z = stats.norm.ppf((1 + NOMINAL) / 2)
#: low, high
Bounds = tuple[float, float]

# --- coverage --------------------------------------------------------------------------------------------------------


def t_interval(values: np.ndarray) -> Bounds:
    """The textbook's interval of a mean."""
    return stats.t.interval(NOMINAL, len(values) - 1, values.mean(), stats.sem(values) or 1e-12)


def mean_of_shares(rng: np.random.Generator, count: int) -> tuple[float, Bounds, Bounds]:
    """Paired differences of passes, 80 % against 70 %."""
    values = (rng.random(count) < 0.8).astype(float) - (rng.random(count) < 0.7)
    return 0.1, bootstrap_mean(values, RESAMPLES, NOMINAL, rng)[1:], t_interval(values)


def mean_of_lengths(rng: np.random.Generator, count: int) -> tuple[float, Bounds, Bounds]:
    """Paired differences of lengths with long tails."""
    values = rng.lognormal(0.5, 0.8, count) - rng.lognormal(0, 0.8, count)
    truth = np.exp(0.5 + 0.32) - np.exp(0.32)
    return truth, bootstrap_mean(values, RESAMPLES, NOMINAL, rng)[1:], t_interval(values)


def _costs(rng: np.random.Generator, count: int, chance: float) -> tuple[Sums, float]:
    """Tokens per verified trace where failures take twice as many, and its truth."""
    solved = (rng.random(count) < chance).astype(float)
    return Sums((2 - solved) * rng.lognormal(0, 0.7, count), solved), (2 - chance) * np.exp(0.245) / chance


def cost(rng: np.random.Generator, count: int) -> tuple[float, Bounds, Bounds]:
    """One teacher's cost."""
    sums, truth = _costs(rng, count, 0.7)
    margin = Z * stats.sem(sums.residuals())
    found = bootstrap_ratio(sums, RESAMPLES, NOMINAL, rng)
    return truth, found[1:], (found.value - margin, found.value + margin)


def cost_difference(rng: np.random.Generator, count: int) -> tuple[float, Bounds, Bounds]:
    """Two teachers' costs on the same queries."""
    (first, dear), (second, cheap) = _costs(rng, count, 0.6), _costs(rng, count, 0.8)
    margin = Z * stats.sem(first.residuals() - second.residuals())
    found = compare_ratios(first, second, RESAMPLES, NOMINAL, rng).difference
    return dear - cheap, found[1:], (found.value - margin, found.value + margin)


def _attempts(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Attempts that pass with 60 %, given up after one to four."""
    needed, cap = rng.geometric(0.6, count), rng.integers(1, 5, count)
    return np.minimum(needed, cap), needed <= cap


def curve(rng: np.random.Generator, count: int) -> tuple[float, Bounds, Bounds]:
    """The share not solved after three attempts."""
    attempts, passed = _attempts(rng, count)
    row = kaplan_meier(attempts, passed, NOMINAL).set_index("attempt").reindex([1, 2, 3]).ffill().loc[3]
    fitted = SurvfuncRight(attempts, passed)
    place = np.searchsorted(fitted.surv_times, 3, side="right") - 1
    height, margin = fitted.surv_prob[place], Z * np.nan_to_num(fitted.surv_prob_se[place])
    return 0.4**3, (row["low"], row["high"]), (height - margin, height + margin)


def restricted(rng: np.random.Generator, count: int) -> tuple[float, Bounds, Bounds]:
    """Attempts per query if none gets more than three."""
    values = pseudo_values(*_attempts(rng, count), 3)
    return 1 + 0.4 + 0.16, bootstrap_mean(values, RESAMPLES, NOMINAL, rng)[1:], t_interval(values)


def students(rng: np.random.Generator, count: int) -> tuple[float, Bounds, Bounds]:
    """Students of two teachers: three training seeds that move scores, four samples per problem."""
    hard = rng.uniform(-0.3, 0.3, count)
    chances = [0.5 + shift + hard + 0.03 * rng.normal(size=(3, 1)) for shift in (0.1, 0.0)]
    pair = PairedScores(*(rng.binomial(4, chance.clip(0, 1)) / 4 for chance in chances), 4)
    return 0.1, nested_bootstrap([pair], 300, NOMINAL, rng)[1:], t_interval(problem_differences([pair]))


#: What is covered, by which interval, beside which baseline.
INTERVALS: dict[str, Callable[[np.random.Generator, int], tuple[float, Bounds, Bounds]]] = {
    "bootstrap_mean, shares | t": mean_of_shares,
    "bootstrap_mean, lengths | t": mean_of_lengths,
    "bootstrap_ratio | delta method": cost,
    "compare_ratios, difference | delta method": cost_difference,
    "kaplan_meier, third attempt | Greenwood": curve,
    "pseudo_values, bootstrap_mean | t": restricted,
    "nested_bootstrap, 3 seeds | t over problems": students,
}


def coverage(studies: int) -> None:
    """Print how often each interval holds the truth, and how wide it is, beside its baseline."""
    error = 200 * np.sqrt(NOMINAL * (1 - NOMINAL) / studies)
    print(f"nominal {100 * NOMINAL:g} %, {studies} studies each: found by chance within {error:.1f} points")
    print(f"{'interval | baseline':<44} {'queries':>7} {'found %':>8} {'baseline %':>10} {'width by baseline':>17}")
    for name, study in INTERVALS.items():
        for count in (30, 100, 500):
            rng = np.random.default_rng([count, len(name)])
            held, widths = np.zeros(2), np.zeros(2)
            for _ in range(studies):
                truth, *both = study(rng, count)
                held += [low <= truth <= high for low, high in both]
                widths += [high - low for low, high in both]
            found, baseline = 100 * held / studies
            print(f"{name:<44} {count:>7} {found:>8.1f} {baseline:>10.1f} {widths[0] / widths[1]:>17.2f}")


# --- summaries -------------------------------------------------------------------------------------------------------

TEACHERS = {"a": 0.8, "b": 0.7, "c": 0.6}
SHARD = 100_000
STATISTICS = (10000, NOMINAL, 0)
PRICES = {name: {"price_per_million_tokens": 1.0, "price_per_device_hour": None} for name in TEACHERS}


def make_tables(folder: Path, count: int) -> None:
    """Queries, attempts and measures in shards of :data:`SHARD`, with all columns that the steps read."""
    rng = np.random.default_rng(0)
    for shard, start in enumerate(range(0, count, SHARD)):
        size = min(SHARD, count - start)
        names = np.array([f"{place * 2654435761 % 2**32:032x}" for place in range(start, start + size)])
        categories = rng.choice(CATEGORIES, size)
        pq.write_table(pa.table({"query_id": names, "category": categories}), folder / f"queries.{shard}.parquet")
        for teacher, chance in TEACHERS.items():
            needed = rng.geometric(chance, size)
            drawn = np.minimum(needed, 4)
            owner = np.repeat(np.arange(size), drawn)
            attempt = np.arange(len(owner)) - np.repeat(drawn.cumsum() - drawn, drawn)
            accepted = attempt + 1 == needed[owner]
            tokens = rng.lognormal(8, 0.8, len(owner)).astype(np.int64)
            table = {
                "query_id": names[owner],
                "attempt": attempt,
                "verdict": np.where(accepted, "pass", "fail"),
                "finish_reason": np.where(rng.random(len(owner)) < 0.02, "length", "stop"),
                "prompt_tokens": np.full(len(owner), 100),
                "output_tokens": tokens,
                "seconds": tokens / 1000,
                "devices": np.ones(len(owner), dtype=np.int64),
                "accepted": accepted,
            }
            pq.write_table(pa.table(table), folder / f"attempts.{teacher}.{shard}.parquet")
    for teacher in TEACHERS:
        solved = [
            frame.loc[frame["accepted"], "query_id"].to_numpy()
            for frame in (pd.read_parquet(path) for path in sorted(folder.glob(f"attempts.{teacher}.*")))
        ]
        names = np.concatenate(solved)
        made = {"teacher": [teacher] * len(names), "query_id": names, "category": rng.choice(CATEGORIES, len(names))}
        for field in TRACE_MEASURES:
            if field.name not in made:
                made[field.name] = pa.array(rng.gamma(2, 50, len(names))).cast(field.type, safe=False)
        write_table(folder / f"measures.{teacher}.parquet", pa.table(made), TRACE_MEASURES)


def make_traces(path: Path, count: int) -> None:
    """Traces of 13,000 characters, in words, numbers and formulas."""
    rng = np.random.default_rng(0)
    words = np.array(
        ["so", "the", "value", "of", "$x^2$", "is", "12", "wait,", "therefore", "we", "count.", "each", "a"]
    )
    fixed = {pa.string(): "", pa.int64(): 1, pa.float64(): 1.0}
    rows = []
    for number in range(count):
        row = {field.name: fixed.get(field.type) for field in TRACES}
        row |= {"query_id": f"{number:032x}", "category": "math", "reference": "12", "reference_type": "number"}
        row |= {"turns": [{"role": "user", "content": "What is it?"}], "thinking": " ".join(rng.choice(words, 2700))}
        rows.append(row | {"answer": "It is \\boxed{12}."})
    write_table(path, rows, TRACES)


def steps(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is run, each after the baseline that it is compared with."""
    queries = [str(path) for path in sorted(folder.glob("queries.*"))]
    collected = {name: [str(path) for path in sorted(folder.glob(f"attempts.{name}.*"))] for name in TEACHERS}
    measures = {name: str(folder / f"measures.{name}.parquet") for name in TEACHERS}
    output, out = str(folder / "out.csv"), {name: str(folder / f"{name}.csv") for name in ("survival", "summary")}
    traces = [str(folder / "traces.parquet")]
    numbers = ["query_id", *compare_teachers.OF_TRACE]

    def read() -> list[pa.Table]:
        return [
            *(pq.read_table(path, columns=list(outcomes.READ)) for paths in collected.values() for path in paths),
            *(pq.read_table(path, columns=numbers) for path in measures.values()),
            *(pq.read_table(path, columns=["query_id", "category"]) for path in queries),
        ]

    yield "read (baseline)", read
    yield "summarise_teachers", lambda: summarise_teachers.main(collected, queries, measures, output, CATEGORIES)
    yield "summarise_attempts", lambda: summarise_attempts.main(collected, queries, out, CATEGORIES, *STATISTICS)
    yield "summarise_costs", lambda: summarise_costs.main(collected, queries, output, CATEGORIES, PRICES, *STATISTICS)
    yield (
        "compare_teachers",
        lambda: compare_teachers.main(collected, queries, measures, {}, output, CATEGORIES, PRICES, *STATISTICS),
    )
    yield "read text (baseline)", lambda: [part.num_rows for part in read_parts(traces, TRACES, measure_traces.READ)]
    yield "measure_traces", lambda: measure_traces.main(traces, str(folder / "measured.parquet"))


def run(folder: Path, name: str, answer: multiprocessing.Queue) -> None:
    """Run one of the :func:`steps` and answer with its CPU seconds, what memory held before it, and the peak, in MiB."""
    work = dict(steps(folder))[name]
    # A new process starts with its parent's peak: forget it.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    start = time.process_time()
    kept = work()
    answer.put((time.process_time() - start, before, peak_memory()))
    del kept


def peak_memory() -> float:
    """Most memory that this process has held at once, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024


def summaries(count: int, traces: int) -> None:
    """Print what each step takes, beside its baseline."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tables(folder, count)
        make_traces(folder / "traces.parquet", traces)
        attempts = sum(pq.read_metadata(path).num_rows for path in folder.glob("attempts.*"))
        print(f"{count:,} queries, {len(TEACHERS)} teachers, {attempts:,} attempts; {traces:,} traces with text")
        print(
            f"{'step':<22} {'CPU s':>7} {'rows/s':>11} {'by baseline':>11} {'peak MiB':>9} {'added MiB':>9} {'by it':>6}"
        )
        context = multiprocessing.get_context("spawn")
        for step, _ in steps(folder):
            answer = context.Queue()
            process = context.Process(target=run, args=(folder, step, answer))
            process.start()
            seconds, before, peak = answer.get()
            process.join()
            if "baseline" in step:
                first = seconds, peak - before
                rows = attempts if step.startswith("read (") else traces
            added = peak - before
            print(
                f"{step:<22} {seconds:>7.1f} {rows / seconds:>11,.0f} {seconds / first[0]:>11.1f} {peak:>9.0f} {added:>9.0f} "
                f"{added / max(first[1], 1):>6.1f}"
            )


def main() -> None:
    """Read what is asked for and run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("coverage").add_argument("--studies", type=int, default=400)
    costs = what.add_parser("summaries")
    costs.add_argument("--queries", type=int, default=200_000)
    costs.add_argument("--traces", type=int, default=2000)
    given = parser.parse_args()
    if given.what == "coverage":
        coverage(given.studies)
    else:
        summaries(given.queries, given.traces)


if __name__ == "__main__":
    main()
