#!/usr/bin/env bash
# Simulate a part of the showers of the base surrogate of sampling calorimeters with the deposits in their active plates, and
# learn points in the plates given the energies that the base generates. Resumable: finished stages are skipped.
# PART=4 is a quarter of the showers; everything else is as in runs/sampling.sh, which has to have trained the base in
# runs/sampling/sampling.
# Usage: runs/sampling-points.sh [CONFIG.toml] [FOLDER]; paths as seen from runs/. CONFIG names FOLDER as its data.
set -euo pipefail
cd "$(dirname "$0")"
config="${1:-sampling-points.toml}"
out="${2:-sampling-points}"
RECORD=points ONLY_DATA=1 PART="${PART:-4}" ./sampling.sh - "$out"
calograd train "$config" -o "$out-run"
