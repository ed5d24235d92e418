#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}/verification.txt"
echo "4f2dba4c5955986cec3db71d0e833529033deb2a6050a1bc10581f304b40a325  $requirements" | sha256sum --check --quiet
python -m pip install --no-deps --no-cache-dir --require-hashes --requirement "$requirements"
