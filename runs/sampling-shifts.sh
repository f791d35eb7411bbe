#!/usr/bin/env bash
# Simulate a stack and a beam that the base surrogate of sampling calorimeters has not seen, to adapt to. It has showers to
# learn from (log-uniform energies of 1 to 20 GeV) and others to judge on. Resumable.
#   allegro   11 layers of 0.8 cm lead and 0.9 cm liquid argon, photons and electrons at 50 degrees: along the line a layer has
#             2.2 X0 of lead and 1.4 cm of argon, and both the angle and this are outside of the trained range
# Plates are 300 cm wide. On an AMD EPYC: 12 core-minutes.
# Usage: [WORKERS=2] [OUT=FOLDER] runs/sampling-shifts.sh [SHIFT ...]; FOLDER is relative to runs/.
set -euo pipefail
cd "$(dirname "$0")"
workers="${WORKERS:-2}"
out="${OUT:-sampling-shifts}"
mkdir -p "$out"

allegro=(--absorber Pb --absorber-thickness 0.8 --active G4_lAr --active-thickness 0.9 --layers 11 --theta 50)

for shift in "${@:-allegro}"; do
  case "$shift" in
    allegro) number=610 ;;
    *) echo "error: shift $shift is unknown; expected allegro" >&2 && exit 2 ;;
  esac
  declare -n options="$shift"
  simulate() {  # NAME OPTIONS...
    [ -e "$out/$1.h5.done" ] || {
      calograd simulate --detector sampling "${options[@]}" --width 300 --particle gamma,e- --workers "$workers" -o "$out/$1.h5" "${@:2}"
      touch "$out/$1.h5.done"
    }
  }
  simulate "$shift" --energies 1:20 --law log-uniform --showers 10000 --seed $((number + 1))
  simulate "$shift-test" --energies 1,5,20 --showers 2400 --seed $((number + 2))
done
