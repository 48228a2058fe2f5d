#!/bin/sh
# Times `edgewise quantize` against llama.cpp's quantizer on the same file, in alternation, and prints JSON lines: one per
# round, then the medians. A ratio above 1 means that Edgewise is faster. Edgewise's time includes writing the file safely
# (fsync) and hashing the source; llama.cpp's does not do either.
# usage: quantize.sh EDGEWISE LLAMA_PEER MODEL.gguf FORMAT [ROUNDS] [THREADS]
set -eu
if [ $# -lt 4 ]; then
  sed -n '2,5p' "$0" >&2
  exit 2
fi
edgewise=$1 peer=$2 model=$3 format=$4 rounds=${5:-5} threads=${6:-2}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/../json_lines.sh"
largest() { sort -g "$1" | tail -n 1; }

run_edgewise() { "$edgewise" quantize "$model" "$folder/ours.gguf" --to "$format" --threads "$threads" --force --json --quiet; }
run_llama() {
  rm -f "$folder/theirs.gguf"
  "$peer" --threads "$threads" quantize "$model" "$folder/theirs.gguf" "$format"
}

run_edgewise > /dev/null # the source is in the page cache from here on
run_llama > /dev/null
round=1
while [ "$round" -le "$rounds" ]; do
  run_edgewise > "$folder/ours.json"
  run_llama > "$folder/theirs.json"
  ours=$(field seconds < "$folder/ours.json") theirs=$(field seconds < "$folder/theirs.json")
  echo "$ours" >> "$folder/ours" && echo "$theirs" >> "$folder/theirs"
  field peak_rss_bytes < "$folder/ours.json" >> "$folder/ours_rss"
  field peak_rss_bytes < "$folder/theirs.json" >> "$folder/theirs_rss"
  ratio=$(awk "BEGIN { printf \"%.4f\", $theirs / $ours }")
  echo "$ratio" >> "$folder/ratios"
  printf '{"round": %d, "edgewise_seconds": %s, "llama_seconds": %s, "ratio": %s}\n' "$round" "$ours" "$theirs" "$ratio"
  round=$((round + 1))
done
printf '{"format": "%s", "threads": %d, "rounds": %d, "edgewise_seconds": %s, "llama_seconds": %s, "ratio": %s, ' \
  "$format" "$threads" "$rounds" "$(median "$folder/ours")" "$(median "$folder/theirs")" "$(median "$folder/ratios")"
printf '"edgewise_peak_rss_bytes": %s, "llama_peak_rss_bytes": %s, "edgewise_bytes": %s, "llama_bytes": %s}\n' \
  "$(largest "$folder/ours_rss")" "$(largest "$folder/theirs_rss")" \
  "$(wc -c < "$folder/ours.gguf")" "$(wc -c < "$folder/theirs.gguf")"
