// Structured pruning: whole layers, residual channels, attention groups and feed-forward neurons
// go, and the matrices that read what is left are fitted to give what they gave. The result is a
// smaller model of the same architecture, with the same sizes in all layers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/walk.h"
#include "compress/prune/structure.h"
#include "model/checkpoint.h"

namespace edgewise {

// How units are scored (unit_score.h). Layers: by block influence, 1 - cos of the residual stream
// before and after (ShortGPT, Men et al. 2024), with the methods that look at inputs.
enum class StructureMethod : uint8_t { kFlap, kMinitron, kMagnitude, kRandom };

// Errors: kInvalidArgument, listing the names.
Result<StructureMethod> ParseStructureMethod(std::string_view name);
const char* StructureMethodName(StructureMethod method);

struct StructureOptions {
  StructureMethod method = StructureMethod::kFlap;
  StructureRequest request = {};
  bool repair = true;  // reconstruct.h
  uint64_t seed = 1;   // of kRandom
};

// True where calibration text must run through the model.
bool NeedsText(const StructureOptions& options);

// What one kind of unit lost in a layer.
struct UnitLoss {
  std::vector<uint32_t> removed;  // groups or neurons
  double score = 0;               // share of the layer's scores that went with them
  double error = 0;               // predicted: |change of the output| / |output| of the matrix that
                                  // reads them; 0 without a text
};
struct LayerLoss {
  uint32_t layer = 0;  // of the model as it was
  UnitLoss heads, ffn;
};

struct StructuredModel {
  // What is left, before repair; the matrices that the sink took replace its own.
  Checkpoint model;
  std::vector<uint32_t> removed_layers;
  double channel_score = 0;       // share of the scores that went with channels
  std::vector<LayerLoss> layers;  // those kept; empty where they lost nothing but channels
};

// Takes matrix `name` of the smaller model after repair, (rows, columns) whole.
using RepairSink = FunctionRef<Status(const std::string& name, std::span<const float> values)>;

// Prunes a model of floats to `plan`, from the first layer to the last; each sees what those before
// give now. `sequences` are used where NeedsText. In memory: one layer in F32, its inputs' second
// moments, and the residual streams of all tokens; with `width` two of each. Does not depend on the
// number of threads. Errors: those of ActivationWalk, Reconstruction and `sink`; kCancelled.
Result<StructuredModel> PruneStructure(const Checkpoint& model, const StructureOptions& options,
                                       const StructurePlan& plan, TokenSequences sequences,
                                       ThreadPool* pool, Progress* progress, RepairSink sink);

}  // namespace edgewise
