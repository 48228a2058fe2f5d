#include "pipeline/convert.h"

#include <algorithm>
#include <utility>

#include "base/process.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "calibrate/calibration.h"
#include "compress/quantize/layerwise.h"
#include "compress/quantize/rotate.h"
#include "engine/vocab_metadata.h"
#include "formats/gguf.h"
#include "model/checkpoint.h"
#include "pipeline/calibration_text.h"
#include "pipeline/output_path.h"
#include "pipeline/provenance.h"
#include "pipeline/source_hash.h"
#include "pipeline/tensor_journal.h"

namespace edgewise {
namespace {

// The version of ggml's block layouts (GGML_QNT_VERSION) that a reader checks.
constexpr uint32_t kQuantizationVersion = 2;

// What convert and quantize have in common: one writer serves both.
struct Job {
  PlanOptions plan;  // without a preset every tensor keeps its format
  bool pack = false;
  QuantizeMethod method = QuantizeMethod::kRoundToNearest;
  CalibrationText calibration;
  bool rotate = false;
  std::string journal_path;
  Json recipe;  // what decides the output, and nothing else: no paths, no thread count
  std::string tokenizer_path;
  int threads = 0;
  bool overwrite = false;
  bool dry_run = false;
};

// All keys of the output but the provenance.
Result<Metadata> OutputMetadata(const Checkpoint& checkpoint, const Job& job) {
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

std::vector<GgufTensorDecl> Declare(const std::vector<TensorPlan>& plan) {
  std::vector<GgufTensorDecl> declarations;
  for (const TensorPlan& tensor : plan)
    declarations.push_back({tensor.name, tensor.to, tensor.shape, tensor.layout});
  return declarations;
}

Result<std::vector<TensorPlan>> PlanTensors(const Checkpoint& checkpoint, const Job& job,
                                            PackingCount* packing) {
  const std::span<const CheckpointTensor> tensors = checkpoint.tensors();
  std::vector<TensorPlan> plan;
  if (job.plan.preset) {
    EW_TRY(plan, PlanQuantization(tensors, checkpoint.spec(),
                                  checkpoint.kind() == CheckpointKind::kGguf, job.plan));
  } else {
    for (size_t i = 0; i < tensors.size(); ++i) {
      const CheckpointTensor& tensor = tensors[i];
      plan.push_back({i, tensor.name, tensor.shape, tensor.dtype, tensor.dtype, "", {}});
    }
  }
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
                        .reason = tensor.reason};
    EW_TRY(const uint64_t before,
           TensorBytes(tensor.from, tensor.shape, tensors[tensor.source].layout).In(tensor.name));
    EW_TRY(row.bytes, TensorBytes(tensor.to, tensor.shape, tensor.layout).In(tensor.name));
    summary.source_bytes += before;
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

// What quantization knows of the inputs of linear layers.
struct InputKnowledge {
  std::optional<CalibrationFile> file;
  TokenSequences sequences;  // where a text was given instead
};

Result<InputKnowledge> LoadKnowledge(const Checkpoint& checkpoint, const Job& job) {
  InputKnowledge known;
  if (job.method == QuantizeMethod::kRoundToNearest) return known;
  EW_TRY(const bool gguf, IsGguf(job.calibration.path));
  if (gguf && job.rotate) {
    return MakeError(Code::kInvalidArgument,
                     "%s: was made before the rotation; give a text, or rotate with `edgewise "
                     "convert --rotate` and calibrate what that writes",
                     job.calibration.path.c_str());
  }
  if (gguf) {
    EW_TRY(known.file, CalibrationFile::Open(job.calibration.path));
  } else if (job.method == QuantizeMethod::kGptq) {
    EW_TRY(known.sequences, ReadCalibrationText(checkpoint, job.tokenizer_path, job.calibration));
  } else {
    return MakeError(Code::kInvalidArgument,
                     "%s: no calibration file; `edgewise calibrate` makes one from a text",
                     job.calibration.path.c_str());
  }
  return known;
}

Result<JournaledWriter> CreateWriter(const std::string& out_path, const Job& job,
                                     const ConvertSummary& summary, const Metadata& metadata,
                                     const std::vector<TensorPlan>& plan) {
  EW_TRY(GgufWriter file, GgufWriter::Create(out_path, job.overwrite, metadata, Declare(plan)));
  std::optional<TensorJournal> journal;
  if (!job.journal_path.empty()) {
    std::vector<uint64_t> sizes;
    for (const ConvertedTensor& tensor : summary.tensors) sizes.push_back(tensor.bytes);
    EW_TRY(journal, TensorJournal::Open(job.journal_path, std::move(sizes)));
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
Result<std::vector<float>> Importance(const TensorPlan& entry, const InputKnowledge& known) {
  std::vector<float> importance;
  if (!known.file || !Info(entry.to).quantized()) return importance;
  const auto weights = known.file->weights();
  const bool known_weight = std::find(weights.begin(), weights.end(), entry.name) != weights.end();
  if (!known_weight && !IsLayerwise(entry)) return importance;
  EW_TRY(const ColumnMoments moments, known.file->Moments(entry.name));
  if (moments.columns() != entry.shape.columns() || moments.tokens == 0) {
    return MakeError(
        Code::kInvalidArgument,
        "%s: saw %zu columns in %llu tokens for %s, which has %llu columns: it was made "
        "from another model",
        known.file->path().c_str(), moments.columns(),
        static_cast<unsigned long long>(moments.tokens), entry.name.c_str(),
        static_cast<unsigned long long>(entry.shape.columns()));
  }
  for (const double sum : moments.sum_squares) {
    importance.push_back(static_cast<float>(sum / static_cast<double>(moments.tokens)));
  }
  return importance;
}

// Streams every tensor, but for those that error feedback has written, through the encoder into the
// writer.
Status WriteTensors(const Checkpoint& checkpoint, const std::vector<TensorPlan>& plan,
                    const Job& job, const InputKnowledge& known, ThreadPool* pool,
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
    EW_TRY(const std::vector<float> importance, Importance(plan[i], known));
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

Result<ConvertSummary> WriteModel(Checkpoint checkpoint, const std::string& out_path, Job job,
                                  Progress* progress) {
  const double start = NowSeconds();
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  const std::string in_path = checkpoint.path();
  if (!job.dry_run) EW_TRY(CheckOutput(in_path, out_path, job.overwrite));
  std::string rotated;
  if (job.rotate) {
    EW_TRY(rotated, RotateSource(job.plan.allow_requantize, &checkpoint).In(in_path));
    job.recipe.Set("rotated", rotated).Set("rotation_seed", kRotationSeed);
  }
  PackingCount packing;
  EW_TRY(const auto plan, PlanTensors(checkpoint, job, &packing).In(in_path));
  EW_TRY(Metadata metadata, OutputMetadata(checkpoint, job));
  EW_TRY(ConvertSummary summary, Summarize(checkpoint.tensors(), plan).In(in_path));
  summary.packing = packing;
  summary.rotated = rotated;
  summary.output = out_path;
  EW_TRY(const auto files, SourceFiles(checkpoint, job.tokenizer_path));
  PushHistory(&metadata);
  SetProvenance(job.recipe, PlaceholderHash(files), &metadata);
  if (job.dry_run) {
    EW_TRY(summary.bytes, GgufFileBytes(metadata, Declare(plan)).In(out_path));
  } else {
    EW_TRY(InputKnowledge known, LoadKnowledge(checkpoint, job));
    EW_TRY(JournaledWriter writer, CreateWriter(out_path, job, summary, metadata, plan));
    summary.bytes = writer.file().total_bytes();
    ThreadPool pool(job.threads > 0 ? job.threads : ThreadPool::AvailableCpus());
    SourceHashing hashing(files, pool.size(), progress);
    if (job.method == QuantizeMethod::kGptq) {
      EW_TRY(WriteWithFeedback(checkpoint, plan, known, &pool, &writer, progress, &summary)
                 .In(in_path));
    }
    EW_TRY(
        WriteTensors(checkpoint, plan, job, known, &pool, &writer, progress, &summary).In(in_path));
    EW_TRY(const SourceHash source, hashing.Finish());
    summary.source_sha256 = source.digest;
    SetProvenance(job.recipe, source, &metadata);
    EW_TRY(writer.file().ReplaceMetadata(metadata));
    EW_TRY(writer.file().Finish());
  }
  summary.metadata = std::move(metadata);
  summary.seconds = NowSeconds() - start;
  summary.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return summary;
}

// Half precision as the source has it; F16 where it has neither.
DType HalfOf(const Checkpoint& checkpoint) {
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (tensor.shape.rank() < 2) continue;
    if (tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16) return tensor.dtype;
  }
  return DType::kF16;
}

bool HasPacked(const Checkpoint& checkpoint) {
  const auto tensors = checkpoint.tensors();
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const auto& t) { return t.layout == TensorLayout::kPacked; });
}

Status SetMethod(const QuantizeOptions& options, Job* job) {
  job->method = options.method;
  job->calibration = options.calibration;
  const bool calibrated = options.method != QuantizeMethod::kRoundToNearest;
  if (calibrated == options.calibration.path.empty()) {
    return MakeError(Code::kInvalidArgument,
                     calibrated
                         ? "--method %s needs --calibration FILE, made by `edgewise calibrate`"
                         : "--calibration has no use with --method %s",
                     MethodName(options.method, options.rotate).c_str());
  }
  job->rotate = options.rotate;
  if (!calibrated) return Ok{};
  if (!Info(job->plan.preset->type).quantized()) {
    return MakeError(Code::kInvalidArgument,
                     "--method %s has no use with %s, which is no block format",
                     MethodName(options.method, options.rotate).c_str(), job->plan.preset->name);
  }
  job->plan.has_importance = true;
  EW_TRY(const SourceHash hash, HashFiles({options.calibration.path}, [] { return false; }));
  job->recipe.Set("method", MethodName(options.method, options.rotate))
      .Set("calibration_sha256", hash.digest);
  EW_TRY(const bool gguf, IsGguf(options.calibration.path));
  if (!gguf && options.calibration.max_tokens > 0) {
    job->recipe.Set("calibration_tokens", options.calibration.max_tokens);
  }
  return Ok{};
}

Job PackJob(const char* command, const PackOptions& options) {
  Job job;
  job.recipe.Set("command", command);
  job.threads = options.threads;
  job.overwrite = options.overwrite;
  job.dry_run = options.dry_run;
  return job;
}

}  // namespace

std::string MethodName(QuantizeMethod method, bool rotate) {
  static constexpr const char* kNames[] = {"rtn", "imatrix", "gptq"};
  return std::string(rotate ? "rotate+" : "") + kNames[static_cast<size_t>(method)];
}

Status ParseMethod(std::string_view name, QuantizeOptions* options) {
  std::vector<std::string> known;
  for (const bool rotate : {false, true}) {
    for (const QuantizeMethod method :
         {QuantizeMethod::kRoundToNearest, QuantizeMethod::kImatrix, QuantizeMethod::kGptq}) {
      // The sums of a calibration are of the columns before the rotation.
      if (rotate && method == QuantizeMethod::kImatrix) continue;
      known.push_back(MethodName(method, rotate));
      if (name != known.back()) continue;
      options->method = method;
      options->rotate = rotate;
      return Ok{};
    }
  }
  return MakeError(Code::kInvalidArgument, "--method %s: no such method; known are %s",
                   Quote(name).c_str(), Join(known, ", ").c_str());
}

Result<std::string> RotateSource(bool allow_quantized, Checkpoint* model) {
  for (const CheckpointTensor& tensor : model->tensors()) {
    if (!Info(tensor.dtype).quantized() || allow_quantized) continue;
    return MakeError(
        Code::kInvalidArgument,
        "tensor %s is quantized already (%s); rotate the f16, bf16 or f32 model that it "
        "comes from",
        tensor.name.c_str(), Info(tensor.dtype).name);
  }
  EW_TRY(Rotation rotation, Rotate(*model, kRotationSeed));
  *model = rotation.model;
  return std::string(rotation.residual && rotation.values ? "residual+values"
                     : rotation.residual                  ? "residual"
                                                          : "values");
}

Result<ConvertSummary> Convert(const std::string& in_path, const std::string& out_path,
                               const ConvertOptions& options, Progress* progress) {
  if (options.to && *options.to != DType::kF32 && *options.to != DType::kF16 &&
      *options.to != DType::kBF16 && *options.to != DType::kQ8_0) {
    return MakeError(Code::kInvalidArgument,
                     "convert writes f32, f16, bf16 or q8_0; for %s use `edgewise quantize`",
                     Info(*options.to).name);
  }
  EW_TRY(const Checkpoint checkpoint, Checkpoint::Open(in_path));
  const DType to = options.to.value_or(HalfOf(checkpoint));
  Job job;
  EW_TRY(job.plan.preset, FindPreset(Info(to).name));
  job.recipe.Set("command", "convert").Set("to", Info(to).name);
  job.rotate = options.rotate;
  job.tokenizer_path = options.tokenizer_path;
  job.threads = options.threads;
  job.overwrite = options.overwrite;
  job.dry_run = options.dry_run;
  return WriteModel(checkpoint, out_path, std::move(job), progress);
}

Result<QuantizeSummary> Quantize(const std::string& in_path, const std::string& out_path,
                                 const QuantizeOptions& options, Progress* progress) {
  EW_TRY(const Checkpoint checkpoint, Checkpoint::Open(in_path));
  return Quantize(checkpoint, out_path, options, progress);
}

Result<QuantizeSummary> Quantize(const Checkpoint& model, const std::string& out_path,
                                 const QuantizeOptions& options, Progress* progress) {
  Job job;
  EW_TRY(job.plan.preset, FindPreset(options.preset));
  job.plan.overrides = options.overrides;
  job.plan.output_type = options.output_type;
  job.plan.embedding_type = options.embedding_type;
  job.plan.leave_output = options.leave_output;
  job.plan.pure = options.pure;
  job.plan.allow_requantize = options.allow_requantize;
  job.recipe.Set("command", "quantize").Set("to", job.plan.preset->name);
  Json overrides{JsonArray{}};
  for (const TypeOverride& item : options.overrides) {
    overrides.Append(item.pattern + "=" + Info(item.type).name);
  }
  if (!options.overrides.empty()) job.recipe.Set("tensor_types", std::move(overrides));
  if (options.output_type) job.recipe.Set("output_type", Info(*options.output_type).name);
  if (options.embedding_type) job.recipe.Set("embedding_type", Info(*options.embedding_type).name);
  if (options.leave_output) job.recipe.Set("leave_output", true);
  if (options.pure) job.recipe.Set("pure", true);
  if (options.allow_requantize) job.recipe.Set("allow_requantize", true);
  if (options.pack) job.recipe.Set("pack", true);
  EW_TRY(SetMethod(options, &job));
  job.pack = options.pack;
  job.tokenizer_path = options.tokenizer_path;
  job.threads = options.threads;
  job.overwrite = options.overwrite;
  job.dry_run = options.dry_run;
  EW_CHECK(options.journal_path.empty() || !options.pack);
  job.journal_path = options.journal_path;
  return WriteModel(model, out_path, std::move(job), progress);
}

Result<ConvertSummary> Pack(const std::string& in_path, const std::string& out_path,
                            const PackOptions& options, Progress* progress) {
  EW_TRY(const Checkpoint checkpoint, Checkpoint::Open(in_path));
  if (checkpoint.kind() != CheckpointKind::kGguf) {
    return MakeError(Code::kInvalidArgument,
                     "%s: not a GGUF; `edgewise quantize --pack` packs what it quantizes",
                     in_path.c_str());
  }
  if (HasPacked(checkpoint)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: packed already; `edgewise unpack` gives the file in rows",
                     in_path.c_str());
  }
  Job job = PackJob("pack", options);
  job.pack = true;
  return WriteModel(checkpoint, out_path, std::move(job), progress);
}

Result<ConvertSummary> Unpack(const std::string& in_path, const std::string& out_path,
                              const PackOptions& options, Progress* progress) {
  EW_TRY(const Checkpoint checkpoint, Checkpoint::Open(in_path));
  if (!HasPacked(checkpoint)) {
    return MakeError(Code::kInvalidArgument, "%s: nothing in it is packed", in_path.c_str());
  }
  return WriteModel(checkpoint, out_path, PackJob("unpack", options), progress);
}

Json SummaryToJson(const ConvertSummary& summary) {
  Json tensors{JsonArray{}};
  for (const ConvertedTensor& row : summary.tensors) {
    Json shape{JsonArray{}};
    for (int i = 0; i < row.shape.rank(); ++i) shape.Append(row.shape[i]);
    Json item;
    item.Set("name", row.name).Set("shape", std::move(shape));
    item.Set("from", Info(row.from).name).Set("to", Info(row.to).name);
    item.Set("packed", row.layout == TensorLayout::kPacked).Set("bytes", row.bytes);
    item.Set("rmse", row.rmse).Set("relative_rmse", row.relative_rmse).Set("reason", row.reason);
    tensors.Append(std::move(item));
  }
  Json json;
  json.Set("output", summary.output).Set("bytes", summary.bytes);
  json.Set("bits_per_weight", summary.bits_per_weight).Set("parameters", summary.parameters);
  json.Set("seconds", summary.seconds).Set("peak_rss_bytes", summary.peak_rss_bytes);
  json.Set("source_bytes", summary.source_bytes).Set("source_sha256", summary.source_sha256);
  json.Set("packed_tensors", summary.packing.packed).Set("left_in_rows", summary.packing.left);
  json.Set("tensors", std::move(tensors));
  return json;
}

}  // namespace edgewise
