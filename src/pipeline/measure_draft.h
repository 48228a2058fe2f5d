// What a small model is worth as the drafter of a large one (speculative decoding,
// engine/drafter.h).
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "train/corpus.h"

namespace edgewise {

struct DraftReport {
  uint64_t prompts = 0, tokens = 0;         // that the target wrote
  uint64_t drafted = 0, accepted = 0;       // tokens guessed, and those of them that it chose
  double seconds = 0, drafted_seconds = 0;  // of decoding alone, without and with the drafter
  double acceptance() const {
    return drafted > 0 ? static_cast<double>(accepted) / static_cast<double>(drafted) : 0;
  }
  double speed_up() const { return drafted_seconds > 0 ? seconds / drafted_seconds : 0; }
};

struct DraftJob {
  std::string target, draft;   // model files
  std::string tokenizer_path;  // where the target does not bring one
  int threads = 0;
};

// Lets the target write on, greedily, from the beginning of each of the first documents, without
// and with the drafter in turn. Errors: those of Engine::Load, DraftModel::Create and
// Session::Generate; kInvalidArgument (no document is longer than a prompt), kCancelled.
Result<DraftReport> MeasureDraft(const DraftJob& job, const train::Corpus& documents,
                                 Progress* progress);

// The members of "draft" in `edgewise distill --draft --json`.
Json ToJson(const DraftReport& report);

}  // namespace edgewise
