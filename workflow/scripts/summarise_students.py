"""What lies behind the students' scores: the length cap, the length of answers to hard problems, the sources of noise.

Reads every student's scored samples (SCORED_SAMPLES) and writes three CSV files, each with one row per control, teacher and
benchmark (all training seeds together), the first with one per cap besides.

``score_by_cap``: cap_share (of evaluation.sampling.max_tokens) and cap_tokens; pass_at_1 if every response longer than the cap
counted as wrong, se_problems (its standard error over problems), over_cap (share of the samples that are longer). The last
cap is max_tokens itself, so its row is the score.

``adaptivity``: difficulty (stated: the benchmark's own levels; estimated: see :func:`difficulties`; empty: neither), problems,
slope (of a problem's mean log output tokens on its difficulty), low and high (bootstrap over problems).

``variance_components``: problems, seeds, samples; problem, seed, problem_seed and sampling: what each adds to the variance of
pass@1's estimate, in points squared, empty where the study cannot tell it; standard_error in points, the root of their sum
(with one seed and one sample the sum is known, and no part of it).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from whichteacher.resampling import bootstrap_slope, generator
from whichteacher.scores import read_samples, shares, standard_error
from whichteacher.students import Groups, by_students
from whichteacher.tables import write_text

#: Caps asked about, as shares of the longest response allowed.
CAP_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)


def score_by_cap(samples: pd.DataFrame, max_tokens: int) -> list[dict[str, Any]]:
    """Score of one teacher's students on one benchmark under each cap, from the same responses."""
    rows = []
    for share in CAP_SHARES:
        cap = int(share * max_tokens)
        over = samples["output_tokens"] > cap
        table, _ = shares(samples.assign(passed=samples["passed"].where(~over, 0.0)))
        by_problem = table.mean(axis=0).to_numpy()
        rows.append(
            {
                "cap_share": share,
                "cap_tokens": cap,
                "problems": len(by_problem),
                "pass_at_1": by_problem.mean(),
                "se_problems": standard_error(by_problem),
                "over_cap": over.mean(),
            }
        )
    return rows


def difficulties(samples: pd.DataFrame, others: Sequence[pd.DataFrame]) -> tuple[str, pd.Series | None]:
    """How the difficulty of one benchmark's problems is known, and the difficulty by problem.

    ``stated`` where the benchmark gives every problem one and not all the same. Else ``estimated`` from ``others``, the samples
    of the other teachers' students: 1 - pass@1, averaged over the teachers. A student's own passes are left out, for they
    would tie its lengths to its difficulties without any skill: a response that was cut off is long and wrong. With
    no other teacher there is no difficulty.
    """
    stated = samples.groupby("problem_id")["difficulty"].first()
    if stated.notna().all() and stated.nunique() > 1:
        return "stated", stated.astype(float)
    if not others:
        return "", None
    return "estimated", 1 - pd.concat([shares(other)[0].mean(axis=0) for other in others], axis=1).mean(axis=1)


def adaptivity(
    samples: pd.DataFrame,
    others: Sequence[pd.DataFrame],
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """How the length of one teacher's students' responses follows difficulty on one benchmark."""
    kind, difficulty = difficulties(samples, others)
    # An empty response has no logarithm; it counts as one token.
    lengths = np.log(samples["output_tokens"].clip(lower=1)).groupby(samples["problem_id"]).mean()
    found = {"difficulty": kind, "problems": len(lengths), "slope": np.nan, "low": np.nan, "high": np.nan}
    if difficulty is None:
        return found
    x = difficulty.loc[lengths.index].to_numpy()
    slope, low, high = bootstrap_slope(x, lengths.to_numpy(), resamples, confidence, rng)
    return found | {"slope": slope, "low": low, "high": high}


def variance_components(cells: np.ndarray, samples: int) -> dict[str, float]:
    """What problems, training seeds, their pairing and sampling add to the variance of the mean of ``cells``.

    ``cells`` holds the share of passes of ``samples`` samples, a row per training seed, a column per problem. The model is
    mean + problem + seed + problem x seed + sample, all random; components are the moment estimates of the balanced two-way
    analysis of variance (Searle, Casella and McCulloch 1992, chapter 4), with zero in the place of a negative one.

    NaN is what the design cannot tell: everything about seeds with one seed (the problem's part then holds the pairing's);
    problem x seed with one sample (it is in the sampling's); problem and sampling with one seed and one sample;
    everything but the sampling with one problem.
    """
    seeds, problems = cells.shape
    # Variance of a cell over its samples: share x (1 - share), without bias.
    within = (cells * (1 - cells)).mean() / (samples - 1) if samples > 1 else np.nan
    mean = cells.mean()
    of_problems = cells.mean(axis=0)
    of_seeds = cells.mean(axis=1)
    residual = np.nan  # what is left in a cell, of the pairing and of sampling
    if seeds > 1 and problems > 1:
        rest = cells - of_problems - of_seeds[:, None] + mean
        residual = (rest**2).sum() / ((seeds - 1) * (problems - 1))
    noise = residual if seeds > 1 else within
    problem = of_problems.var(ddof=1) - noise / seeds if problems > 1 else np.nan
    seed = of_seeds.var(ddof=1) - residual / problems if seeds > 1 else np.nan
    found = {
        "problem": problem / problems,
        "seed": seed / seeds,
        "problem_seed": (residual - within) / (seeds * problems),
        "sampling": (within if samples > 1 else residual) / (seeds * problems),
    }
    return {name: max(value, 0.0) if value == value else np.nan for name, value in found.items()}


def components_row(samples: pd.DataFrame) -> dict[str, Any]:
    """:func:`variance_components` of one teacher's students on one benchmark, in points squared."""
    table, per_problem = shares(samples)
    found = {name: 100**2 * value for name, value in variance_components(table.to_numpy(), per_problem).items()}
    # One seed and one sample tell no part, but their sum is the variance over problems.
    whole = standard_error(table.mean(axis=0).to_numpy())
    return {
        "problems": table.shape[1],
        "seeds": table.shape[0],
        "samples": per_problem,
        **found,
        "standard_error": 100 * whole if np.isnan(found["problem"]) else np.sqrt(np.nansum(list(found.values()))),
    }


def summarise_students(
    groups: Groups,
    controls: Sequence[str],
    teachers: Sequence[str],
    benchmarks: Sequence[str],
    max_tokens: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All rows of the three tables."""
    capped, adaptive, components = [], [], []
    for control in controls:
        for teacher in teachers:
            for benchmark in benchmarks:
                names = {"control": control, "teacher": teacher, "benchmark": benchmark}
                samples = groups[control, teacher, benchmark]
                others = [groups[control, other, benchmark] for other in teachers if other != teacher]
                capped += [names | row for row in score_by_cap(samples, max_tokens)]
                rng = generator(seed, *names.values())
                adaptive.append(names | adaptivity(samples, others, resamples, confidence, rng))
                components.append(names | components_row(samples))
    return pd.DataFrame(capped), pd.DataFrame(adaptive), pd.DataFrame(components)


def main(
    scored: Sequence[str],
    outputs: Mapping[str, str],
    controls: Sequence[str],
    teachers: Sequence[str],
    benchmarks: Sequence[str],
    max_tokens: int,
    statistics: Mapping[str, Any],
) -> None:
    """Read ``scored`` and write the files of ``outputs``, by name."""
    groups = by_students(read_samples(scored))
    frames = summarise_students(groups, controls, teachers, benchmarks, max_tokens, **statistics)
    for name, frame in zip(("score_by_cap", "adaptivity", "variance_components"), frames, strict=True):
        write_text(outputs[name], frame.to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.scored,  # noqa: F821
            dict(snakemake.output.items()),  # noqa: F821
            **dict(snakemake.params.items()),  # noqa: F821
        )
