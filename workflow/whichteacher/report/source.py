"""Where the numbers of the report come from: what was read, together with the links to its files.

A table is made from a :class:`Source` and so carries the link to the file it was drawn from; none is written by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from whichteacher.report.table import Table


@dataclass(frozen=True)
class Source:
    """What data files hold, and the links to them from the page."""

    content: Any
    links: tuple[str, ...]

    def part(self, which: Any) -> Source:
        """The rows of a frame where ``which`` is true, or what a JSON object has under that name."""
        return replace(self, content=self.content[which])

    def table(self, make: Callable[..., Table], *arguments: Any) -> Table:
        """The table that ``make`` makes of the content and ``arguments``, with the links to its data."""
        return {**make(self.content, *arguments), "files": self.links}


def link(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    """The link to ``path`` from a page in ``folder``."""
    return Path(os.path.relpath(path, folder)).as_posix()


def read(path: str | os.PathLike[str], folder: str | os.PathLike[str], **options: Any) -> Source:
    """A JSON file, or a CSV as a frame, for a page in ``folder``; ``options`` are those of ``pandas.read_csv``."""
    if Path(path).suffix == ".json":
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    else:
        content = pd.read_csv(path, **options)
    return Source(content, (link(path, folder),))
