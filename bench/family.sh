#!/bin/sh
# Does a student learn more from a teacher than from the text alone? Trains a teacher from its config.json, keeps what it says of the text
# (`distill cache`), and trains students of another config.json for the same steps on the same batches, with it and without (alpha 0), for
# each seed.
# Prints a JSON line for each model with its perplexity on held-out text, and one with the medians. What OUT holds already is kept, and a
# run that was stopped goes on.
# usage: family.sh EDGEWISE TOKENIZER TRAIN.txt HELD_OUT.txt TEACHER_CONFIG STUDENT_CONFIG OUT [TEACHER_FLAGS] [STUDENT_FLAGS] [DISTIL_FLAGS] [SEEDS]
# TEACHER_FLAGS are of `edgewise pretrain`; STUDENT_FLAGS of `edgewise distill`, DISTIL_FLAGS (--alpha, ...) of it for those with a teacher
# alone. --sequence of the students and of what the teacher says of the text must be the same: it is the environment's SEQUENCE (256).
set -eu
if [ $# -lt 7 ]; then
  sed -n '2,9p' "$0" >&2
  exit 2
fi
edgewise=$1 tokenizer=$2 text=$3 held_out=$4 teacher_config=$5 student_config=$6 out=$7
teacher_flags=${8-"--epochs 6 --learning-rate 2e-3 --weight-decay 0.8 --dropout 0.1 --final 0.02"}
student_flags=${9-"--epochs 4 --learning-rate 3e-3"} distil_flags=${10-"--alpha 0.7"} seeds=${11:-"1 2 3"}
sequence=${SEQUENCE:-256}
mkdir -p "$out"

. "$(dirname "$0")/json_lines.sh"

# trained NAME COMMAND...: makes OUT/NAME.gguf unless it is there, and prints its line
trained() {
  name=$1
  shift
  if [ ! -f "$out/$name.gguf" ] || [ ! -f "$out/$name.json" ]; then
    "$edgewise" "$@" --held-out "$held_out" --sequence "$sequence" --resume --json --quiet > "$out/$name.part"
    mv "$out/$name.part" "$out/$name.json"
  fi
  loss=$(field held_out_loss < "$out/$name.json")
  perplexity=$(awk "BEGIN { printf \"%.4f\", exp($loss) }")
  printf '{"model": "%s", "held_out_loss": %s, "perplexity": %s, "steps": %s, "parameters": %s}\n' "$name" "$loss" "$perplexity" \
    "$(field steps < "$out/$name.json")" "$(field parameters < "$out/$name.json")"
}

# shellcheck disable=SC2086 # flags are several words
trained teacher pretrain "$teacher_config" "$text" "$out/teacher.gguf" --tokenizer "$tokenizer" $teacher_flags
[ -f "$out/teacher.cache" ] || "$edgewise" distill cache "$out/teacher.gguf" "$text" "$out/teacher.cache" --sequence "$sequence" --resume --quiet >&2

# student KIND SEED FLAGS...: trains OUT/KIND-SEED.gguf
student() {
  kind=$1 seed=$2
  shift 2
  # shellcheck disable=SC2086
  trained "$kind-$seed" distill "$text" "$out/$kind-$seed.gguf" --cache "$out/teacher.cache" --student "$student_config" \
    --tokenizer "$tokenizer" $student_flags "$@" --seed "$seed"
  echo "$perplexity" >> "$out/$kind.all"
}

rm -f "$out/hard.all" "$out/distilled.all"
for seed in $seeds; do
  student hard "$seed" --alpha 0
  # shellcheck disable=SC2086
  student distilled "$seed" $distil_flags
done
printf '{"hard": %s, "distilled": %s, "seeds": "%s"}\n' "$(median "$out/hard.all")" "$(median "$out/distilled.all")" "$seeds"
