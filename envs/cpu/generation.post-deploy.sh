#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}/cpu/generation.txt"
echo "f8cd98e10f185fe8f708323560b8c8fb3afb37fabe92756145b1b5fc3a821696  $requirements" | sha256sum --check --quiet
python -m pip install --quiet --no-cache-dir --require-hashes --only-binary :all: --requirement "$WHICHTEACHER_ENVS/uv.txt"
python "$WHICHTEACHER_ENVS/../tools/set_up.py" cpu/generation
