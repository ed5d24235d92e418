"""Check this machine against a study before anything of it runs.

Reads the configuration and the machine, nothing that the study makes. Prints one line per finding with its remedy: faults, which
would make the study fail; warnings, which may, or could not be checked; and what is fine. Ends with an error where there is a
fault.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from whichteacher.config import check_config
from whichteacher.doctor.examination import examine
from whichteacher.doctor.findings import as_text, count
from whichteacher.rule import InputError, tell


def main(
    config: Mapping[str, Any], rules: Sequence[Mapping[str, Any]], conda_prefix: str | None, shown: bool = False
) -> None:
    """Print the findings; see the module's docstring. ``shown``: Snakemake itself shows the log of a job that fails.

    Raises :class:`InputError` where there is a fault.
    """
    # What the workflow adds for its rules is no key of a study.
    study = check_config({key: value for key, value in config.items() if key != "running"}, folders=False)
    envs, python = (os.environ[f"WHICHTEACHER_{name}"] for name in ("ENVS", "EVALUATION_PYTHON"))
    findings = examine(study, rules, conda_prefix, envs, python)
    failed = any(finding.state == "fault" for finding in findings)
    (print if failed and shown else tell)(as_text(findings))
    if failed:
        raise InputError(f"the study would fail here ({count(findings)})")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.config,  # noqa: F821
            snakemake.params.rules,  # noqa: F821
            snakemake.params.conda_prefix,  # noqa: F821
            snakemake.params.shown,  # noqa: F821
        )
