#!/usr/bin/env bash
# Written by tools/lock_environments.py: installs the stage's locked packages. The digest stands here because Snakemake
# makes a new environment when this file changes, and knows nothing of the list it reads.
set -euo pipefail
requirements="${WHICHTEACHER_ENVS:?set by workflow/rules/common.smk}/cpu/curation.txt"
echo "4673cc8b80458941c722502d51d2135cba30110d8b55643155626714ad0967a5  $requirements" | sha256sum --check --quiet
python -m pip install --quiet --no-cache-dir --require-hashes --only-binary :all: --requirement "$WHICHTEACHER_ENVS/uv.txt"
python "$WHICHTEACHER_ENVS/../tools/set_up.py" cpu/curation
