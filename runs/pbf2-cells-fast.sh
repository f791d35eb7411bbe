#!/usr/bin/env bash
# Distils the bundled surrogate into few evaluations, five students one after the other. Resumable: what is finished is
# skipped, what was interrupted is gone on with. Needs the cells that pbf2-cells.sh makes.
#   NAMES="pbf2-cells-1" runs/pbf2-cells-fast.sh       some of them
#   CASCADE=1 runs/pbf2-cells-fast.sh                  each but the first from a larger one: 4 -> 2 -> 1, 4 -> thin
set -euo pipefail
cd "$(dirname "$0")"
for part in train low high; do
  [ -e "pbf2/$part-cells.h5" ] || { echo "pbf2/$part-cells.h5 is missing; run pbf2-cells.sh first" >&2; exit 2; }
done
for name in ${NAMES:-pbf2-cells-4 pbf2-cells-2 pbf2-cells-1 pbf2-cells-fast pbf2-cells-thin}; do
  config="$name.toml" output="pbf2/$name"
  if [ -n "${CASCADE:-}" ]; then
    case "$name" in
      pbf2-cells-2 | pbf2-cells-thin) larger=pbf2-cells-4 ;;
      pbf2-cells-1 | pbf2-cells-fast) larger=pbf2-cells-2 ;;
      *) larger="" ;;
    esac
    if [ -n "$larger" ]; then
      config="pbf2/$name-cascade.toml" output="pbf2/$name-cascade"
      [ "$larger" = pbf2-cells-4 ] || larger="$larger-cascade"
      # Paths in the copy are relative to its own folder.
      sed -e "s|^teacher = .*|teacher = \"$larger\"|" -e 's|"pbf2/|"|g' -e "s|^name = .*|name = \"$name-cascade\"|" "$name.toml" > "$config"
    fi
  fi
  [ -e "$output.done" ] || { calograd train "$config" -o "$output"; touch "$output.done"; }
done
