#!/bin/sh
# Compares the methods of `edgewise quantize` at equal bytes. Prints a JSON line for each file: its distance from MODEL on
# held-out text, and what making it took.
# usage: methods.sh EDGEWISE MODEL CALIBRATION.txt HELD_OUT.txt [FORMATS] [METHODS] [CALIBRATION_TOKENS] [SEPARATOR]
set -eu
if [ $# -lt 4 ]; then
  sed -n '2,4p' "$0" >&2
  exit 2
fi
edgewise=$1 model=$2 text=$3 held_out=$4
formats=${5:-"q4_k_s q4_0 q3_k_s q2_k_s iq4_xs"} methods=${6:-"rtn imatrix awq smooth gptq awq+gptq rotate+rtn rotate+gptq"}
tokens=${7:-65536} separator=${8:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/json_lines.sh"

"$edgewise" calibrate "$model" "$text" "$folder/calibration.gguf" --tokens "$tokens" --json --quiet

for format in $formats; do
  for method in $methods; do
    # A calibration file is of the columns before a rotation.
    case $method in
      rtn | rotate+rtn) calibration= ;;
      rotate*) calibration="$text --calibration-tokens $tokens" ;;
      *) calibration="$folder/calibration.gguf" ;;
    esac
    # shellcheck disable=SC2086 # paths of the benches have no spaces
    "$edgewise" quantize "$model" "$folder/out.gguf" --to "$format" --method "$method" \
      ${calibration:+--calibration $calibration} --force --json --quiet > "$folder/made.json"
    "$edgewise" eval "$folder/out.gguf" --kl "$model" --text "$held_out" ${separator:+--documents "$separator"} --json --quiet \
      > "$folder/eval.json"
    printf '{"format": "%s", "method": "%s", "bytes": %s, "seconds": %s, "peak_rss_bytes": %s, ' "$format" "$method" \
      "$(wc -c < "$folder/out.gguf")" "$(field seconds < "$folder/made.json")" "$(field peak_rss_bytes < "$folder/made.json")"
    quality < "$folder/eval.json"
  done
done
