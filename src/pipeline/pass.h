// Passes: the steps that a recipe names. Each takes a model and gives one; a row of the table is
// all that a new one needs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/cost.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "calibrate/cost.h"
#include "formats/metadata.h"
#include "model/checkpoint.h"
#include "pipeline/convert.h"
#include "pipeline/recipe.h"
#include "pipeline/source_hash.h"

namespace edgewise {

// How far a model has come; a bit each.
enum ModelStage : uint8_t { kFloatModel = 1, kQuantizedModel = 2, kPackedModel = 4 };

// Which sections of a recipe its passes read.
struct SectionUse {
  bool calibration = false;
  bool evaluation = false;
};

struct PassContext {
  const Recipe& recipe;
  std::string stem;  // of the files that this pass keeps in the journal
  int threads;
  // Plans only: `files` and the card tell what would be written; `model` stays what it was where
  // the pass would write a file.
  bool dry_run;
  bool estimate;             // in a dry run: `cost` too
  const SourceHash& source;  // of the model's files; a placeholder in a dry run
  // What the output takes beside the tensors of the quantized model; 0 while it is not known.
  uint64_t header_bytes;
  Progress* progress;
};

// What the passes so far have made of the model.
struct PassState {
  explicit PassState(Checkpoint source) : model(std::move(source)) {}
  Checkpoint model;
  std::string calibration;  // file of sums of this model's layers; empty: none
  Json card;                // quality_card.h; null: not measured
  // Of the file that the last pass wrote, or would write.
  std::vector<ConvertedTensor> tensors;
  Metadata metadata;
  uint64_t target_bytes = 0;  // of the output, at most; 0: no target
  // Estimates of a dry run: of the passes so far, and of the calibration that would be there.
  Cost cost;
  std::optional<LayerTrial> planned_calibration;
};

struct Pass {
  const char* name;
  const char* summary;  // one line
  std::span<const RecipeKey> keys;
  unsigned takes;                              // stages, OR'ed
  ModelStage (*gives)(const Json& arguments);  // null, or 0: as it was
  bool repeats;                                // may stand in a recipe more than once
  // Finds what is wrong with `arguments` in `recipe`, whose earlier passes are there already, and
  // marks the sections that the pass reads.
  Status (*check)(const Json& arguments, const Recipe& recipe, SectionUse* use);
  // Does the work, or takes up the files that an earlier run kept under the same stem.
  Status (*run)(const Json& arguments, const PassContext& context, PassState* state);
};

// True when a pass so far sets weights to zero.
bool LeavesZeros(const Recipe& recipe);

// The first step of this pass, or null.
const RecipeStep* FindStep(const Recipe& recipe, std::string_view name);

// Takes what a plan tells of the file that a pass would write.
void TakePlan(ConvertSummary summary, PassState* state);

// Goes on with the GGUF at `path` as the model. Errors: those of Checkpoint::Open.
Status TakeFile(const std::string& path, PassState* state);

std::span<const Pass> AllPasses();
const Pass* FindPass(std::string_view name);  // null: none

}  // namespace edgewise
