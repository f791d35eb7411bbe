#!/usr/bin/env bash
# Adapt the base surrogate of crystals to detectors that it has not seen, and judge it before and after. Resumable: finished
# stages are skipped.
#   matrix  CRILIN's cells of 1.3 x 3.7 cm, with gaps of 0.1 cm and 0.2 cm of silicon behind every layer
#   alone   the same cells of PbF2 with vacuum around them
#   bso     a block of Bi4Si3O12, a crystal that no training has seen
# Each has SHOWERS=1000 photons of 1 to 50 GeV to learn from, and 400 of each of 1, 10 and 50 GeV to be judged by, which
# enter anywhere in the middle cell. WORKERS=2 processes simulate.
# Usage: runs/crystals-shifts.sh [SURROGATE] [FOLDER] [SHIFT ...]; paths as seen from runs/.
set -euo pipefail
cd "$(dirname "$0")"
surrogate="${1:-crystals}"
out="${2:-crystals-shifts}"
shifts=("${@:3}")
[ ${#shifts[@]} -gt 0 ] || shifts=(matrix alone bso)
showers="${SHOWERS:-1000}"
workers="${WORKERS:-2}"
mkdir -p "$out"

anywhere=(--position uniform --phi 0:360)  # drawn in the simulation of a matrix, in the segmentation of a block
matrix=(--detector matrix --cell 1.3 3.7 --cells 7 6 "${anywhere[@]}")
alone=("${matrix[@]}" --gap 0 --silicon 0 --margin 0)
bso=(--material BSO:6.8:Bi4Si3O12 --block 46.7 46.7 146)  # 20 R_M x 127 X0
for shift in "${shifts[@]}"; do
  declare -n options="$shift"
  case "$shift" in matrix) number=510 ;; alone) number=520 ;; bso) number=530 ;; esac
  case "$shift" in
    bso)
      learn=(--cells 7 6 --scaled --dx 0.45 1.6 --dz 2 21 --designs 6 --unequal 0.5 "${anywhere[@]}")
      judge=(--cells 7 6 --cell 1.3 3.7 "${anywhere[@]}")
      ;;
    *) learn=(--cells 7 6 --cell 1.3 3.7) judge=("${learn[@]}") ;;  # serves one design
  esac
  simulate() {  # NAME OPTIONS...
    [ -e "$out/$1.h5.done" ] || {
      calograd simulate "${options[@]}" --workers "$workers" -o "$out/$1.h5" "${@:2}"
      touch "$out/$1.h5.done"
    }
  }
  simulate "$shift" --energies 1:50 --law log-uniform --showers "$showers" --seed $((number + 1))
  simulate "$shift-test" --energies 1,10,50 --showers 400 --seed $((number + 2))
  [ -e "$out/$shift-cells.h5" ] || calograd segment "$out/$shift.h5" "${learn[@]}" \
    --seed $((number + 3)) -o "$out/$shift-cells.h5"
  [ -e "$out/$shift-test-cells.h5" ] || calograd segment "$out/$shift-test.h5" "${judge[@]}" \
    --seed $((number + 4)) -o "$out/$shift-test-cells.h5"
  [ -e "$out/$shift.done" ] || {
    calograd adapt "$surrogate" --data "$out/$shift-cells.h5" --method lora -o "$out/$shift"
    touch "$out/$shift.done"
  }
  for each in before after; do
    [ -e "$out/$shift-$each.json" ] && continue
    model="$surrogate"
    [ $each = after ] && model="$out/$shift"
    rm -f "$out/$shift-$each.h5"
    calograd sample "$model" --like "$out/$shift-test-cells.h5" --repeat 4 --seed 5 --extrapolate -o "$out/$shift-$each.h5"
    calograd evaluate "$out/$shift-$each.h5" "$out/$shift-test-cells.h5" --no-classifier --json "$out/$shift-$each.json"
  done
done
