#!/usr/bin/env bash
# Make the bundled Geant4 sample of particles off the axis, src/calograd/assets/crystals-sample: 250 photons of 5 and of
# 50 GeV at 0 and at 25 degrees, in CRILIN's cells of 1.3 x 3.7 cm, entering anywhere in the middle cell and from any
# azimuth. No training has seen them. One core of an AMD EPYC: 7 minutes.
set -euo pipefail
cd "$(dirname "$0")"
out="${1:-crystals-sample}"
workers="${WORKERS:-2}"
assets=../src/calograd/assets/crystals-sample
mkdir -p "$out" "$assets"
for theta in 0 25; do
  [ -e "$out/$theta.h5" ] || calograd simulate --energies 5,50 --showers 250 --theta "$theta" --seed "40$theta" \
    --workers "$workers" -o "$out/$theta.h5"
  [ -e "$assets/theta-$theta.h5" ] || calograd segment "$out/$theta.h5" --cell 1.3 3.7 --cells 7 5 --position uniform \
    --phi 0:360 --seed 1 -o "$assets/theta-$theta.h5"
done
