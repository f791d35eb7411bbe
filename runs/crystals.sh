#!/usr/bin/env bash
# Make the data of the base surrogate of crystals and train it. Resumable: finished stages are skipped.
# On two cores of an AMD EPYC: simulation 1.7 core-hours, segmentation 0.4, training 2.5 hours.
# Photons, electrons and positrons, theta 0 to 42 degrees, 0.8 to 240 GeV: a little beyond the range of the surrogate.
# The blocks are equal in units of R_M and X0 and hold seven cells of 2.8 R_M and six layers of 21 X0 along any of them.
# Beside the showers at all angles, even in theta, every crystal has some at normal incidence, where detectors are designed.
# Numbers of showers are SCALE times those below; WORKERS=2 processes simulate.
# Usage: runs/crystals.sh [CONFIG.toml] [FOLDER]; paths as seen from runs/.
set -euo pipefail
cd "$(dirname "$0")"
config="${1:-crystals.toml}"
out="${2:-crystals}"
workers="${WORKERS:-2}"
mkdir -p "$out"

block() { python3 -c "
from math import radians, tan
from calograd.detector.material import Material
m = Material.parse('$1')
depth = float(127 * m.radiation_length)
width = float(20 * m.moliere_radius) + 2 * depth * tan(radians(42))
print(f'{width:.1f} {width:.1f} {depth:.1f}')"; }
scale="${SCALE:-1}"
simulate() { # MATERIAL NAME SHOWERS SEED THETA
  [ -e "$out/$2.h5.done" ] || {
    calograd simulate --material "$1" --block $(block "$1") --particle gamma,e-,e+ --theta "$5" \
      --energies 0.8:240 --law log-uniform --showers "$(($3 * scale))" --seed "$4" --workers "$workers" -o "$out/$2.h5"
    touch "$out/$2.h5.done"
  }
}

simulate PbF2 PbF2 3500 301 0:42
simulate PbWO4 PbWO4 1200 302 0:42
simulate BGO BGO 1200 303 0:42
simulate CsI CsI 1200 304 0:42
simulate LYSO LYSO 1200 305 0:42
simulate PbF2 PbF2-0 500 321 0
simulate PbWO4 PbWO4-0 200 322 0
simulate BGO BGO-0 200 323 0
simulate CsI CsI-0 200 324 0
simulate LYSO LYSO-0 200 325 0

seed=311
for name in PbF2 PbWO4 BGO CsI LYSO PbF2-0 PbWO4-0 BGO-0 CsI-0 LYSO-0; do
  [ -e "$out/$name-cells.h5" ] || calograd segment "$out/$name.h5" -o "$out/$name-cells.h5" --cells 7 6 --scaled \
    --dx 0.43 2.85 --dz 1.9 21.1 --designs 12 --unequal 0.5 --neighbours 0.12 --position uniform --phi 0:360 --seed "$seed"
  seed=$((seed + 1))
done
calograd train "$config" -o "$out/crystals"
python3 -c '
import sys
from calograd import Surrogate
Surrogate.load(sys.argv[1]).save("../src/calograd/assets/crystals", compact=True)' "$out/crystals"
