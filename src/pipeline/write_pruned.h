// Writing pruned models: what WriteModel (write_model.h) leaves to pruning.
#pragma once

#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/calibration.h"
#include "calibrate/walk.h"
#include "compress/prune/mask_file.h"
#include "compress/prune/prune.h"
#include "compress/prune/structured.h"
#include "compress/quantize/quantize.h"
#include "model/checkpoint.h"
#include "pipeline/convert.h"
#include "pipeline/tensor_journal.h"

namespace edgewise {

// What a job knows of the inputs of linear layers.
struct InputKnowledge {
  std::optional<CalibrationFile> file;
  TokenSequences sequences;  // where a text was given instead
};

// Where a job to prune weights keeps what.
struct PrunePaths {
  std::string journal;  // of the tensors of the steps before the last; empty: a file without a name
  std::string out;
};

// Writes the matrices of layers with weights set to zero, and into `masks`, if not null, which
// those are. Errors: those of PruneByCalibration, PruneLayerwise, TensorJournal, JournaledWriter
// and MaskWriter; kInvalidArgument (masks that prune nothing).
Status WritePruned(const Checkpoint& checkpoint, const std::vector<TensorPlan>& plan,
                   const PruneOptions& options, const PrunePaths& paths, InputKnowledge known,
                   MaskWriter* masks, ThreadPool* pool, JournaledWriter* writer, Progress* progress,
                   ConvertSummary* summary);

// The journal of `step`, counted from 0, of a job that keeps its own at `path`.
std::string StepPath(const std::string& path, size_t step);

// The weights that WritePruned gives masks of, in its order.
std::vector<MaskedWeight> PrunedWeights(const Checkpoint& checkpoint,
                                        const std::vector<TensorPlan>& plan);

// Tells the summary for each matrix what would go, and the error that would make in its output on
// the inputs that the model gives as it is. From at most kPredictionTokens of a text, for methods
// that update weights on kPredictionRows of each matrix, and by the choice before swaps and steps.
// Errors: those of Calibrate and PruneByCalibration.
inline constexpr uint64_t kPredictionTokens = 4096;
inline constexpr size_t kPredictionRows = 256;
Status PredictPruned(const Checkpoint& checkpoint, const std::vector<TensorPlan>& plan,
                     const PruneOptions& options, const PrunePaths& paths, InputKnowledge known,
                     ThreadPool* pool, Progress* progress, ConvertSummary* summary);

// Structured pruning from plan to file.
class StructuredWork {
 public:
  // Errors: those of PlanStructure.
  static Result<StructuredWork> Plan(const Checkpoint& model, const StructureOptions& options);
  // A model of the sizes that will be left.
  Checkpoint StandIn() const;
  // Tells the summary of the sizes and of the model before.
  void Describe(ConvertSummary* summary) const;
  // Prunes without writing, and tells what goes. Errors: those of PruneStructure.
  Status Try(TokenSequences sequences, ThreadPool* pool, Progress* progress,
             ConvertSummary* summary);
  // Prunes, writes the matrices that repair changed and returns their names; the others are those
  // of child(), whose indices `plan` has afterwards. Errors: those of PruneStructure and
  // JournaledWriter.
  Result<std::unordered_set<std::string>> Write(TokenSequences sequences,
                                                std::vector<TensorPlan>* plan, ThreadPool* pool,
                                                JournaledWriter* writer, Progress* progress,
                                                ConvertSummary* summary);
  const Checkpoint& child() const { return *child_; }

 private:
  StructuredWork(Checkpoint model, StructureOptions options, StructurePlan plan)
      : model_(std::move(model)), options_(std::move(options)), plan_(std::move(plan)) {}
  Status Prune(TokenSequences sequences, ThreadPool* pool, Progress* progress, RepairSink sink,
               ConvertSummary* summary);
  Checkpoint model_;
  StructureOptions options_;
  StructurePlan plan_;
  std::optional<Checkpoint> child_;
};

}  // namespace edgewise
