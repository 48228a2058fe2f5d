#include "pipeline/write_pruned.h"

#include <unordered_map>
#include <utility>

#include "base/check.h"

namespace edgewise {
namespace {

// Encodes the (rows, columns) floats of plan entry `index` into the file.
Status WriteFloats(const TensorPlan& entry, size_t index, std::span<const float> values,
                   ThreadPool* pool, JournaledWriter* writer) {
  EW_TRY(writer->Begin(index));
  const TensorView view{DType::kF32, entry.shape, reinterpret_cast<const std::byte*>(values.data()),
                        values.size_bytes()};
  const auto write = [&](std::span<const std::byte> bytes) { return writer->Write(bytes); };
  EW_TRY(const EncodeError error, EncodeTensor(entry.name, view, entry.to, {}, pool, write));
  return writer->End(error);
}

}  // namespace

Status WritePruned(const Checkpoint& checkpoint, const std::vector<TensorPlan>& plan,
                   const PruneOptions& options, InputKnowledge known, ThreadPool* pool,
                   JournaledWriter* writer, Progress* progress, ConvertSummary* summary) {
  std::unordered_map<size_t, size_t> entries;  // of the plan, by the checkpoint's index
  for (size_t i = 0; i < plan.size(); ++i) entries.emplace(plan[i].source, i);
  double kept = 0, all = 0;
  const auto sink = [&](size_t source, std::span<const float> values,
                        const PruneEffect& effect) -> Status {
    const size_t index = entries.at(source);
    ConvertedTensor& row = summary->tensors[index];
    row.density = effect.density;
    row.relative_rmse = effect.relative_error;
    kept += effect.density * static_cast<double>(values.size());
    all += static_cast<double>(values.size());
    return WriteFloats(plan[index], index, values, pool, writer);
  };
  if (NeedsCalibration(options.method) && !known.file) {
    EW_TRY(PruneLayerwise(checkpoint, options, std::move(known.sequences), pool, progress, sink));
  } else {
    const CalibrationFile* file = known.file ? &*known.file : nullptr;
    EW_TRY(PruneByCalibration(checkpoint, options, file, pool, progress, sink));
  }
  summary->density = kept / all;
  return Ok{};
}

Result<StructuredWork> StructuredWork::Plan(const Checkpoint& model,
                                            const StructureOptions& options) {
  EW_TRY(StructurePlan plan, PlanStructure(model.spec(), options.request));
  return StructuredWork(model, options, std::move(plan));
}

Checkpoint StructuredWork::StandIn() const {
  return CutModel(model_, Structure::First(plan_.kept));
}

void StructuredWork::Describe(ConvertSummary* summary) const {
  summary->structure.emplace();
  summary->structure->before = SizesOf(model_.spec());
  summary->structure->after = plan_.kept;
  summary->structure->notes = plan_.notes;
  summary->source_bytes = 0;
  for (const CheckpointTensor& tensor : model_.tensors()) {
    summary->source_bytes += Info(tensor.dtype).RowBytes(tensor.shape.elements());
  }
}

Status StructuredWork::Prune(TokenSequences sequences, ThreadPool* pool, Progress* progress,
                             RepairSink sink, ConvertSummary* summary) {
  EW_TRY(StructuredModel result,
         PruneStructure(model_, options_, plan_, std::move(sequences), pool, progress, sink));
  summary->structure->removed_layers = std::move(result.removed_layers);
  summary->structure->channel_score = result.channel_score;
  summary->structure->layers = std::move(result.layers);
  child_ = std::move(result.model);
  return Ok{};
}

Status StructuredWork::Try(TokenSequences sequences, ThreadPool* pool, Progress* progress,
                           ConvertSummary* summary) {
  return Prune(
      std::move(sequences), pool, progress,
      [](const std::string&, std::span<const float>) -> Status { return Ok{}; }, summary);
}

Result<std::unordered_set<std::string>> StructuredWork::Write(
    TokenSequences sequences, std::vector<TensorPlan>* plan, ThreadPool* pool,
    JournaledWriter* writer, Progress* progress, ConvertSummary* summary) {
  std::unordered_map<std::string, size_t> entries;
  for (size_t i = 0; i < plan->size(); ++i) entries.emplace((*plan)[i].name, i);
  std::unordered_set<std::string> repaired;
  const auto sink = [&](const std::string& name, std::span<const float> values) -> Status {
    repaired.insert(name);
    const size_t index = entries.at(name);
    return WriteFloats((*plan)[index], index, values, pool, writer);
  };
  EW_TRY(Prune(std::move(sequences), pool, progress, sink, summary));
  for (TensorPlan& entry : *plan) {
    const auto source = child_->Find(entry.name);
    EW_CHECK(source.has_value());  // the stand-in has the same tensors
    entry.source = *source;
  }
  return repaired;
}

}  // namespace edgewise
