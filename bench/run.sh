#!/usr/bin/env bash
# Measures what docs/measurements.md reports and prints JSON lines. Needs about 8 GiB of free disk below build/bench-data.
#   ROUNDS=5 alternations with the peer; THREADS=2
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(nproc)} rounds=${ROUNDS:-5} threads=${THREADS:-2}
data=build/bench-data

cmake --preset release >/dev/null
cmake --build build/release -j"$jobs" --target edgewise llama_peer hostile_text linear_kernels make_synthetic_gguf | tail -n 1 >&2
edgewise=build/release/bin/edgewise peer=build/release/tests/llama_peer
mkdir -p "$data"

# The bundled model: quality and speed of each format.
"$edgewise" report models/edgewise-stories-3M --text models/edgewise-stories-3M/stories.txt --threads "$threads" \
  --output "$data/report.html" --force --json --quiet

# Tokenizers on text made to be slow, where the external vocabularies are here (tests/test_data.h).
vocabularies=${EDGEWISE_TEST_DATA:-../shared}/tokenizers
if [ -d "$vocabularies" ]; then
  build/release/bin/hostile_text "$vocabularies"/ggml-vocab-*.gguf --unigram "$vocabularies/ggml-vocab-llama-spm.gguf"
fi

# The shape of TinyLlama-1.1B with random weights: time and memory of quantizing, against llama.cpp's quantizer.
[ -f "$data/tinyllama-shape.gguf" ] || build/release/bin/make_synthetic_gguf "$data/tinyllama-shape.gguf" >&2
for format in q4_0 q4_k_m q8_0; do
  bench/peers/quantize.sh "$edgewise" "$peer" "$data/tinyllama-shape.gguf" "$format" "$rounds" "$threads"
done

# Speed on the same shape, against llama.cpp: two threads, then one.
for format in q4_0 q4_k_m q8_0; do
  model="$data/tinyllama-shape-$format.gguf"
  [ -f "$model" ] || "$edgewise" quantize "$data/tinyllama-shape.gguf" "$model" --to "$format" --quiet
  bench/peers/speed.sh "$edgewise" "$peer" "$model" "$rounds" "$threads"
done
bench/peers/speed.sh "$edgewise" "$peer" "$data/tinyllama-shape-q4_0.gguf" "$rounds" 1 128 64

# The matrix kernels by themselves.
build/release/bin/linear_kernels
