// LayerStream: a model run layer by layer, of which one layer at a time is in memory, in float32.
// Calibration and compression see the input of every linear layer through it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "model/model.h"

namespace edgewise {

// The stems of a layer's matrices, "blk.N.STEM.weight", in the order in which the forward pass
// meets them. A model has those that its spec asks for.
inline constexpr const char* kLinearStems[] = {"attn_qkv",    "attn_q",   "attn_k", "attn_v",
                                               "attn_output", "ffn_gate", "ffn_up", "ffn_down"};

// Returns which input the matrix of a stem takes.
LinearInput InputOf(std::string_view stem);

// A weight matrix of the loaded layer: one tensor of the checkpoint, decoded.
struct LayerMatrix {
  size_t tensor = 0;  // index in Checkpoint::tensors()
  std::string name;   // GGUF: "blk.0.attn_q.weight"
  LinearInput input = LinearInput::kQkv;
  float* values = nullptr;  // (rows, columns); may be changed, and the next Run sees it
  size_t rows = 0;
  size_t columns = 0;
};

// Not thread-safe. Results do not depend on the number of threads.
class LayerStream {
 public:
  // `context` is the longest sequence. `pool` must outlive the stream. Errors: those of
  // Checkpoint::Load; kOutOfMemory.
  static Result<LayerStream> Create(const Checkpoint& checkpoint, uint32_t context,
                                    ThreadPool* pool);
  LayerStream(LayerStream&&) noexcept;
  LayerStream& operator=(LayerStream&&) noexcept;
  ~LayerStream();

  const ModelSpec& spec() const;
  // Decodes layer `layer` in place of the one before. Errors: those of Checkpoint::Load,
  // kOutOfMemory.
  Status Load(uint32_t layer);
  // Frees the loaded layer, if there is one.
  void Unload();
  // The matrices of the loaded layer, in the order in which the forward pass meets them. Valid
  // until the next Load or Unload.
  std::span<const LayerMatrix> matrices() const;

  // x (tokens, dim) = the residual stream before the first layer. Errors: kInvalidArgument (an id
  // outside the vocabulary).
  Status Embed(std::span<const int32_t> tokens, float* x);
  // Runs the loaded layer on one whole sequence of n <= context tokens: x (n, dim) is replaced by
  // the stream after the layer, unless `tap` returned false. Long sequences come in parts.
  Status Run(float* x, size_t n, LinearTap tap);
  // y (n, dim) = the input of the output matrix for the stream after the last layer. y may be x.
  void Normalize(const float* x, size_t n, float* y) const;

 private:
  struct Impl;
  explicit LayerStream(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgewise
