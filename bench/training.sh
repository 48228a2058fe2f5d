#!/bin/sh
# Speed and memory of a training step by shape and precision. Prints a JSON line for each: tokens/s by the clock and by processor time
# divided by the threads, which busy neighbours disturb less (medians of the rounds, of a few steps each); operations of a token (6
# for each weight of a matrix product, and attention); GFLOP/s of processor time and their share of the peak that products reach on
# registers; peak memory.
# libtorch takes its turn in each round where the build found it, in a process of its own, as well set as we know: OpenBLAS with
# OpenMP (Debian's libopenblas0-openmp, if it is here; OPENBLAS_CORETYPE for a CPU that it does not know), threads that wait
# without spinning. A ratio above 1 means that Edgewise is faster, and a ratio of memory below 1 that it is smaller.
# usage: training.sh BIN [THREADS] [SHAPES] [ROUNDS] [PRECISIONS] [lean]
# BIN is the folder of training, gemm and torch_training. A shape is 15m (dim 288, 6 layers, 8 sequences of 256) or 110m (dim 768, 12
# layers, 2 sequences of 512), both of 32,000 tokens. lean: ours keeps moments in 8 bits and computes activations anew.
set -eu
if [ $# -lt 1 ]; then
  sed -n '2,11p' "$0" >&2
  exit 2
fi
bin=$1 threads=${2:-2} shapes=${3:-"15m 110m"} rounds=${4:-3} precisions=${5:-"bf16 f32"} lean=${6:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/json_lines.sh"

# keep ENGINE: the numbers of the object on stdin
keep() {
  tee "$folder/line" | field tokens_per_s >> "$folder/$1.speeds"
  field processor_tokens_per_s < "$folder/line" >> "$folder/$1.processor"
  field peak_rss_bytes < "$folder/line" >> "$folder/$1.rss"
}
run_torch() {
  LD_LIBRARY_PATH=/usr/lib/$(uname -m)-linux-gnu/openblas-openmp OMP_WAIT_POLICY=passive "$bin/torch_training" "$@"
}
ratio() { awk "BEGIN { printf \"%.3f\", $1 / $2 }"; }

for shape in $shapes; do
  case $shape in
    15m) dim=288 layers=6 heads=6 ffn=768 sequence=256 sequences=8 steps=3 ;;
    110m) dim=768 layers=12 heads=12 ffn=2048 sequence=512 sequences=2 steps=1 ;;
    *) echo "training.sh: no shape is named $shape" >&2 && exit 2 ;;
  esac
  operations=$(awk "BEGIN { print 6 * ($layers * (4 * $dim * $dim + 3 * $dim * $ffn) + 32000 * $dim) + 6 * $layers * $dim * $sequence }")
  for precision in $precisions; do
    rm -f "$folder"/*.speeds "$folder"/*.processor "$folder"/*.rss
    arguments="$dim $layers $heads $ffn 32000 $sequence $sequences $precision $threads $steps"
    round=0
    while [ $round -lt "$rounds" ]; do
      "$bin/training" $arguments $lean | keep edgewise
      [ ! -x "$bin/torch_training" ] || run_torch $arguments | keep torch
      round=$((round + 1))
    done
    speed=$(median "$folder/edgewise.speeds") processor=$(median "$folder/edgewise.processor") rss=$(median "$folder/edgewise.rss")
    gflops=$(awk "BEGIN { printf \"%.1f\", $processor * $operations / 1e9 }")
    peak=$("$bin/gemm" "$threads" "$precision" 1 peak | field peak_gflops)
    printf '{"shape": "%s", "precision": "%s", "lean": %s, "threads": %s, "rounds": %s, "tokens_per_s": %s, "processor_tokens_per_s": %s' \
      "$shape" "$precision" "$([ -n "$lean" ] && echo true || echo false)" "$threads" "$rounds" "$speed" "$processor"
    printf ', "operations_per_token": %s, "processor_gflops": %s, "peak_gflops": %s, "peak_share": %s, "peak_rss_bytes": %s' \
      "$operations" "$gflops" "$peak" "$(ratio "$gflops" "$peak")" "$rss"
    if [ -f "$folder/torch.speeds" ]; then
      theirs=$(median "$folder/torch.speeds") their_processor=$(median "$folder/torch.processor") their_rss=$(median "$folder/torch.rss")
      printf ', "torch_tokens_per_s": %s, "torch_processor_tokens_per_s": %s, "torch_peak_rss_bytes": %s' \
        "$theirs" "$their_processor" "$their_rss"
      printf ', "ratio": %s, "processor_ratio": %s, "rss_ratio": %s' "$(ratio "$speed" "$theirs")" \
        "$(ratio "$processor" "$their_processor")" "$(ratio "$rss" "$their_rss")"
    fi
    printf '}\n'
  done
done
