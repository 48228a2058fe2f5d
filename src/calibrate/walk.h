// ActivationWalk: calibration sequences on their way through a model, layer by layer.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/scratch.h"
#include "base/thread_pool.h"
#include "calibrate/statistics.h"
#include "model/checkpoint.h"
#include "model/layer_stream.h"

namespace edgewise {

using TokenSequences = std::vector<std::vector<int32_t>>;

uint64_t TokenCount(std::span<const std::vector<int32_t>> sequences);
// Tokens of the longest.
size_t LongestOf(std::span<const std::vector<int32_t>> sequences);

// The residual streams of all sequences before one layer, which the walk moves over layer by layer.
// Not thread-safe. Results do not depend on the number of threads.
class ActivationWalk {
 public:
  // Errors: kInvalidArgument (no tokens, an id outside the vocabulary), those of LayerStream and of
  // ScratchMemory.
  static Result<ActivationWalk> Create(const Checkpoint& checkpoint, TokenSequences sequences,
                                       ThreadPool* pool);
  const ModelSpec& spec() const { return stream_.spec(); }
  // Loads layer `layer`; those below have been passed.
  Status Load(uint32_t layer) { return stream_.Load(layer); }
  // Frees the loaded layer, which has been passed.
  void Unload() { stream_.Unload(); }
  std::span<const LayerMatrix> matrices() const { return stream_.matrices(); }
  // Shows the linear inputs of the loaded layer for all sequences, until `tap` returns false for
  // each part; the streams stay where they are.
  Status Visit(LinearTap tap);
  // The same for one sequence.
  Status VisitSequence(size_t index, LinearTap tap);
  std::span<const std::vector<int32_t>> sequences() const { return sequences_; }
  // Passes the loaded layer; `tap` may look on, and its return value must be true.
  Status Pass(LinearTap tap);
  // Passes the loaded layer, and returns the moments of its inputs, by LinearInput.
  Result<std::array<ColumnMoments, kLinearInputs>> PassWithMoments();
  // As Pass for one sequence, each once.
  Status PassSequence(size_t index, LinearTap tap);
  // The residual stream of a sequence before the layer that it passes next: (tokens, dim).
  std::span<const float> Stream(size_t index) const { return Rows(index); }
  // Lets go of its pages after that; they come back when they are used.
  void Release(size_t index) const { x_.DropPages(std::as_bytes(Stream(index))); }
  // Shows the input of the output matrix. Only after the last layer.
  Status VisitOutput(FunctionRef<void(const float* rows, size_t n, size_t stride)> tap);

 private:
  ActivationWalk(LayerStream stream, TokenSequences sequences)
      : stream_(std::move(stream)), sequences_(std::move(sequences)) {}
  LayerStream stream_;
  TokenSequences sequences_;
  std::vector<uint64_t> first_;  // row of each sequence
  // The rows of a sequence in x_.
  std::span<float> Rows(size_t index) const;
  ScratchMemory x_;             // (tokens, dim)
  std::vector<float> scratch_;  // (longest sequence, dim)
};

}  // namespace edgewise
