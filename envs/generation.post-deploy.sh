#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}/generation.txt"
echo "667796aa1724908028f71c219d6bd5fd55342fb93ea08a082d86f286a0c90ab4  $requirements" | sha256sum --check --quiet
python -m pip install --no-deps --no-cache-dir --require-hashes --requirement "$requirements"
