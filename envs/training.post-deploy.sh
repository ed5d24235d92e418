#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}/training.txt"
echo "38e5e6e446148693eb18235ce75e1a46cc4b1bf175dbaf4ca6d0f56f42bdf4ac  $requirements" | sha256sum --check --quiet
python -m pip install --no-deps --no-cache-dir --require-hashes --requirement "$requirements"
