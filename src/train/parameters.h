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

// One value for each parameter of a layer. Matrices with the same input lie one behind the other,
// whether the file fuses them or not: one product computes them.
template <class T>
struct LayerValues {
  T attention_norm, post_attention_norm, feed_forward_norm, post_feed_forward_norm;
  T qkv, qkv_bias;        // (q_dim + 2 * kv_dim, dim), (q_dim + 2 * kv_dim)
  T q_norm, k_norm;       // (head_dim)
  T output, output_bias;  // (dim, q_dim), (dim)
  T gate_up, down;        // (2 * ffn_dim, dim), (dim, ffn_dim)
};
// Where they begin in the run, or kNoParameter.
using LayerOffsets = LayerValues<size_t>;
// Where they lie in memory; null: the model has none, and of gradients: not wanted.
using LayerWeights = LayerValues<const float*>;
using LayerGradients = LayerValues<float*>;

// `function` of each value.
template <class T, class Function>
auto Each(const LayerValues<T>& v, Function&& function) -> LayerValues<decltype(function(v.qkv))> {
  return {function(v.attention_norm),
          function(v.post_attention_norm),
          function(v.feed_forward_norm),
          function(v.post_feed_forward_norm),
          function(v.qkv),
          function(v.qkv_bias),
          function(v.q_norm),
          function(v.k_norm),
          function(v.output),
          function(v.output_bias),
          function(v.gate_up),
          function(v.down)};
}
// The pointers into a run of floats, which may be null.
template <class T>
LayerValues<T*> In(T* run, const LayerOffsets& offsets) {
  return Each(offsets, [run](size_t offset) {
    return run == nullptr || offset == kNoParameter ? nullptr : run + offset;
  });
}

// The order of a model's parameters: first all matrices, then all vectors. Immutable.
class ParameterLayout {
 public:
  explicit ParameterLayout(const ModelSpec& spec);

  std::span<const Parameter> all() const { return parameters_; }
  size_t size() const { return size_; }                // floats
  size_t matrix_size() const { return matrix_size_; }  // floats of matrices, which come first
  size_t dim() const { return dim_; }
  size_t vocab_size() const { return vocab_size_; }
  const LayerOffsets& layer(uint32_t i) const { return layers_[i]; }
  size_t embedding() const { return embedding_; }      // (vocab_size, dim)
  size_t output_norm() const { return output_norm_; }  // (dim)
  // (vocab_size, dim); of a model with tied embeddings those.
  size_t logits() const { return logits_; }

 private:
  std::vector<Parameter> parameters_;
  std::vector<LayerOffsets> layers_;
  size_t size_ = 0, matrix_size_ = 0;
  size_t dim_ = 0, vocab_size_ = 0;
  size_t embedding_ = 0, output_norm_ = 0, logits_ = 0;
};

// The parameters of one layer in a run of their own, in the order of the whole: first its matrices,
// then its vectors.
struct LayerLayout {
  LayerLayout(const ParameterLayout& layout, uint32_t layer);

  std::vector<Parameter> parameters;  // with offsets in this run
  LayerOffsets offsets;
  size_t size = 0, matrix_size = 0;  // floats
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
