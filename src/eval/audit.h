// Audit: what compression changed in a model's behaviour, and which of its parts did.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "eval/kl.h"
#include "eval/probes.h"
#include "eval/spread.h"
#include "eval/tensor_error.h"
#include "eval/windows.h"

namespace edgewise {

struct AuditOptions {
  TextOptions text;  // how the text becomes windows
  // Prompts to compare, one a line; none: the windows or documents of the text.
  std::optional<std::string> prompts;
  double prompt_spread = 8;    // changed most: KL above median + this many MAD
  uint32_t blame_windows = 8;  // windows for the parts; 0: the parts are not measured
  uint32_t probe_tokens = 48;  // of each answer; 0: no probes
};

// What one part of the compressed model does to the base alone.
struct PartBlame {
  std::string name;  // "embedding", "layer 0", ..., "output"
  double kl_mean = 0;
  double kl_p99 = 0;
  double top1_agreement = 0;
};

struct ChangedPrompt {
  uint64_t index = 0;  // of the window, document or prompt, from 0
  double kl = 0;       // mean over its positions, nats
  std::string text;    // its beginning, invisible characters spelled out
};

struct ChangedPrompts {
  std::string unit;  // "window", "document" or "prompt"
  uint64_t count = 0;
  Spread spread;                       // of the mean KLs
  double multiple = 0;                 // of the MAD, above the median
  double threshold = 0;                // nats
  std::vector<ChangedPrompt> changed;  // falling KL
};

struct ModelAudit {
  KlResult kl;
  std::vector<PartBlame> parts;  // in the order of computation
  uint64_t part_windows = 0, part_tokens = 0;
  ChangedPrompts prompts;
  std::vector<TensorError> tensors;  // in the base's order
  std::vector<ProbeResult> probes;
  double seconds = 0;
};

// Compares `model` with the `base` that it was made from. The result does not depend on the number
// of threads. Errors: kInvalidArgument (models of different shapes or vocabularies), those of
// MeasureKl, CompareTensors and RunProbes; kCancelled.
Result<ModelAudit> AuditModel(Engine* base, Engine* model, std::string_view text,
                              const AuditOptions& options, Progress* progress = nullptr);

// The members of `audit --json`.
Json ToJson(const ModelAudit& audit);

}  // namespace edgewise
