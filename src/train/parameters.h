// Parameters: everything of a model that is learned, in one run of floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edgewise::train {

struct Parameter {
  std::string name;  // GGUF: "blk.0.attn_q.weight"
  Shape shape;
  size_t offset;  // in the run, in floats
};

inline constexpr size_t kNoParameter = SIZE_MAX;

// Where a layer's parameters begin in the run, or kNoParameter. Matrices with the same input lie
// one behind the other, whether the file fuses them or not: one product computes them.
struct LayerOffsets {
  size_t attention_norm, post_attention_norm, feed_forward_norm, post_feed_forward_norm;
  size_t qkv, qkv_bias;        // (q_dim + 2 * kv_dim, dim), (q_dim + 2 * kv_dim)
  size_t q_norm, k_norm;       // (head_dim)
  size_t output, output_bias;  // (dim, q_dim), (dim)
  size_t gate_up, down;        // (2 * ffn_dim, dim), (dim, ffn_dim)
};

// The order of a model's parameters: first all matrices, then all vectors. Immutable.
class ParameterLayout {
 public:
  explicit ParameterLayout(const ModelSpec& spec);

  std::span<const Parameter> all() const { return parameters_; }
  size_t size() const { return size_; }                // floats
  size_t matrix_size() const { return matrix_size_; }  // floats of matrices, which come first
  const LayerOffsets& layer(uint32_t i) const { return layers_[i]; }
  size_t embedding() const { return embedding_; }      // (vocab_size, dim)
  size_t output_norm() const { return output_norm_; }  // (dim)
  // (vocab_size, dim); of a model with tied embeddings those.
  size_t logits() const { return logits_; }

 private:
  std::vector<Parameter> parameters_;
  std::vector<LayerOffsets> layers_;
  size_t size_ = 0, matrix_size_ = 0;
  size_t embedding_ = 0, output_norm_ = 0, logits_ = 0;
};

// Reads a checkpoint's parameters as floats, whatever their format. Errors: those of
// Checkpoint::Load.
Result<std::vector<float>> LoadParameters(const Checkpoint& checkpoint,
                                          const ParameterLayout& layout);

// Returns parameters to start from: matrices from a normal distribution of deviation 0.02, those
// that write to the residual stream of 0.02 / sqrt(2 * layers) (Radford et al. 2019), norms one,
// biases zero. The same seed gives the same on every machine.
std::vector<float> RandomParameters(const ModelSpec& spec, const ParameterLayout& layout,
                                    uint64_t seed);

}  // namespace edgewise::train
