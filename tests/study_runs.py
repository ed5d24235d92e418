"""Running the small study, for the tests that watch what happens when something changes or dies."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from whichteacher.store import Store

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config" / "test.yaml"


def command(directory: Path, *arguments: str, config: Path = CONFIG) -> list[str]:
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(config)),
        *("--directory", str(directory), "--cores", "2", *arguments),
    ]


def snakemake(directory: Path, *arguments: str, config: Path = CONFIG) -> str:
    """Run to the end and return what was printed; a failure fails the test with it."""
    done = subprocess.run(command(directory, *arguments, config=config), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def planned(text: str) -> dict[str, int]:
    """Jobs per rule of a dry run."""
    table = re.search(r"^Job stats:\njob +count\n[- ]+\n(.*?)^total ", text, re.MULTILINE | re.DOTALL)
    return {} if table is None else {line.split()[0]: int(line.split()[1]) for line in table[1].splitlines()}


def changed(tmp_path: Path, change) -> Path:
    """The configuration after ``change`` has edited it in place."""
    raw = yaml.safe_load(CONFIG.read_text())
    change(raw)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def stored(results: Path) -> list[tuple[str, str]]:
    """(key, text) of every row in the store, as often as it stands there."""
    return [
        (row["key"], row["text"])
        for folder in sorted((results / "store" / "responses").glob("*"))
        for table in Store(results / "store", "responses", folder.name).tables(["key", "text"])
        for row in table.to_pylist()
    ]
