#!/bin/sh
# Compares quality at equal bytes: llama.cpp's quantizer with its importance matrix in formats of its own, and Edgewise's
# gptq in the mixture that `--target-bytes` chooses for a file of the same size, by the same calibration text. llama.cpp decodes its files to F32 to be
# measured. Prints a JSON line for each file.
# usage: equal_bytes.sh EDGEWISE LLAMA_PEER MODEL.gguf CALIBRATION.txt HELD_OUT.txt FORMATS [CALIBRATION_TOKENS] [SEPARATOR]
set -eu
if [ $# -lt 6 ]; then
  sed -n '2,5p' "$0" >&2
  exit 2
fi
edgewise=$1 peer=$2 model=$3 text=$4 held_out=$5 formats=$6 tokens=${7:-65536} separator=${8:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/../json_lines.sh"

"$edgewise" calibrate "$model" "$text" "$folder/calibration.gguf" --tokens "$tokens" --json --quiet > /dev/null

# evaluate FORMAT TOOL FILE BYTES
evaluate() {
  "$edgewise" eval "$3" --kl "$model" --text "$held_out" ${separator:+--documents "$separator"} --json --quiet > "$folder/eval.json"
  kl=$(field kl_mean < "$folder/eval.json")
  [ "$2" = llama.cpp ] && reference=$kl
  printf '{"format": "%s", "tool": "%s", "bytes": %s, "kl_mean": %s, "top1_agreement": %s, "ppl_ratio": %s, "kl_ratio": %s}\n' "$1" "$2" "$4" "$kl" \
    "$(field top1_agreement < "$folder/eval.json")" "$(field ppl_ratio < "$folder/eval.json")" "$(awk "BEGIN { printf \"%.4f\", $kl / $reference }")"
}

for format in $formats; do
  "$peer" --imatrix "$folder/calibration.gguf" quantize "$model" "$folder/theirs.gguf" "$format" > /dev/null
  bytes=$(wc -c < "$folder/theirs.gguf")
  "$peer" quantize "$folder/theirs.gguf" "$folder/decoded.gguf" f32 > /dev/null
  evaluate "$format" llama.cpp "$folder/decoded.gguf" "$bytes"
  "$edgewise" quantize "$model" "$folder/ours.gguf" --target-bytes "$bytes" --method gptq --calibration "$folder/calibration.gguf" --force --json \
    --quiet > /dev/null
  evaluate "$format" edgewise "$folder/ours.gguf" "$(wc -c < "$folder/ours.gguf")"
done
