"""Join the ledgers of all steps and prove that no row went missing or came from nowhere.

Reads every step's ledger (LEDGER), the rows it dropped (DROPPED) and, of curation, the tables of what it kept; writes the
ledgers, in the order the data flows, as one CSV with the same columns. Fails, with step, scope and numbers, where

* a step does not balance: rows in = kept + dropped, for every scope;
* a step did not take in what the one before it kept, or the one before it has no ledger;
* the rows dropped are not those that the ledger counts, reason by reason;
* a table of curation does not hold as many rows as were kept.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from whichteacher.ledger import LedgerError, merge
from whichteacher.schemas import LEDGER
from whichteacher.tables import read_frame, write_text

#: Steps that hand their kept rows on, in the order of the data, and how their scopes compare: ``all`` adds up every scope;
#: ``every``: each teacher, over all of its shards, takes in all rows; ``scope``: each scope what the same one kept;
#: ``control``: each control of a teacher takes in what all shards of the teacher kept; ``seed``: each seed of a control and
#: teacher what their dataset kept.
FLOWS = (
    ("import_source", "clean_queries", "all"),
    ("clean_queries", "deduplicate_queries", "all"),
    ("deduplicate_queries", "decontaminate_queries", "all"),
    ("decontaminate_queries", "collect_attempts", "every"),
    ("collect_attempts", "curate_traces", "scope"),
    ("curate_traces", "match_datasets", "control"),
    ("match_datasets", "train_student", "seed"),
)
#: Steps with one table for each ledger, which holds the kept rows.
TABLES = ("curate_traces", "match_datasets")
_LEDGER = ".ledger.parquet"
_BATCH_ROWS = 2**16


def _rows(lines: pd.DataFrame, step: str, reason: str) -> pd.Series:
    """The rows of ``step`` for ``reason``, by scope."""
    return lines[(lines["step"] == step) & (lines["reason"] == reason)].groupby("scope", sort=True)["rows"].sum()


def _by_teacher(rows: pd.Series) -> pd.Series:
    return rows.groupby(rows.index.str.split("/").str[0]).sum()


def flow(kept: pd.Series, taken: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    """What one step kept and the next took in (by scope), under the scopes in which both must agree."""
    if kind == "all":
        return pd.Series({"all": kept.sum()}), pd.Series({"all": taken.sum()})
    if kind == "every":
        taken = _by_teacher(taken)
        return pd.Series(kept.sum(), index=taken.index), taken
    if kind == "control":
        kept = _by_teacher(kept)
        controls = dict.fromkeys(taken.index.str.split("/").str[0])
        return pd.Series({f"{name}/{teacher}": kept[teacher] for name in controls for teacher in kept.index}), taken
    if kind == "seed":
        seeds = dict.fromkeys(taken.index.str.split("/").str[-1])
        return pd.Series({f"{dataset}/{seed}": rows for dataset, rows in kept.items() for seed in seeds}), taken
    return kept, taken


def check_flows(lines: pd.DataFrame) -> None:
    """Raise :class:`LedgerError` where a step did not take in what the one before it kept.

    A study that has not run to its end may lack the last steps, but none before one that is there.
    """
    for before, after, kind in FLOWS:
        kept, taken = _rows(lines, before, "kept"), _rows(lines, after, "in")
        if taken.empty:
            continue
        if kept.empty:
            raise LedgerError(f"{after} took in {taken.sum()} rows, and {before} has no ledger: run it again")
        kept, taken = flow(kept, taken, kind)
        for scope in sorted(set(kept.index) | set(taken.index)):
            if kept.get(scope, 0) != taken.get(scope, 0):
                raise LedgerError(
                    f"{before} kept {kept.get(scope, 0)} rows of {scope}, {after} took in {taken.get(scope, 0)}: "
                    f"rows went missing or came from nowhere between them"
                )


def count_dropped(path: Path) -> Counter[tuple[str, str, str]]:
    """How many rows a table of dropped rows holds, by step, scope and reason."""
    counts: Counter[tuple[str, str, str]] = Counter()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=["step", "scope", "reason"]):
            counts.update(zip(*(batch[name].to_pylist() for name in ("step", "scope", "reason")), strict=True))
    return counts


def check_files(ledger: Path, lines: pd.DataFrame) -> None:
    """Raise :class:`LedgerError` where the files beside a ledger do not hold the rows that its ``lines`` count."""
    stem = ledger.as_posix().removesuffix(_LEDGER)
    counted = Counter(
        {
            (row.step, row.scope, row.reason): row.rows
            for row in lines.itertuples()
            if row.reason not in ("in", "kept") and row.rows
        }
    )
    found = count_dropped(Path(f"{stem}.dropped.parquet"))
    for step, scope, reason in sorted(counted.keys() | found.keys()):
        key = (step, scope, reason)
        if counted[key] != found[key]:
            raise LedgerError(
                f"{step} on {scope}: the ledger counts {counted[key]} rows dropped as {reason}, {stem}.dropped.parquet "
                f"holds {found[key]}"
            )
    for row in lines.itertuples():
        if row.step in TABLES and row.reason == "kept":
            rows = pq.read_metadata(f"{stem}.parquet").num_rows
            if rows != row.rows:
                raise LedgerError(f"{row.step} on {row.scope}: {row.rows} rows kept, {stem}.parquet holds {rows}")


def main(ledgers: Sequence[str], output: str) -> None:
    """Check ``ledgers`` and the files beside them, and write them to ``output`` as one table."""
    frames = [read_frame(path, LEDGER) for path in ledgers]
    lines = merge(frames)
    check_flows(lines)
    for path, frame in zip(ledgers, frames, strict=True):
        check_files(Path(path), frame)
    write_text(output, lines.to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.input.ledgers, snakemake.output[0])  # noqa: F821
