"""Fail unless every model with expected scores has them: a check of the whole evaluation against published numbers.

Reads the scores of score_models; writes the rows with an expectation as CSV, or nothing where one lies outside.
"""

import pandas as pd

from whichteacher.rule import InputError
from whichteacher.tables import write_text


def outside(scores: pd.DataFrame) -> list[str]:
    """A line for each score that does not lie where it was expected."""
    return [
        f"{row['model']} on {row['benchmark']}: pass@1 is {100 * row['pass_at_1']:.1f} % (standard error over samples "
        f"{100 * row['se_samples']:.1f}), expected {row['low']:g} to {row['high']:g} %; {100 * row['truncated']:.0f} % of the samples "
        f"were cut, {100 * row['no_answer']:.0f} % have no answer, {100 * row['unknown']:.0f} % are undecided; LightEval says "
        f"{100 * row['lighteval']:.1f} %"
        for row in scores.to_dict("records")
        if row["within"] == "False"
    ]


def main(scores: str, output: str) -> None:
    """Check and write. Raises :class:`InputError` with a line per score outside, and where nothing was expected."""
    rows = pd.read_csv(scores, dtype={"within": str})
    rows = rows[rows["within"].notna()]
    if rows.empty:
        raise InputError(
            "no model has `expected` scores: give some in evaluation.models, as config/reference.yaml does"
        )
    if lines := outside(rows):
        raise InputError("\n".join([*lines, "look at the samples tables beside the scores: prompts, cuts, extraction"]))
    print("every score lies where it was expected")
    write_text(output, rows.to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.input.scores, snakemake.output[0])  # noqa: F821
