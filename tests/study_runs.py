"""Running the small study, for the tests that watch what happens when something changes or dies."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from whichteacher.store import Store

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config" / "test.yaml"


#: Prints what Snakemake makes of the rules under a configuration; in a process of its own, because loading sets variables.
_LOAD = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings
with SnakemakeApi(OutputSettings(quiet={"all"})) as api:
    loaded = api.workflow(
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(configfiles=[Path(sys.argv[1])]),
        snakefile=Path("Snakefile"),
    )
    rules = {
        rule.name: {
            "environment": rule.conda_env,
            "cached": bool(rule.ruleinfo.cache),
            "shell": rule.shellcmd,
            "script": rule.script,
            "params": sorted(rule.params.keys()),
            "inputs": sorted(rule.input.keys()),
            "outputs": [len(rule.output), len(rule.output.keys())],
            "benchmark": rule.benchmark is not None,
        }
        for rule in loaded._workflow.rules
    }
print(json.dumps(rules))
"""


def load_rules(config: Path = CONFIG) -> dict[str, dict[str, Any]]:
    """The rules of a study as Snakemake sees them, by name: environment, whether cached, shell command or script, names of
    params and inputs, number of outputs and of those with a name, whether benchmarked."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(config)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


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
