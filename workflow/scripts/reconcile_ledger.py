"""Join the ledgers of all steps and prove that no row went missing or came from nowhere.

Reads every step's ledger (LEDGER), in the order the data flows, and writes them as one CSV with the same columns. Fails
where a step does not balance, or where what one step kept is not what the next one took in.
"""

from collections.abc import Sequence

import pandas as pd

from whichteacher.ledger import LedgerError, merge
from whichteacher.schemas import LEDGER
from whichteacher.tables import read_frame, write_text

#: Steps that hand their kept rows on, and how their scopes compare: ``all`` adds up every scope, ``teacher`` adds up the
#: shards of each teacher, ``every`` means that each teacher takes in all rows.
FLOWS = (
    ("import_source", "clean_queries", "all"),
    ("clean_queries", "deduplicate_queries", "all"),
    ("deduplicate_queries", "decontaminate_queries", "all"),
    ("decontaminate_queries", "collect_attempts", "every"),
    ("collect_attempts", "curate_traces", "teacher"),
)


def _sums(lines: pd.DataFrame, step: str, reason: str, by_teacher: bool) -> pd.Series:
    chosen = lines[(lines["step"] == step) & (lines["reason"] == reason)]
    key = chosen["scope"].str.split("/").str[0] if by_teacher else pd.Series("all", index=chosen.index)
    return chosen.groupby(key)["rows"].sum()


def check_flows(lines: pd.DataFrame) -> None:
    """Raise :class:`LedgerError` where a step did not take in what the one before it kept."""
    for before, after, kind in FLOWS:
        kept = _sums(lines, before, "kept", kind == "teacher")
        taken = _sums(lines, after, "in", kind != "all")
        if kept.empty or taken.empty:
            continue
        if kind == "every":
            kept = pd.Series(kept.iloc[0], index=taken.index)
        for scope in sorted(set(kept.index) | set(taken.index)):
            if kept.get(scope, 0) != taken.get(scope, 0):
                raise LedgerError(
                    f"{before} kept {kept.get(scope, 0)} rows of {scope}, {after} took in {taken.get(scope, 0)}: "
                    f"rows went missing or came from nowhere between them"
                )


def main(ledgers: Sequence[str], output: str) -> None:
    """Check ``ledgers`` and write them to ``output`` as one table."""
    lines = merge(read_frame(path, LEDGER) for path in ledgers)
    check_flows(lines)
    write_text(output, lines.to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(snakemake.input.ledgers, snakemake.output[0])  # noqa: F821
