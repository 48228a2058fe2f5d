#!/bin/sh
# Compares ways to quantize one model at equal bytes: Edgewise's rtn, imatrix and gptq (from a calibration file, and on the
# text) with llama.cpp's quantizer and its importance matrix, all by the same calibration text. Prints a JSON line for each
# file: its distance from the original on held-out text, and the ratio of its KL divergence to that of llama.cpp's file.
# usage: quality.sh EDGEWISE LLAMA_PEER MODEL.gguf CALIBRATION.txt HELD_OUT.txt [FORMATS] [METHODS] [CALIBRATION_TOKENS] [SEPARATOR]
set -eu
if [ $# -lt 5 ]; then
  sed -n '2,5p' "$0" >&2
  exit 2
fi
edgewise=$1 peer=$2 model=$3 text=$4 held_out=$5
formats=${6:-"q4_k_m q4_k_s q4_0 iq4_xs q3_k_m q3_k_s q2_k q2_k_s q5_k_m q6_k q8_0"} methods=${7:-"rtn imatrix gptq gptq-text"}
tokens=${8:-65536} separator=${9:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/../json_lines.sh"

"$edgewise" calibrate "$model" "$text" "$folder/calibration.gguf" --tokens "$tokens" --json --quiet

# evaluate FORMAT TOOL METHOD: of $folder/out.gguf, whose making $folder/made.json tells.
evaluate() {
  "$edgewise" eval "$folder/out.gguf" --kl "$model" --text "$held_out" ${separator:+--documents "$separator"} --json --quiet \
    > "$folder/eval.json"
  kl=$(field kl_mean < "$folder/eval.json")
  [ "$2" = llama.cpp ] && reference=$kl
  printf '{"format": "%s", "tool": "%s", "method": "%s", "bytes": %s, "seconds": %s, "peak_rss_bytes": %s, ' "$1" "$2" "$3" \
    "$(wc -c < "$folder/out.gguf")" "$(field seconds < "$folder/made.json")" "$(field peak_rss_bytes < "$folder/made.json")"
  printf '"kl_mean": %s, "kl_p99": %s, "top1_agreement": %s, "ppl_ratio": %s, "tokens": %s, "kl_ratio": %s}\n' "$kl" \
    "$(field kl_p99 < "$folder/eval.json")" "$(field top1_agreement < "$folder/eval.json")" \
    "$(field ppl_ratio < "$folder/eval.json")" "$(field tokens < "$folder/eval.json")" \
    "$(awk "BEGIN { printf \"%.4f\", $kl / $reference }")"
}

for format in $formats; do
  rm -f "$folder/out.gguf"
  "$peer" --imatrix "$folder/calibration.gguf" quantize "$model" "$folder/out.gguf" "$format" > "$folder/made.json"
  evaluate "$format" llama.cpp imatrix
  for method in $methods; do
    case $method in
      rtn) calibration= ;;
      gptq-text) calibration="$text --calibration-tokens $tokens" ;;
      *) calibration="$folder/calibration.gguf" ;;
    esac
    # shellcheck disable=SC2086 # paths of the benches have no spaces
    "$edgewise" quantize "$model" "$folder/out.gguf" --to "$format" --method "${method%-text}" \
      ${calibration:+--calibration $calibration} --force --json --quiet > "$folder/made.json"
    evaluate "$format" edgewise "$method"
  done
done
