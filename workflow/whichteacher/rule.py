"""What every rule's script does the same way: its log, its progress, its last words."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_LOG_INTERVAL_S = 60.0
_TERMINAL_INTERVAL_S = 10.0

#: Where people look while a rule runs; :func:`logged` points it at the terminal before sending stderr to the log.
_terminal = sys.stderr


class InputError(ValueError):
    """The user's files, machine or settings are at fault; the message says what to do and needs no traceback."""


def explain(error: Exception) -> str:
    """An error in one line; a full disk, whoever reports it, says what to do."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and (error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in text):
        return f"the disk is full: make room and start again, nothing that was finished is lost ({text})"
    return text


@contextmanager
def logged(snakemake: Any) -> Iterator[None]:
    """Send everything a script and its libraries print to the rule's log, and say in one line why it failed if it does.

    Raises :class:`SystemExit` with status 1 after an error, so that Snakemake adds no second traceback.
    """
    global _terminal
    with open(snakemake.log[0], "w", encoding="utf-8", buffering=1) as log:
        _terminal = os.fdopen(os.dup(2), "w", buffering=1)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr, force=True
        )
        try:
            yield
        except KeyboardInterrupt:
            # No fault, so no traceback through whatever library it met.
            print(f"{snakemake.rule}: interrupted", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
        except Exception as error:
            told = ", ".join(f"{key}={value}" for key, value in snakemake.wildcards.items())
            message = f"{snakemake.rule}{f' ({told})' if told else ''}: {explain(error)}"
            print(f"ERROR in {message}\n  log: {snakemake.log[0]}", file=_terminal)
            # Last, and without fail: the log may lie on the disk that is full.
            with suppress(OSError):
                if not isinstance(error, InputError):
                    traceback.print_exc()
                print(message, file=sys.stderr)
            raise SystemExit(1) from None


def tell(text: str) -> None:
    """Print ``text`` where people look: on the terminal, and in the log."""
    print(text, file=_terminal)
    if _terminal is not sys.stderr:
        print(text)


class Progress:
    """Rows done of ``total`` (0: not known yet), their rate and the time left; ``note`` adds the step's own numbers.

    Prints to the terminal every ten seconds and to the log every minute; the last line is always printed.
    """

    def __init__(self, step: str, total: int, unit: str = "rows") -> None:
        self.step, self.total, self.unit = step, total, unit
        self.done, self.note = 0, ""
        self._start = time.monotonic()
        self._logged = self._shown = self._start

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        print(self.line(), file=sys.stderr)

    def advance(self, rows: int = 1, note: str = "") -> None:
        """Count ``rows`` more and print where a line is due."""
        self.done += rows
        self.note = note or self.note
        now = time.monotonic()
        if now - self._logged >= _LOG_INTERVAL_S:
            self._logged = now
            print(self.line(), file=sys.stderr)
        if now - self._shown >= _TERMINAL_INTERVAL_S and _terminal.isatty():
            self._shown = now
            print(self.line(), file=_terminal)

    def line(self) -> str:
        """The line as it would be printed now."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / seconds
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        note = f", {self.note}" if self.note else ""
        total = f"/{self.total}" if self.total else ""
        return f"{self.step}: {self.done}{total} {self.unit}, {rate:.1f} {self.unit}/s{note}{left}"
