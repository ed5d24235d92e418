"""What an export is checked for before it takes its place, and what people are told to look at."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from whichteacher.published import read_record
from whichteacher.release import json_line, released_row, shard_rows
from whichteacher.release_metadata import NOT_KNOWN, SUMS
from whichteacher.rows import Fault
from whichteacher.rule import InputError
from whichteacher.tables import digest_file

#: What secrets look like, by kind: a text that each of them holds, which is fast to look for, and the whole.
_SECRETS = {
    "Hugging Face token": ("hf_", re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,}")),
    "API key": ("sk-", re.compile(r"(?<![A-Za-z0-9])sk-(?:proj-|ant-[a-z0-9]+-|or-v1-)?[A-Za-z0-9_]{20,}")),
    "AWS key": ("AKIA", re.compile(r"(?<![A-Za-z0-9])AKIA[A-Z0-9]{16}(?![A-Za-z0-9])")),
    "GitHub token": ("gh", re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,})")),
    "private key": ("PRIVATE KEY-----", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
}
#: A path from the root of a file system, as machines have it; web addresses and formulas have none of these words first.
_PATH = re.compile(
    r"(?<![\w./:~-])/(?:home|root|Users|tmp|mnt|media|scratch|gpfs|lustre|nfs|data|opt|var|srv|work)/[\w.-]"
)
_ROWS_RENDERED = 20
_PLACES_LISTED = 5
_UNKNOWN_COMMIT = "0" * 40
_COMMIT = re.compile(r"[0-9a-f]{40}")


def secrets(text: str) -> Iterator[str]:
    """The kinds of secret that ``text`` seems to hold."""
    for kind, (mark, pattern) in _SECRETS.items():
        if mark in text and pattern.search(text):
            yield kind


class Findings:
    """What looks like a secret in the texts of a dataset: counted by kind, the first places listed, never shown."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}

    def look(self, line: str, place: str) -> None:
        """Look through one record, as its line of JSON; ``place`` is ``file:line``."""
        for kind in secrets(line):
            self._rows[kind] += 1
            if self._rows[kind] <= _PLACES_LISTED:
                self._places.setdefault(kind, []).append(place)

    def lines(self) -> list[str]:
        """One sentence per kind."""
        return [
            f"{rows} row(s) hold what looks like a {kind}, made up or not: {', '.join(self._places[kind])}"
            + (", ..." if rows > _PLACES_LISTED else "")
            for kind, rows in sorted(self._rows.items())
        ]


def advice(manifest: Mapping[str, Any]) -> list[str]:
    """What is to be settled before an export is published, and fails no check."""
    found = []
    unknown = sorted({source["source"] for source in manifest["sources"] if source["asks"] == NOT_KNOWN})
    if unknown:
        found.append(
            f"no licence known by name for the sources {', '.join(unknown)}: look it up, and leave out what forbids it"
        )
    origin = manifest["teacher"]["origin"]
    if origin["kind"] == "endpoint" and origin["revision"] is None:
        found.append(
            "the teacher was asked at an endpoint, which names no revision of the model: others may get other weights"
        )
    lacking = [f"curation.release.{key}" for key, value in manifest["release"].items() if value is None]
    if lacking:
        found.append(f"the configuration says nothing in {', '.join(lacking)}: Croissant and RO-Crate ask for it")
    return found


def unpinned(settings: Any, key: str = "") -> Iterator[str]:
    """The keys in ``settings`` (plain JSON) of models and data sets of the hub that no commit is named for.

    An endpoint's block says where a model is asked, and nobody could name the commit of what answers there.
    """
    if isinstance(settings, Mapping):
        asked = settings.get("engine") == "openai" or settings.get("endpoint")
        names = ("hub", "traces") if asked or settings.get("traces") else ("hub", "model")
        for name in names:
            revision = "traces_revision" if name == "traces" else "revision"
            commit = settings.get(revision) or ""
            pinned = _COMMIT.fullmatch(commit) and commit != _UNKNOWN_COMMIT
            if settings.get(name) and not settings[name].startswith((".", "/", "(local)")) and not pinned:
                yield f"{key}.{revision}".lstrip(".")
        for name, value in settings.items():
            yield from unpinned(value, f"{key}.{name}")
    elif isinstance(settings, Sequence) and not isinstance(settings, str):
        for number, value in enumerate(settings):
            yield from unpinned(value, f"{key}.{number}")


def faults(folder: Path, manifest: Mapping[str, Any], metadata: Iterable[str]) -> Iterator[str]:
    """Everything that is wrong with an export in ``folder``, each in a line.

    ``metadata`` are the files that describe the others.
    """
    yield from _faults_of_metadata(folder, metadata)
    for key in unpinned(manifest["settings"]):
        yield f"config key {key}: no commit is named: pin the one that was used"
    yield from _faults_of_counts(manifest)
    yield from _faults_of_digests(folder)
    for name in manifest["categories"]:
        yield from _faults_of_rows(folder, name, manifest)


def check(folder: Path, manifest: Mapping[str, Any], metadata: Iterable[str]) -> None:
    """Raise :class:`InputError` naming all :func:`faults`."""
    found = list(faults(folder, manifest, metadata))
    if found:
        raise InputError("the export fails its checks: " + "; ".join(found))


def _faults_of_metadata(folder: Path, metadata: Iterable[str]) -> Iterator[str]:
    here = {str(place) for place in (Path.cwd(), Path.home(), Path(os.sep, "tmp")) if len(place.parts) > 1}
    for name in metadata:
        text = (folder / name).read_text(encoding="utf-8")
        for kind in secrets(text):
            yield f"{name} holds what looks like a {kind}: take it out of the configuration"
        found = _PATH.search(text)
        place = next((place for place in sorted(here) if re.search(rf"(?<![\w.:/]){re.escape(place)}/", text)), None)
        if found or place:
            shown = place or text[found.start() :].split()[0][:80]
            yield f"{name} names a path of this machine ({shown}): name it relative to the project in the configuration"


def _faults_of_counts(manifest: Mapping[str, Any]) -> Iterator[str]:
    per_category = {name: counts["rows"] for name, counts in manifest["categories"].items()}
    for suffix in (".jsonl", ".parquet"):
        written: Counter[str] = Counter()
        for file in manifest["files"]:
            if file["path"].endswith(suffix):
                written[file["category"]] += file["rows"]
        if dict(written) != per_category:
            yield f"rows of the {suffix} files ({dict(written)}) are not those of the dataset ({per_category})"
    last = next((step for step in reversed(manifest["ledger"]) if step["step"] == "match_datasets"), None)
    if last is None or last["kept"] != manifest["rows"]:
        yield f"the ledger keeps {last['kept'] if last else 'no'} rows and {manifest['rows']} are exported"
    for step in manifest["ledger"]:
        if step["in"] != step["kept"] + sum(step["dropped"].values()):
            yield f"the ledger of {step['step']} does not balance"


def _faults_of_digests(folder: Path) -> Iterator[str]:
    listed = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {SUMS}
    if listed.keys() != there:
        yield f"{SUMS} and the folder differ: {', '.join(sorted(listed.keys() ^ there))}"
    for name in sorted(listed.keys() & there):
        # Of large files the digest was taken when they were written to disk, and is not taken again.
        if (folder / name).stat().st_size < 2**20 and digest_file(folder / name) != listed[name]:
            yield f"{name} has another digest than {SUMS} says"


def _faults_of_rows(folder: Path, name: str, manifest: Mapping[str, Any]) -> Iterator[str]:
    """The first rows: JSON and Parquet hold the same, and it reads back as what it was written from."""
    shards = [
        file["path"] for file in manifest["files"] if file["category"] == name and file["path"].endswith(".parquet")
    ]
    with open(folder / f"{name}.jsonl", encoding="utf-8", newline="\n") as lines:
        pairs = zip(islice(lines, _ROWS_RENDERED), shard_rows(folder / shards[0]), strict=False)
        for number, (line, row) in enumerate(pairs, start=1):
            record = json.loads(line)
            if record != row:
                yield f"{name}.jsonl:{number} is another row than in {shards[0]}"
                return
            try:
                again = json_line(released_row(read_record(record)))
            except Fault as fault:
                yield f"{name}.jsonl:{number} cannot be read again: {fault.detail}"
                return
            if again != line.rstrip("\n"):
                yield f"{name}.jsonl:{number} reads back as another record"
                return
