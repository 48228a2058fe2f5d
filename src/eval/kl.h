// KL divergence of a model from its base on the same text, both run in this process: no file of
// logits, no rounding of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "eval/windows.h"
#include "model/model.h"

namespace edgewise {

// A mean with its standard error, positions taken as independent.
struct MeanError {
  double mean = 0;
  double std_error = 0;
};

struct KlResult {
  MeanError kl;       // KL(base || model), nats per position
  double kl_p90 = 0;  // sorted[int(n * p)]
  double kl_p99 = 0;
  double kl_max = 0;
  MeanError top1_agreement;  // share of positions where both put the same token first
  MeanError rms_delta_p;     // root mean square of p_model - p_base of the correct token, percent
  MeanError delta_p;         // mean of it, percent
  double base_perplexity = 0;
  double perplexity = 0;
  MeanError ppl_ratio;            // perplexity / base_perplexity; error from the paired differences
  std::vector<double> window_kl;  // mean KL of each window of CutText
  uint64_t tokens = 0;            // scored positions
  uint64_t windows = 0;
  uint64_t unused_tokens = 0;
  uint64_t skipped_documents = 0;
  uint64_t text_bytes = 0;
  uint32_t context = 0;
  std::string convention;
  double seconds = 0;
};

// Measures how far `model` is from `base`. `base` and `model` may be the same engine. A default
// context is the smaller of the two models'. Errors: kInvalidArgument (different vocabularies),
// those of MeasurePerplexity.
Result<KlResult> MeasureKl(Engine* base, Engine* model, std::string_view text,
                           const TextOptions& options, Progress* progress = nullptr);

// The same for a model that is `base` but for `part`, whose weights are those of `model`: what that
// part alone does. Errors: also those of ForwardPass::Substitute.
Result<KlResult> MeasurePartKl(Engine* base, Engine* model, const ModelPart& part,
                               std::string_view text, const TextOptions& options,
                               Progress* progress = nullptr);

// The members of `eval --kl --json`.
Json ToJson(const KlResult& result);

}  // namespace edgewise
