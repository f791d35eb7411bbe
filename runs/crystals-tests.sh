#!/usr/bin/env bash
# Compare the base surrogate of crystals with Geant4 showers that it was never trained on. Resumable: finished files are kept.
# SHOWERS=2000 a point; MORE="5:2000 50:1000 200:400" instead gives numbers by energy, GeV. WORKERS=2 processes simulate.
# Photons enter anywhere in the middle cell and from any azimuth, but for the group "axis".
# Usage: runs/crystals-tests.sh [SURROGATE] [FOLDER]; paths as seen from runs/.
set -euo pipefail
cd "$(dirname "$0")"
surrogate="${1:-crystals}"
out="${2:-crystals-tests}"
workers="${WORKERS:-2}"
mkdir -p "$out"

number() { # ENERGY
  for pair in ${MORE:-}; do [ "${pair%%:*}" = "$1" ] && { echo "${pair##*:}"; return; }; done
  echo "${SHOWERS:-2000}"
}
simulate() { # NAME ENERGY SEED OPTIONS...
  local name="$1-$2" energy="$2" seed="$3"
  shift 3
  [ -e "$out/$name.h5.done" ] && return
  calograd simulate --energies "$energy" --showers "$(number "$energy")" --seed "$seed" --workers "$workers" "$@" -o "$out/$name.h5"
  touch "$out/$name.h5.done"
}
compare() { # LIBRARY NAME SEED SEGMENTATION...
  local library="$1" name="$2" seed="$3" files=("$out/$2-cells.h5" "$out/$2-generated.h5")
  shift 3
  [ -e "${files[0]}" ] || calograd segment "$out/$library.h5" "$@" --seed "$seed" -o "${files[0]}"
  [ -e "$out/$name.json" ] && return
  rm -f "${files[1]}"
  calograd sample "$surrogate" --like "${files[0]}" --seed "$seed" -o "${files[1]}"
  calograd evaluate "${files[1]}" "${files[0]}" --json "$out/$name.json" --report "$out/$name.html"
}
anywhere=(--position uniform --phi 0:360)
crilin=(--cell 1.3 3.7 --cells 7 5)

# (a) CRILIN's cells at four angles
for theta in 0 10 25 40; do
  for energy in 5 50 200; do
    simulate "photons-$theta" "$energy" "4$(printf %02d "$theta")$energy" --block 257.8 257.8 119 --theta "$theta"
    compare "photons-$theta-$energy" "crilin-$theta-$energy" 1 "${crilin[@]}" "${anywhere[@]}"
  done
done
# (b) other cells, at normal incidence
for energy in 5 50 200; do
  compare "photons-0-$energy" "cells-$energy" 2 --cell 2.5 6 --cell 1 4 --cell 3 14 --cell 6 20 --cells 7 5 "${anywhere[@]}"
done
# (c) electrons and positrons
for energy in 5 50; do
  simulate charged "$energy" "45$energy" --block 257.8 257.8 119 --particle e-,e+ --theta 0:40
  compare "charged-$energy" "charged-$energy" 3 "${crilin[@]}" "${anywhere[@]}"
done
# (d) PbWO4 at 10 degrees
for energy in 5 50 200; do
  simulate PbWO4-10 "$energy" "47$energy" --material PbWO4 --block 244.1 244.1 113.3 --theta 10
  compare "PbWO4-10-$energy" "PbWO4-10-$energy" 4 --cell 1.2 3.6 --cells 7 5 "${anywhere[@]}"
done
# (e) the nine designs of the validation of pbf2-cells, on the axis
for energy in 1 5 50 100; do
  simulate photons-0 "$energy" "40$energy" --block 257.8 257.8 119
  compare "photons-0-$energy" "axis-$energy" 5 --cell 1 5 --cell 2 4 --cell 3 8 --cell 4 10 --cell 5 15 \
    --cell 2.5 6 --cell 1.5 7 --cell 3.3 9.5 --cell 4.5 12.5
done
