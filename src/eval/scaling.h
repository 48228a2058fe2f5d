// How speed grows with the length of the prompt, the depth of the context, the number of sequences
// and the number of threads: `bench --scaling`.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "kernels/kernels.h"

namespace edgewise {

struct ScalingOptions {
  uint32_t max_tokens = 8192;  // longest prompt and deepest context; may exceed the trained one
  uint32_t max_sequences = 32;
  uint32_t steps = 16;  // decode steps that each median is taken over
  kernels::KvFormat kv_format = kernels::KvFormat::kF16;
};

struct ScalingResult {
  struct Context {
    uint32_t tokens;              // in the cache; 128, 256, ...
    double prefill_tokens_per_s;  // of a prompt that long
    double decode_tokens_per_s;   // after it
  };
  struct Batch {
    uint32_t sequences;          // that decode together, at 64 tokens each; 1, 2, 4, ...
    double decode_tokens_per_s;  // of all
  };
  struct Threads {
    int threads;  // 1, 2, ... of the engine's
    double prefill_tokens_per_s, decode_tokens_per_s;
  };
  std::vector<Context> context;
  std::vector<Batch> batch;
  std::vector<Threads> threads;
};

// Measures all three. Errors: kInvalidArgument (less than 128 tokens, no sequences, no steps),
// kOutOfMemory, kCancelled, those of ForwardPass::Run.
Result<ScalingResult> MeasureScaling(Engine* engine, const ScalingOptions& options,
                                     Progress* progress = nullptr);

// {"context": [{"tokens", ...}], "batch": [...], "threads": [...]}
Json ToJson(const ScalingResult& result);

}  // namespace edgewise
