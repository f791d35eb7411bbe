#!/usr/bin/env bash
# Make the data of the base surrogate of crystals and train it. Resumable: finished stages are skipped.
# It has not been run to its end yet; docs/log.md has a pilot of it.
# Photons, electrons and positrons, theta 0 to 42 degrees, 0.8 to 240 GeV: a little beyond the range of the surrogate.
# The blocks are equal in units of R_M and X0 and hold seven cells of 2.8 R_M and six layers of 21 X0 along any of them.
# SHOWERS=8000 of PbF2 and OTHERS=3000 of each of the other crystals; WORKERS=2 processes simulate.
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
simulate() { # MATERIAL NAME SHOWERS SEED
  [ -e "$out/$2.h5.done" ] || {
    calograd simulate --material "$1" --block $(block "$1") --particle gamma,e-,e+ --theta 0:42 \
      --energies 0.8:240 --law log-uniform --showers "$3" --seed "$4" --workers "$workers" -o "$out/$2.h5"
    touch "$out/$2.h5.done"
  }
}

simulate PbF2 PbF2 "$((${SHOWERS:-8000} / 2))" 301
simulate PbWO4 PbWO4 "${OTHERS:-3000}" 302
simulate BGO BGO "${OTHERS:-3000}" 303
simulate CsI CsI "${OTHERS:-3000}" 304
simulate LYSO LYSO "${OTHERS:-3000}" 305
simulate PbF2 PbF2-more "$((${SHOWERS:-8000} / 2))" 306

seed=311
for name in PbF2 PbF2-more PbWO4 BGO CsI LYSO; do
  [ -e "$out/$name-cells.h5" ] || calograd segment "$out/$name.h5" -o "$out/$name-cells.h5" --cells 7 6 --scaled \
    --dx 0.43 2.85 --dz 1.9 21.1 --designs 12 --unequal 0.5 --neighbours 0.12 --position uniform --phi 0:360 --seed "$seed"
  seed=$((seed + 1))
done
calograd train "$config" -o "$out/crystals"
