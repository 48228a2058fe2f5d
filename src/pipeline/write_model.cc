#include "pipeline/write_model.h"

#include <algorithm>
#include <filesystem>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/process.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "calibrate/calibration.h"
#include "compress/prune/mask_file.h"
#include "compress/prune/permute_model.h"
#include "compress/quantize/layerwise.h"
#include "compress/quantize/rotate.h"
#include "engine/vocab_metadata.h"
#include "formats/gguf.h"
#include "model/checkpoint.h"
#include "pipeline/calibration_text.h"
#include "pipeline/estimate.h"
#include "pipeline/output_path.h"
#include "pipeline/provenance.h"
#include "pipeline/source_hash.h"
#include "pipeline/target.h"
#include "pipeline/tensor_journal.h"
#include "pipeline/write_pruned.h"

namespace edgewise {
namespace {

// The version of ggml's block layouts (GGML_QNT_VERSION) that a reader checks.
constexpr uint32_t kQuantizationVersion = 2;

// All keys of the output but the provenance.
Result<Metadata> OutputMetadata(const Checkpoint& checkpoint, const WriteJob& job) {
  Metadata metadata = checkpoint.metadata();
  const bool gguf = checkpoint.kind() == CheckpointKind::kGguf;
  for (const char* key : {"split.no", "split.count", "split.tensors.count", "edgewise.card"}) {
    metadata.Erase(key);
  }
  if (job.plan.preset) metadata.Set("general.file_type", job.plan.preset->file_type);
  metadata.Set("general.quantization_version", kQuantizationVersion);
  if (!gguf || !job.tokenizer_path.empty()) {
    EW_TRY(const Vocab vocab, LoadVocab(checkpoint, job.tokenizer_path));
    AddVocabToMetadata(vocab, &metadata);
  }
  return metadata;
}

Result<std::vector<TensorPlan>> PlanTensors(const Checkpoint& checkpoint, const WriteJob& job,
                                            PackingCount* packing) {
  EW_TRY(std::vector<TensorPlan> plan, PlanFormats(checkpoint, job.plan));
  if (!job.pack) return plan;
  *packing = PlanPacking(checkpoint.spec(), &plan);
  if (packing->packed == 0) {
    return MakeError(Code::kInvalidArgument,
                     "there is nothing to pack: no matrix of a linear layer %s",
                     packing->left > 0 ? "can be cut at a multiple of 16 rows"
                                       : "is in a block format; quantize the model, for example "
                                         "with `edgewise quantize --to q4_k_m --pack`");
  }
  return plan;
}

Result<ConvertSummary> Summarize(std::span<const CheckpointTensor> tensors,
                                 const std::vector<TensorPlan>& plan) {
  ConvertSummary summary;
  uint64_t bytes = 0;
  for (const TensorPlan& tensor : plan) {
    ConvertedTensor row{.name = tensor.name,
                        .shape = tensor.shape,
                        .from = tensor.from,
                        .to = tensor.to,
                        .layout = tensor.layout,
                        .reason = tensor.reason,
                        .predicted_kl = tensor.predicted_kl};
    EW_TRY(const uint64_t before,
           TensorBytes(tensor.from, tensor.shape, tensors[tensor.source].layout).In(tensor.name));
    EW_TRY(row.bytes, TensorBytes(tensor.to, tensor.shape, tensor.layout).In(tensor.name));
    summary.source_bytes += before;
    summary.predicted_kl += tensor.predicted_kl;
    summary.parameters += tensor.shape.elements();
    bytes += row.bytes;
    summary.tensors.push_back(std::move(row));
  }
  if (summary.parameters > 0) {
    summary.bits_per_weight =
        8.0 * static_cast<double>(bytes) / static_cast<double>(summary.parameters);
  }
  return summary;
}

// Finds what of the calibration cannot serve the job.
Status CheckKnowledge(const WriteJob& job) {
  if (job.calibration.path.empty()) return Ok{};
  if (job.calibration_file && job.rotate) {
    return MakeError(Code::kInvalidArgument,
                     "%s: was made before the rotation; give a text, or rotate with `edgewise "
                     "convert --rotate` and calibrate what that writes",
                     job.calibration.path.c_str());
  }
  if (job.calibration_file && job.structure) {
    return MakeError(Code::kInvalidArgument,
                     "%s: structure is removed by what the layers left so far give, which a "
                     "calibration file cannot tell; give the text",
                     job.calibration.path.c_str());
  }
  if (job.calibration_file && job.prune && (job.prune->permute || job.prune->steps > 1)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: was made before the model changes by %s; give the text",
                     job.calibration.path.c_str(),
                     job.prune->permute ? "a new order of channels" : "the first step");
  }
  const bool text_will_do =
      job.prune || job.structure ||
      (job.method == QuantizeMethod::kGptq && job.scale == ScaleMethod::kNone && !HasTarget(job));
  if (job.calibration_file || job.calibration_planned || text_will_do) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "%s: no calibration file; `edgewise calibrate` makes one from a text",
                   job.calibration.path.c_str());
}

Result<InputKnowledge> LoadKnowledge(const Checkpoint& checkpoint, const WriteJob& job) {
  InputKnowledge known;
  if (job.calibration.path.empty()) return known;
  if (job.calibration_file) {
    EW_TRY(known.file, CalibrationFile::Open(job.calibration.path));
  } else {
    EW_TRY(known.sequences, ReadCalibrationText(checkpoint, job.tokenizer_path, job.calibration));
  }
  return known;
}

Result<JournaledWriter> CreateWriter(const std::string& out_path, const WriteJob& job,
                                     const Metadata& metadata,
                                     const std::vector<TensorPlan>& plan) {
  EW_TRY(GgufWriter file, GgufWriter::Create(out_path, job.overwrite, metadata, Declare(plan)));
  std::optional<TensorJournal> journal;
  if (!job.journal_path.empty()) {
    EW_TRY(journal, TensorJournal::Open(job.journal_path, plan));
  }
  return JournaledWriter(std::move(file), std::move(journal));
}

void SetError(const EncodeError& error, ConvertedTensor* tensor) {
  tensor->rmse = error.rmse();
  tensor->relative_rmse = error.relative_rmse();
}

// Writes the matrices of layers, quantized with error feedback.
Status WriteWithFeedback(const Checkpoint& checkpoint, const std::vector<TensorPlan>& plan,
                         InputKnowledge known, ThreadPool* pool, JournaledWriter* writer,
                         Progress* progress, ConvertSummary* summary) {
  const auto sink = [&](size_t index, std::span<const std::byte> blocks,
                        const EncodeError& error) -> Status {
    EW_TRY(writer->Begin(index));
    const auto write = [&](std::span<const std::byte> bytes) { return writer->Write(bytes); };
    if (plan[index].layout == TensorLayout::kPacked) {
      RowPacker packer(plan[index].to, plan[index].shape);
      EW_TRY(packer.Write(blocks, write));
      EW_TRY(packer.Finish(write));
    } else {
      EW_TRY(write(blocks));
    }
    SetError(error, &summary->tensors[index]);
    return writer->End(error);
  };
  LayerwiseOptions options;
  options.finished = [writer](size_t index) {
    const JournalRecord* record = writer->Finished(index);
    return record ? record->bytes : std::span<const std::byte>();
  };
  if (known.file) {
    return QuantizeByCalibration(checkpoint, plan, *known.file, options, pool, progress, sink);
  }
  return QuantizeLayerwise(checkpoint, plan, std::move(known.sequences), options, pool, progress,
                           sink);
}

// The mean squares of the inputs of plan entry `entry`. Empty without a calibration file and for
// embeddings, which no input multiplies; llama-imatrix leaves out the output matrix too.
Result<std::vector<float>> Importance(const TensorPlan& entry, const WriteJob& job,
                                      const InputKnowledge& known) {
  std::vector<float> importance;
  if (job.method == QuantizeMethod::kRoundToNearest || !known.file) return importance;
  if (!Info(entry.to).quantized()) return importance;
  const auto weights = known.file->weights();
  const bool known_weight = std::find(weights.begin(), weights.end(), entry.name) != weights.end();
  if (!known_weight && !IsLayerwise(entry)) return importance;
  EW_TRY(const ColumnMoments moments, known.file->Moments(entry.name, entry.shape.columns()));
  for (const double sum : moments.sum_squares) {
    importance.push_back(static_cast<float>(sum / static_cast<double>(moments.tokens)));
  }
  return importance;
}

// Streams every tensor, but for those that error feedback or pruning has written, through the
// encoder into the writer.
Status WriteTensors(const Checkpoint& checkpoint, const std::vector<TensorPlan>& plan,
                    const WriteJob& job, const InputKnowledge& known,
                    const std::unordered_set<std::string>& repaired, ThreadPool* pool,
                    JournaledWriter* writer, Progress* progress, ConvertSummary* summary) {
  uint64_t total = 0, done = 0;
  for (const ConvertedTensor& row : summary->tensors) total += row.bytes;
  for (size_t i = 0; i < plan.size(); ++i) {
    if (const JournalRecord* record = writer->Finished(i)) {
      EW_TRY(writer->Copy(*record));
      SetError(record->error, &summary->tensors[i]);
      done += record->bytes.size();
      continue;
    }
    if (job.method == QuantizeMethod::kGptq && IsLayerwise(plan[i])) continue;
    if (job.prune && IsPrunable(checkpoint.tensors()[plan[i].source])) continue;
    if (repaired.contains(plan[i].name)) continue;
    EW_TRY(writer->Begin(i));
    EW_TRY(const Tensor tensor, checkpoint.Load(plan[i].source).In(plan[i].name));
    const auto sink = [&](std::span<const std::byte> bytes) -> Status {
      EW_TRY(writer->Write(bytes));
      // After each piece, so that even one very large tensor never stands in memory whole.
      checkpoint.DropPages(plan[i].source);
      done += bytes.size();
      progress->Update("writing", done, total);
      if (progress->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
      return Ok{};
    };
    RowPacker packer(plan[i].to, plan[i].shape);
    const auto pack = [&](std::span<const std::byte> bytes) { return packer.Write(bytes, sink); };
    const bool packed = plan[i].layout == TensorLayout::kPacked;
    EW_TRY(const std::vector<float> importance, Importance(plan[i], job, known));
    EW_TRY(const EncodeError error,
           EncodeTensor(plan[i].name, tensor.view(), plan[i].to, importance, pool,
                        packed ? RowPacker::Sink(pack) : RowPacker::Sink(sink)));
    EW_TRY(packer.Finish(sink));
    EW_TRY(writer->End(error));
    SetError(error, &summary->tensors[i]);
  }
  return Ok{};
}

constexpr uint64_t kRotationSeed = 1;

// A model whose values change first must not be one of rounded values.
Status CheckUnquantized(const Checkpoint& checkpoint) {
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (!Info(tensor.dtype).quantized()) continue;
    return MakeError(
        Code::kInvalidArgument,
        "tensor %s is quantized already (%s); start from the f16, bf16 or f32 model that it "
        "comes from",
        tensor.name.c_str(), Info(tensor.dtype).name);
  }
  return Ok{};
}

// The model in the order of channels that N:M keeps most in, where that is wanted.
Result<Checkpoint> OrderChannels(const Checkpoint& checkpoint, const WriteJob& job,
                                 const InputKnowledge& known, ThreadPool* pool) {
  if (!job.prune || !job.prune->permute) return checkpoint;
  EW_TRY(PermutedModel permuted, PermuteModel(checkpoint, *job.prune, known.sequences, pool));
  return std::move(permuted.model);
}

// Finds before the work what would keep the mask from being written.
Status CheckMaskOutput(const std::string& in_path, const std::string& out_path,
                       const WriteJob& job) {
  if (job.save_mask.empty()) return Ok{};
  std::error_code ignored;
  const auto whole = [&](const std::string& path) {
    return std::filesystem::weakly_canonical(std::filesystem::absolute(path, ignored), ignored);
  };
  if (whole(job.save_mask) == whole(out_path)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: the mask would replace the model; name another file for it",
                     job.save_mask.c_str());
  }
  if (job.prune && job.prune->permute) {
    return MakeError(Code::kInvalidArgument,
                     "%s: the mask would be for channels in another order than those of %s; "
                     "prune without ordering them",
                     job.save_mask.c_str(), in_path.c_str());
  }
  return CheckOutput(in_path, job.save_mask, job.overwrite);
}

// Begins the mask file that the job asks for.
Result<std::optional<MaskWriter>> CreateMasks(const Checkpoint& checkpoint, const WriteJob& job,
                                              const std::vector<TensorPlan>& plan) {
  std::optional<MaskWriter> masks;
  if (job.save_mask.empty()) return masks;
  Metadata metadata;
  for (const char* key : {"general.architecture", "general.name"}) {
    const auto value = checkpoint.metadata().GetString(key);
    if (value) metadata.Set(key, *value);
  }
  metadata.Set("edgewise.recipe", job.recipe.Dump());
  EW_TRY(masks, MaskWriter::Create(job.save_mask, job.overwrite, std::move(metadata),
                                   PrunedWeights(checkpoint, plan)));
  return masks;
}

// What is written: which tensors in which formats, and the source of their values.
struct Prepared {
  std::vector<TensorPlan> plan;
  PackingCount packing;
  Metadata metadata;
  Checkpoint weights;
  InputKnowledge known;
  size_t scaled_inputs = 0;
};

Result<Prepared> Prepare(const Checkpoint& checkpoint, const std::vector<std::string>& files,
                         const WriteJob& job, ThreadPool* pool, Progress* progress) {
  Prepared result{{}, {}, {}, checkpoint, {}};
  EW_TRY(result.plan, PlanTensors(checkpoint, job, &result.packing));
  EW_TRY(result.metadata, OutputMetadata(checkpoint, job));
  PushHistory(&result.metadata);
  SetProvenance(job.recipe, job.source != nullptr ? *job.source : PlaceholderHash(files),
                &result.metadata);
  if (job.prune) EW_TRY(CheckPruning(checkpoint, *job.prune));
  EW_TRY(CheckKnowledge(job));
  if (HasTarget(job)) {
    if (!job.plan.allow_requantize) EW_TRY(CheckUnquantized(checkpoint));
    EW_TRY(CheckTarget(job, result.metadata, result.plan));
  }
  if (job.dry_run && (!HasTarget(job) || job.calibration_planned)) return result;
  EW_TRY(result.known, LoadKnowledge(checkpoint, job));
  EW_TRY(result.weights, OrderChannels(checkpoint, job, result.known, pool));
  if (job.scale != ScaleMethod::kNone) {
    if (!job.plan.allow_requantize) EW_TRY(CheckUnquantized(checkpoint));
    EW_TRY(Scaling scaling,
           ScaleInputs(checkpoint, result.plan, *result.known.file, job.scale, pool, progress));
    result.weights = std::move(scaling.model);
    result.known.file = std::move(scaling.calibration);
    result.scaled_inputs = scaling.scaled;
  }
  if (HasTarget(job)) {
    EW_TRY(ChooseFormats(result.weights, job, *result.known.file, pool, progress, &result.metadata,
                         &result.plan));
  }
  return result;
}

// What the job takes from start to end; `planning` seconds have gone into what is prepared.
Result<Cost> Estimate(const Prepared& prepared, const WriteJob& job,
                      const std::vector<std::string>& files, const std::string& out_path,
                      double planning, ThreadPool* pool) {
  EW_TRY(Cost cost, EstimateWriting(prepared.weights, prepared.plan, job, out_path, pool));
  cost.seconds += planning;
  if (HasTarget(job) && job.calibration_planned) {
    EW_TRY(const Cost choosing, ChoosingCost(prepared.weights, job, prepared.plan, pool));
    cost = Then(choosing, cost);
  }
  if (job.structure) cost.bytes = std::max(cost.bytes, ReadMemoryUse().peak_rss_bytes);
  if (job.source != nullptr) return cost;
  EW_TRY(const Cost hashing, HashingCost(files));
  // On a thread of its own, which takes its share of the processors.
  cost.seconds = std::max(hashing.seconds, cost.seconds + hashing.seconds / pool->size());
  cost.bytes += hashing.bytes;
  return cost;
}

}  // namespace

Result<std::vector<TensorPlan>> PlanFormats(const Checkpoint& model, const PlanOptions& options) {
  const std::span<const CheckpointTensor> tensors = model.tensors();
  if (options.preset != nullptr) {
    return PlanQuantization(tensors, model.spec(), model.kind() == CheckpointKind::kGguf, options);
  }
  std::vector<TensorPlan> plan;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const CheckpointTensor& tensor = tensors[i];
    plan.push_back({i, tensor.name, tensor.shape, tensor.dtype, tensor.dtype, "", {}, 0});
  }
  return plan;
}

std::vector<GgufTensorDecl> Declare(std::span<const TensorPlan> plan) {
  std::vector<GgufTensorDecl> declarations;
  for (const TensorPlan& tensor : plan) {
    declarations.push_back({tensor.name, tensor.to, tensor.shape, tensor.layout});
  }
  return declarations;
}

Result<std::string> RotateSource(bool allow_quantized, Checkpoint* model) {
  if (!allow_quantized) EW_TRY(CheckUnquantized(*model));
  EW_TRY(Rotation rotation, Rotate(*model, kRotationSeed));
  *model = rotation.model;
  return std::string(rotation.residual && rotation.values ? "residual+values"
                     : rotation.residual                  ? "residual"
                                                          : "values");
}

Result<ConvertSummary> WriteModel(Checkpoint checkpoint, const std::string& out_path, WriteJob job,
                                  Progress* progress) {
  const double start = NowSeconds();
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  const std::string in_path = checkpoint.path();
  std::optional<StructuredWork> structured;
  if (job.structure) {
    EW_TRY(structured, StructuredWork::Plan(checkpoint, *job.structure).In(in_path));
    checkpoint = structured->StandIn();
  }
  if (!job.dry_run) EW_TRY(CheckOutput(in_path, out_path, job.overwrite));
  EW_TRY(CheckMaskOutput(in_path, out_path, job));
  std::string rotated;
  if (job.rotate) {
    EW_TRY(rotated, RotateSource(job.plan.allow_requantize, &checkpoint).In(in_path));
    job.recipe.Set("rotated", rotated).Set("rotation_seed", kRotationSeed);
  }
  ThreadPool pool(job.threads > 0 ? job.threads : ThreadPool::AvailableCpus());
  EW_TRY(const auto files, SourceFiles(checkpoint, job.tokenizer_path));
  EW_TRY(Prepared prepared, Prepare(checkpoint, files, job, &pool, progress).In(in_path));
  std::vector<TensorPlan>& plan = prepared.plan;
  EW_TRY(ConvertSummary summary, Summarize(checkpoint.tensors(), plan).In(in_path));
  if (structured) structured->Describe(&summary);
  summary.packing = prepared.packing;
  summary.rotated = rotated;
  summary.scaled_inputs = prepared.scaled_inputs;
  summary.output = out_path;
  if (HasTarget(job)) summary.target_bytes = TargetBytes(job, plan);
  if (job.dry_run) {
    EW_TRY(summary.bytes, GgufFileBytes(prepared.metadata, Declare(plan)).In(out_path));
    if (job.estimate) {
      if (structured) {
        EW_TRY(prepared.known, LoadKnowledge(checkpoint, job).In(in_path));
        EW_TRY(structured->Try(std::move(prepared.known.sequences), &pool, progress, &summary)
                   .In(in_path));
      }
      EW_TRY(summary.estimate,
             Estimate(prepared, job, files, out_path, NowSeconds() - start, &pool).In(in_path));
    }
    if (job.predict) {
      EW_TRY(InputKnowledge known, LoadKnowledge(checkpoint, job).In(in_path));
      EW_TRY(const Checkpoint model, OrderChannels(checkpoint, job, known, &pool).In(in_path));
      EW_TRY(PredictPruned(model, plan, *job.prune, {job.journal_path, out_path}, std::move(known),
                           &pool, progress, &summary)
                 .In(in_path));
    }
  } else {
    EW_TRY(JournaledWriter writer, CreateWriter(out_path, job, prepared.metadata, plan));
    summary.bytes = writer.file().total_bytes();
    std::optional<SourceHashing> hashing;
    if (job.source == nullptr) hashing.emplace(files, pool.size(), progress);
    if (job.method == QuantizeMethod::kGptq) {
      EW_TRY(WriteWithFeedback(prepared.weights, plan, prepared.known, &pool, &writer, progress,
                               &summary)
                 .In(in_path));
    }
    EW_TRY(std::optional<MaskWriter> masks, CreateMasks(checkpoint, job, plan));
    if (job.prune) {
      EW_TRY(WritePruned(prepared.weights, plan, *job.prune, {job.journal_path, out_path},
                         std::move(prepared.known), masks ? &*masks : nullptr, &pool, &writer,
                         progress, &summary)
                 .In(in_path));
    }
    std::unordered_set<std::string> repaired;
    if (structured) {
      EW_TRY(repaired, structured
                           ->Write(std::move(prepared.known.sequences), &plan, &pool, &writer,
                                   progress, &summary)
                           .In(in_path));
      prepared.weights = structured->child();
    }
    EW_TRY(WriteTensors(prepared.weights, plan, job, prepared.known, repaired, &pool, &writer,
                        progress, &summary)
               .In(in_path));
    SourceHash source;
    if (hashing) {
      EW_TRY(source, hashing->Finish());
    } else {
      source = *job.source;
    }
    summary.source_sha256 = source.digest;
    SetProvenance(job.recipe, source, &prepared.metadata);
    EW_TRY(writer.file().ReplaceMetadata(prepared.metadata));
    EW_TRY(writer.file().Finish());
    if (masks) EW_TRY(masks->Finish());
  }
  summary.metadata = std::move(prepared.metadata);
  summary.seconds = NowSeconds() - start;
  summary.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return summary;
}

}  // namespace edgewise
