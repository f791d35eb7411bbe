#!/usr/bin/env bash
# The experiment of arXiv 2601.07859 from simulation to figures: pre-training on five families of cells, LoRA on
# 2.5 x 6 cm, gradients there. Surrogates of maps with the paper's protocol and absolute energies (plain), in
# energy-conserving coordinates on the same families (five) and on continuous designs (ours), and of cells on both
# (cells-five, cells-ours). MODELS chooses among them. For surrogates of continuous designs the showers of the LoRA are
# measured with designs around 2.5 x 6 cm too.
# 300 showers of an energy know its means to about one per cent, and LoRA learns this error with them. So there are more
# showers where they cost little: 1 800 of 10 GeV and 7 800 of 1 GeV, an eighth of the whole time. Every energy has the
# same weight; otherwise the adaptation improves the lowest energies at the cost of the highest.
# Resumable: finished stages are skipped. times.txt has the seconds of every stage; an interrupted stage counts from its
# last start.
# WORKERS=2 processes simulate. THREADS replaces the two threads configured for a training, for example to run one
# choice of MODELS a core.
# Usage: [MODELS="plain ours"] runs/paper.sh [--small] [FOLDER]
# --small is a miniature of minutes that shows the way, not the physics.
set -euo pipefail
small=no
[ "${1:-}" = "--small" ] && small=yes && shift
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:-$here/paper$([ $small = yes ] && echo -small || true)}"
train=1000 post=300 low=1500 lowest=6000 test=400 sharp=4000 look=40
energies=1,10,20,30,40,50,60,70,80,90,100 followed=1,10,30,50,70,100 clocked=50
shrink=() few=() draws=(--showers 250 --draws 8)
if [ $small = yes ]; then
  train=20 post=12 low=12 lowest=24 test=20 sharp=20 look=20 energies=1,10 followed=1,10 clocked=10
  shrink=(-e 's/^steps = .*/steps = 20\nlocation_scale_steps = 20\nlocation_scale_batch = 64/' -e 's/^batch = .*/batch = 16/'
    -e 's/^report_every = .*/report_every = 10/' -e 's/^width = .*/width = 8\nmultipliers = [1, 2]/'
    -e 's/^energy = .*/energy = [1.0, 10.0]/')
  few=(--steps 20 --batch 16 --validation 0.3 --targets pattern_network) draws=(--showers 20 --draws 2 --replicas 2)
fi
[ -n "${THREADS:-}" ] && shrink+=(-e "s/^threads = .*/threads = $THREADS/")
mkdir -p "$out"

stage() {  # NAME COMMAND...: run it unless it is done, and note the seconds
  [ -e "$out/$1.done" ] && return
  echo "== $1"
  local began=$SECONDS
  "${@:2}"
  echo "$1 $((SECONDS - began))" >> "$out/times.txt"
  touch "$out/$1.done"
}
fresh() {  # FILE COMMAND...: run a command that writes this file, and does not overwrite it
  rm -f "$1"
  "${@:2}"
}
simulate() {
  fresh "$out/$1.json" calograd simulate --material PbF2 --energies "$energies" --workers "${WORKERS:-2}" \
    -o "$out/$1.h5" --json "$out/$1.json" "${@:2}"
}
simulate_test() {  # the showers of pbf2-validation.sh, taken from there if they exist
  if [ $small = no ] && [ -e "$here/pbf2/eval.h5.done" ]; then
    ln -sf "$here/pbf2/eval.h5" "$out/test.h5"
  else
    simulate test --showers "$test" --seed 2
  fi
}
models="${MODELS:-plain five ours cells-five cells-ours}"
segment() {  # LIBRARY NAME OPTIONS...: make cells and maps of a library, those that the models are of
  local each kinds=" "
  for each in $models; do [[ "$each" = cells-* ]] && kinds+="cells " || kinds+="maps "; done
  for each in cells maps; do
    [[ "$kinds" = *" $each "* ]] || continue
    local only=()
    [ $each = maps ] && only=(--maps)
    stage "segment-$2-$each" fresh "$out/$2-$each.h5" calograd segment "$out/$1.h5" "${only[@]}" -o "$out/$2-$each.h5" "${@:3}"
  done
}
judge() {  # MODEL NAME REFERENCE SAMPLER...
  fresh "$out/$2-generated.h5" calograd sample "$1" --like "$3" --seed 7 "${@:4}" -o "$out/$2-generated.h5"
  fresh "$out/$2.json" calograd evaluate "$out/$2-generated.h5" "$3" --no-classifier --json "$out/$2.json"
}
follow() {  # MODEL NAME SAMPLER...: gradients; half of the draws with 50 steps of DDIM
  local each=("${draws[@]}")
  [ "$model" = plain ] && [ $small = no ] && each=(--showers 250 --draws 4)
  fresh "$out/$2.json" calograd gradient "$1" --cell 2.5 6 --energies "$followed" --reference "$out/test.h5" \
    "${each[@]}" "${@:3}" --json "$out/$2.json"
}
clock() {  # MODEL NAME SAMPLER...: time the sampling on one thread
  rm -f "$out/$2.h5"
  fresh "$out/$2.json" calograd sample "$1" --cell 2.5 6 --energy "$clocked" -n 200 --threads 1 "${@:3}" \
    -o "$out/$2.h5" --json "$out/$2.json"
}

stage simulate-train simulate train --showers "$train" --seed 21
stage simulate-post simulate post --showers "$post" --seed 22
energies=1,10 stage simulate-low simulate low --showers "$low" --seed 28
energies=1 stage simulate-lowest simulate lowest --showers "$lowest" --seed 29
stage simulate-test simulate_test
energies=1,10 stage simulate-sharp simulate sharp --showers "$sharp" --seed 27
stage simulate-look simulate look --showers "$look" --seed 24

families=(--cell 1 5 --cell 2 4 --cell 3 8 --cell 4 10 --cell 5 15)
segment test test "${families[@]}"
segment look look "${families[@]}"
segment test unseen --cell 2.5 6
segment sharp sharp --cell 2.5 6
if [[ "$models" = *ours* ]]; then
  around=(--designs 8 --dx 2.15 2.9 --dz 5.16 6.97 --seed 26)
  segment train drawn --designs 3 --neighbours 0.1 --seed 25
  segment post near "${around[@]}"
  segment low near-low "${around[@]}"
  segment lowest near-lowest "${around[@]}"
fi
if [[ "$models" = *five* || "$models" = *plain* ]]; then
  segment train five "${families[@]}"
  segment post post --cell 2.5 6
  segment low post-low --cell 2.5 6
  segment lowest post-lowest --cell 2.5 6
fi

for model in $models; do
  of=maps known=post sampler=()
  [[ "$model" = cells-* ]] && of=cells
  [[ "$model" = *ours ]] && known=near
  [ "$model" = plain ] && sampler=(--sampler ddim --steps 50)
  sed "${shrink[@]}" -e 's#"paper/#"#' "$here/paper-$model.toml" > "$out/$model.toml"
  stage "train-$model" calograd train "$out/$model.toml" -o "$out/$model"
  stage "adapt-$model" calograd adapt "$out/$model" --data "$out/$known-$of.h5" --data "$out/$known-low-$of.h5" \
    --data "$out/$known-lowest-$of.h5" --balanced --method lora --range base "${few[@]}" -o "$out/$model-lora"
  stage "families-$model" judge "$out/$model" "$model-families" "$out/test-$of.h5" "${sampler[@]}"
  stage "before-$model" judge "$out/$model" "$model-before" "$out/unseen-$of.h5" "${sampler[@]}"
  stage "after-$model" judge "$out/$model-lora" "$model-after" "$out/unseen-$of.h5" "${sampler[@]}"
  stage "sharp-before-$model" judge "$out/$model" "$model-sharp-before" "$out/sharp-$of.h5" "${sampler[@]}"
  stage "sharp-after-$model" judge "$out/$model-lora" "$model-sharp-after" "$out/sharp-$of.h5" "${sampler[@]}"
  for step in "$out/$model"/step-*; do
    name="$model-$(basename "$step")"
    stage "$name" judge "$step" "$name" "$out/look-$of.h5" "${sampler[@]}"
  done
  stage "gradient-before-$model" follow "$out/$model" "$model-gradient-before" "${sampler[@]}"
  stage "gradient-after-$model" follow "$out/$model-lora" "$model-gradient-after" "${sampler[@]}"
  stage "clock-$model" clock "$out/$model" "$model-clock" "${sampler[@]}"
done
python3 "$here/../validation/paper_figures.py" "$out"
