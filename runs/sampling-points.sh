#!/usr/bin/env bash
# Simulate a part of the showers of the base surrogate of sampling calorimeters with the deposits in their active plates, learn
# points in the plates given the energies that the base generates, and distil these for its student. Resumable: finished stages are
# skipped. PART=4 is a quarter of the showers, 34 930; everything else is as in runs/sampling.sh, which has to have trained the
# base in runs/sampling/sampling, as runs/sampling-fast.sh its student in runs/sampling/sampling-fast.
# Usage: runs/sampling-points.sh [FOLDER]; as seen from runs/, the folder that the configurations name.
set -euo pipefail
cd "$(dirname "$0")"
out="${1:-sampling-points}"
RECORD=points ONLY_DATA=1 PART="${PART:-4}" ./sampling.sh - "$out"
for name in sampling sampling-fast; do
  suffix="${name#sampling}"
  calograd train "sampling$suffix-points.toml" -o "$out-run$suffix"
  python3 -c '
import sys
from calograd import Surrogate
Surrogate.load(sys.argv[1]).save(sys.argv[2], compact=True)' "$out-run$suffix" "../src/calograd/assets/$name"
done
