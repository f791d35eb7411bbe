#!/usr/bin/env bash
# Distil the base surrogate of sampling calorimeters into few evaluations. It needs the libraries that runs/sampling.sh made: their
# showers are what noise is added to, and the teacher's targets are what is learnt. Resumable: an interrupted training continues.
# Usage: runs/sampling-fast.sh [FOLDER]; the folder of runs/sampling.sh, as seen from runs/.
set -euo pipefail
cd "$(dirname "$0")"
out="${1:-sampling}"
calograd train sampling-fast.toml -o "$out/sampling-fast"
python3 -c '
import sys
from calograd import Surrogate
Surrogate.load(sys.argv[1]).save("../src/calograd/assets/sampling-fast", compact=True)' "$out/sampling-fast"
