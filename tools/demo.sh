#!/usr/bin/env bash
# The main job on a real model. On the bundled one: a chain that prunes, heals and quantizes, beside plain quantization to several
# formats, each measured against the original; then a story. On another one: plain quantization.
# usage: tools/demo.sh [MODEL]   MODEL: a GGUF file or a Hugging Face folder; default: the bundled model
# Writes report.html in the current folder and the models to build/demo/.
set -euo pipefail
edgewise=${EDGEWISE:-build/product/bin/edgewise}
bundled=models/edgewise-stories-3M
model=${1:-$bundled}
work=build/demo
mkdir -p "$work"

compare=()
story=$work/q4_k_m.gguf
if [ "$model" = "$bundled" ]; then
  printf 'Text of the model itself, to learn from:\n\n'
  "$edgewise" sample "$bundled" "$work/own.txt" --tokens 100000 --seed 7 --force
  printf '\nPruned, healed and quantized as examples/recipes/smaller-and-faster.yaml says:\n\n'
  cp examples/recipes/smaller-and-faster.yaml "$work/"
  "$edgewise" compress "$work/smaller-and-faster.yaml" --force
  story=$work/smaller-and-faster.gguf
  compare=(--text "$bundled/stories.txt" --add "$story")
  printf '\nBeside plain quantization:\n\n'
fi
"$edgewise" report "$model" ${compare[@]+"${compare[@]}"} --keep "$work" --output report.html --force

printf '\n%s tells a story:\n\n' "$story"
"$edgewise" run "$story" --prompt "Once upon a time" --max-tokens 120 --seed 3
