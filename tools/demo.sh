#!/usr/bin/env bash
# The main job on a real model: convert, quantize to several formats, measure each against the original, tell a story.
# usage: tools/demo.sh [MODEL]   MODEL: a GGUF file or a Hugging Face folder; default: the bundled model
# Writes report.html in the current folder and the GGUF files to build/demo/.
set -euo pipefail
edgewise=${EDGEWISE:-build/product/bin/edgewise}
bundled=models/edgewise-stories-3M
model=${1:-$bundled}
text=()
[ "$model" = "$bundled" ] && text=(--text "$bundled/stories.txt")

"$edgewise" report "$model" ${text[@]+"${text[@]}"} --keep build/demo --output report.html --force

printf '\nThe Q4_K_M file tells a story:\n\n'
"$edgewise" run build/demo/q4_k_m.gguf --prompt "Once upon a time" --max-tokens 120 --seed 3
