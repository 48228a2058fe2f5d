// Network: the forward and backward pass of a ModelSpec over packed sequences.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "model/spec.h"
#include "train/batch.h"
#include "train/loss.h"
#include "train/ops.h"
#include "train/parameters.h"

namespace edgewise::train {

struct NetworkOptions {
  // Keeps one layer's activations and computes those of the others again in the backward pass.
  bool recompute = false;
  // Of the largest batch, where batches differ: its memory is taken at once. 0: as they come.
  size_t rows = 0;
  float dropout = 0;  // of the embedding and of what each half layer adds, in training
};

// Bytes that the activations of a batch of `rows` tokens take, with gradients or without.
uint64_t ActivationBytes(const ModelSpec& spec, const NetworkOptions& options, size_t rows,
                         bool gradients);

// Not thread-safe. Weights are (layout.size()) floats that stay the caller's.
class Network {
 public:
  // `ops` must outlive it. Errors: kUnsupported (an option of the model that training lacks).
  static Result<Network> Create(const ModelSpec& spec, Ops* ops, const NetworkOptions& options);
  Network(Network&&) noexcept;
  ~Network();

  const ParameterLayout& layout() const;

  // Runs the batch through the layers and adds to `gradients` (layout.size()) `scale` times those
  // of the sum of its losses, which is returned. `seed` chooses what is dropped. Errors:
  // kInvalidArgument (no tokens, an id outside of the vocabulary, lengths that do not add up),
  // those of `loss`.
  Result<double> Train(const Batch& batch, const float* weights, TokenLoss* loss, float scale,
                       uint64_t seed, float* gradients);
  // The sum of the losses alone, without dropout.
  Result<double> Evaluate(const Batch& batch, const float* weights, TokenLoss* loss);

  // Runs the batch through the layers, so that Logits can be asked for.
  Status Forward(const Batch& batch, const float* weights);
  // Writes (rows.size(), vocab_size) logits of rows of the batch that was given last to Forward.
  void Logits(const float* weights, std::span<const uint32_t> rows, float* logits);

 private:
  struct Impl;
  explicit Network(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A teacher that runs in floats. `weights` must outlive it.
class NetworkTeacher final : public Teacher {
 public:
  NetworkTeacher(Network network, const float* weights)
      : network_(std::move(network)), weights_(weights) {}
  Status Begin(const Batch& batch) override { return network_.Forward(batch, weights_); }
  Status Logits(std::span<const uint32_t> rows, float* logits) override {
    network_.Logits(weights_, rows, logits);
    return Ok{};
  }

 private:
  Network network_;
  const float* weights_;
};

}  // namespace edgewise::train
