"""Score the models that were evaluated beside the students.

Reads their scored samples (SCORED_SAMPLES); writes a CSV with one row per model and benchmark: model, benchmark, the columns of
:func:`whichteacher.scores.score`, low and high (the percents that were expected, empty where nothing was) and within (whether
pass@1 lies there).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.scores import read_samples, score
from whichteacher.tables import write_text


def score_models(samples: pd.DataFrame, models: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The rows; ``models`` are the blocks of the configuration by name, in order."""
    rows = []
    for (name, benchmark), group in samples.groupby(["teacher", "benchmark"], sort=False):
        row = {"model": name, "benchmark": benchmark, **score(group)}
        low, high = models[name]["expected"].get(benchmark, (None, None))
        within = None if low is None else bool(low <= 100 * row["pass_at_1"] <= high)
        rows.append(row | {"low": low, "high": high, "within": within})
    frame = pd.DataFrame(rows)
    order = {name: place for place, name in enumerate(models)}
    return frame.sort_values("model", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def main(scored: Sequence[str], output: str, models: Mapping[str, Mapping[str, Any]]) -> None:
    """Read ``scored`` and write ``output``."""
    write_text(output, score_models(read_samples(scored), models).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(list(snakemake.input.scored), snakemake.output[0], snakemake.params.models)  # noqa: F821
