#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}/curation.txt"
echo "0345fe15b8b953c657fbfa9c78220b4be1b1f92edc453ab0742da88a38130e2e  $requirements" | sha256sum --check --quiet
python -m pip install --no-deps --no-cache-dir --require-hashes --requirement "$requirements"
