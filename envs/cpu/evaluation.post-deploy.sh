#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}/cpu/evaluation.txt"
echo "7a2bc1dd3aab7c83ce7047a0602ce8edc72e18e8f8139d32884a712a69b87f3e  $requirements" | sha256sum --check --quiet
python -m pip install --quiet --no-cache-dir --require-hashes --only-binary :all: --requirement "$WHICHTEACHER_ENVS/uv.txt"
python "$WHICHTEACHER_ENVS/../tools/set_up.py" cpu/evaluation
