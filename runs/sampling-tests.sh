#!/usr/bin/env bash
# Compare the base surrogate of sampling calorimeters with Geant4 showers that it was never trained on, in ten stacks.
# Resumable: finished files are kept. NUMBERS="1:2000 10:2000 40:400 100:200" gives showers a point by energy, GeV.
# WORKERS=2 processes simulate. ONLY_DATA=1 leaves the comparison out. SEED=8000: the seeds of the points follow it.
# RECORD=points records the deposits in the active plates as well, so that R_E and hits are compared.
#   HepEmShow    50 layers of PbWO4 and liquid argon, arXiv:2405.07944
#   plastic      60 layers of lead and plastic: the largest number of layers
#   ILD          silicon and tungsten, 20 thin and 10 thick layers, without air
#   SiD          silicon and tungsten, 20 thin and 10 thick layers, thinner silicon: near the edge of thin active plates
#   ALLEGRO      11 layers of lead and liquid argon: near the smallest number of layers
#   copper       copper and liquid argon: a pair that was never trained on
#   iron         30 layers of iron and plastic
#   tapered      25 layers of lead and silicon, absorbers from 0.2 to 0.7 cm
#   dense        24 layers of PbWO4 with thin plastic: near a homogeneous calorimeter
#   fine         60 layers of copper and silicon
# Plates are 300 cm wide, as good as infinite for these showers; of 40 cm 0.25 % of a shower of 10 GeV leaks sideways from
# lead and plastic, which the surrogate does not know.
# Usage: runs/sampling-tests.sh [SURROGATE] [FOLDER]; paths as seen from runs/.
set -euo pipefail
cd "$(dirname "$0")"
surrogate="${1:-sampling}"
out="${2:-sampling-tests}"
numbers="${NUMBERS:-1:2000 10:2000 40:400 100:200}"
record="${RECORD:-energies}" layers_only=()
[ "$record" = points ] || layers_only=(--layers-only)
mkdir -p "$out"

several() { # COUNT VALUE [COUNT VALUE ...]: a list of thicknesses with a comma between
  python3 -c "
values = '$*'.split()
print(','.join(value for count, value in zip(values[::2], values[1::2]) for _ in range(int(count))))"; }
declare -A stacks=(
  [HepEmShow]="PbWO4 0.23 lAr 0.57 50"
  [plastic]="Pb 0.2 PVT 0.4 60"
  [ILD]="W $(several 20 0.21 10 0.42) Si 0.0525 30"
  [SiD]="W $(several 20 0.25 10 0.5) Si 0.032 30"
  [ALLEGRO]="Pb 0.8 lAr 0.9 11"
  [copper]="Cu 0.6 lAr 0.4 40"
  [iron]="Fe 1 PVT 0.5 30"
  [tapered]="Pb $(python3 -c 'print(",".join(f"{0.2 + 0.5 * k / 24:.3f}" for k in range(25)))') Si 0.05 25"
  [dense]="PbWO4 0.9 PVT 0.15 24"
  [fine]="Cu 0.35 Si 0.03 60"
)
beams=(1:gamma:20 10:e-:0 40:e+:35 100:gamma:10) # GeV, particle, degrees

seed="${SEED:-8000}"
for beam in "${beams[@]}"; do
  IFS=: read -r energy particle theta <<<"$beam"
  showers=0
  for pair in $numbers; do [ "${pair%%:*}" != "$energy" ] || showers="${pair##*:}"; done
  for name in HepEmShow plastic ILD SiD ALLEGRO copper iron tapered dense fine; do
    seed=$((seed + 1))
    [ "$showers" != 0 ] || continue
    read -r absorber thickness active layer layers <<<"${stacks[$name]}"
    at="$out/$name-$energy"
    [ -e "$at.h5.done" ] || {
      calograd simulate --detector sampling --absorber "$absorber" --absorber-thickness "$thickness" --active "$active" \
        --active-thickness "$layer" --layers "$layers" --particle "$particle" --theta "$theta" --energies "$energy" \
        --width 300 --showers "$showers" --record "$record" --seed "$seed" --workers "${WORKERS:-2}" -o "$at.h5"
      touch "$at.h5.done"
    }
    [ -z "${ONLY_DATA:-}" ] && [ ! -e "$at.json" ] || continue
    rm -f "$at-generated.h5"
    calograd sample "$surrogate" --like "$at.h5" "${layers_only[@]}" --seed 5 -o "$at-generated.h5"
    calograd evaluate "$at-generated.h5" "$at.h5" --json "$at.json" --report "$at.html"
  done
done
