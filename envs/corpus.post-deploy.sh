#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}/corpus.txt"
echo "3eecd1d553cf7f0c017189bcdfb05505610418dc8f7b55a3db42ab1d2a499a15  $requirements" | sha256sum --check --quiet
python -m pip install --no-deps --no-cache-dir --require-hashes --requirement "$requirements"
