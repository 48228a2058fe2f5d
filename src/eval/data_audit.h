// Data audit: looks through a training set for what may have been planted in it, or is there twice.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "eval/training_set.h"
#include "eval/triggers.h"

namespace edgewise {

enum class DataDetector : uint8_t {
  kExactDuplicate,  // score: 1
  kNearDuplicate,   // score: Jaccard similarity of word trigrams
  kInvisible,       // score: characters (FindInvisible)
  kTrigger,         // score: nats of evidence per example (FindTriggers)
  kOddWord,         // score: nats saved (FindOddWords); needs a model
  kSpectral,        // score: standard deviations (FindSpectral); needs a model
};
inline constexpr size_t kDataDetectors = 6;

struct DataAuditOptions {
  double near_duplicate = 0.8;  // least similarity, above 0, at most 1
  TriggerOptions triggers;
  double trigger_score = 0.25;   // least to report
  double model_spread = 6;       // kOddWord, kSpectral: above the median by this many MAD
  uint32_t odd_word_words = 64;  // words tried of each example
};

struct DataFinding {
  uint64_t example = 0;  // index, from 0
  uint64_t line = 0;     // in the source, from 1
  DataDetector detector = DataDetector::kExactDuplicate;
  double score = 0;
  std::string reason;   // one line for people
  std::string excerpt;  // of the example, invisible characters spelled out
};

struct DetectorSummary {
  DataDetector detector;
  bool ran = true;
  double threshold = 0;  // least score that is reported
  uint64_t findings = 0;
};

struct DataAudit {
  uint64_t examples = 0;
  std::vector<DataFinding> findings;       // by detector, then falling score, then example
  std::vector<DetectorSummary> detectors;  // one for each
  double seconds = 0;
};

// Runs every detector; kOddWord and kSpectral only where `engine` is not null. The result does not
// depend on the number of threads. Errors: kInvalidArgument (an option out of its range), those of
// the detectors, kCancelled.
Result<DataAudit> AuditData(const std::vector<TrainingExample>& examples,
                            const DataAuditOptions& options, Engine* engine, ThreadPool* pool,
                            Progress* progress = nullptr);

// "exact-duplicate", "near-duplicate", "invisible-characters", "rare-trigger", "odd-word",
// "spectral".
const char* DetectorName(DataDetector detector);

// The members of `audit data --json`.
Json ToJson(const DataAudit& audit);

}  // namespace edgewise
