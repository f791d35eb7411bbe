#!/usr/bin/env bash
# Make the data of the base surrogate of sampling calorimeters and train it. Resumable: finished stages are skipped.
# Photons, electrons and positrons, theta 0 to 42 degrees, 0.8 to 120 GeV: a little beyond the range of the surrogate.
# Every shower has a stack of its own. A pair of materials has two kinds, so that stacks are neither much shorter nor much
# longer than those of designers: 30 to 60 layers of thin absorbers (0.15 to 0.6 X0) and 10 to 35 of thick ones (0.4 to 1.5 X0).
#            0.15 X0   0.6 X0   1.5 X0                             active plates
#   Pb       0.084     0.337    0.842 cm                 silicon   0.010 to 0.10 cm
#   W        0.053     0.210    0.526                    argon     0.15  to 1.0
#   Fe       0.263     1.054    2.635                    plastic   0.10  to 1.0
#   Cu       0.215     0.861    2.153
#   PbWO4    0.134     0.534    1.336
# Copper with liquid argon is left out: it tests a pair that was never trained on.
# Each of these kinds is in four libraries: 700 showers of 0.8 to 25 GeV, 1 400 of 0.8 to 5 GeV and 1 600 photons of 0.8 to 2 GeV, where
# they scatter most and cost least, and 160 of 20 to 120 GeV. Of a pair's two kinds one has layers that scatter about a
# smooth profile; the other has equal layers, in the second library thicknesses that step once. The next pair has them the other way round.
# A third kind of every pair, in all but the library of photons, is as designs that an ascent in all thicknesses visits:
# 15 to 45 layers of 0.15 to 1.5 X0, whose profiles cross the whole range and whose layers scatter by a quarter or a half.
# On an AMD EPYC: simulation 3.0 core-hours, training 26 minutes of two cores.
# Numbers of showers are SCALE times those below, over PART; WORKERS=2 processes simulate. ONLY_DATA=1 ends before the training.
# PART_HIGH divides those of 20 to 120 GeV instead of PART.
# RECORD=points records the deposits in active plates as well, for runs/sampling-points.sh.
# Usage: runs/sampling.sh [CONFIG.toml] [FOLDER]; paths as seen from runs/.
set -euo pipefail
cd "$(dirname "$0")"
config="${1:-sampling.toml}"
out="${2:-sampling}"
mkdir -p "$out"

absorber() { # MATERIAL LOW HIGH: thicknesses in X0 as a range in cm
  python3 -c "
from calograd.detector.material import Material
x0 = float(Material.parse('$1').radiation_length)
print(f'{$2 * x0:.4g}:{$3 * x0:.4g}')"; }
scale="${SCALE:-1}"
part="${PART:-1}"
simulate() { # NAME ABSORBER LOW HIGH LAYERS ACTIVE THICKNESS PROFILE SEED ENERGIES SHOWERS PARTICLES [SCATTER]
  [ -e "$out/$1.h5.done" ] || {
    calograd simulate --detector sampling --absorber "$2" --absorber-thickness "$(absorber "$2" "$3" "$4")" --layers "$5" \
      --active "$6" --active-thickness "$7" --profile "$8" ${13:+--scatter "${13}"} --particle "${12}" --theta 0:42 \
      --energies "${10}" --law log-uniform --showers "$((${11} * scale / part))" --record "${RECORD:-energies}" --seed "$9" --workers "${WORKERS:-2}" -o "$out/$1.h5"
    touch "$out/$1.h5.done"
  }
}

# name, energies, showers, first seed, seeds a pair, profiles of the two kinds of the first pair, particles, scatter and
# first seed of the third kind
for library in low:0.8:25:700:501:4:equal:smooth:gamma,e-,e+:0.5:901 lowest:0.8:5:1400:700:2:stepped:smooth:gamma,e-,e+:0.25:921 \
  photons:0.8:2:1600:801:2:equal:smooth:gamma high:20:120:160:503:4:equal:smooth:gamma,e-,e+:0.5:941; do
  IFS=: read -r name from to showers seed seeds first second particles scatter wide <<<"$library"
  [ "$name" != high ] || part="${PART_HIGH:-$part}"
  for absorber in Pb W Fe Cu PbWO4; do
    for active in Si:0.01:0.1 lAr:0.15:1 PVT:0.1:1; do
      material="${active%%:*}" thickness="${active#*:}"
      [ "$absorber-$material" != Cu-lAr ] || continue
      simulate "$absorber-$material-thin-$name" "$absorber" 0.15 0.6 30:60 "$material" "$thickness" "$first" "$seed" "$from:$to" "$showers" "$particles"
      simulate "$absorber-$material-thick-$name" "$absorber" 0.4 1.5 10:35 "$material" "$thickness" "$second" "$((seed + 1))" "$from:$to" "$showers" "$particles"
      [ -z "$scatter" ] || {
        simulate "$absorber-$material-wide-$name" "$absorber" 0.15 1.5 15:45 "$material" "$thickness" smooth "$wide" "$from:$to" "$showers" "$particles" "$scatter"
        wide=$((wide + 1))
      }
      seed=$((seed + seeds))
      turn="$first" first="$second" second="$turn"
    done
  done
done
[ -z "${ONLY_DATA:-}" ] || exit 0
calograd train "$config" -o "$out/sampling" --processes "${PROCESSES:-2}"
python3 -c '
import sys
from calograd import Surrogate
Surrogate.load(sys.argv[1]).save("../src/calograd/assets/sampling", compact=True)' "$out/sampling"
