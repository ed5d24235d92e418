"""How much of each teacher's data is there more than once.

Reads what ``find_duplicate_traces`` found of every teacher (RESPONSE_DIGESTS, DUPLICATE_TRACES, REPEATS); writes a CSV with one
row per teacher and measure. Columns: teacher; other (the teacher it is compared with, empty for the measures of one teacher);
measure; of (what the share is of); found; share. Measures:

* ``equal_responses``: traces whose response is also that to a query before; of all traces.
* ``repeated_responses``, ``repeated_answers``: attempts with the response, or with the answer part, of an earlier attempt at the
  same query; of all attempts but the first at each query.
* ``shared_responses``: queries to which two teachers have the same response; of the queries that both solved. A release that
  copies another shows here.
"""

from collections.abc import Mapping
from itertools import combinations

import pandas as pd

from whichteacher.schemas import DUPLICATE_TRACES, REPEATS, RESPONSE_DIGESTS
from whichteacher.tables import read_frame, read_table, write_text


def row(teacher: str, other: str, measure: str, of: int, found: int) -> dict[str, object]:
    """One row of the CSV."""
    return {
        "teacher": teacher,
        "other": other,
        "measure": measure,
        "of": of,
        "found": found,
        "share": found / of if of else None,
    }


def main(digests: Mapping[str, str], duplicates: Mapping[str, str], repeats: Mapping[str, str], output: str) -> None:
    """Summarise the tables of each teacher and write ``output``."""
    responses = {name: read_frame(path, RESPONSE_DIGESTS) for name, path in digests.items()}
    rows = []
    for name, frame in responses.items():
        equal = read_table(duplicates[name], DUPLICATE_TRACES, ["query_id"]).num_rows
        rows.append(row(name, "", "equal_responses", len(frame), equal))
        counts = read_frame(repeats[name], REPEATS).iloc[0]
        for measure in ("repeated_responses", "repeated_answers"):
            rows.append(row(name, "", measure, int(counts["later_attempts"]), int(counts[measure])))
    for one, other in combinations(responses, 2):
        both = responses[one].merge(responses[other], on="query_id")
        same = int((both["response_x"] == both["response_y"]).sum())
        rows.append(row(one, other, "shared_responses", len(both), same))
    write_text(output, pd.DataFrame(rows).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        teachers = snakemake.params.teachers  # noqa: F821
        main(
            dict(zip(teachers, snakemake.input.digests, strict=True)),  # noqa: F821
            dict(zip(teachers, snakemake.input.duplicates, strict=True)),  # noqa: F821
            dict(zip(teachers, snakemake.input.repeats, strict=True)),  # noqa: F821
            snakemake.output[0],  # noqa: F821
        )
