#!/usr/bin/env bash
# Distil the base surrogate of crystals into few evaluations. It needs the cells that runs/crystals.sh made: their showers
# are what noise is added to, and the teacher's targets are what is learnt. Resumable: an interrupted training continues.
# Usage: runs/crystals-fast.sh [FOLDER]; the folder of runs/crystals.sh, as seen from runs/.
set -euo pipefail
cd "$(dirname "$0")"
out="${1:-crystals}"
calograd train crystals-fast.toml -o "$out/crystals-fast"
python3 -c '
import sys
from calograd import Surrogate
Surrogate.load(sys.argv[1]).save("../src/calograd/assets/crystals-fast", compact=True)' "$out/crystals-fast"
