#!/usr/bin/env bash
# Simulate five detectors and beams that a surrogate of PbF2 has not seen, to adapt to. Each has showers to learn from
# (log-uniform energies of 1 to 50 GeV) and others to judge on. Resumable.
# Usage: [WORKERS=2] [OUT=FOLDER] runs/shifts.sh [SHIFT ...]; FOLDER is relative to runs/.
set -euo pipefail
cd "$(dirname "$0")"
workers="${WORKERS:-2}"
out="${OUT:-shifts}"
mkdir -p "$out"

pbwo4=(--material PbWO4)                            # another crystal
matrix=(--detector matrix --cell 2.5 6)             # 0.1 cm gaps, 0.2 cm of silicon behind every layer
tilted=(--theta 20)                                 # 20 degrees; windows follow the particle
alone=(--stand-alone 2.5 6)                         # vacuum around the cells
electrons=(--particle e-)

for shift in "${@:-pbwo4 matrix tilted alone electrons}"; do for name in $shift; do
  declare -n options="$name"
  number=$(( 100 + $(printf '%s\n' pbwo4 matrix tilted alone electrons | grep -n "^$name$" | cut -d: -f1) ))
  [ -e "$out/$name.h5.done" ] || {
    calograd simulate "${options[@]}" --energies 1:50 --law log-uniform --showers 10000 --seed "$number" \
      --workers "$workers" -o "$out/$name.h5"
    touch "$out/$name.h5.done"
  }
  [ -e "$out/$name-test.h5.done" ] || {
    calograd simulate "${options[@]}" --energies 1,10,50 --showers 400 --seed "$(( number + 100 ))" \
      --workers "$workers" -o "$out/$name-test.h5"
    touch "$out/$name-test.h5.done"
  }
  case "$name" in
    matrix | alone) learn=(--cell 2.5 6) judge=(--cell 2.5 6) ;;  # each serves one design
    *) learn=(--designs 10 --unequal 0.5 --seed "$number") judge=(--cell 2.5 6 --cell 1.5 5 --cell 4 10) ;;
  esac
  [ -e "$out/$name-cells.h5" ] || calograd segment "$out/$name.h5" "${learn[@]}" -o "$out/$name-cells.h5"
  [ -e "$out/$name-test-cells.h5" ] || \
    calograd segment "$out/$name-test.h5" "${judge[@]}" -o "$out/$name-test-cells.h5"
done; done
