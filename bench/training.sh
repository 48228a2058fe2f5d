#!/bin/sh
# Speed and memory of a training step by shape and precision. Prints a JSON line for each: tokens/s (medians of the rounds),
# operations of a token (6 for each weight of a matrix product, and attention), GFLOP/s, peak memory; and, where `gemm` lies beside
# EDGEWISE, the share of the peak that products reach on registers. Edgewise's speed is that of the second of two steps, as
# `pretrain --dry-run` predicts it.
# Where `torch_training` lies beside EDGEWISE it takes its turn in each round, a process of its own, as well set as we know: OpenBLAS
# with OpenMP (Debian's libopenblas0-openmp, if it is here), threads that wait without spinning. A ratio above 1 means that
# Edgewise is faster, and a ratio of memory below 1 that it is smaller.
# usage: training.sh EDGEWISE TOKENIZER TEXT [THREADS] [SHAPES] [ROUNDS]
# TOKENIZER has 32,000 tokens (that of Llama 2). A shape is 15m (dim 288, 6 layers, 8 sequences of 256) or 110m (dim 768, 12 layers,
# 2 sequences of 512).
set -eu
if [ $# -lt 3 ]; then
  sed -n '2,12p' "$0" >&2
  exit 2
fi
edgewise=$1 tokenizer=$2 text=$3 threads=${4:-2} shapes=${5:-"15m 110m"} rounds=${6:-3}
bin=$(dirname "$edgewise")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

. "$(dirname "$0")/json_lines.sh"

# config DIM LAYERS HEADS FFN: a Llama of 32,000 tokens with tied embeddings
config() {
  cat > "$folder/config.json" <<END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": $1, "num_hidden_layers": $2, "num_attention_heads": $3,
 "num_key_value_heads": $3, "intermediate_size": $4, "vocab_size": 32000, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5,
 "rope_theta": 10000.0, "tie_word_embeddings": true}
END
}
run_edgewise() {
  "$edgewise" pretrain "$folder/config.json" "$text" "$folder/out.gguf" --tokenizer "$tokenizer" --sequence $sequence \
    --batch-tokens $((sequence * sequences)) --precision $precision --threads "$threads" --dry-run --json --quiet
}
run_torch() {
  LD_LIBRARY_PATH=/usr/lib/$(uname -m)-linux-gnu/openblas-openmp OMP_WAIT_POLICY=passive \
    "$bin/torch_training" $dim $layers $heads $ffn 32000 $sequence $sequences $precision "$threads" $steps
}
# keep ENGINE: the numbers of the object on stdin
keep() {
  tee "$folder/line" | field tokens_per_s >> "$folder/$1.speeds"
  field peak_rss_bytes < "$folder/line" >> "$folder/$1.rss"
}

for shape in $shapes; do
  case $shape in
    15m) dim=288 layers=6 heads=6 ffn=768 sequence=256 sequences=8 steps=3 ;;
    110m) dim=768 layers=12 heads=12 ffn=2048 sequence=512 sequences=2 steps=1 ;;
    *) echo "training.sh: no shape is named $shape" >&2 && exit 2 ;;
  esac
  config $dim $layers $heads $ffn
  operations=$(awk "BEGIN { print 6 * ($layers * (4 * $dim * $dim + 3 * $dim * $ffn) + 32000 * $dim) + 6 * $layers * $dim * $sequence }")
  for precision in bf16 f32; do
    rm -f "$folder"/*.speeds "$folder"/*.rss
    peak=
    round=0
    while [ $round -lt "$rounds" ]; do
      run_edgewise | keep edgewise
      [ ! -x "$bin/torch_training" ] || run_torch | keep torch
      round=$((round + 1))
    done
    speed=$(median "$folder/edgewise.speeds") rss=$(median "$folder/edgewise.rss")
    gflops=$(awk "BEGIN { print $speed * $operations / 1e9 }")
    printf '{"shape": "%s", "precision": "%s", "threads": %s, "rounds": %s, "tokens_per_s": %s, "operations_per_token": %s, "gflops": %s, "peak_rss_bytes": %s' \
      "$shape" "$precision" "$threads" "$rounds" "$speed" "$operations" "$gflops" "$rss"
    if [ -x "$bin/gemm" ]; then
      peak=$("$bin/gemm" "$threads" "$precision" 1 peak | field peak_gflops)
      printf ', "peak_gflops": %s, "peak_share": %s' "$peak" "$(awk "BEGIN { printf \"%.4f\", $gflops / $peak }")"
    fi
    if [ -f "$folder/torch.speeds" ]; then
      theirs=$(median "$folder/torch.speeds") their_rss=$(median "$folder/torch.rss")
      printf ', "torch_tokens_per_s": %s, "ratio": %s, "torch_peak_rss_bytes": %s, "rss_ratio": %s' "$theirs" \
        "$(awk "BEGIN { printf \"%.3f\", $speed / $theirs }")" "$their_rss" "$(awk "BEGIN { printf \"%.3f\", $rss / $their_rss }")"
    fi
    printf '}\n'
  done
done
