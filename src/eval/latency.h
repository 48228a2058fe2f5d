// Latency and throughput of one stream of requests, or of several in step, on a loaded model: the
// `bench` verb.
#pragma once

#include <cstdint>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "eval/machine.h"
#include "kernels/kernels.h"

namespace edgewise {

struct LatencyOptions {
  uint32_t prompt_tokens = 0;  // 0: 512, or half of a smaller context
  uint32_t new_tokens = 0;     // 0: 128, or a quarter of a smaller context
  uint32_t sequences = 1;      // prompts that are computed together, and decode together
  uint32_t repetitions =
      3;  // each prefills and decodes from an empty cache, after one short warm-up
  double min_seconds = 0;  // more repetitions follow until all of them took as long
  kernels::KvFormat kv_format = kernels::KvFormat::kF16;
  uint64_t seed = 1;  // of the prompt's random tokens; speed does not depend on which
};

struct LatencyResult {
  uint32_t prompt_tokens = 0;
  uint32_t new_tokens = 0;
  uint32_t sequences = 0;
  uint32_t repetitions = 0;
  double prefill_tokens_per_s = 0;  // of all sequences; median over the repetitions
  double decode_tokens_per_s = 0;   // of all sequences: tokens / sum of the steps' times
  double decode_p50_ms = 0;         // of a step: sorted[int(n * p)]
  double decode_p90_ms = 0;
  double decode_p99_ms = 0;
  double ttft_ms = 0;  // median: prefill and choosing the first token
  double load_ms = 0;
  uint64_t peak_rss_bytes = 0;   // of the process, mapped weights included
  uint64_t peak_anon_bytes = 0;  // largest seen between the steps: memory that cannot be dropped
  uint64_t kv_bytes = 0;
  uint64_t bytes_per_token = 0;  // weights that one decode step reads
  uint64_t prefill_ops = 0;      // of the prompts' matrix products, 2 per multiply-add
  double bandwidth_share =
      0;  // steps per second * bytes_per_token / measured read bandwidth; 0 until SetShares
  double int8_peak_share =
      0;  // prefill operations per second / measured int8 limit; 0 until SetShares
};

// Measures greedily. Measure the machine afterwards, because its buffer would count as
// memory of the process. Errors: kInvalidArgument (the tokens do not fit the trained context, no
// sequences or repetitions), those of ForwardPass::Run, kCancelled.
Result<LatencyResult> MeasureLatency(Engine* engine, const LatencyOptions& options,
                                     Progress* progress = nullptr);

// Fills the two shares.
void SetShares(const MachineLimits& limits, LatencyResult* result);

// The members of `bench --json`.
Json ToJson(const LatencyResult& result);

}  // namespace edgewise
