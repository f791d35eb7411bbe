#!/usr/bin/env bash
# Make the data of the base surrogate of crystals and train it. Resumable: finished stages are skipped.
# Photons, electrons and positrons, 0.8 to 20 GeV and 20 to 240 GeV apart, since a shower of high energy takes ten times as
# long; theta 0 to 42 degrees: a little beyond the range of the surrogate. Beside the showers at all angles, even in theta,
# every crystal has some at normal incidence (-0), where detectors are designed, and some of photons alone, which are the
# hardest. The blocks are equal in units of R_M and X0 and hold seven cells of 2.8 R_M and six layers of 21 X0 along any.
# Cost on two cores of an AMD EPYC: docs/results/off-axis.md, "What it covers".
# Numbers of showers are SCALE times those below; WORKERS=2 processes simulate.
# Usage: runs/crystals.sh [FOLDER]; as seen from runs/.
set -euo pipefail
cd "$(dirname "$0")"
out="${1:-crystals}"
scale="${SCALE:-1}"
mkdir -p "$out/cells" "$out/more" "$out/further" "$out/first"

block() { python3 -c "
from math import radians, tan
from calograd.detector.material import Material
m = Material.parse('$1')
depth = float(127 * m.radiation_length)
width = float(20 * m.moliere_radius) + 2 * depth * tan(radians(42))
print(f'{width:.1f} {width:.1f} {depth:.1f}')"; }
simulate() { # MATERIAL NAME SHOWERS SEED ENERGIES PARTICLES THETA
  [ -e "$out/$2.h5.done" ] || {
    calograd simulate --material "$1" --block $(block "$1") --particle "$6" --theta "$7" --energies "$5" --law log-uniform \
      --showers "$(($3 * scale))" --seed "$4" --workers "${WORKERS:-2}" -o "$out/$2.h5"
    touch "$out/$2.h5.done"
  }
}
segment() { # NAME FOLDER PAIRS SEED [ENTRY OPTIONS...]: pairs of neighbouring designs for every shower
  [ -e "$out/$2/$1.h5" ] || calograd segment "$out/$1.h5" -o "$out/$2/$1.h5" --cells 7 6 --scaled --dx 0.43 2.85 \
    --dz 1.9 21.1 --designs "$3" --unequal 0.5 --neighbours 0.12 --seed "$4" "${@:5}"
}
anywhere=(--position uniform --phi 0:360)

low=0.8:20 high=20:240 all=gamma,e-,e+
k=0
for m in PbF2 PbWO4 BGO CsI LYSO; do
  if [ $m = PbF2 ]; then n=(6000 6000 3000 3000 1000 250 2000 500); else n=(2400 2400 900 900 300 80 300 80); fi
  simulate $m $m-low "${n[0]}" $((1000 + k)) $low $all 0:42
  simulate $m $m-photons "${n[1]}" $((1001 + k)) $low gamma 0:42
  simulate $m $m-low-0 "${n[2]}" $((1002 + k)) $low $all 0
  simulate $m $m-photons-0 "${n[3]}" $((1003 + k)) $low gamma 0
  simulate $m $m-high "${n[4]}" $((1004 + k)) $high $all 0:42
  simulate $m $m-high-0 "${n[5]}" $((1005 + k)) $high $all 0
  simulate $m $m-higher "${n[6]}" $((1006 + k)) $high $all 0:42
  simulate $m $m-higher-0 "${n[7]}" $((1007 + k)) $high $all 0
  segment $m-low cells 16 $((1010 + k))
  segment $m-photons cells 16 $((1011 + k))
  segment $m-low-0 cells 16 $((1012 + k))
  segment $m-photons-0 cells 16 $((1013 + k))
  segment $m-high cells 8 $((1014 + k))
  segment $m-high-0 cells 8 $((1015 + k))
  segment $m-high more 24 $((1114 + k))
  segment $m-high-0 more 24 $((1115 + k))
  segment $m-higher more 24 $((1016 + k))
  segment $m-higher-0 more 24 $((1017 + k))
  segment $m-low-0 further 6 $((1210 + k))  # exactly on the axis, where wide cells are hit like nowhere else
  segment $m-photons-0 further 6 $((1211 + k))
  segment $m-high-0 further 12 $((1212 + k))
  segment $m-higher-0 further 12 $((1213 + k))
  k=$((k + 20))
done
simulate PbF2 PbF2-steep 1400 1008 $high gamma 30:42
segment PbF2-steep further 24 1018 "${anywhere[@]}"

# The first weights are those of a training of 30 000 steps on other showers and in other coordinates of the layers' centres.
for file in model.safetensors model-2.safetensors; do
  git show "65fcfdc:src/calograd/assets/crystals/$file" > "$out/first/$file"
done
calograd train crystals-third.toml -o "$out/third" --processes 2
calograd train crystals-fourth.toml -o "$out/fourth" --processes 2
calograd train crystals.toml -o "$out/crystals" --processes 2
python3 -c '
import sys
from calograd import Surrogate
Surrogate.load(sys.argv[1]).save("../src/calograd/assets/crystals", compact=True)' "$out/crystals"
