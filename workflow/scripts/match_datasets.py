"""Datasets that may be compared: which of each teacher's traces its students see, under one control.

Reads the TRACES of all teachers and shards; writes one TRACES table per teacher, in the order of the shards, with its
ledger and dropped rows. Controls:

* ``parallel``: the queries that every teacher solved (paper section 2.2, "paired with verified responses from all").
* ``own_passes``: everything a teacher solved.
* ``equal_rows``: own passes, cut to the row count of the smallest teacher.
* ``equal_tokens``: own passes, cut to the response tokens of the smallest teacher.

Cuts keep the first rows in the order of a digest of ``query_id``: unrelated to length, source and category, and the same
queries first for every teacher. What is kept is decided on a few narrow columns; the text is then copied part by part.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import xxhash

from whichteacher.ledger import Ledger
from whichteacher.outcomes import by_teacher
from whichteacher.rule import InputError
from whichteacher.schemas import TRACES
from whichteacher.tables import read_frame, read_parts, write_batches

#: What a control may look at.
COLUMNS = ("query_id", "output_tokens")


def digest_order(query_ids: pd.Series) -> np.ndarray:
    """Places of ``query_ids`` in an order that depends on nothing but each identifier."""
    digests = (xxhash.xxh3_64_intdigest(f"match_datasets {identifier}") for identifier in query_ids)
    return np.argsort(np.fromiter(digests, np.uint64, len(query_ids)), kind="stable")


def match(traces: Mapping[str, pd.DataFrame], control: str) -> dict[str, tuple[np.ndarray, str]]:
    """Per teacher: which of its rows (COLUMNS) are kept under ``control``, and the reason that drops the others.

    Raises :class:`InputError` for an unknown control.
    """
    if control == "parallel":
        return {name: (kept, "not_solved_by_every_teacher") for name, kept in shared(traces).items()}
    if control == "own_passes":
        return {name: (np.ones(len(frame), bool), "none") for name, frame in traces.items()}
    if control == "equal_rows":
        rows = min(len(frame) for frame in traces.values())
        return {
            name: (_first(frame, np.arange(len(frame)) < rows), "above_equal_rows") for name, frame in traces.items()
        }
    if control == "equal_tokens":
        tokens = min(int(frame["output_tokens"].sum()) for frame in traces.values())
        return {
            name: (
                _first(frame, frame["output_tokens"].to_numpy()[digest_order(frame["query_id"])].cumsum() <= tokens),
                "above_equal_tokens",
            )
            for name, frame in traces.items()
        }
    raise InputError(f"config key curation.controls (value {control!r}): no such control")


def shared(traces: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """Which rows of each teacher are of a query that every teacher solved."""
    frames = list(traces.values())
    common = frames[0]["query_id"]
    for frame in frames[1:]:
        common = common[common.isin(frame["query_id"])]
    return {name: frame["query_id"].isin(common).to_numpy() for name, frame in traces.items()}


def _first(frame: pd.DataFrame, chosen: np.ndarray) -> np.ndarray:
    """Which rows are kept, where ``chosen`` says it of the rows in their digest order."""
    kept = np.zeros(len(frame), bool)
    kept[digest_order(frame["query_id"])[chosen]] = True
    return kept


def copy(paths: Sequence[str], kept: np.ndarray) -> Iterator[pa.Table]:
    """The kept rows of ``paths``, ``kept`` being of all their rows together."""
    start = 0
    for part in read_parts(paths, TRACES):
        here = kept[start : start + part.num_rows]
        start += part.num_rows
        if here.any():
            yield part.filter(pa.array(here))


def main(
    inputs: Mapping[str, Sequence[str]],
    outputs: Mapping[str, str],
    ledgers: Mapping[str, str],
    dropped: Mapping[str, str],
    control: str,
) -> None:
    """Match and write; every mapping goes from teacher to file, ``inputs`` to its shards."""
    traces = {name: read_frame(paths, TRACES, COLUMNS) for name, paths in inputs.items()}
    for name, (kept, reason) in match(traces, control).items():
        if not kept.any():
            raise InputError(
                f"control {control}: no trace of teacher {name} is left; see the ledger of curate_traces, and give the "
                "teachers more attempts or more queries"
            )
        with tempfile.TemporaryDirectory() as folder:
            ledger = Ledger("match_datasets", f"{control}/{name}", len(kept), Path(folder, "dropped"))
            ledger.keep(int(kept.sum()))
            for identifier in traces[name]["query_id"][~kept]:
                ledger.drop(identifier, reason)
            write_batches(outputs[name], copy(inputs[name], kept), TRACES, {"control": control, "teacher": name})
            ledger.write(ledgers[name], dropped[name])


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        teachers = snakemake.params.teachers  # noqa: F821
        main(
            by_teacher(teachers, snakemake.input.traces),  # noqa: F821
            dict(zip(teachers, snakemake.output.tables, strict=True)),  # noqa: F821
            dict(zip(teachers, snakemake.output.ledgers, strict=True)),  # noqa: F821
            dict(zip(teachers, snakemake.output.dropped, strict=True)),  # noqa: F821
            snakemake.wildcards.control,  # noqa: F821
        )
