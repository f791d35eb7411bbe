#!/usr/bin/env bash
# Judge a PbF2 surrogate on Geant4 showers that no training has seen: 400 at each of 11 energies and 9 designs, which are
# the five families of arXiv 2601.07859, 2.5 x 6 cm, and three more. Usage: runs/pbf2-validation.sh [MODEL] [FOLDER]
set -euo pipefail
cd "$(dirname "$0")"
model="${1:-pbf2-cells}"
out="${2:-pbf2/validation}"
mkdir -p pbf2 "$out"
[ -e pbf2/eval.h5.done ] || {
  calograd simulate --material PbF2 --energies 1,10,20,30,40,50,60,70,80,90,100 --showers 400 --seed 2 \
    --workers "${WORKERS:-2}" -o pbf2/eval.h5
  touch pbf2/eval.h5.done
}
[ -e pbf2/eval-cells.h5 ] || calograd segment pbf2/eval.h5 -o pbf2/eval-cells.h5 \
  --cell 1 5 --cell 2 4 --cell 3 8 --cell 4 10 --cell 5 15 --cell 2.5 6 --cell 1.5 7 --cell 3.3 9.5 --cell 4.5 12.5
calograd sample "$model" --like pbf2/eval-cells.h5 --seed 7 -o "$out/generated.h5"
calograd evaluate "$out/generated.h5" pbf2/eval-cells.h5 --json "$out/evaluation.json" --report "$out/report.html"
