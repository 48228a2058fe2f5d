// The weights of a model, bound to the kernels that multiply with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edgewise {

// y = W x + b for W of (rows, columns): all of a tensor, or a run of its rows.
struct Linear {
  const std::byte* data = nullptr;  // as the kernel takes it: in the checkpoint, or in `packed`
  Tensor packed;                    // block formats that the checkpoint has in rows: packed here
  size_t row_bytes = 0;
  size_t rows = 0;
  size_t columns = 0;
  kernels::LinearKernel kernel;
  std::vector<float> bias;  // (rows), or empty
};

struct LayerWeights {
  std::vector<float> attention_norm;          // (dim)
  Linear q, k, v;                             // (q_dim, dim), (kv_dim, dim) twice
  std::vector<float> q_norm, k_norm;          // (head_dim), or empty
  Linear output;                              // (dim, q_dim)
  std::vector<float> post_attention_norm;     // (dim), or empty
  std::vector<float> feed_forward_norm;       // (dim)
  Linear gate, up, down;                      // (ffn_dim, dim) twice, (dim, ffn_dim)
  std::vector<float> post_feed_forward_norm;  // (dim), or empty
};

struct Model::Impl {
  explicit Impl(Checkpoint source) : checkpoint(std::move(source)) {}

  Checkpoint checkpoint;
  std::vector<Tensor> tensors;  // by the checkpoint's index; empty where only packed rows are used
  TensorView embedding;         // (vocab_size, dim)
  std::vector<LayerWeights> layers;
  std::vector<float> output_norm;  // (dim)
  Linear logits;                   // (vocab_size, dim)
  uint64_t weight_bytes = 0;       // of all tensors
  uint64_t copied_bytes = 0;       // of the linear layers packed here

  const ModelSpec& spec() const { return checkpoint.spec(); }
  // Binds one layer to weights decoded to F32, which stand in `tensors`.
  Status BindFloatLayer(uint32_t layer, ThreadPool* pool);
  class Loader;  // fills all of this
};

}  // namespace edgewise
