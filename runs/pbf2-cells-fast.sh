#!/usr/bin/env bash
# Distil the bundled surrogate into few evaluations: three students, one after the other. It needs no Geant4, because the
# teacher generates the showers. Resumable: finished stages are skipped, an interrupted one continues.
#   NAMES="pbf2-cells-1" runs/pbf2-cells-fast.sh       some of the students
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p pbf2
[ -e pbf2/own-cells.h5 ] || calograd sample pbf2-cells --cell 1:5 4:15 --unequal 0.5 --energy 1:100 -n 60000 --seed 1 \
  --threads 1 -o pbf2/own-cells.h5
for name in ${NAMES:-pbf2-cells-fast pbf2-cells-1 pbf2-cells-4}; do
  [ -e "pbf2/$name.done" ] || { calograd train "$name.toml" -o "pbf2/$name"; touch "pbf2/$name.done"; }
done
[ ! -e pbf2/pbf2-cells-fast.done ] || python3 -c '
from calograd import Surrogate
Surrogate.load("pbf2/pbf2-cells-fast").save("../src/calograd/assets/pbf2-cells-fast", compact=True)'
