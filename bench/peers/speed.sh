#!/bin/sh
# Times prompt processing and decoding of one GGUF file in Edgewise and in llama.cpp, in alternation, and prints JSON lines:
# one per round, then the medians. A ratio above 1 means that Edgewise is faster. llama.cpp runs with its weights repacked.
# LLAMA_BINS names a folder of llama.cpp's libraries, to choose its instruction set; EDGEWISE_ISA chooses ours.
# usage: speed.sh EDGEWISE LLAMA_PEER MODEL.gguf [ROUNDS] [THREADS] [PROMPT_TOKENS] [DECODE_TOKENS] [SEQUENCES]
set -eu
if [ $# -lt 3 ]; then
  sed -n '2,5p' "$0" >&2
  exit 2
fi
edgewise=$1 peer=$2 model=$3 rounds=${4:-5} threads=${5:-2} prompt=${6:-512} decode=${7:-128} sequences=${8:-1}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/../json_lines.sh"
ratio() { awk "BEGIN { printf \"%.4f\", $1 / $2 }"; }

round=1
while [ "$round" -le "$rounds" ]; do
  "$edgewise" bench "$model" --threads "$threads" --prompt-tokens "$prompt" --decode-tokens "$decode" --sequences "$sequences" --json --quiet > "$folder/ours"
  "$peer" ${LLAMA_BINS:+--bins "$LLAMA_BINS"} --threads "$threads" bench "$model" "$prompt" "$decode" "$sequences" > "$folder/theirs"
  line=
  for step in prefill decode; do
    ours=$(field ${step}_tokens_per_s < "$folder/ours") theirs=$(field ${step}_tokens_per_s < "$folder/theirs")
    echo "$ours" >> "$folder/$step.ours" && echo "$theirs" >> "$folder/$step.theirs"
    ratio "$ours" "$theirs" >> "$folder/$step.ratio" && echo >> "$folder/$step.ratio"
    line="$line, \"edgewise_$step\": $ours, \"llama_$step\": $theirs"
  done
  for name in bandwidth_share int8_peak_share peak_rss_bytes peak_anon_bytes decode_p50_ms decode_p99_ms; do
    field $name < "$folder/ours" >> "$folder/$name.ours"
  done
  field peak_rss_bytes < "$folder/theirs" >> "$folder/peak_rss_bytes.theirs"
  printf '{"round": %d%s}\n' "$round" "$line"
  round=$((round + 1))
done
printf '{"model": "%s", "threads": %d, "sequences": %d, "rounds": %d, "prompt_tokens": %d, "decode_tokens": %d' \
  "$(basename "$model")" "$threads" "$sequences" "$rounds" "$prompt" "$decode"
for step in prefill decode; do
  printf ', "edgewise_%s_tokens_per_s": %s, "llama_%s_tokens_per_s": %s, "%s_ratio": %s' "$step" "$(median "$folder/$step.ours")" \
    "$step" "$(median "$folder/$step.theirs")" "$step" "$(median "$folder/$step.ratio")"
done
for name in bandwidth_share int8_peak_share peak_rss_bytes peak_anon_bytes decode_p50_ms decode_p99_ms; do
  printf ', "%s": %s' "$name" "$(median "$folder/$name.ours")"
done
printf ', "llama_peak_rss_bytes": %s}\n' "$(median "$folder/peak_rss_bytes.theirs")"
