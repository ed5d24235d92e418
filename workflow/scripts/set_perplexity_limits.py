"""The perplexity above which a teacher's traces are dropped, as a number.

Reads the perplexities of all shards of the teacher (PERPLEXITIES) under the scorer that filters; writes one row
(PERPLEXITY_LIMITS). A threshold is a number, or a quantile: then the limit is the smallest perplexity that this share of
the teacher's scored responses does not exceed, over all of them and exactly.
"""

from collections.abc import Sequence
from typing import Any

from whichteacher.perplexity import limits_row
from whichteacher.schemas import PERPLEXITY_LIMITS
from whichteacher.tables import write_table


def main(perplexities: Sequence[str], output: str, teacher: str, scorer: str, threshold: Any) -> None:
    """Write the teacher's limit; ``threshold`` is the configuration's, as plain JSON types, None where it has none."""
    row = limits_row(teacher, scorer, threshold, perplexities)
    write_table(output, [row], PERPLEXITY_LIMITS)
    told = f"no limit ({row['threshold'] or 'no threshold'})" if row["limit"] is None else f"limit {row['limit']:.6g}"
    print(
        f"set_perplexity_limits {teacher}: {told}, {row['above']} of {row['scored']} scored responses lie above it, "
        f"{row['rows'] - row['scored']} have no perplexity"
    )


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            list(snakemake.input.perplexities),  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.wildcards.teacher,  # noqa: F821
            snakemake.params.scorer,  # noqa: F821
            snakemake.params.threshold,  # noqa: F821
        )
