#!/usr/bin/env bash
# Simulates the detectors that a surrogate of PbF2 has not seen, to adapt to: five shifts, each with showers to learn
# from (log-uniform energies) and others to judge on. Resumable. Usage: runs/shifts.sh [SHIFT ...]
# A shift takes about 50 core-minutes for its 10 000 showers and 12 for the 1 600 to judge on (AMD EPYC, Zen 5).
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p shifts
workers="${WORKERS:-2}"

pbwo4=(--material PbWO4)                            # another crystal
matrix=(--detector matrix --cell 2.5 6)             # 0.1 cm gaps, 0.2 cm of silicon behind every layer
tilted=(--theta 20 --position -2.9 0)               # 20 degrees, the shower's core stays near the axis
alone=(--stand-alone 2.5 6)                         # nothing around the cells
electrons=(--particle e-)

for shift in "${@:-pbwo4 matrix tilted alone electrons}"; do for name in $shift; do
  declare -n options="$name"
  number=$(( 100 + $(printf '%s\n' pbwo4 matrix tilted alone electrons | grep -n "^$name$" | cut -d: -f1) ))
  [ -e "shifts/$name.h5.done" ] || {
    calograd simulate "${options[@]}" --energies 1:100 --law log-uniform --showers 10000 --seed "$number" \
      --workers "$workers" -o "shifts/$name.h5"
    touch "shifts/$name.h5.done"
  }
  [ -e "shifts/$name-test.h5.done" ] || {
    calograd simulate "${options[@]}" --energies 1,10,30,90 --showers 400 --seed "$(( number + 100 ))" \
      --workers "$workers" -o "shifts/$name-test.h5"
    touch "shifts/$name-test.h5.done"
  }
  case "$name" in
    matrix | alone) learn=(--cell 2.5 6) judge=(--cell 2.5 6) ;;  # each serves one design
    *) learn=(--designs 10 --unequal 0.5 --seed "$number") judge=(--cell 2.5 6 --cell 1.5 5 --cell 4 10) ;;
  esac
  [ -e "shifts/$name-cells.h5" ] || calograd segment "shifts/$name.h5" "${learn[@]}" -o "shifts/$name-cells.h5"
  [ -e "shifts/$name-test-cells.h5" ] || \
    calograd segment "shifts/$name-test.h5" "${judge[@]}" -o "shifts/$name-test-cells.h5"
done; done
