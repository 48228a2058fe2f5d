// Compress: runs a recipe, in steps that a killed run can go on from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/cost.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "pipeline/convert.h"
#include "pipeline/recipe.h"

namespace edgewise {

struct CompressOptions {
  int threads = 0;         // 0: all CPUs
  bool overwrite = false;  // the output, and without `resume` a journal that is there
  // Go on with the journal of a stopped run, if there is one; an output that this very run has
  // written stays as it is, unless it is to be overwritten and no journal is there.
  bool resume = false;
  // A folder for what the passes before quantization leave, by what was done up to there: runs with
  // the same inputs do it once. Empty: the journal.
  std::string shared_folder;
  bool measure = true;  // false: eval is left out, and the output has the same tensors but no card
};

struct CompressSummary {
  std::string output;
  uint64_t bytes = 0;  // of the whole file; exact in a plan, but with a target
  // Of the whole file, at most: the formats are chosen on the way. 0: no target.
  uint64_t target_bytes = 0;
  uint64_t tensor_bytes = 0;
  uint64_t parameters = 0;
  double bits_per_weight = 0;  // tensor bytes * 8 / parameters
  std::vector<std::string> passes;
  std::vector<ConvertedTensor> tensors;  // of the file
  bool resumed = false;
  Json card;                     // null: not measured
  std::string source_sha256;     // empty in a plan
  std::optional<Cost> estimate;  // of a plan that was asked for it
  double seconds = 0;
  uint64_t peak_rss_bytes = 0;  // of this process so far
};

// Runs `recipe` and writes its output, a GGUF, with the recipe, the digests of its inputs and the
// quality card in its metadata. Everything unfinished stands in the folder "OUTPUT.journal", which
// is removed at the end and stays when the run is stopped, killed or fails. The bytes of the output
// do not depend on the number of threads or on how often the run was stopped and resumed. Errors:
// those of CheckOutput, RunJournal::Open and of the passes; kInvalidArgument (the evaluation text
// is the calibration text); kCancelled.
Result<CompressSummary> Compress(const Recipe& recipe, const CompressOptions& options,
                                 Progress* progress);

// What Compress would write; nothing is written. With `estimate` also what it would take, by short
// trials of each pass; without it no weights are read but norms.
Result<CompressSummary> PlanCompression(const Recipe& recipe, int threads, bool estimate,
                                        Progress* progress);

// The members of `edgewise compress --json`.
Json ToJson(const CompressSummary& summary);

}  // namespace edgewise
