"""Where a path of the configuration lies."""

from __future__ import annotations

from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[2]

#: The folder of what the project ships.
_SHIPPED = "resources"


def locate(path: str) -> str:
    """The file or folder a configuration names; a hub id is returned as it is.

    A relative path is seen from the working directory; what is not there and is of ``resources/`` is looked for in the
    project itself, so that a study run in another directory (``--directory``) still finds the models the project ships.
    Nothing else of the project's folder is: another study may have left its results there. Tables and parameters keep
    the path as written: they say nothing of the machine.
    """
    here = Path(path)
    shipped = _PROJECT / path
    if here.parts[:1] == (_SHIPPED,) and not here.exists() and shipped.exists():
        return str(shipped)
    return str(here)
