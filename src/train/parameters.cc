#include "train/parameters.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"
#include "model/arch/tensors.h"

namespace edgewise::train {
namespace {

constexpr double kDeviation = 0.02;

// True for what the rope is made of, which is given and not learned.
bool IsRopeTable(std::string_view name) { return name.starts_with("rope_"); }

bool WritesResidual(std::string_view name) {
  return name.ends_with("attn_output.weight") || name.ends_with("ffn_down.weight");
}

}  // namespace

ParameterLayout::ParameterLayout(const ModelSpec& spec)
    : dim_(spec.dim), vocab_size_(spec.vocab_size) {
  const std::vector<NeededTensor> needed = NeededTensors(spec);
  for (const int rank : {2, 1}) {
    for (const NeededTensor& tensor : needed) {
      if (tensor.shape.rank() != rank || IsRopeTable(tensor.name)) continue;
      parameters_.push_back({tensor.name, tensor.shape, size_});
      size_ += tensor.shape.elements();
    }
    if (rank == 2) matrix_size_ = size_;
  }
  std::unordered_map<std::string_view, size_t> offsets;
  for (const Parameter& parameter : parameters_) {
    offsets.emplace(parameter.name, parameter.offset);
  }
  const auto offset = [&](const std::string& name) {
    const auto found = offsets.find(name);
    return found == offsets.end() ? kNoParameter : found->second;
  };
  embedding_ = offset("token_embd.weight");
  output_norm_ = offset("output_norm.weight");
  logits_ = spec.tied_embeddings ? embedding_ : offset("output.weight");
  for (uint32_t l = 0; l < spec.n_layers; ++l) {
    const std::string prefix = Format("blk.%u.", l);
    const auto at = [&](const char* name) { return offset(prefix + name); };
    layers_.push_back({.attention_norm = at("attn_norm.weight"),
                       .post_attention_norm = at("post_attention_norm.weight"),
                       .feed_forward_norm = at("ffn_norm.weight"),
                       .post_feed_forward_norm = at("post_ffw_norm.weight"),
                       .qkv = at(spec.fused_qkv ? "attn_qkv.weight" : "attn_q.weight"),
                       .qkv_bias = at(spec.fused_qkv ? "attn_qkv.bias" : "attn_q.bias"),
                       .q_norm = at("attn_q_norm.weight"),
                       .k_norm = at("attn_k_norm.weight"),
                       .output = at("attn_output.weight"),
                       .output_bias = at("attn_output.bias"),
                       .gate_up = at(spec.fused_gate_up ? "ffn_up.weight" : "ffn_gate.weight"),
                       .down = at("ffn_down.weight")});
  }
}

LayerLayout::LayerLayout(const ParameterLayout& layout, uint32_t layer) {
  const std::string prefix = Format("blk.%u.", layer);
  // Where its matrices and its vectors begin in the whole run.
  size_t matrices = kNoParameter, vectors = kNoParameter;
  for (const Parameter& parameter : layout.all()) {
    if (!parameter.name.starts_with(prefix)) continue;
    const bool matrix = parameter.offset < layout.matrix_size();
    size_t& begin = matrix ? matrices : vectors;
    if (begin == kNoParameter) begin = parameter.offset;
    parameters.push_back({parameter.name, parameter.shape, size});
    size += parameter.shape.elements();
    if (matrix) matrix_size = size;
  }
  offsets = Each(layout.layer(layer), [&](size_t offset) {
    if (offset == kNoParameter) return offset;
    return offset < layout.matrix_size() ? offset - matrices : offset - vectors + matrix_size;
  });
}

Result<std::vector<float>> LoadParameters(const Checkpoint& checkpoint,
                                          const ParameterLayout& layout) {
  std::vector<float> values(layout.size());
  for (const Parameter& parameter : layout.all()) {
    const auto index = checkpoint.Find(parameter.name);
    EW_CHECK(index.has_value());  // a checkpoint has what its spec needs
    EW_TRY(const Tensor tensor, checkpoint.Load(*index));
    const TensorView& view = tensor.view();
    view.Decode(0, view.shape.elements(), values.data() + parameter.offset);
    checkpoint.DropPages(*index);
  }
  return values;
}

std::vector<float> RandomParameters(const ModelSpec& spec, const ParameterLayout& layout,
                                    uint64_t seed) {
  std::vector<float> values(layout.size());
  Rng rng(seed);
  const double residual = kDeviation / std::sqrt(2.0 * spec.n_layers);
  for (const Parameter& parameter : layout.all()) {
    float* first = values.data() + parameter.offset;
    const size_t count = parameter.shape.elements();
    if (parameter.shape.rank() == 2) {
      const double deviation = WritesResidual(parameter.name) ? residual : kDeviation;
      std::generate_n(first, count, [&] { return static_cast<float>(deviation * rng.Gaussian()); });
    } else if (!parameter.name.ends_with(".bias")) {
      std::fill_n(first, count, 1.0f);
    }
  }
  return values;
}

}  // namespace edgewise::train
