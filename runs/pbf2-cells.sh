#!/usr/bin/env bash
# Make the data of the bundled surrogate and train it. Resumable: finished stages are skipped.
# On 2 cores of an AMD EPYC (Zen 5): 50 minutes of simulation, 4 of segmentation, 60 of training.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p pbf2
workers="${WORKERS:-2}"
simulate() { [ -e "pbf2/$1.h5.done" ] || { calograd simulate --material PbF2 --workers "$workers" -o "pbf2/$1.h5" "${@:2}"; touch "pbf2/$1.h5.done"; }; }
segment() { [ -e "pbf2/$1-cells.h5" ] || calograd segment "pbf2/$1.h5" -o "pbf2/$1-cells.h5" "${@:2}"; }

# Energies of the whole range, more of the low ones, which are cheap and difficult, and some beyond the upper end.
simulate train --energies 1:100 --law log-uniform --showers 12020 --seed 1
simulate low --energies 0.8:3 --law log-uniform --showers 6000 --seed 3
simulate high --energies 80:120 --law log-uniform --showers 500 --seed 4
# Half of the designs have an own depth for every layer. Every design has a neighbour, to learn derivatives from.
segment train --designs 20 --unequal 0.5 --neighbours 0.12 --seed 11
segment low --designs 20 --unequal 0.5 --neighbours 0.12 --seed 12
segment high --designs 32 --unequal 0.5 --neighbours 0.12 --seed 13
calograd train pbf2-cells.toml -o pbf2/pbf2-cells
python3 -c '
from calograd import Surrogate
Surrogate.load("pbf2/pbf2-cells").save("../src/calograd/assets/pbf2-cells", compact=True)'
