#!/bin/sh
# Compares the methods of `edgewise prune`. Prints a JSON line for each file: its distance from MODEL on held-out text, and what
# making it took.
# usage: pruning.sh EDGEWISE MODEL CALIBRATION.txt HELD_OUT.txt [AMOUNTS] [METHODS] [CALIBRATION_TOKENS] [SEPARATOR]
# An amount is a sparsity (2:4), or structure to remove (ffn=25%, ffn=50%,heads=50%); METHOD-bare is one without repair, METHOD-owl one
# whose share differs by layer, METHOD-permute one with the channels in order first, METHOD-3steps one in so many steps. What is 2:4 stands
# beside the dense model quantized to the bytes that the last one takes in s24_q8. What structured
# pruning leaves is measured in q8_0, with its decode speed over the model's, beside the whole model quantized to as many bytes.
set -eu
if [ $# -lt 4 ]; then
  sed -n '2,9p' "$0" >&2
  exit 2
fi
edgewise=$1 model=$2 text=$3 held_out=$4
amounts=${5:-"50% 4:8 2:4 60% 70%"} methods=${6:-"magnitude wanda ria sparsegpt alps"}
tokens=${7:-65536} separator=${8:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/json_lines.sh"

# distance FILE: the members of its line that tell how far it is from the model
distance() {
  "$edgewise" eval "$1" --kl "$model" --text "$held_out" ${separator:+--documents "$separator"} --json --quiet | quality
}
# prune METHOD FLAGS...: makes out.gguf and made.json
prune() {
  method=${1%-bare}
  method=${method%-owl}
  method=${method%-permute}
  method=${method%-[0-9]steps}
  case $1 in
    *-bare) shift && set -- "$@" --no-repair ;;
    *-owl) shift && set -- "$@" --owl ;;
    *-permute) shift && set -- "$@" --permute ;;
    *-[0-9]steps) set -- "$@" --steps "$(echo "$1" | sed 's/.*-\([0-9]\)steps/\1/')" && shift ;;
    *) shift ;;
  esac
  case "$method $*" in
    *width*) calibration=yes ;;
    "magnitude "*--no-repair* | "random "*--no-repair*) calibration= ;;
    *--ffn* | *--heads*) calibration=yes ;;
    *"magnitude --sparsity"* | "random --sparsity"* | "magnitude --layers"* | "random --layers"*) calibration= ;;
    *) calibration=yes ;;
  esac
  "$edgewise" prune "$model" "$folder/out.gguf" --method "$method" "$@" \
    ${calibration:+--calibration "$text" --calibration-tokens "$tokens"} --force --json --quiet > "$folder/made.json"
}
decode_speed() { "$edgewise" bench "$1" --prompt-tokens 16 --decode-tokens 128 --repetitions 3 --json --quiet | field decode_tokens_per_s; }
# speed_ratio FILE: its decode speed over that of the model in q8_0, the median of seven alternations
speed_ratio() {
  : > "$folder/ratios"
  for _ in 1 2 3 4 5 6 7; do
    awk "BEGIN { print $(decode_speed "$1") / $(decode_speed "$folder/whole.gguf") }" >> "$folder/ratios"
  done
  median "$folder/ratios"
}

# The lines of one amount of structure: each method, then the dense model of as many bytes.
structure() {
  flags=$(echo "$1" | sed 's/^/--/; s/,/ --/g; s/=/ /g') speed=
  for name in $methods; do
    case $1,$name in
      layers=*,*-bare) case $1 in *,*) ;; *) continue ;; esac ;; # layers alone leave nothing to repair
    esac
    # shellcheck disable=SC2086
    prune "$name" $flags
    "$edgewise" quantize "$folder/out.gguf" "$folder/small.gguf" --to q8_0 --force --quiet
    bytes=$(wc -c < "$folder/small.gguf")
    [ -n "$speed" ] || speed=$(speed_ratio "$folder/small.gguf")
    printf '{"structure": "%s", "method": "%s", "parameters": %s, "bytes": %s, "decode_speed_ratio": %s, "seconds": %s, ' "$1" "$name" \
      "$(field parameters < "$folder/made.json")" "$bytes" "$speed" "$(field seconds < "$folder/made.json")"
    distance "$folder/small.gguf"
  done
  dense_line "$1" structure "$bytes"
  printf '"decode_speed_ratio": %s, "seconds": %s, ' "$(speed_ratio "$folder/dense.gguf")" "$(field seconds < "$folder/dense.json")"
  distance "$folder/dense.gguf"
}

# dense_line AMOUNT KIND BYTES: the line of the whole model quantized to as many bytes
dense_line() {
  "$edgewise" quantize "$model" "$folder/dense.gguf" --target-bytes "$3" --method gptq --calibration "$folder/calibration.gguf" --force --json \
    --quiet > "$folder/dense.json"
  printf '{"%s": "%s", "method": "dense", "parameters": %s, "bytes": %s, ' "$2" "$1" "$(field parameters < "$folder/dense.json")" \
    "$(wc -c < "$folder/dense.gguf")"
}

case $amounts in
  *=*) "$edgewise" quantize "$model" "$folder/whole.gguf" --to q8_0 --quiet ;;
esac
case $amounts in
  *=* | *2:4*)
    "$edgewise" calibrate "$model" "$text" "$folder/calibration.gguf" --tokens "$tokens" --quiet > /dev/null
    ;;
esac
for amount in $amounts; do
  case $amount in
    *=*)
      structure "$amount"
      continue
      ;;
  esac
  for name in $methods; do
    prune "$name" --sparsity "$amount"
    printf '{"sparsity": "%s", "method": "%s", "density": %s, "seconds": %s, "peak_rss_bytes": %s, ' "$amount" "$name" \
      "$(sed 's/"tensors".*//' "$folder/made.json" | field density)" "$(field seconds < "$folder/made.json")" "$(field peak_rss_bytes < "$folder/made.json")"
    distance "$folder/out.gguf"
  done
  if [ "$amount" = 2:4 ]; then
    "$edgewise" quantize "$folder/out.gguf" "$folder/small.gguf" --to s24_q8 --force --quiet
    dense_line "$amount" sparsity "$(wc -c < "$folder/small.gguf")"
    distance "$folder/dense.gguf"
  fi
done
