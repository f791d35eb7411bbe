#!/bin/sh
# The data of the surrogates of points, and their training: siw-cloud and siw-cloud-cm. Run it where the data shall be.
# Geant4 takes about 20 ms a GeV and core: 3 hours for 20 000 showers of 10 to 90 GeV on two cores.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
workers=${WORKERS:-2}
mkdir -p siw
for part in "train 1 10000" "test 2 10000"; do
    set -- $part
    [ -f "siw/$1-points.h5" ] || {
        calograd simulate --detector siw --energies 10:90 --law uniform --seed "$2" --showers "$3" \
            --workers "$workers" -o "siw/$1.h5"
        calograd points "siw/$1.h5" -o "siw/$1-points.h5"
    }
done
[ -f siw/single-points.h5 ] || {
    calograd simulate --detector siw --energies 10,50,90 --seed 3 --showers 500 --workers "$workers" -o siw/single.h5
    calograd points siw/single.h5 -o siw/single-points.h5
}
for name in siw-cloud siw-cloud-cm; do
    cp "$here/$name.toml" .
    calograd train "$name.toml" -o "$name"
    for sample in test single; do
        calograd sample "$name" --like "siw/$sample-points.h5" --seed 1 -o "siw/$name-$sample.h5"
        calograd evaluate "siw/$name-$sample.h5" "siw/$sample-points.h5" --json "siw/$name-$sample.json" \
            --report "siw/$name-$sample.html"
    done
done
calograd benchmark siw-cloud siw-cloud-cm --json siw/benchmark.json
