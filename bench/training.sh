#!/bin/sh
# Speed of a training step by shape and precision, predicted by two steps as `pretrain --dry-run` does. Prints a JSON line for each:
# tokens/s (median of three), operations of a token (6 for each weight of a matrix product, and attention), GFLOP/s, memory.
# usage: training.sh EDGEWISE TOKENIZER TEXT [THREADS] [SHAPES]
# TOKENIZER has 32,000 tokens (that of Llama 2). A shape is 15m (dim 288, 6 layers, 8 sequences of 256) or 110m (dim 768, 12 layers,
# 2 sequences of 512).
set -eu
if [ $# -lt 3 ]; then
  sed -n '2,7p' "$0" >&2
  exit 2
fi
edgewise=$1 tokenizer=$2 text=$3 threads=${4:-2} shapes=${5:-"15m 110m"}
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
for shape in $shapes; do
  case $shape in
    15m) dim=288 layers=6 heads=6 ffn=768 sequence=256 tokens=2048 ;;
    110m) dim=768 layers=12 heads=12 ffn=2048 sequence=512 tokens=1024 ;;
    *) echo "training.sh: no shape is named $shape" >&2 && exit 2 ;;
  esac
  config $dim $layers $heads $ffn
  operations=$(awk "BEGIN { print 6 * ($layers * (4 * $dim * $dim + 3 * $dim * $ffn) + 32000 * $dim) + 6 * $layers * $dim * $sequence }")
  for precision in bf16 f32; do
    : > "$folder/speeds"
    for _ in 1 2 3; do
      "$edgewise" pretrain "$folder/config.json" "$text" "$folder/out.gguf" --tokenizer "$tokenizer" --sequence $sequence \
        --batch-tokens $tokens --precision $precision --threads "$threads" --dry-run --json --quiet > "$folder/line"
      field tokens_per_s < "$folder/line" >> "$folder/speeds"
    done
    speed=$(median "$folder/speeds")
    printf '{"shape": "%s", "precision": "%s", "threads": %s, "tokens_per_s": %s, "operations_per_token": %s, "gflops": %s, "memory_bytes": %s, "peak_rss_bytes": %s}\n' \
      "$shape" "$precision" "$threads" "$speed" "$operations" "$(awk "BEGIN { print $speed * $operations / 1e9 }")" \
      "$(field memory_bytes < "$folder/line")" "$(field peak_rss_bytes < "$folder/line")"
  done
done
