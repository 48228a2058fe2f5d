#!/bin/sh
# Times decoding alone and beside one busy loop per CPU at the given niceness, in Edgewise and in llama.cpp, and prints JSON lines: one per
# round, then the medians. `share` is the busy speed over the quiet one.
# usage: busy_neighbour.sh EDGEWISE LLAMA_PEER MODEL.gguf [ROUNDS] [THREADS] [NICE] [DECODE_TOKENS]
set -eu
if [ $# -lt 3 ]; then
  sed -n '2,4p' "$0" >&2
  exit 2
fi
edgewise=$1 peer=$2 model=$3 rounds=${4:-3} threads=${5:-2} nice=${6:-15} decode=${7:-64}
folder=$(mktemp -d)
neighbours=
quiet() {
  for pid in $neighbours; do kill "$pid" 2>/dev/null || true; done
  neighbours=
}
trap 'quiet; rm -rf "$folder"' EXIT
busy() {
  cpu=0
  while [ "$cpu" -lt "$(nproc)" ]; do
    nice -n "$nice" sh -c 'while :; do :; done' &
    neighbours="$neighbours $!"
    cpu=$((cpu + 1))
  done
}

. "$(dirname "$0")/json_lines.sh"
ours() {
  "$edgewise" bench "$model" --threads "$threads" --prompt-tokens 16 --decode-tokens "$decode" --repetitions 1 --json --quiet > "$folder/out"
  field decode_tokens_per_s < "$folder/out" > "$folder/speed"
  p50=$(field decode_p50_ms < "$folder/out") p99=$(field decode_p99_ms < "$folder/out")
}
theirs() { "$peer" --threads "$threads" bench "$model" 16 "$decode" | field decode_tokens_per_s > "$folder/speed"; }

round=1
while [ "$round" -le "$rounds" ]; do
  line=
  for program in ours theirs; do
    $program
    alone=$(cat "$folder/speed")
    busy
    $program
    beside=$(cat "$folder/speed")
    quiet
    awk "BEGIN { printf \"%.4f\n\", $beside / $alone }" >> "$folder/$program.share"
    line="$line, \"${program}_alone\": $alone, \"${program}_beside\": $beside"
    [ "$program" = theirs ] || awk "BEGIN { printf \"%.4f\n\", $p99 / $p50 }" >> "$folder/tail"
  done
  printf '{"round": %d%s}\n' "$round" "$line"
  round=$((round + 1))
done
printf '{"model": "%s", "threads": %d, "nice": %d, "rounds": %d, "edgewise_share": %s, "llama_share": %s, "edgewise_p99_over_p50_beside": %s}\n' \
  "$(basename "$model")" "$threads" "$nice" "$rounds" "$(median "$folder/ours.share")" "$(median "$folder/theirs.share")" "$(median "$folder/tail")"
