#!/usr/bin/env bash
# Make the data of the surrogate of five materials and train it. Resumable: finished stages are skipped.
# Every material has SHOWERS=4000 showers of 1 to 100 GeV, half as many of low energy, and a 24th beyond the upper end.
# WORKERS=2 processes simulate. PbF2 takes the showers of runs/pbf2-cells.sh and runs/pbf2-validation.sh if they exist;
# SAME=pbf2 is their folder.
# Blocks and designs are equal in units of R_M and X0, so CsI, the lightest, has a block of 42 x 42 x 152 cm.
# Usage: runs/materials.sh [CONFIG.toml] [FOLDER]; paths as seen from runs/.
set -euo pipefail
cd "$(dirname "$0")"
config="${1:-materials.toml}"
out="${2:-materials}"
workers="${WORKERS:-2}"
showers="${SHOWERS:-4000}"
evaluation="${EVALUATION:-400}"
range="${RANGE:-1:100}"
low="${LOW:-0.8:3}"
high="${HIGH:-80:120}"
test_energies="${TEST_ENERGIES:-1,10,50}"
same="${SAME:-pbf2}"
mkdir -p "$out"
for names in train: low:-low high:-high eval:-test; do
  library="$same/${names%:*}.h5"
  if [ -e "$library.done" ]; then
    ln -sf "$(realpath "$library")" "$out/PbF2${names#*:}.h5"
    touch "$out/PbF2${names#*:}.h5.done"
  fi
done

block() { python3 -c "
from calograd.detector.material import Material
m = Material.parse('$1')
print(f'{11.7 * m.moliere_radius:.2f} {11.7 * m.moliere_radius:.2f} {81.5 * m.radiation_length:.2f}')"; }
simulate() { # MATERIAL NAME OPTIONS
  [ -e "$out/$2.h5.done" ] || {
    calograd simulate --material "$1" --block $(block "$1") --workers "$workers" -o "$out/$2.h5" "${@:3}"
    touch "$out/$2.h5.done"
  }
}
segment() { # LIBRARY NAME OPTIONS
  [ -e "$out/$2-cells.h5" ] || calograd segment "$out/$1.h5" -o "$out/$2-cells.h5" --scaled "${@:3}"
}

seed=100
for material in PbF2 PbWO4 BGO CsI LYSO; do
  simulate "$material" "$material" --energies "$range" --law log-uniform --showers "$showers" --seed $((seed + 1))
  simulate "$material" "$material-low" --energies "$low" --law log-uniform --showers $((showers / 2)) --seed $((seed + 2))
  simulate "$material" "$material-high" --energies "$high" --law log-uniform --showers $((showers / 24 + 1)) --seed $((seed + 3))
  segment "$material" "$material" --designs 20 --unequal 0.5 --neighbours 0.12 --seed $((seed + 4))
  segment "$material-low" "$material-low" --designs 12 --unequal 0.5 --neighbours 0.12 --seed $((seed + 5))
  segment "$material-high" "$material-high" --designs 32 --unequal 0.5 --neighbours 0.12 --seed $((seed + 6))
  # validation/leave_one_out.py tests surrogates that do not know the material on these showers, and on others that no
  # training sees, at the scaled sizes of 2.5 x 6 and 4 x 10 cm in PbF2.
  simulate "$material" "$material-test" --energies "$test_energies" --showers "$evaluation" --seed $((seed + 7))
  segment "$material-test" "$material-test" --cell 1.15 6.4 --cell 1.84 10.7
  segment "$material" "$material-fixed" --cell 1.15 6.4 --cell 1.84 10.7
  seed=$((seed + 10))
done
# A crystal that neither a training nor a choice of the material's numbers has used: validation/materials.py,
# validation/material_numbers.py.
simulate BSO:6.8:Bi4Si3O12 BSO-test --energies "$test_energies" --showers "$evaluation" --seed $((seed + 7))
segment BSO-test BSO-test --cell 1.15 6.4 --cell 1.84 10.7
calograd train "$config" -o "$out/materials-cells"
# It was bundled up to version 0.1 (SHOWERS=3000).
