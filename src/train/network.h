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
#include "train/layer_loss.h"
#include "train/lora.h"
#include "train/loss.h"
#include "train/ops.h"
#include "train/parameters.h"
#include "train/weights.h"

namespace edgewise::train {

struct NetworkOptions {
  // Keeps one layer's activations and computes those of the others again in the backward pass.
  bool recompute = false;
  // Of the largest batch, where batches differ: its memory is taken at once. 0: as they come.
  size_t rows = 0;
  float dropout = 0;  // of the embedding and of what each half layer adds, in training
  // Weights of matrices that are zero before the first step stay zero, so that a pruned model keeps
  // its mask. Adapters then act as W + (alpha / rank) B A where W is not zero, in place of beside
  // W.
  bool keep_zeros = false;
  LoraOptions lora = {};
};

// Bytes that the activations of a batch of `rows` tokens take, with gradients or without.
uint64_t ActivationBytes(const ModelSpec& spec, const NetworkOptions& options, size_t rows,
                         bool gradients);
// Those of sequences that grow to `rows` tokens in all.
uint64_t GrowingBytes(const ModelSpec& spec, const NetworkOptions& options, size_t rows);
// Those of one layer by itself.
uint64_t LayerActivationBytes(const ModelSpec& spec, size_t rows, bool gradients);

// Not thread-safe. What is learned, `weights` below, are (size()) floats that stay the caller's:
// all parameters in the order of a ParameterLayout, or the adapters in that of a LoraLayout.
class Network {
 public:
  // `ops` must outlive it, and so must `base`, the frozen weights that adapters need and that all
  // else must not have. Errors: kUnsupported (an option of the model that training lacks), those of
  // LoraLayout::Create.
  static Result<Network> Create(const ModelSpec& spec, Ops* ops, const NetworkOptions& options,
                                WeightSource* base = nullptr);
  Network(Network&&) noexcept;
  ~Network();

  size_t size() const;         // floats that are learned
  size_t matrix_size() const;  // those of matrices, which come first

  // Runs the batch through the layers and adds to `gradients` (size()) `scale` times those
  // of the sum of its losses, which is returned, and of loss->layers(). `seed` chooses what is
  // dropped. Errors:
  // kInvalidArgument (no tokens, an id outside of the vocabulary, lengths that do not add up),
  // those of `loss` and of the base.
  Result<double> Train(const Batch& batch, const float* weights, TokenLoss* loss, float scale,
                       uint64_t seed, float* gradients);
  // The sum of the losses alone, without dropout.
  Result<double> Evaluate(const Batch& batch, const float* weights, TokenLoss* loss);

  // Runs the batch through the layers, so that Logits can be asked for. `visitor` sees each of
  // them; it may be null.
  Status Forward(const Batch& batch, const float* weights, LayerVisitor* visitor = nullptr);
  // The same, and keeps what Append needs: sequence i may grow to room[i] tokens, at least those
  // that it has.
  Status Open(const Batch& batch, std::span<const uint32_t> room, const float* weights);
  // Appends a token to each of these sequences of the batch that was opened, by rising number. They
  // are the rows that Logits knows then.
  Status Append(std::span<const uint32_t> sequences, std::span<const int32_t> tokens,
                const float* weights);
  // Writes (rows.size(), vocab_size) logits of rows of what ran last.
  void Logits(const float* weights, std::span<const uint32_t> rows, float* logits);

  // One layer by itself: y (n, dim) = the residual stream after it of a batch whose stream before
  // it is x (n, dim), which may be y. Its weights are given, whatever is learned otherwise. Errors:
  // those of Train.
  Status RunLayer(const Batch& batch, uint32_t layer, const LayerWeights& weights, const float* x,
                  float* y);
  // Adds to `gradients` `scale` times those of the squared error, the sum of (y - targets)^2, which
  // is returned; without dropout.
  Result<double> TrainLayer(const Batch& batch, uint32_t layer, const LayerWeights& weights,
                            const float* x, const float* targets, float scale,
                            const LayerGradients& gradients);
  // The sum of the losses of a batch whose stream after the last layer is x (n, dim).
  Result<double> EvaluateStream(const Batch& batch, WeightSource* weights, const float* x,
                                TokenLoss* loss);

 private:
  struct Impl;
  explicit Network(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A teacher that runs in floats. `weights` must outlive it, and so must `visitor`, which sees the
// layers of each batch; it may be null.
class NetworkTeacher final : public Teacher {
 public:
  NetworkTeacher(Network network, const float* weights, LayerVisitor* visitor = nullptr)
      : network_(std::move(network)), weights_(weights), visitor_(visitor) {}
  Status Begin(const Batch& batch) override { return network_.Forward(batch, weights_, visitor_); }
  Status Logits(std::span<const uint32_t> rows, float* logits) override {
    network_.Logits(weights_, rows, logits);
    return Ok{};
  }

 private:
  Network network_;
  const float* weights_;
  LayerVisitor* visitor_;
};

}  // namespace edgewise::train
