"""The version of a verifier: what its verdicts depend on.

It holds a digest of the source of the rules, so no change of a rule can leave it as it was. A changed comment changes it too: that
costs a list of verdicts that differ with nothing in it, while a digest of less than the source could miss a change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path


@cache
def rules_version(modules: tuple[str, ...], packages: tuple[str, ...] = ()) -> str:
    """``<digest>+<package>-<version>...`` of the source of ``modules`` and the installed ``packages``."""
    origins = [spec.origin for module in modules if (spec := find_spec(module)) and spec.origin]
    digest = source_digest([Path(origin).read_bytes() for origin in origins])
    return "+".join([digest, *(f"{package}-{metadata.version(package)}" for package in packages)])


def source_digest(sources: Sequence[bytes]) -> str:
    """Twelve hex digits of the SHA-256 of ``sources``, one after the other."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(len(source).to_bytes(8, "big") + source)
    return digest.hexdigest()[:12]
