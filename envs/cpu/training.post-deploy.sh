#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}/cpu/training.txt"
echo "c91c8a23e1cda81c75d85f74a4019f870d7aaf0ff3ee18d8f0cfefc804d608ff  $requirements" | sha256sum --check --quiet
python -m pip install --quiet --no-cache-dir --require-hashes --only-binary :all: --requirement "$WHICHTEACHER_ENVS/uv.txt"
python "$WHICHTEACHER_ENVS/../tools/set_up.py" cpu/training
