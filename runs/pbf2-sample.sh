#!/usr/bin/env bash
# Make the bundled Geant4 samples, src/calograd/assets/pbf2-sample and pbwo4-sample. On one core of an AMD EPYC (Zen 5):
# 35 minutes.
#   reference.h5  the showers that judge 'calograd demo': 200 at 11 energies and 3 designs, seed 2. Neither the bundled
#                 surrogate nor the demo was trained on them
#   neighbours.h5 140 showers of 1, 10, 50 and 100 GeV at 2.5 x 6 cm and 4 % around it, seed 12: Geant4's gradient
#   training.h5   the showers that the demo trains on: 1000 of 1 to 100 GeV, each at 12 drawn designs
#   pbwo4-sample: 500 showers of 1 to 100 GeV in PbWO4 to adapt to, each at 4 drawn designs, seed 31, and 150 showers of
#                 1, 10, 50 and 100 GeV at 2.5 x 6 cm that judge, seed 32
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p pbf2/sample
workers="${WORKERS:-2}"
[ -e pbf2/sample/reference-library.h5 ] || calograd simulate --material PbF2 --showers 200 --seed 2 \
  --energies 1,10,20,30,40,50,60,70,80,90,100 --workers "$workers" -o pbf2/sample/reference-library.h5
[ -e pbf2/sample/training-library.h5 ] || calograd simulate --material PbF2 --showers 1000 --seed 1 \
  --energies 1:100 --law log-uniform --workers "$workers" -o pbf2/sample/training-library.h5
assets=../src/calograd/assets/pbf2-sample
mkdir -p "$assets"
[ -e "$assets/reference.h5" ] || calograd segment pbf2/sample/reference-library.h5 --cell 1 5 --cell 2.5 6 --cell 4 10 \
  -o "$assets/reference.h5"
[ -e "$assets/neighbours.h5" ] || {
  [ -e pbf2/sample/four-library.h5 ] || calograd simulate --material PbF2 --showers 140 --seed 12 \
    --energies 1,10,50,100 --workers "$workers" -o pbf2/sample/four-library.h5
  calograd segment pbf2/sample/four-library.h5 -o "$assets/neighbours.h5" --cell 2.5 6 \
    --cell 2.6020269 6 --cell 2.4019736 6 --cell 2.5 6.2448646 --cell 2.5 5.7647366
}
[ -e "$assets/training.h5" ] || calograd segment pbf2/sample/training-library.h5 --designs 12 --seed 1 \
  -o "$assets/training.h5"
other=../src/calograd/assets/pbwo4-sample
mkdir -p "$other"
[ -e pbf2/sample/pbwo4-library.h5 ] || calograd simulate --material PbWO4 --showers 500 --seed 31 --energies 1:100 \
  --law log-uniform --workers "$workers" -o pbf2/sample/pbwo4-library.h5
[ -e pbf2/sample/pbwo4-judge.h5 ] || calograd simulate --material PbWO4 --showers 150 --seed 32 --energies 1,10,50,100 \
  --workers "$workers" -o pbf2/sample/pbwo4-judge.h5
[ -e "$other/learn.h5" ] || calograd segment pbf2/sample/pbwo4-library.h5 --designs 4 --seed 31 -o "$other/learn.h5"
[ -e "$other/judge.h5" ] || calograd segment pbf2/sample/pbwo4-judge.h5 --cell 2.5 6 -o "$other/judge.h5"
