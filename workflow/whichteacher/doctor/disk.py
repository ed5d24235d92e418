"""Room on disk, and whether the store can be kept where it is."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from whichteacher.config import Study
from whichteacher.doctor.findings import GIB, Finding, gib
from whichteacher.doctor.models import generating, queries_known, students, training_bytes
from whichteacher.model_sizes import size_of
from whichteacher.places import locate

#: Of the miniature: results, and as much again.
_MINIATURE = GIB // 4
#: What any study's logs, tables and scratch files take at least.
_LEAST = GIB
#: A response of a reasoning model has a quarter of the longest length on average (paper, Figure 3), four bytes to a token;
#: half of the queries are asked again; its text lies in the store, the attempts, the traces, the dataset and the export.
_MEAN_SHARE, _TOKEN_BYTES, _AGAIN, _COPIES = 0.25, 4, 1.5, 5
#: An environment with torch and CUDA's libraries, and one without, unpacked.
_LARGE_ENVIRONMENT, _SMALL_ENVIRONMENT = 12 * GIB, GIB
#: DeepSpeed and AdamW keep three copies of four bytes; the third checkpoint is written before the first of two leaves.
_CHECKPOINT_BYTES, _CHECKPOINTS = 16, 3
#: Of a checkpoint of adapters, and of a finished student, per parameter of the base.
_ADAPTER_BYTES, _STUDENT_BYTES = 1, 4
_NETWORK = re.compile(r"nfs|lustre|gpfs|beegfs|ceph|gluster|cifs|smb|afs|pvfs|orangefs|panfs|wekafs|9p|fuse\.sshfs")


def existing(path: str | Path) -> Path:
    """The nearest folder above ``path`` that is there, or itself."""
    place = Path(path).expanduser().absolute()
    while not place.exists():
        place = place.parent
    return place


def estimate(study: Study, missing_models: Sequence[str], conda_envs: Path | None) -> dict[str, tuple[float, str]]:
    """Bytes that the study writes at most, with how they were reckoned, by place: ``results``, ``store``, ``temporary files``,
    ``hub cache`` and ``conda environments``.

    ``missing_models`` are hub ids whose weights are yet to be downloaded; ``conda_envs`` the folder of the
    environments' lists, None where none are made.
    """
    if study.miniature:
        found = {place: (float(_MINIATURE), "measured") for place in ("results", "store", "temporary files")}
    else:
        found = _study(study)
    sizes = [size_of(name) for name in missing_models]
    if missing_models:
        known = float(sum(size.parameters * 2 for size in sizes if size))
        rest = sum(size is None for size in sizes)
        more = f", without {rest} whose name tells no size" if rest else ""
        found["hub cache"] = (known, f"weights of two bytes per parameter{more}")
    if conda_envs is not None:
        locks = [path.with_suffix(".txt").read_text(encoding="utf-8") for path in conda_envs.glob("*.yaml")]
        large = sum("\ntorch==" in lock for lock in locks)
        size = large * _LARGE_ENVIRONMENT + (len(locks) - large) * _SMALL_ENVIRONMENT
        found["conda environments"] = (float(size), f"{len(locks)} environments, {large} of them with torch")
    return found


def _study(study: Study) -> dict[str, tuple[float, str]]:
    text, words = _text(study)
    training, count = training_bytes(study), students(study)
    if training:
        # One student is in training at a time; on a cluster several are.
        each = _CHECKPOINT_BYTES if study.training.recipe.lora is None else _ADAPTER_BYTES
        trained = training[1] * (count * _STUDENT_BYTES + _CHECKPOINTS * each)
        added = f", {count} students and {_CHECKPOINTS} checkpoints of one"
    else:
        trained, added = 0.0, ""
    return {
        "results": (_LEAST + text * (_COPIES - 1), words),
        "store": (_LEAST + text + trained, f"one copy of these{added}"),
        "temporary files": (float(_LEAST), "the least"),
    }


def _text(study: Study) -> tuple[float, str]:
    """Bytes of one copy of all responses, with how they were reckoned."""
    if not study.teachers:
        return 0.0, "logs and tables"
    drawn = list(generating(study))
    if not drawn:
        paths = [Path(locate(path)) for source in study.corpus.sources.values() for path in source.files]
        size = float(sum(path.stat().st_size for path in paths if path.is_file()))
        return size, f"{gib(size)} of traces here{'' if paths else ', those of a hub not counted'}"
    queries = queries_known(study)
    if queries is None:
        return 0.0, "responses not counted, for the number of queries is not known yet"
    each = sum(attempts * tokens * _MEAN_SHARE * _TOKEN_BYTES * _AGAIN for attempts, tokens in drawn)
    return queries * each, f"{queries:,.0f} queries, responses of a quarter of max_tokens"


def check_disk(places: Mapping[str, str | Path], needed: Mapping[str, tuple[float, str]]) -> list[Finding]:
    """Free space at ``places`` against what is ``needed`` there (bytes, and how they were reckoned). Places on one file system
    share its space."""
    systems: dict[int, list[str]] = {}
    for name, path in places.items():
        systems.setdefault(existing(path).stat().st_dev, []).append(name)
    findings = []
    for names in systems.values():
        free = shutil.disk_usage(existing(places[names[0]])).free
        total = sum(needed[name][0] for name in names)
        parts = ", ".join(f"{name} {gib(needed[name][0])} ({needed[name][1]})" for name in names)
        text = f"{gib(free)} free, {gib(total)} needed by estimate: {parts}"
        if free < total:
            findings.append(Finding("disk", "fault", text, "make room, or move one of them to another disk"))
        elif free < 2 * total:
            findings.append(Finding("disk", "warning", text, "the estimate is rough: have an eye on it"))
        else:
            findings.append(Finding("disk", "ok", text))
    return findings


def file_system(path: str | Path, mounts: str | None = None) -> str:
    """The type of the file system that ``path`` lies on, as the kernel's list ``mounts`` names it; empty where it does not."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8") if mounts is None else mounts
    place = os.path.realpath(existing(path))
    found, longest = "", -1
    for line in lines.splitlines():
        _, point, kind, *_ = line.split()
        point = point.encode().decode("unicode_escape")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        # Of two mounts at one point the later one is seen.
        if inside and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def check_store(store: str) -> Finding:
    """Whether the store's folder can be listed and written, and a file there replaced by another, as its segments are."""
    place = existing(store)
    kind = file_system(place)
    where = f"a network file system ({kind})" if _NETWORK.match(kind) else kind or "an unknown file system"
    try:
        next(place.iterdir(), None)
        shelves = len(list(Path(store).glob("*/*")))
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as folder:
            old, new = Path(folder, "old"), Path(folder, "new")
            old.write_text("old", encoding="utf-8")
            new.write_text("new", encoding="utf-8")
            os.replace(new, old)
            whole = old.read_text(encoding="utf-8") == "new" and not new.exists()
    except OSError as error:
        return Finding("store", "fault", f"{store}: {error}", "set `store` to a folder that you may write to")
    if not whole:
        return Finding("store", "fault", f"{store}: a file there is not replaced at once", "move it to another disk")
    return Finding("store", "ok", f"writable, on {where}, files are replaced at once; {shelves} folders of rows")
