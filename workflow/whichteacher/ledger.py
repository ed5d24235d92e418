"""The ledger: rows in = rows kept + rows dropped by reason, for every step.

Each step owns a :class:`Ledger`, writes it as a table beside its output, and raises where it does not balance. The final
rule of the study reconciles all of them.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from whichteacher.schemas import DROPPED, LEDGER
from whichteacher.tables import append_spool, as_table, read_spool, write_batches, write_table

#: Dropped rows that a ledger with a spool holds in memory: some 20 MB.
_HELD_ROWS = 50_000


class LedgerError(RuntimeError):
    """Rows went missing or came from nowhere."""


class Ledger:
    """Counts of one step on one scope (a source, a teacher, ``teacher/shard`` or ``all``).

    A step that may drop millions of rows names a file in ``spool``: dropped rows wait there, and ``dropped`` holds the last
    ones alone. The file is the caller's to remove.
    """

    def __init__(self, step: str, scope: str, rows_in: int, spool: str | os.PathLike[str] | None = None) -> None:
        self.step, self.scope, self.rows_in = step, scope, rows_in
        self.kept = 0
        self.dropped: list[dict[str, str | None]] = []
        self.reasons: Counter[str] = Counter()
        self._spool = spool

    def keep(self, rows: int) -> None:
        """Count ``rows`` more kept rows."""
        self.kept += rows

    def drop(self, query_id: str, reason: str, detail: str | None = None) -> None:
        """Record one dropped row, with what made it fall."""
        self.dropped.append(
            {"query_id": query_id, "step": self.step, "scope": self.scope, "reason": reason, "detail": detail}
        )
        self.reasons[reason] += 1
        if self._spool is not None and len(self.dropped) >= _HELD_ROWS:
            append_spool(self._spool, as_table(self.dropped, DROPPED))
            self.dropped = []

    def rows(self) -> list[dict[str, str | int]]:
        """The ledger's lines: ``in``, ``kept``, then each reason. Raises :class:`LedgerError` if they do not balance."""
        if self.rows_in != self.kept + self.reasons.total():
            raise LedgerError(
                f"{self.step} on {self.scope}: {self.rows_in} rows in, {self.kept} kept and "
                f"{self.reasons.total()} dropped do not balance"
            )
        lines = [("in", self.rows_in), ("kept", self.kept), *sorted(self.reasons.items())]
        return [{"step": self.step, "scope": self.scope, "reason": reason, "rows": rows} for reason, rows in lines]

    def write(self, ledger: str | os.PathLike[str], dropped: str | os.PathLike[str]) -> None:
        """Write the counts and the dropped rows."""
        write_table(ledger, self.rows(), LEDGER)
        if self._spool is None:
            write_table(dropped, self.dropped, DROPPED)
        else:
            write_batches(dropped, itertools.chain(read_spool(self._spool), [as_table(self.dropped, DROPPED)]), DROPPED)


def check_balance(lines: pd.DataFrame) -> pd.DataFrame:
    """Every (step, scope) of ``lines`` (columns of LEDGER) that does not balance, as rows_in, kept, dropped."""
    wide = lines.assign(kind=lines["reason"].where(lines["reason"].isin(["in", "kept"]), "dropped")).pivot_table(
        index=["step", "scope"], columns="kind", values="rows", aggfunc="sum", fill_value=0
    )
    wide = wide.reindex(columns=["in", "kept", "dropped"], fill_value=0)
    return wide[wide["in"] != wide["kept"] + wide["dropped"]]


def merge(ledgers: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """All ledgers as one frame. Raises :class:`LedgerError` naming the first step that does not balance."""
    lines = pd.concat(list(ledgers), ignore_index=True)
    broken = check_balance(lines)
    if len(broken):
        (step, scope), row = broken.index[0], broken.iloc[0]
        raise LedgerError(f"{step} on {scope}: {row['in']} rows in, {row['kept']} kept, {row['dropped']} dropped")
    return lines
