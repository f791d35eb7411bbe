#!/usr/bin/env bash
# Make the bundled Geant4 sample of a stack of plates, src/calograd/assets/sampling-sample: electrons in 30 layers of
# tungsten and 0.5 mm of silicon. 'calograd demo' compares with them; no training has seen them. One core of an AMD
# EPYC: 5 minutes.
#   reference.h5      300 of 1, 10 and 40 GeV behind 2.5 mm of tungsten, seed 9001
#   neighbours.h5     800 of 10 GeV, each in a stack of its own around it: Geant4's derivatives, seed 9002
#   tungsten-*.h5     200 of 10 GeV behind 1, 1.5, 3.5 and 5 mm of tungsten, seeds 9003 to 9006
set -euo pipefail
cd "$(dirname "$0")"
assets=../src/calograd/assets/sampling-sample
mkdir -p "$assets"
simulate() { # FILE SEED SHOWERS ENERGIES TUNGSTEN SILICON
  [ -e "$assets/$1.h5" ] || calograd simulate --detector sampling --absorber W --active Si --layers 30 --particle e- \
    --seed "$2" --showers "$3" --energies "$4" --absorber-thickness "$5" --active-thickness "$6" \
    --workers "${WORKERS:-2}" -o "$assets/$1.h5"; }
simulate reference 9001 300 1,10,40 0.25 0.05
simulate neighbours 9002 800 10 0.175:0.325 0.035:0.065
seed=9003
for tungsten in 0.1 0.15 0.35 0.5; do
  simulate "tungsten-$tungsten" "$seed" 200 10 "$tungsten" 0.05
  seed=$((seed + 1))
done
