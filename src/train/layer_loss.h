// LayerLoss: what is made of a network's layers, beside its logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "train/batch.h"
#include "train/ops.h"

namespace edgewise::train {

// What a forward pass has after some layers; valid while it is looked at.
struct LayerView {
  const Batch& batch;
  uint32_t depth;       // layers so far; 0: the embedding
  const float* stream;  // (n, dim): the residual stream
  // (n, q_dim + 2 kv_dim): rotated queries, keys and values of the last of these layers; at depth 0
  // there are none.
  ConstRows qkv;
};
class LayerVisitor {
 public:
  virtual ~LayerVisitor() = default;
  // Called once at each depth, in rising order.
  virtual void Visit(const LayerView& view) = 0;
};

// A loss of the layers of the batch that the TokenLoss it belongs to has begun. It may learn
// parameters of its own, which train with the network's and go with the loss. Not thread-safe.
class LayerLoss {
 public:
  virtual ~LayerLoss() = default;
  virtual size_t size() const = 0;                            // floats of its parameters
  virtual std::vector<float> First(uint64_t seed) const = 0;  // their values before any step
  // Says where they are, and where their gradients are added: (size()) floats each, which stay the
  // caller's.
  virtual void Bind(const float* parameters, float* gradients) = 0;

  // Called in the backward pass, once at each depth: adds to dx (n, dim) `scale` times the gradient
  // of the loss by the stream x (n, dim).
  virtual void Stream(uint32_t depth, const float* x, float scale, float* dx) = 0;
  // The same of the rotated queries, keys and values in the last of so many layers.
  virtual void Attention(uint32_t depth, const AttentionShape& shape, ConstRows qkv, float scale,
                         Rows dqkv) = 0;
  // The loss of the batch, complete after the backward pass: a sum over its targets, as those of a
  // TokenLoss are.
  virtual double loss() const = 0;
};

}  // namespace edgewise::train
