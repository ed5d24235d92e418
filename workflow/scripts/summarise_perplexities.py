"""Perplexities of each teacher's accepted responses under every scorer, before any filter.

Reads the perplexities (PERPLEXITIES) and the limits (PERPLEXITY_LIMITS); writes a CSV with one row per teacher and scorer, in
the order of the configuration:

teacher, scorer, model; responses; scored, of these cut (scored on their first tokens); overlong (left unscored) and
other_unscored; tokens that counted; mean, q1, median, q3, q99 of the perplexities; pooled (exp of the mean negative log-likelihood over
all counted tokens, where a long response weighs more); threshold (the configuration's words), limit and above (scored responses
above it) for the scorer that filters.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from whichteacher.perplexity import CUT, OVERLONG, files_by_scorer, quantile
from whichteacher.schemas import PERPLEXITIES, PERPLEXITY_LIMITS
from whichteacher.tables import read_frame, write_text

_READ = ["tokens", "nll", "perplexity", "state"]
_QUANTILES = {"q1": 0.25, "median": 0.5, "q3": 0.75, "q99": 0.99}
COLUMNS = (
    *("teacher", "scorer", "model", "responses", "scored", "cut", "overlong", "other_unscored", "tokens", "mean"),
    *_QUANTILES,
    *("pooled", "threshold", "limit", "above"),
)


def summarise(rows: pd.DataFrame) -> dict[str, Any]:
    """The numbers of one teacher and scorer; ``rows`` has the columns tokens, nll, perplexity and state."""
    scored = rows[rows["perplexity"].notna()]
    values = scored["perplexity"].to_numpy()
    found: dict[str, Any] = {
        "responses": len(rows),
        "scored": len(scored),
        "cut": int((scored["state"] == CUT).sum()),
        "overlong": int((rows["state"] == OVERLONG).sum()),
        "tokens": int(scored["tokens"].sum()),
    }
    found["other_unscored"] = len(rows) - len(scored) - found["overlong"]
    if len(values):
        found |= {"mean": values.mean(), "pooled": math.exp(math.fsum(scored["nll"]) / found["tokens"])}
        found |= {name: quantile(values, share) for name, share in _QUANTILES.items()}
    return found


def main(
    perplexities: Mapping[tuple[str, str], Sequence[str]],
    limits: Sequence[str],
    output: str,
    scorers: Mapping[str, str],
) -> None:
    """Write the table; ``perplexities`` are the files of each teacher and scorer, ``scorers`` the scorers' models by name."""
    limited = read_frame(limits, PERPLEXITY_LIMITS).set_index(["teacher", "scorer"])[["threshold", "limit", "above"]]
    rows = []
    for (teacher, scorer), paths in perplexities.items():
        row = {"teacher": teacher, "scorer": scorer, "model": scorers[scorer]}
        row |= summarise(read_frame(paths, PERPLEXITIES, _READ))
        if (teacher, scorer) in limited.index:
            row |= limited.loc[(teacher, scorer)].to_dict()
        rows.append(row)
    write_text(output, pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        scorers = dict(snakemake.params.scorers)  # noqa: F821
        main(
            files_by_scorer(snakemake.input.perplexities, snakemake.params.teachers, list(scorers)),  # noqa: F821
            list(snakemake.input.limits),  # noqa: F821
            snakemake.output[0],  # noqa: F821
            scorers,
        )
