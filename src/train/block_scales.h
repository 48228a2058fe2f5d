// BlockScales: the scales and offsets of quantized blocks, learned by gradients: alone, while all
// codes stay (end-to-end training of quantization parameters, EfficientQAT, Chen et al. 2024), or
// with the weights (learned step sizes: LSQ, Esser et al. 2020; with offsets LSQ+, Bhalgat et al.
// 2020).
//
// A factor is learned for each half d, m or dmin of a block, of k-quants of the whole block of 256;
// it begins at 1. The network sees the values of blocks whose halves are the products, rounded;
// gradients pass straight through that rounding. Beside weights it is learned in units of the
// tensor's root mean square: then a step changes a scale by as large a share as it does weights.
//
// Codes that stay: a factor's gradient is the sum over the block of the weights' gradients times
// the weights' shares of that half.
//
// With weights w each code is the nearest to w, and v = scale * code - offset what is seen. Where w
// lies within the levels of its group, dv/dw is 1, v's share of d has the gradient v - w, and the
// offset none; where it lies beyond them dv/dw is 0 and v moves with both. A block or group whose
// scale is 0 at first stays so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "quant/dtype.h"
#include "train/fake_quantizer.h"
#include "train/parameters.h"

namespace edgewise::train {

// Not thread-safe; its results do not depend on the number of threads.
class BlockScales {
 public:
  // Of codes that stay: copies the blocks of all tensors in block formats, and the values of the
  // others, which stay as they are. The pool must outlive it. Errors: kInvalidArgument (no tensor
  // is in a block format), those of Checkpoint::Load.
  static Result<BlockScales> Create(const Checkpoint& model, ThreadPool* pool);
  // With weights, the run of these parameters, in formats that have passed CheckFormats: scales
  // begin as the encoder chooses them. What is in no block format is seen as FakeQuantizer has it.
  // Errors: kInvalidArgument (no format is a block format).
  static Result<BlockScales> CreateWithWeights(std::span<const Parameter> parameters,
                                               std::span<const DType> formats,
                                               std::span<const float> weights, ThreadPool* pool);

  // The factors of so many values in this format.
  static size_t FactorsOf(DType format, size_t values);

  // What is learned: so many weights, none where codes stay, and the factors behind them.
  size_t weights() const { return weights_; }
  size_t learned() const { return weights_ + factors_; }
  // Puts the factors before the first step behind the weights.
  void AppendFactors(std::vector<float>* learned) const;
  uint64_t Bytes() const;  // that it takes

  // Returns the parameters that the first learned() numbers give; valid until the next call.
  // Errors: kBadData (a half that is too large, weights that are not finite; the tensor is named).
  Result<const float*> Apply(std::span<const float> learned);
  // Writes the learned() gradients, by those of the parameters, (ParameterLayout::size()) floats,
  // which may begin at the same place where weights are learned. What is learned has passed Apply.
  void Reduce(std::span<const float> learned, const float* parameter_gradients,
              float* gradients) const;

  // The tensors whose factors are learned.
  struct ScaledTensor {
    Parameter parameter;
    DType format;
    size_t first = 0;               // of its factors, among all
    float unit = 1;                 // what is learned of a factor that is 1
    std::vector<std::byte> blocks;  // with halves before the factors
    size_t block_count() const { return blocks.size() / Info(format).block_bytes; }
  };
  std::span<const ScaledTensor> tensors() const { return tensors_; }
  // The blocks of one of them, as Apply sees them.
  std::vector<std::byte> Blocks(const ScaledTensor& tensor, std::span<const float> learned) const;

 private:
  explicit BlockScales(ThreadPool* pool) : pool_(pool) {}
  void Add(const Parameter& parameter, DType format, float unit, std::vector<std::byte> blocks);
  // The factors of block `number` of a tensor, among what is learned.
  size_t FactorsAt(const ScaledTensor& tensor, size_t number) const;
  bool SetHalves(const ScaledTensor& tensor, size_t number, std::span<const float> learned,
                 std::byte* block) const;
  bool WriteBlocks(const ScaledTensor& tensor, size_t first, size_t count,
                   std::span<const float> learned, std::byte* blocks) const;
  void ReduceFixed(const ScaledTensor& tensor, size_t number, const float* g,
                   float* gradients) const;
  void ReduceWithWeights(const ScaledTensor& tensor, size_t number, std::span<const float> learned,
                         float* of_weights, float* of_factors) const;
  std::vector<ScaledTensor> tensors_;
  std::optional<FakeQuantizer> rounding_;  // beside weights: of what is in no block format
  size_t weights_ = 0, factors_ = 0;
  std::vector<float> values_;  // of all parameters
  ThreadPool* pool_;
};

}  // namespace edgewise::train
