// FakeQuantizer: the weights that a network sees while it learns to be quantized.
//
// The network computes with decode(encode(w)) of the trained floats w, each tensor in the format
// that its file will have; gradients pass straight through to w (Bengio et al. 2013; Jacob et al.
// 2018). Writing w in these formats without importance weights gives exactly the weights seen last.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "quant/dtype.h"
#include "train/parameters.h"

namespace edgewise::train {

// Finds what keeps `weights`, the run of these parameters, from being trained in `formats`, one of
// each parameter; empty: floats, with which nothing is wrong. Errors: kInvalidArgument (a format
// that cannot be written or does not divide a row; weights that a sparse format cannot hold; with
// `keep_zeros` a zero that would not stay one), kBadData (a weight too large for its format).
Status CheckFormats(std::span<const Parameter> parameters, std::span<const DType> formats,
                    bool keep_zeros, const float* weights);

// Not thread-safe; its result does not depend on the number of threads.
class FakeQuantizer {
 public:
  // `formats` have passed CheckFormats. The pool must outlive it.
  FakeQuantizer(std::span<const Parameter> parameters, std::span<const DType> formats,
                ThreadPool* pool);

  // Returns what `weights`, the run of the parameters, become in their formats: as many floats,
  // valid until the next call. Without formats these are `weights` themselves. Errors: kBadData (a
  // value that a format cannot hold; the tensor and its place are named).
  Result<const float*> Apply(const float* weights);
  // The same, to `seen`, where the parameters lie as in `weights`.
  Status ApplyTo(const float* weights, float* seen);

 private:
  // Whole blocks of one parameter: what a thread encodes at once.
  struct Piece {
    const Parameter* parameter;
    const DTypeInfo* format;
    size_t offset, count;  // in the run, in floats
  };
  std::vector<Parameter> parameters_;
  std::vector<Piece> pieces_;
  size_t blocks_bytes_ = 0;         // of the largest piece
  size_t size_ = 0;                 // of the run, in floats
  std::vector<float> seen_;         // of Apply
  std::vector<std::byte> scratch_;  // blocks_bytes_ for each thread
  ThreadPool* pool_;
};

}  // namespace edgewise::train
