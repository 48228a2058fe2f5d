#include "pipeline/target.h"

#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/strings.h"
#include "compress/quantize/allocate.h"
#include "compress/quantize/presets.h"
#include "compress/quantize/sensitivity.h"
#include "engine/vocab_metadata.h"
#include "formats/gguf.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxChoiceBytes = 64u << 20;

Result<FileTarget> TargetOf(const WriteJob& job, const Metadata& metadata,
                            std::span<const TensorPlan> plan) {
  FileTarget target{TargetBytes(job, plan), 0, 0};
  EW_TRY(target.alignment, metadata.GetUint("general.alignment", kGgufDefaultAlignment));
  const std::vector<GgufTensorDecl> tensors = Declare(plan);
  EW_TRY(target.planned, GgufFileBytes(metadata, tensors));
  if (job.target_header_bytes > 0) {
    EW_TRY(const uint64_t header, GgufHeaderBytes(metadata, tensors));
    target.planned += job.target_header_bytes - header;
  }
  return target;
}

Result<SensitivityOptions> MeasureOptions(const Checkpoint& weights, const WriteJob& job) {
  EW_TRY(const Vocab vocab, LoadVocab(weights, job.tokenizer_path));
  SensitivityOptions options;
  options.encoder = job.method == QuantizeMethod::kGptq      ? RowEncoder::kFeedback
                    : job.method == QuantizeMethod::kImatrix ? RowEncoder::kWeighted
                                                             : RowEncoder::kPlain;
  options.first_token = vocab.bos.value_or(vocab.eos.value_or(0));
  return options;
}

// As an object of tensors: {"blk.0.ffn_up.weight": {"format": "q4_k", "kl": 1e-5}}.
Status KeepChoice(std::span<const TensorPlan> plan, std::span<const TensorCosts> costs,
                  const std::string& path) {
  Json choice{JsonObject{}};
  for (const TensorCosts& of : costs) {
    const TensorPlan& entry = plan[of.entry];
    choice.Set(entry.name, Json().Set("format", Info(entry.to).name).Set("kl", entry.predicted_kl));
  }
  EW_TRY(AtomicFile file, AtomicFile::Create(path, true));
  EW_TRY(file.Write(choice.Dump()));
  return file.Commit();
}

// Gives `plan` the choice kept at `path`.
Status TakeChoice(const std::string& path, std::vector<TensorPlan>* plan) {
  EW_TRY(const std::string text, ReadFile(path, kMaxChoiceBytes));
  EW_TRY(const Json choice, ParseJson(text).In(path));
  const JsonObject* kept = choice.AsObject();
  std::unordered_map<std::string_view, const Json*> entries;
  if (kept) {
    for (const auto& [name, value] : *kept) entries.emplace(name, &value);
  }
  for (TensorPlan& entry : *plan) {
    if (CandidateFormats(entry).empty()) continue;
    const auto found = entries.find(entry.name);
    const Json* format = found == entries.end() ? nullptr : found->second->Find("format");
    const Json* kl = found == entries.end() ? nullptr : found->second->Find("kl");
    if (!format || !format->AsString() || !kl || !kl->AsDouble()) {
      return MakeError(Code::kBadData, "%s: damaged: no format for tensor %s; remove it",
                       path.c_str(), entry.name.c_str());
    }
    EW_TRY(const DType type, ParseFormat(*format->AsString()).In(path));
    SetChosen({type, *kl->AsDouble()}, &entry);
  }
  return Ok{};
}

}  // namespace

bool HasTarget(const WriteJob& job) { return job.target_bytes > 0 || job.target_bpw > 0; }

uint64_t TargetBytes(const WriteJob& job, std::span<const TensorPlan> plan) {
  if (job.target_bytes > 0) return job.target_bytes;
  uint64_t parameters = 0;
  for (const TensorPlan& entry : plan) parameters += entry.shape.elements();
  return static_cast<uint64_t>(job.target_bpw * static_cast<double>(parameters) / 8);
}

Status CheckTarget(const WriteJob& job, const Metadata& metadata,
                   std::span<const TensorPlan> plan) {
  EW_TRY(const FileTarget target, TargetOf(job, metadata, plan));
  return CheckTarget(target, plan);
}

std::string ChosenFormatsPath(const std::string& journal_path) { return journal_path + ".formats"; }

Status ChooseFormats(const Checkpoint& weights, const WriteJob& job,
                     const CalibrationFile& calibration, ThreadPool* pool, Progress* progress,
                     Metadata* metadata, std::vector<TensorPlan>* plan) {
  EW_TRY(const FileTarget target, TargetOf(job, *metadata, *plan));
  EW_TRY(CheckTarget(target, *plan));
  const std::string kept = job.journal_path.empty() ? "" : ChosenFormatsPath(job.journal_path);
  if (!kept.empty() && FileExists(kept)) {
    EW_TRY(TakeChoice(kept, plan));
  } else {
    EW_TRY(const SensitivityOptions options, MeasureOptions(weights, job));
    EW_TRY(const auto costs,
           MeasureSensitivity(weights, *plan, calibration, options, pool, progress));
    EW_TRY(AllocateFormats(costs, target, plan));
    if (!kept.empty()) EW_TRY(KeepChoice(*plan, costs, kept));
  }
  metadata->Set("general.file_type", FileTypeOf(*plan));
  return Ok{};
}

Result<Cost> ChoosingCost(const Checkpoint& weights, const WriteJob& job,
                          std::span<const TensorPlan> plan, ThreadPool* pool) {
  EW_CHECK(job.planned_calibration != nullptr);
  EW_TRY(const SensitivityOptions options, MeasureOptions(weights, job));
  return SensitivityCost(weights, plan, *job.planned_calibration, options, pool);
}

}  // namespace edgewise
