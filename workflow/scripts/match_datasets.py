"""Datasets that may be compared: which of each teacher's traces its students see, under one control.

Reads the TRACES of all teachers; writes one TRACES table per teacher with its ledger and dropped rows. Controls:

* ``parallel``: the queries that every teacher solved (paper section 2.2, "paired with verified responses from all").
* ``own_passes``: everything a teacher solved.
* ``equal_rows``: own passes, cut to the row count of the smallest teacher.
* ``equal_tokens``: own passes, cut to the response tokens of the smallest teacher.

Cuts keep the first rows in the order of a digest of ``query_id``: unrelated to length, source and category, and the same
queries first for every teacher.
"""

import pandas as pd
import xxhash

from whichteacher.ledger import Ledger
from whichteacher.rule import InputError
from whichteacher.schemas import TRACES
from whichteacher.tables import read_frame, write_table


def shuffled(traces: pd.DataFrame) -> pd.DataFrame:
    """``traces`` in an order that depends on nothing but each row's ``query_id``."""
    order = traces["query_id"].map(lambda identifier: xxhash.xxh3_64_hexdigest(f"match_datasets {identifier}"))
    return traces.assign(order=order).sort_values("order").drop(columns="order")


def match(traces: dict[str, pd.DataFrame], control: str) -> dict[str, tuple[pd.DataFrame, str]]:
    """Per teacher: the traces kept under ``control``, and the reason that drops the others.

    Raises :class:`InputError` for an unknown control.
    """
    if control == "parallel":
        shared = set.intersection(*(set(frame["query_id"]) for frame in traces.values()))
        return {
            name: (frame[frame["query_id"].isin(shared)], "not_solved_by_every_teacher")
            for name, frame in traces.items()
        }
    if control == "own_passes":
        return {name: (frame, "none") for name, frame in traces.items()}
    if control == "equal_rows":
        rows = min(len(frame) for frame in traces.values())
        return {name: (shuffled(frame).head(rows), "above_equal_rows") for name, frame in traces.items()}
    if control == "equal_tokens":
        tokens = min(int(frame["output_tokens"].sum()) for frame in traces.values())
        kept = {}
        for name, frame in traces.items():
            mixed = shuffled(frame)
            kept[name] = (mixed[mixed["output_tokens"].cumsum() <= tokens], "above_equal_tokens")
        return kept
    raise InputError(f"config key curation.controls (value {control!r}): no such control")


def main(
    inputs: dict[str, str], outputs: dict[str, str], ledgers: dict[str, str], dropped: dict[str, str], control: str
) -> None:
    """Match and write; every mapping goes from teacher to file."""
    traces = {name: read_frame(path, TRACES) for name, path in inputs.items()}
    for name, (kept, reason) in match(traces, control).items():
        if kept.empty:
            raise InputError(
                f"control {control}: no trace of teacher {name} is left; see the ledger of curate_traces, and give the "
                "teachers more attempts or more queries"
            )
        ledger = Ledger("match_datasets", f"{control}/{name}", len(traces[name]))
        ledger.keep(len(kept))
        for identifier in sorted(set(traces[name]["query_id"]) - set(kept["query_id"])):
            ledger.drop(identifier, reason)
        write_table(outputs[name], kept.sort_values("query_id"), TRACES, {"control": control, "teacher": name})
        ledger.write(ledgers[name], dropped[name])


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        teachers = snakemake.params.teachers  # noqa: F821
        main(
            dict(zip(teachers, snakemake.input.traces, strict=True)),  # noqa: F821
            dict(zip(teachers, snakemake.output.tables, strict=True)),  # noqa: F821
            dict(zip(teachers, snakemake.output.ledgers, strict=True)),  # noqa: F821
            dict(zip(teachers, snakemake.output.dropped, strict=True)),  # noqa: F821
            snakemake.wildcards.control,  # noqa: F821
        )
