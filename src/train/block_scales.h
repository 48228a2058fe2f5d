// BlockScales: a quantized model of which only the scales and offsets of blocks are learned, while
// all codes stay (end-to-end training of quantization parameters, EfficientQAT, Chen et al. 2024).
//
// A factor is learned for each half d, m or dmin of a block, of k-quants of the whole block of 256;
// it begins at 1. The network sees the values of blocks whose halves are the products, rounded;
// gradients pass straight through that rounding. So a factor's gradient is the sum over the block
// of the weights' gradients times the weights' shares of that half.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "quant/dtype.h"
#include "train/parameters.h"

namespace edgewise::train {

// Not thread-safe; its results do not depend on the number of threads.
class BlockScales {
 public:
  // Copies the blocks of all tensors in block formats, and the values of the others, which stay as
  // they are. The pool must outlive it. Errors: kInvalidArgument (no tensor is in a block format),
  // those of Checkpoint::Load.
  static Result<BlockScales> Create(const Checkpoint& model, ThreadPool* pool);
  // Bytes that it takes.
  static uint64_t Bytes(const Checkpoint& model);

  size_t size() const { return size_; }  // factors

  // Returns the parameters, (ParameterLayout::size()) floats, that `factors` (size()) give; valid
  // until the next call. Errors: kBadData (a half that is too large; the tensor is named).
  Result<const float*> Apply(std::span<const float> factors);
  // Writes the (size()) gradients of the factors, by those of the parameters.
  void Reduce(const float* parameter_gradients, float* gradients) const;

  // The tensors whose factors are learned.
  struct ScaledTensor {
    Parameter parameter;
    DType format;
    size_t first = 0;  // of its factors
    std::vector<std::byte> blocks;
    size_t block_count() const { return blocks.size() / Info(format).block_bytes; }
  };
  std::span<const ScaledTensor> tensors() const { return tensors_; }
  // The blocks of a tensor with these factors, as Apply sees them.
  static std::vector<std::byte> Scaled(const ScaledTensor& tensor, std::span<const float> factors);

 private:
  explicit BlockScales(ThreadPool* pool) : pool_(pool) {}
  static bool Scale(const ScaledTensor& tensor, size_t first, size_t count,
                    std::span<const float> factors, std::byte* blocks);
  std::vector<ScaledTensor> tensors_;
  size_t size_ = 0;
  std::vector<float> values_;  // of all parameters
  ThreadPool* pool_;
};

}  // namespace edgewise::train
