#include "pipeline/write_pruned.h"

#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/strings.h"
#include "compress/prune/schedule.h"
#include "compress/quantize/output_error.h"

namespace edgewise {
namespace {

void RemoveQuietly(const std::string& path) {
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
}

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

// The same for pruned weights: rounds `after` to what the file holds, and its error is pruning's.
Status WriteRounded(const TensorPlan& entry, size_t index, std::span<const float> before,
                    std::span<float> after, ThreadPool* pool, JournaledWriter* writer) {
  EW_TRY(writer->Begin(index));
  const TensorView view{DType::kF32, entry.shape, reinterpret_cast<const std::byte*>(after.data()),
                        after.size_bytes()};
  const DTypeInfo& info = Info(entry.to);
  std::vector<std::byte> encoded;
  const auto write = [&](std::span<const std::byte> bytes) {
    encoded.insert(encoded.end(), bytes.begin(), bytes.end());
    return writer->Write(bytes);
  };
  EW_TRY(EncodeTensor(entry.name, view, entry.to, {}, pool, write));
  info.decode(encoded.data(), after.data(), after.size());
  EncodeError error{0, 0, after.size()};
  for (size_t i = 0; i < after.size(); ++i) {
    const double value = before[i], change = value - static_cast<double>(after[i]);
    error.squared_value += value * value;
    error.squared_error += change * change;
  }
  return writer->End(error);
}

Status RunPruning(const Checkpoint& checkpoint, const PruneOptions& options, InputKnowledge known,
                  const PrunedBefore& finished, ThreadPool* pool, Progress* progress,
                  PruneSink sink) {
  if (NeedsCalibration(options.method) && !known.file) {
    return PruneLayerwise(checkpoint, options, std::move(known.sequences), finished, pool, progress,
                          sink);
  }
  const CalibrationFile* file = known.file ? &*known.file : nullptr;
  return PruneByCalibration(checkpoint, options, file, finished, pool, progress, sink);
}

// Bytes of each tensor of the checkpoint in a journal of a step: those that are pruned, in F32.
std::vector<uint64_t> StepSizes(const Checkpoint& model) {
  std::vector<uint64_t> sizes;
  for (const CheckpointTensor& tensor : model.tensors()) {
    sizes.push_back(IsPrunable(tensor) ? tensor.shape.elements() * sizeof(float) : 0);
  }
  return sizes;
}

std::optional<TensorView> StoredFloats(const TensorJournal& journal, const Checkpoint& model,
                                       size_t index) {
  const JournalRecord* record = journal.Find(index);
  if (record == nullptr) return {};
  return TensorView{DType::kF32, model.tensors()[index].shape, record->bytes.data(),
                    record->bytes.size()};
}

// Shows `model` with the tensors that the journal at `path` holds. Empty: some are not there yet.
Result<std::optional<Checkpoint>> ShowStep(const Checkpoint& model, const std::string& path) {
  EW_TRY(TensorJournal opened, TensorJournal::Open(path, StepSizes(model)));
  const auto journal = std::make_shared<const TensorJournal>(std::move(opened));
  std::unordered_map<size_t, TensorChange> changes;
  for (size_t i = 0; i < model.tensors().size(); ++i) {
    if (!IsPrunable(model.tensors()[i])) continue;
    if (journal->Find(i) == nullptr) return std::optional<Checkpoint>();
    changes.emplace(i, [journal, i](std::span<float> values) {
      const JournalRecord& record = *journal->Find(i);
      std::memcpy(values.data(), record.bytes.data(), values.size_bytes());
    });
  }
  return std::optional(model.Changed(std::move(changes)));
}

// Prunes `model` into a journal at `path`, and shows `original` with what is there.
Result<Checkpoint> PruneStep(const Checkpoint& original, const Checkpoint& model,
                             const PruneOptions& options, const InputKnowledge& known,
                             const std::string& path, ThreadPool* pool, Progress* progress) {
  {
    EW_TRY(TensorJournal journal, TensorJournal::Open(path, StepSizes(model)));
    const auto finished = [&](size_t index) { return StoredFloats(journal, model, index); };
    const auto sink = [&](size_t index, std::span<const float>, std::span<float> after) -> Status {
      if (journal.Find(index) != nullptr) return Ok{};
      EW_TRY(journal.Begin(index));
      EW_TRY(journal.Write(std::as_bytes(after)));
      return journal.End(EncodeError());
    };
    EW_TRY(PruneLayerwise(model, options, known.sequences, finished, pool, progress, sink));
  }
  EW_TRY(std::optional<Checkpoint> whole, ShowStep(original, path));
  if (whole) return *std::move(whole);
  return MakeError(Code::kIo, "%s: does not hold what was written to it", path.c_str());
}

// Prunes to all steps of the schedule but the last, from the last one that an earlier run finished,
// and sets `options` to what is left to do.
Result<Checkpoint> PruneSteps(const Checkpoint& original, const PrunePaths& paths,
                              const InputKnowledge& known, ThreadPool* pool, Progress* progress,
                              PruneOptions* options) {
  const std::vector<Sparsity> schedule = PruneSchedule(options->sparsity, options->steps);
  const bool keep = !paths.journal.empty();
  const std::string mine = Format("%s.%d", paths.out.c_str(), static_cast<int>(::getpid()));
  const auto path = [&](size_t step) { return StepPath(keep ? paths.journal : mine, step); };
  Checkpoint model = original;
  size_t step = schedule.size() - 1;
  for (; step > 0; --step) {
    if (!keep || !FileExists(path(step - 1))) continue;
    EW_TRY(std::optional<Checkpoint> whole, ShowStep(original, path(step - 1)));
    if (!whole) continue;
    model = *std::move(whole);
    break;
  }
  options->goal = options->sparsity.ratio;
  for (; step < schedule.size(); ++step) {
    options->sparsity = schedule[step];
    options->keep_zeros = step > 0;
    if (step + 1 == schedule.size()) break;
    std::optional<TemporaryPath> temporary;
    if (!keep) temporary.emplace(path(step));  // its file lives as long as its map
    EW_TRY(model, PruneStep(original, model, *options, known, path(step), pool, progress));
    if (keep && step > 0) RemoveQuietly(path(step - 1));  // a later one has followed
  }
  return model;
}

}  // namespace

std::string StepPath(const std::string& path, size_t step) {
  return Format("%s.step-%zu", path.c_str(), step + 1);
}

std::vector<MaskedWeight> PrunedWeights(const Checkpoint& checkpoint,
                                        const std::vector<TensorPlan>& plan) {
  std::vector<MaskedWeight> weights;
  for (const TensorPlan& entry : plan) {
    if (!IsPrunable(checkpoint.tensors()[entry.source])) continue;
    weights.push_back({entry.name, entry.shape.rows(), entry.shape.columns()});
  }
  return weights;
}

Status WritePruned(const Checkpoint& checkpoint, const std::vector<TensorPlan>& plan,
                   const PruneOptions& options, const PrunePaths& paths, InputKnowledge known,
                   MaskWriter* masks, ThreadPool* pool, JournaledWriter* writer, Progress* progress,
                   ConvertSummary* summary) {
  std::unordered_map<size_t, size_t> entries;  // of the plan, by the checkpoint's index
  for (size_t i = 0; i < plan.size(); ++i) entries.emplace(plan[i].source, i);
  std::unordered_map<std::string, size_t> masked;  // by name
  for (const MaskedWeight& weight : PrunedWeights(checkpoint, plan)) {
    masked.emplace(weight.name, masked.size());
  }
  const auto finished = [&](size_t source) -> std::optional<TensorView> {
    const TensorPlan& entry = plan[entries.at(source)];
    const JournalRecord* record = writer->Finished(entries.at(source));
    if (record == nullptr) return {};
    return TensorView{entry.to, entry.shape, record->bytes.data(), record->bytes.size()};
  };
  double kept = 0, all = 0;
  bool changed = false;
  const auto sink = [&](size_t source, std::span<const float> before,
                        std::span<float> after) -> Status {
    const size_t index = entries.at(source);
    std::vector<float> original;  // before the first step
    if (options.steps > 1) {
      EW_TRY(original, LoadRows(checkpoint, source, SIZE_MAX));
      before = original;
    }
    if (writer->Finished(index) == nullptr) {
      EW_TRY(WriteRounded(plan[index], index, before, after, pool, writer));
    }
    const PruneEffect effect = EffectOf(before, after);
    ConvertedTensor& row = summary->tensors[index];
    row.density = effect.density;
    row.relative_rmse = effect.relative_error;
    changed = changed || effect.density < 1 - ZeroShare(before);
    kept += effect.density * static_cast<double>(after.size());
    all += static_cast<double>(after.size());
    if (masks == nullptr) return Ok{};
    return masks->Write(masked.at(plan[index].name),
                        Mask::OfValues(after, plan[index].shape.columns()));
  };
  PruneOptions last = options;
  EW_TRY(const Checkpoint model, PruneSteps(checkpoint, paths, known, pool, progress, &last));
  EW_TRY(RunPruning(model, last, std::move(known), finished, pool, progress, sink));
  summary->density = kept / all;
  if (changed) return Ok{};
  return MakeError(Code::kInvalidArgument, "the masks keep every weight that is not zero already");
}

Status PredictPruned(const Checkpoint& checkpoint, const std::vector<TensorPlan>& plan,
                     const PruneOptions& options, const PrunePaths& paths, InputKnowledge known,
                     ThreadPool* pool, Progress* progress, ConvertSummary* summary) {
  PruneOptions trial = options;
  trial.swap = false;
  trial.steps = 1;
  trial.permute = false;  // `checkpoint` is in order
  if (UpdatesWeights(options.method)) trial.sample_rows = kPredictionRows;
  if (!known.sequences.empty()) {
    uint64_t tokens = 0;
    size_t used = 0;
    while (used < known.sequences.size() && tokens < kPredictionTokens) {
      tokens += known.sequences[used++].size();
    }
    known.sequences.resize(used);
    const TemporaryPath path(
        Format("%s.%d.prediction", paths.out.c_str(), static_cast<int>(::getpid())));
    CalibrateOptions calibrate;
    calibrate.overwrite = true;
    EW_TRY(Calibrate(checkpoint, std::move(known.sequences), {}, path.path(), calibrate, pool,
                     progress));
    EW_TRY(known.file, CalibrationFile::Open(path.path()));  // it lives as long as its map
  }
  std::unordered_map<size_t, size_t> entries;  // of the plan, by the checkpoint's index
  for (size_t i = 0; i < plan.size(); ++i) entries.emplace(plan[i].source, i);
  double kept = 0, all = 0;
  const auto sink = [&](size_t source, std::span<const float> before,
                        std::span<float> after) -> Status {
    const TensorPlan& entry = plan[entries.at(source)];
    ConvertedTensor& row = summary->tensors[entries.at(source)];
    const PruneEffect effect = EffectOf(before, after);
    row.density = effect.density;
    row.relative_rmse = effect.relative_error;
    const auto weights = static_cast<double>(entry.shape.elements());
    kept += effect.density * weights;
    all += weights;
    if (!known.file || !known.file->HasHessian(entry.name)) return Ok{};
    const size_t columns = entry.shape.columns();
    EW_TRY(const std::vector<float> h, known.file->Hessian(entry.name, columns));
    const std::vector<float> nothing(before.size());
    const double error = ReconstructionError(before, after, h, columns, pool);
    const double whole = ReconstructionError(before, nothing, h, columns, pool);
    row.output_error = whole > 0 ? std::sqrt(error / whole) : 0;
    return Ok{};
  };
  const CalibrationFile* file = known.file ? &*known.file : nullptr;
  EW_TRY(PruneByCalibration(checkpoint, trial, file, {}, pool, progress, sink));
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
