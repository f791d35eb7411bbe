#!/usr/bin/env bash
# Simulate a part of the showers of the base surrogate of sampling calorimeters with the deposits in their active plates, learn
# points in the plates given the energies that the base generates, and distil these for its student. Resumable: finished stages are
# skipped. PART=4 is a quarter of the showers, 34 930; everything else is as in runs/sampling.sh, which has to have trained the
# base in runs/sampling/sampling, as runs/sampling-fast.sh its student in runs/sampling/sampling-fast.
# ONLY_MATCH=1 keeps the points of the bundled surrogates and matches only their numbers and distances to these showers; so the bundled
# files ended, with PART=4 PART_HIGH=8, which are 34 090 showers.
# Usage: runs/sampling-points.sh [FOLDER]; as seen from runs/, the folder that the configurations name.
set -euo pipefail
cd "$(dirname "$0")"
out="${1:-sampling-points}"
RECORD=points ONLY_DATA=1 PART="${PART:-4}" ./sampling.sh - "$out"
matched="$(mktemp -p . --suffix .toml)"
trap 'rm -f "$matched"' EXIT
for name in sampling sampling-fast; do
  suffix="${name#sampling}"
  config="sampling$suffix-points.toml"
  [ -z "${ONLY_MATCH:-}" ] || {
    { sed '/^\[model\]/,$d' "$config"; printf '%s\n' '[model]' 'kind = "plates"' 'points = true' '' '[training]' \
      "start = \"../src/calograd/assets/$name\"" 'only_match = true' 'threads = 1'; } >"$matched"
    config="$matched"
  }
  calograd train "$config" -o "$out-run$suffix"
  python3 -c '
import sys
from calograd import Surrogate
Surrogate.load(sys.argv[1]).save(sys.argv[2], compact=True)' "$out-run$suffix" "../src/calograd/assets/$name"
done
