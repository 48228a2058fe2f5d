#!/bin/sh
# Times `edgewise run` with and without speculative decoding, in alternation, and prints JSON lines: one per round, then the medians.
# Fails when a text differs. A ratio above 1 means that speculation is faster.
# usage: speculative.sh EDGEWISE MODEL.gguf ROUNDS THREADS TOKENS RUN_FLAGS...     for example --draft SMALL.gguf --temperature 0
set -eu
if [ $# -lt 6 ]; then
  sed -n '2,4p' "$0" >&2
  exit 2
fi
edgewise=$1 model=$2 rounds=$3 threads=$4 tokens=$5
shift 5
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/json_lines.sh"
text() { sed -n 's/.*"ids": *\(\[[^]]*\]\).*/\1/p'; }

prompt='one two three one two three one two'
round=1
while [ "$round" -le "$rounds" ]; do
  # The same sampling flags without the drafter: they follow it.
  plain=
  skip=0
  for flag in "$@"; do
    if [ "$skip" -eq 1 ]; then skip=0; continue; fi
    case $flag in
      --draft) skip=1 ;;
      --prompt-lookup) ;;
      --draft-max) skip=1 ;;
      *) plain="$plain $flag" ;;
    esac
  done
  # shellcheck disable=SC2086
  "$edgewise" run "$model" --prompt "$prompt" --max-tokens "$tokens" --threads "$threads" --json --quiet $plain > "$folder/plain"
  "$edgewise" run "$model" --prompt "$prompt" --max-tokens "$tokens" --threads "$threads" --json --quiet "$@" > "$folder/drafted"
  if [ "$(text < "$folder/plain")" != "$(text < "$folder/drafted")" ]; then
    echo "speculative.sh: the texts differ" >&2
    exit 1
  fi
  plain_seconds=$(field decode_seconds < "$folder/plain") drafted_seconds=$(field decode_seconds < "$folder/drafted")
  awk "BEGIN { printf \"%.4f\n\", $plain_seconds / $drafted_seconds }" >> "$folder/ratio"
  echo "$plain_seconds" >> "$folder/plain_seconds" && echo "$drafted_seconds" >> "$folder/drafted_seconds"
  printf '{"round": %d, "plain_seconds": %s, "drafted_seconds": %s, "drafted": %s, "accepted": %s}\n' "$round" "$plain_seconds" \
    "$drafted_seconds" "$(field drafted < "$folder/drafted")" "$(field accepted < "$folder/drafted")"
  round=$((round + 1))
done
printf '{"model": "%s", "flags": "%s", "threads": %d, "tokens": %d, "rounds": %d, "plain_seconds": %s, "drafted_seconds": %s, "ratio": %s}\n' \
  "$(basename "$model")" "$*" "$threads" "$tokens" "$rounds" "$(median "$folder/plain_seconds")" "$(median "$folder/drafted_seconds")" \
  "$(median "$folder/ratio")"
