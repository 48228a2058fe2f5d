#!/bin/sh
# Compares the methods of `edgewise prune`. Prints a JSON line for each file: its distance from MODEL on held-out text, and what
# making it took.
# usage: pruning.sh EDGEWISE MODEL CALIBRATION.txt HELD_OUT.txt [SPARSITIES] [METHODS] [CALIBRATION_TOKENS] [SEPARATOR]
set -eu
if [ $# -lt 4 ]; then
  sed -n '2,4p' "$0" >&2
  exit 2
fi
edgewise=$1 model=$2 text=$3 held_out=$4
sparsities=${5:-"50% 4:8 2:4 60% 70%"} methods=${6:-"magnitude wanda ria sparsegpt alps"}
tokens=${7:-65536} separator=${8:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/json_lines.sh"

for sparsity in $sparsities; do
  for method in $methods; do
    case $method in
      magnitude | random) calibration= ;;
      *) calibration="$text --calibration-tokens $tokens" ;;
    esac
    # shellcheck disable=SC2086 # paths of the benches have no spaces
    "$edgewise" prune "$model" "$folder/out.gguf" --method "$method" --sparsity "$sparsity" \
      ${calibration:+--calibration $calibration} --force --json --quiet > "$folder/made.json"
    "$edgewise" eval "$folder/out.gguf" --kl "$model" --text "$held_out" ${separator:+--documents "$separator"} --json --quiet \
      > "$folder/eval.json"
    printf '{"sparsity": "%s", "method": "%s", "density": %s, "seconds": %s, "peak_rss_bytes": %s, ' "$sparsity" "$method" \
      "$(field density < "$folder/made.json")" "$(field seconds < "$folder/made.json")" "$(field peak_rss_bytes < "$folder/made.json")"
    quality < "$folder/eval.json"
  done
done
