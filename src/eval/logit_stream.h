// LogitStream: the logits of scored windows, a few rows at a time, so that memory stays small for
// any vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "eval/windows.h"
#include "model/model.h"

namespace edgewise {

// -log of the probability of `token` by its logits (vocab_size), in nats.
double NegativeLogLikelihood(const float* logits, size_t vocab_size, int32_t token);
// kBadData: what came out of `model` ("model", "base model") was not finite.
Error NotFiniteLogits(const char* model);

// Not thread-safe; the engine must outlive it.
class LogitStream {
 public:
  // `max_tokens`: of the longest window. Errors: those of KvCache::Create.
  static Result<LogitStream> Create(Engine* engine, uint32_t max_tokens, size_t rows,
                                    kernels::KvFormat kv_format);
  // How many rows of logits to compute together for this vocabulary.
  static size_t RowsFor(uint32_t vocab_size);

  // As ForwardPass::Substitute; before Begin.
  Status Substitute(const Model& other, const ModelPart& part) {
    return forward_.Substitute(other, part);
  }

  // Starts on a window; it must outlive the reading.
  Status Begin(const ScoredWindow& window);
  // Returns the logits (count, vocab_size) that predict the next `count` targets, at most `rows` of
  // them; empty at the end. The span is valid until the next call.
  Result<std::span<const float>> Next();

 private:
  LogitStream(Engine* engine, KvCache cache, size_t rows);
  size_t vocab_size_;
  KvCache cache_;
  ForwardPass forward_;
  std::span<const int32_t> tokens_;  // of the window, without the last, which predicts nothing
  std::vector<float> logits_;        // (rows, vocab_size)
};

}  // namespace edgewise
