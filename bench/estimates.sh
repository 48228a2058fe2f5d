#!/bin/sh
# Compares what `edgewise quantize --dry-run` tells with what the same command then takes. Prints a JSON line for each method:
# seconds, peak memory, and the ratio of estimate to measurement.
# usage: estimates.sh EDGEWISE MODEL CALIBRATION.txt [FORMAT] [METHODS] [CALIBRATION_TOKENS] [THREADS]
set -eu
if [ $# -lt 3 ]; then
  sed -n '2,4p' "$0" >&2
  exit 2
fi
edgewise=$1 model=$2 text=$3
format=${4:-q4_k_m} methods=${5:-"rtn imatrix awq gptq awq+gptq gptq-by-text"} tokens=${6:-65536} threads=${7:-2}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/json_lines.sh"

"$edgewise" calibrate "$model" "$text" "$folder/calibration.gguf" --tokens "$tokens" --threads "$threads" --json --quiet > /dev/null

for name in $methods; do
  method=${name%-by-text}
  case $name in
    rtn) calibration= ;;
    *-by-text) calibration="$text --calibration-tokens $tokens" ;;
    *) calibration="$folder/calibration.gguf" ;;
  esac
  # shellcheck disable=SC2086 # paths of the benches have no spaces
  set -- quantize "$model" "$folder/out.gguf" --to "$format" --method "$method" ${calibration:+--calibration $calibration} \
    --threads "$threads" --force --json --quiet
  "$edgewise" "$@" --dry-run > "$folder/plan.json"
  "$edgewise" "$@" > "$folder/made.json"
  told=$(field estimated_seconds < "$folder/plan.json") took=$(field seconds < "$folder/made.json")
  told_bytes=$(field estimated_peak_rss_bytes < "$folder/plan.json") took_bytes=$(field peak_rss_bytes < "$folder/made.json")
  printf '{"method": "%s", "format": "%s", "dry_run_seconds": %s, "estimated_seconds": %s, "seconds": %s, "seconds_ratio": %s, ' \
    "$name" "$format" "$(field seconds < "$folder/plan.json")" "$told" "$took" "$(awk "BEGIN { printf \"%.3f\", $told / $took }")"
  printf '"estimated_peak_rss_bytes": %s, "peak_rss_bytes": %s, "peak_rss_ratio": %s}\n' \
    "$told_bytes" "$took_bytes" "$(awk "BEGIN { printf \"%.3f\", $told_bytes / $took_bytes }")"
done
