// Perplexity of a model on a text, in a named convention.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "eval/windows.h"

namespace edgewise {

struct PerplexityResult {
  double perplexity = 0;         // exp(nll)
  double nll = 0;                // mean negative log-likelihood, nats per scored token
  double nll_stderr = 0;         // of the mean, tokens taken as independent
  double perplexity_stderr = 0;  // perplexity * nll_stderr
  uint64_t tokens = 0;           // scored
  uint64_t windows = 0;          // or documents
  uint64_t unused_tokens = 0;    // read but not in any window
  uint64_t skipped_documents = 0;
  uint64_t text_bytes = 0;
  uint32_t context = 0;
  std::string convention;  // "A", "C" or "documents"
  double seconds = 0;
};

// Measures perplexity; log-probabilities and sums are double. The result does not depend on the
// number of threads. Errors: those of CutText and ForwardPass::Run, kBadData (logits that are not
// finite), kCancelled.
Result<PerplexityResult> MeasurePerplexity(Engine* engine, std::string_view text,
                                           const TextOptions& options,
                                           Progress* progress = nullptr);

// The members of `eval --perplexity --json`.
Json ToJson(const PerplexityResult& result);

}  // namespace edgewise
