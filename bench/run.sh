#!/usr/bin/env bash
# Measures what docs/measurements.md reports and prints JSON lines. Needs about 16 GiB of free disk below build/bench-data.
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
q4_0="$data/tinyllama-shape-q4_0.gguf"
bench/peers/speed.sh "$edgewise" "$peer" "$q4_0" "$rounds" 1 128 64

# Several sequences that decode together; growth with context, sequences and threads; a busy neighbour on every CPU.
for sequences in 4 16; do
  bench/peers/speed.sh "$edgewise" "$peer" "$q4_0" "$rounds" "$threads" 32 32 "$sequences"
done
"$edgewise" bench "$q4_0" --scaling --threads "$threads" --json --quiet
bench/busy_neighbour.sh "$edgewise" "$peer" "$q4_0" "$rounds" "$threads"

# Packed ahead: loading and memory.
[ -f "$data/tinyllama-shape-packed.gguf" ] || "$edgewise" pack "$q4_0" "$data/tinyllama-shape-packed.gguf" --quiet
"$edgewise" bench "$data/tinyllama-shape-packed.gguf" --threads "$threads" --json --quiet

# Other shapes against llama.cpp. Arguments after the name are those of make_synthetic_gguf.
other_shape() {
  name=$1
  shift
  model="$data/$name-q4_k_m.gguf"
  if [ ! -f "$model" ]; then
    build/release/bin/make_synthetic_gguf "$data/$name.gguf" "$@" >&2
    "$edgewise" quantize "$data/$name.gguf" "$model" --to q4_k_m --quiet
    rm "$data/$name.gguf"
  fi
  bench/peers/speed.sh "$edgewise" "$peer" "$model" "$rounds" "$threads" 256 48
}
other_shape llama-3.2-1b-shape --layers 16 --dim 2048 --heads 32 --kv-heads 8 --ffn 8192 --vocab 128256 --tied 1
other_shape phi-3-mini-shape --layers 32 --dim 3072 --heads 32 --kv-heads 32 --ffn 8192 --vocab 32064

# Speculative decoding where the draft knows: a model whose first two layers decide, drafted by these two layers.
target="$data/decided-q4_0.gguf" draft="$data/deciding-q4_0.gguf"
if [ ! -f "$target" ]; then
  build/release/bin/make_synthetic_gguf "$data/decided.gguf" --deciding-layers 2 >&2
  build/release/bin/make_synthetic_gguf "$data/deciding.gguf" --layers 2 >&2
  "$edgewise" quantize "$data/decided.gguf" "$target" --to q4_0 --quiet
  "$edgewise" quantize "$data/deciding.gguf" "$draft" --to q4_0 --quiet
  rm "$data/decided.gguf" "$data/deciding.gguf"
fi
bench/speculative.sh "$edgewise" "$target" "$rounds" "$threads" 96 --draft "$draft" --temperature 0
bench/speculative.sh "$edgewise" "$target" "$rounds" "$threads" 96 --draft "$draft" --temperature 0.8 --seed 3

# The matrix kernels by themselves.
build/release/bin/linear_kernels
