#!/usr/bin/env bash
# Runs every fuzz target of a build folder for the given seconds from its committed seeds, two at a time.
# usage: tools/fuzz.sh build/sanitize/fuzz 60
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
seconds=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

run_one() {
  local target=$1 name=${1##*/fuzz_}
  mkdir -p "$scratch/$name"
  if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
      -artifact_prefix="$scratch/$name-" "$scratch/$name" "fuzz/corpus/$name" >"$scratch/$name.log" 2>&1; then
    echo "fuzz $name: $(grep -o 'stat::number_of_executed_units: *[0-9]*' "$scratch/$name.log" | grep -o '[0-9]*$') runs, no finding"
  else
    tail -n 40 "$scratch/$name.log"
    echo "fuzz $name: FAILED"
    return 1
  fi
}

status=0
pids=()
for target in "$folder"/fuzz_*; do
  [ -x "$target" ] && [ -f "$target" ] || continue
  run_one "$target" &
  pids+=($!)
  if [ "${#pids[@]}" -eq 2 ]; then
    for pid in "${pids[@]}"; do wait "$pid" || status=1; done
    pids=()
  fi
done
for pid in "${pids[@]}"; do wait "$pid" || status=1; done
exit $status
