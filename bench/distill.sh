#!/bin/sh
# Compares ways to distil one student from TEACHER. Prints a JSON line for each set of FLAGS of `edgewise distill`, an argument each ("" for
# none): the student's distance from the teacher on held-out text, and what making it took.
# usage: distill.sh EDGEWISE TEACHER STUDENT TRAIN.txt HELD_OUT.txt COMMON_FLAGS SEPARATOR FLAGS...
set -eu
if [ $# -lt 8 ]; then
  sed -n '2,4p' "$0" >&2
  exit 2
fi
edgewise=$1 teacher=$2 student=$3 text=$4 held_out=$5 common=$6 separator=$7
shift 7
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/json_lines.sh"

for flags in "$@"; do
  # shellcheck disable=SC2086 # flags are several words
  "$edgewise" distill "$teacher" "$text" "$folder/out.gguf" --student "$student" --held-out "$held_out" $common $flags \
    --force --json --quiet > "$folder/made.json"
  "$edgewise" eval "$folder/out.gguf" --kl "$teacher" --text "$held_out" ${separator:+--documents "$separator"} --json --quiet \
    > "$folder/eval.json"
  printf '{"flags": "%s", "held_out_loss": %s, "seconds": %s, ' "$flags" "$(field held_out_loss < "$folder/made.json")" \
    "$(field seconds < "$folder/made.json")"
  quality < "$folder/eval.json"
done
