#!/bin/sh
# Make the data of the surrogates of points and train them: siw-cloud, siw-cloud-cm, and the sampling of the first CaloClouds.
# Run it in the folder for the data; run it again to resume. WORKERS=n processes simulate at 5 ms
# a GeV and core of an Intel Xeon: 1.8 core-hours for the 26 000 showers. Surrogates learn from crossings of particles
# through layers. They are judged by sub-cells, which are cells as exactly as Geant4 fills them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
workers=${WORKERS:-2}
mkdir -p siw
points() { # name, clustering, options of the simulation
    [ -f "siw/$1-points.h5" ] && return
    name=$1 clustering=$2
    shift 2
    calograd simulate --detector siw --workers "$workers" "$@" -o "siw/$name.h5"
    calograd points "siw/$name.h5" --clustering "$clustering" -o "siw/$name-points.h5"
}
points train crossings --energies 10:90 --law uniform --seed 1 --showers 10000
points single sub-cells --energies 10,50,90 --seed 3 --showers 2000
points test sub-cells --energies 10:90 --law uniform --seed 2 --showers 10000
judge() { # name, sample, generated showers for each of its showers, options of the evaluation
    [ -f "siw/$1-$2.json" ] && return
    [ -f "siw/$1-$2.h5" ] || calograd sample "./$1" --like "siw/$2-points.h5" --repeat "$3" --seed 1 -o "siw/$1-$2.h5"
    rm -f "siw/$1-$2.html"
    calograd evaluate "siw/$1-$2.h5" "siw/$2-points.h5" ${4:-} --report "siw/$1-$2.html" --json "siw/$1-$2.json"
}
# The bundled files: Surrogate.load("./siw-cloud").save("bundled", compact=True), and so for siw-cloud-cm
for name in siw-cloud siw-cloud-cm siw-cloud-ddpm; do
    cp "$here/$name.toml" .
    calograd train "$name.toml" -o "$name"
    [ "$name" = siw-cloud-ddpm ] && { judge "$name" single 1; continue; } # 100 evaluations a shower
    judge "$name" single 3 --no-classifier
    judge "$name" test 1
done
# The scores of the training's own showers
[ -f siw/train-cells.h5 ] || calograd points siw/train.h5 --clustering sub-cells -o siw/train-cells.h5
[ -f siw/train-test.json ] || calograd evaluate siw/train-cells.h5 siw/test-points.h5 --no-classifier --json siw/train-test.json
[ -f siw/benchmark.json ] ||
    calograd benchmark ./siw-cloud-ddpm ./siw-cloud ./siw-cloud-cm --repeats 3 --json siw/benchmark.json
