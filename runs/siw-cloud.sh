#!/bin/sh
# The data of the surrogates of points, and their training: siw-cloud, siw-cloud-cm, the first CaloClouds' way to sample
# and a baseline on grids. Run it where the data shall be; run it again to go on. WORKERS=n for n processes of Geant4,
# which took 10 ms a GeV and core before steps were read in memory: 3 core-hours for the 21 500 showers.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
workers=${WORKERS:-2}
mkdir -p siw
points() { # name, seed, showers, energies
    [ -f "siw/$1-points.h5" ] && return
    calograd simulate --detector siw --energies "$4" --law uniform --seed "$2" --showers "$3" \
        --workers "$workers" -o "siw/$1.h5"
    calograd points "siw/$1.h5" -o "siw/$1-points.h5"
}
points train 1 10000 10:90
points test 2 10000 10:90
[ -f siw/single-points.h5 ] || {
    calograd simulate --detector siw --energies 10,50,90 --seed 3 --showers 500 --workers "$workers" -o siw/single.h5
    calograd points siw/single.h5 -o siw/single-points.h5
}
judge() { # name, sample
    [ -f "siw/$1-$2.json" ] && return
    [ -f "siw/$1-$2.h5" ] || calograd sample "$1" --like "siw/$2-points.h5" --seed 1 -o "siw/$1-$2.h5"
    rm -f "siw/$1-$2.html"
    calograd evaluate "siw/$1-$2.h5" "siw/$2-points.h5" --report "siw/$1-$2.html" --json "siw/$1-$2.json"
}
for name in siw-cloud siw-cloud-cm siw-cloud-ddpm siw-vae; do
    cp "$here/$name.toml" .
    calograd train "$name.toml" -o "$name"
    judge "$name" single
    [ "$name" = siw-cloud-ddpm ] || judge "$name" test # 100 evaluations a shower take hours
done
[ -f siw/benchmark.json ] ||
    calograd benchmark siw-cloud-ddpm siw-cloud siw-cloud-cm siw-vae --json siw/benchmark.json
