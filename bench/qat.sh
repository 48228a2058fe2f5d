#!/bin/sh
# Compares training through a quantizer with quantizing afterwards, at equal bytes. Prints a JSON line for each file: its distance from
# MODEL on held-out text, and what making it took. Each student learns MODEL's probabilities (alpha 1), from MODEL's own weights or from
# those that a method of `edgewise quantize` left.
# usage: qat.sh EDGEWISE MODEL TRAIN.txt HELD_OUT.txt [FORMAT] [METHODS] [STARTS] [RATES] [EPOCHS] [BATCH_TOKENS]
#        [CALIBRATION_TOKENS] [SEPARATOR] [FLAGS]
# FLAGS are more options of `edgewise distill`; with --layerwise layers learn the outputs of MODEL's layers instead. STARTS are float and
# METHODS that need no calibration file: rtn, rotate+rtn, gptq, rotate+gptq.
set -eu
if [ $# -lt 4 ]; then
  sed -n '2,9p' "$0" >&2
  exit 2
fi
edgewise=$1 model=$2 text=$3 held_out=$4 format=${5:-q3_k_s} methods=${6-"rtn gptq rotate+gptq"}
starts=${7-"float rotate+gptq"} rates=${8:-"1e-4 3e-4 5e-4"} epochs=${9:-"1 3"} batch=${10:-4096} tokens=${11:-65536} separator=${12:-} flags=${13:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/json_lines.sh"
case " $flags " in
  *" --layerwise "*) loss= ;;
  *) loss="--alpha 1" ;;
esac

# quantized METHOD: writes METHOD.gguf, and made.json of what it took
quantized() {
  case $1 in
    *gptq) calibration="$text --calibration-tokens $tokens" ;;
    *) calibration= ;;
  esac
  # shellcheck disable=SC2086 # paths of the benches have no spaces
  "$edgewise" quantize "$model" "$folder/$1.gguf" --to "$format" --method "$1" ${calibration:+--calibration $calibration} \
    --force --json --quiet > "$folder/made.json"
}

# measured LABEL FILE: prints the line of a file that made.json is about
measured() {
  "$edgewise" eval "$2" --kl "$model" --text "$held_out" ${separator:+--documents "$separator"} --json --quiet > "$folder/eval.json"
  printf '{"format": "%s", %s, "bytes": %s, "seconds": %s, "peak_rss_bytes": %s, ' "$format" "$1" "$(wc -c < "$2")" \
    "$(field seconds < "$folder/made.json")" "$(field peak_rss_bytes < "$folder/made.json")"
  quality < "$folder/eval.json"
}

for method in $methods; do
  quantized "$method"
  measured "\"method\": \"$method\"" "$folder/$method.gguf"
done
for start in $starts; do
  student=$model
  if [ "$start" != float ]; then
    student=$folder/$start.gguf
    [ -e "$student" ] || quantized "$start"
  fi
  for count in $epochs; do
    for rate in $rates; do
      # shellcheck disable=SC2086 # flags are several words
      "$edgewise" distill "$model" "$text" "$folder/out.gguf" --student "$student" --qat "$format" $loss --learning-rate "$rate" \
        --epochs "$count" --batch-tokens "$batch" --held-out "$held_out" $flags --force --json --quiet > "$folder/made.json"
      measured "\"method\": \"qat\", \"start\": \"$start\", \"epochs\": $count, \"batch_tokens\": $batch, \"learning_rate\": $rate, \"flags\": \"$flags\"" "$folder/out.gguf"
    done
  done
done
