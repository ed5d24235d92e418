"""Where in the store a student is made and kept: checkpoints while it is trained, then the student itself, by content.

``<store>/students/<key>/`` holds ``unfinished`` (samples and checkpoints) during a training and ``finished`` after it. The key is a
digest of all that decides what a student learns: every token of its samples, where it starts from, recipe and seed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whichteacher.rule import tell
from whichteacher.store import digest, model_digest
from whichteacher.tables import atomic_folder, digest_file

#: Part of every key: raised when a change of the project's code changes what a student learns from the same samples.
STUDENT_VERSION = 1
_KEY_DIGITS = 32
#: What a training took, beside the student.
FACTS = "training.json"


def student_key(training: Mapping[str, Any], samples: str, vocabulary: Mapping[str, int], seed: int) -> str:
    """The key of a student; ``samples`` is the digest of its samples, ``training`` the configuration block.

    A base model is its revision or, as a folder, its files, and not its path. The system prompt is in the samples.
    """
    base = training["base"]
    start = training["architecture"] and {
        name: value for name, value in training["architecture"].items() if name != "tokenizer"
    }
    if base is not None:
        start = {"base": model_digest(base["model"], base["revision"]), "dtype": base["dtype"]}
    decides = {
        "version": STUDENT_VERSION,
        "samples": samples,
        "vocabulary": digest(dict(vocabulary)),
        "start": start,
        "recipe": training["recipe"],
        "seed": seed,
    }
    return digest(decides)[:_KEY_DIGITS]


class StudentPlace:
    """The folder of one student in the store."""

    def __init__(self, store: str | os.PathLike[str], key: str) -> None:
        self.folder = Path(store) / "students" / key
        self.unfinished, self.finished = self.folder / "unfinished", self.folder / "finished"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against other jobs that train the same student; they wait, and find it finished.

        The lock goes with the process that holds it, however that ends.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"another process trains the student {self.folder.name}: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def finishing(self) -> Iterator[Path]:
        """A folder that becomes ``finished`` in one step, on disk; ``unfinished`` is removed after that."""
        with atomic_folder(self.finished) as made:
            yield made
            for path in made.rglob("*"):
                if path.is_file():
                    digest_file(path)
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def deliver(self, names: Mapping[str, str]) -> None:
        """Put the finished files and folders of ``names`` (name: where to), as links where the file system allows it."""
        for name, target in names.items():
            source = self.finished / name
            for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
                place = Path(target) / path.relative_to(source) if source.is_dir() else Path(target)
                if path.is_file():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.unlink(missing_ok=True)
                    try:
                        os.link(path, place)
                    except OSError:  # another file system, or one without links
                        shutil.copyfile(path, place)


def students(store: str | os.PathLike[str]) -> Iterator[tuple[str, Path, dict[str, Any] | None]]:
    """(key, folder, what its training took) of every student in a store, the last None where it is not finished."""
    for folder in sorted((Path(store) / "students").glob("*")):
        if folder.is_dir():
            told = folder / "finished" / FACTS
            yield folder.name, folder, json.loads(told.read_text(encoding="utf-8")) if told.exists() else None
