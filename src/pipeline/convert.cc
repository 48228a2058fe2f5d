#include "pipeline/convert.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <future>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/process.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "calibrate/calibration.h"
#include "compress/quantize/allocate.h"
#include "compress/quantize/layerwise.h"
#include "compress/quantize/rotate.h"
#include "compress/quantize/sensitivity.h"
#include "engine/vocab_metadata.h"
#include "formats/gguf.h"
#include "model/checkpoint.h"
#include "pipeline/calibration_text.h"
#include "pipeline/source_hash.h"

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
  bool calibration_file = false;  // not a text
  bool rotate = false;
  ScaleMethod scale = ScaleMethod::kNone;
  uint64_t target_bytes = 0;  // 0: the formats are the preset's
  double target_bpw = 0;
  Json recipe;  // what decides the output, and nothing else: no paths, no thread count
  std::string tokenizer_path;
  int threads = 0;
  bool overwrite = false;
  bool dry_run = false;
};

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// Finds now what would otherwise fail after the work.
Status CheckOutput(const std::string& in_path, const std::string& out_path, bool overwrite) {
  std::error_code ignored;
  if (std::filesystem::equivalent(in_path, out_path, ignored)) {
    return MakeError(Code::kInvalidArgument, "%s: the output would replace the input",
                     out_path.c_str());
  }
  if (IsDirectory(out_path)) {
    return MakeError(Code::kInvalidArgument, "%s: is a directory; name the file to write",
                     out_path.c_str());
  }
  if (FileExists(out_path) && !overwrite) {
    return MakeError(Code::kInvalidArgument, "%s: exists already; pass --force to replace it",
                     out_path.c_str());
  }
  const std::string parent = ParentOf(out_path);
  if (!IsDirectory(parent)) {
    return MakeError(Code::kIo, "%s: the directory %s does not exist", out_path.c_str(),
                     parent.c_str());
  }
  if (::access(parent.c_str(), W_OK) != 0) {
    return MakeError(Code::kIo, "%s: no permission to write in %s", out_path.c_str(),
                     parent.c_str());
  }
  return Ok{};
}

// Appends the provenance that `metadata` carries so far to the history, so that a chain of steps
// stays readable.
void PushHistory(Metadata* metadata) {
  const auto recipe = metadata->GetString("edgewise.recipe");
  const auto version = metadata->GetString("edgewise.version");
  const auto digest = metadata->GetString("edgewise.source.sha256");
  if (!recipe || !version || !digest) return;
  std::vector<std::string> history;
  if (const auto* before = metadata->FindStrings("edgewise.history")) history = *before;
  Json step;
  step.Set("recipe", *recipe).Set("version", *version).Set("source_sha256", *digest);
  history.push_back(step.Dump());
  metadata->Set("edgewise.history", MetaArray(std::move(history)));
}

void SetProvenance(const Job& job, const SourceHash& source, Metadata* metadata) {
  metadata->Set("edgewise.version", std::string(EDGEWISE_VERSION));
  metadata->Set("edgewise.recipe", job.recipe.Dump());
  metadata->Set("edgewise.source.sha256", source.digest);
  metadata->Set("edgewise.source.files", MetaArray(source.files));
}

// Hashes the source beside the encoding, or after it where only one thread may work. The digest
// stands in the header, so the header is written again when it is known.
class SourceHashing {
 public:
  SourceHashing(const std::vector<std::string>& paths, int threads, const Progress* progress)
      : result_(std::async(
            threads > 1 ? std::launch::async : std::launch::deferred, [this, &paths, progress] {
              return HashFiles(paths, [&] { return stop_ || progress->Cancelled(); });
            })) {}
  ~SourceHashing() { stop_ = true; }  // the future's destructor waits
  Result<SourceHash> Finish() { return result_.get(); }

 private:
  std::atomic<bool> stop_ = false;
  std::future<Result<SourceHash>> result_;
};

// All keys of the output but the provenance.
Result<Metadata> OutputMetadata(const Checkpoint& checkpoint, const Job& job) {
  Metadata metadata = checkpoint.metadata();
  const bool gguf = checkpoint.kind() == CheckpointKind::kGguf;
  for (const char* key : {"split.no", "split.count", "split.tensors.count"}) metadata.Erase(key);
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
      plan.push_back({i, tensor.name, tensor.shape, tensor.dtype, tensor.dtype, "", {}, 0});
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

// What quantization knows of the inputs of linear layers.
struct InputKnowledge {
  std::optional<CalibrationFile> file;
  TokenSequences sequences;  // where a text was given instead
};

Result<InputKnowledge> LoadKnowledge(const Checkpoint& checkpoint, const Job& job) {
  InputKnowledge known;
  if (job.calibration.path.empty()) return known;
  if (job.calibration_file && job.rotate) {
    return MakeError(Code::kInvalidArgument,
                     "%s: was made before the rotation; give a text, or rotate with `edgewise "
                     "convert --rotate` and calibrate what that writes",
                     job.calibration.path.c_str());
  }
  if (job.calibration_file) {
    EW_TRY(known.file, CalibrationFile::Open(job.calibration.path));
  } else if (job.method == QuantizeMethod::kGptq && job.scale == ScaleMethod::kNone &&
             job.target_bytes == 0 && job.target_bpw == 0) {
    EW_TRY(known.sequences, ReadCalibrationText(checkpoint, job.tokenizer_path, job.calibration));
  } else {
    return MakeError(Code::kInvalidArgument,
                     "%s: no calibration file; `edgewise calibrate` makes one from a text",
                     job.calibration.path.c_str());
  }
  return known;
}

// Writes the matrices of layers, quantized with error feedback.
Status WriteWithFeedback(const Checkpoint& checkpoint, const std::vector<TensorPlan>& plan,
                         InputKnowledge known, ThreadPool* pool, GgufWriter* writer,
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
    summary->tensors[index].rmse = error.rmse();
    summary->tensors[index].relative_rmse = error.relative_rmse();
    return Ok{};
  };
  if (known.file) {
    return QuantizeByCalibration(checkpoint, plan, *known.file, {}, pool, progress, sink);
  }
  return QuantizeLayerwise(checkpoint, plan, std::move(known.sequences), {}, pool, progress, sink);
}

// The mean squares of the inputs of plan entry `entry`. Empty without a calibration file and for
// embeddings, which no input multiplies; llama-imatrix leaves out the output matrix too.
Result<std::vector<float>> Importance(const TensorPlan& entry, const Job& job,
                                      const InputKnowledge& known) {
  std::vector<float> importance;
  if (job.method == QuantizeMethod::kRoundToNearest || !known.file) return importance;
  if (!Info(entry.to).quantized()) return importance;
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
                    GgufWriter* writer, Progress* progress, ConvertSummary* summary) {
  uint64_t total = 0, done = 0;
  for (const ConvertedTensor& row : summary->tensors) total += row.bytes;
  for (size_t i = 0; i < plan.size(); ++i) {
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
    EW_TRY(const std::vector<float> importance, Importance(plan[i], job, known));
    EW_TRY(const EncodeError error,
           EncodeTensor(plan[i].name, tensor.view(), plan[i].to, importance, pool,
                        packed ? RowPacker::Sink(pack) : RowPacker::Sink(sink)));
    EW_TRY(packer.Finish(sink));
    summary->tensors[i].rmse = error.rmse();
    summary->tensors[i].relative_rmse = error.relative_rmse();
  }
  return Ok{};
}

constexpr uint64_t kRotationSeed = 1;

// A model whose values change first must not be one of rounded values.
Status CheckUnquantized(const Checkpoint& checkpoint, const Job& job) {
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (!Info(tensor.dtype).quantized() || job.plan.allow_requantize) continue;
    return MakeError(
        Code::kInvalidArgument,
        "tensor %s is quantized already (%s); start from the f16, bf16 or f32 model that it "
        "comes from",
        tensor.name.c_str(), Info(tensor.dtype).name);
  }
  return Ok{};
}

// Turns the checkpoint into its rotated self; returns what of it is rotated.
Result<std::string> RotateSource(const Job& job, Checkpoint* checkpoint) {
  EW_TRY(CheckUnquantized(*checkpoint, job));
  EW_TRY(Rotation rotation, Rotate(*checkpoint, kRotationSeed));
  *checkpoint = rotation.model;
  return std::string(rotation.residual && rotation.values ? "residual+values"
                     : rotation.residual                  ? "residual"
                                                          : "values");
}

// Chooses the formats that come to the size asked for and cost least.
Status FitToTarget(const Checkpoint& weights, const Job& job, const CalibrationFile& calibration,
                   ThreadPool* pool, Progress* progress, Metadata* metadata,
                   std::vector<TensorPlan>* plan) {
  FileTarget target;
  EW_TRY(target.alignment, metadata->GetUint("general.alignment", kGgufDefaultAlignment));
  EW_TRY(target.planned, GgufFileBytes(*metadata, Declare(*plan)));
  target.bytes = job.target_bytes;
  if (job.target_bpw > 0) {
    uint64_t parameters = 0;
    for (const TensorPlan& entry : *plan) parameters += entry.shape.elements();
    target.bytes = static_cast<uint64_t>(job.target_bpw * static_cast<double>(parameters) / 8);
  }
  EW_TRY(CheckTarget(target, *plan));
  EW_TRY(const Vocab vocab, LoadVocab(weights, job.tokenizer_path));
  SensitivityOptions options;
  options.encoder = job.method == QuantizeMethod::kGptq      ? RowEncoder::kFeedback
                    : job.method == QuantizeMethod::kImatrix ? RowEncoder::kWeighted
                                                             : RowEncoder::kPlain;
  options.first_token = vocab.bos.value_or(vocab.eos.value_or(0));
  EW_TRY(const auto costs,
         MeasureSensitivity(weights, *plan, calibration, options, pool, progress));
  EW_TRY(AllocateFormats(costs, target, plan));
  metadata->Set("general.file_type", FileTypeOf(*plan));
  return Ok{};
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
                         const Job& job, ThreadPool* pool, Progress* progress) {
  Prepared result{{}, {}, {}, checkpoint, {}};
  EW_TRY(result.plan, PlanTensors(checkpoint, job, &result.packing));
  EW_TRY(result.metadata, OutputMetadata(checkpoint, job));
  PushHistory(&result.metadata);
  SetProvenance(job, PlaceholderHash(files), &result.metadata);
  const bool target = job.target_bytes > 0 || job.target_bpw > 0;
  if (job.dry_run && !target) return result;
  EW_TRY(result.known, LoadKnowledge(checkpoint, job));
  if (job.scale != ScaleMethod::kNone) {
    EW_TRY(CheckUnquantized(checkpoint, job));
    EW_TRY(Scaling scaling,
           ScaleInputs(checkpoint, result.plan, *result.known.file, job.scale, pool, progress));
    result.weights = std::move(scaling.model);
    result.known.file = std::move(scaling.calibration);
    result.scaled_inputs = scaling.scaled;
  }
  if (target) {
    EW_TRY(FitToTarget(result.weights, job, *result.known.file, pool, progress, &result.metadata,
                       &result.plan));
  }
  return result;
}

Result<ConvertSummary> WriteModel(Checkpoint checkpoint, const std::string& out_path, Job job,
                                  Progress* progress) {
  const double start = NowSeconds();
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  const std::string in_path = checkpoint.path();
  if (!job.dry_run) EW_TRY(CheckOutput(in_path, out_path, job.overwrite));
  std::string rotated;
  if (job.rotate) {
    EW_TRY(rotated, RotateSource(job, &checkpoint).In(in_path));
    job.recipe.Set("rotated", rotated).Set("rotation_seed", kRotationSeed);
  }
  ThreadPool pool(job.threads > 0 ? job.threads : ThreadPool::AvailableCpus());
  EW_TRY(const auto files, SourceFiles(checkpoint, job.tokenizer_path));
  EW_TRY(Prepared prepared, Prepare(checkpoint, files, job, &pool, progress).In(in_path));
  const std::vector<TensorPlan>& plan = prepared.plan;
  EW_TRY(ConvertSummary summary, Summarize(checkpoint.tensors(), plan).In(in_path));
  summary.packing = prepared.packing;
  summary.rotated = rotated;
  summary.scaled_inputs = prepared.scaled_inputs;
  summary.output = out_path;
  if (job.dry_run) {
    EW_TRY(summary.bytes, GgufFileBytes(prepared.metadata, Declare(plan)).In(out_path));
  } else {
    EW_TRY(GgufWriter writer,
           GgufWriter::Create(out_path, job.overwrite, prepared.metadata, Declare(plan)));
    summary.bytes = writer.total_bytes();
    SourceHashing hashing(files, pool.size(), progress);
    if (job.method == QuantizeMethod::kGptq) {
      EW_TRY(WriteWithFeedback(prepared.weights, plan, prepared.known, &pool, &writer, progress,
                               &summary)
                 .In(in_path));
    }
    EW_TRY(WriteTensors(prepared.weights, plan, job, prepared.known, &pool, &writer, progress,
                        &summary)
               .In(in_path));
    EW_TRY(const SourceHash source, hashing.Finish());
    summary.source_sha256 = source.digest;
    SetProvenance(job, source, &prepared.metadata);
    EW_TRY(writer.ReplaceMetadata(prepared.metadata));
    EW_TRY(writer.Finish());
  }
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

// The formats to choose from, where a preset gives them to none.
constexpr const char* kTargetPreset = "q4_0";

Status SetTarget(const QuantizeOptions& options, Job* job) {
  const int sizes = !options.preset.empty() + (options.target_bytes > 0) + (options.target_bpw > 0);
  if (sizes != 1 || !(options.target_bpw >= 0 && options.target_bpw <= 32)) {
    return MakeError(Code::kInvalidArgument,
                     "give one of --to PRESET, --target-bytes N and --target-bpw X, which is above "
                     "0 and at most 32");
  }
  if (!options.preset.empty()) {
    EW_TRY(job->plan.preset, FindPreset(options.preset));
    job->recipe.Set("to", job->plan.preset->name);
    return Ok{};
  }
  if (options.pure || options.pack) {
    return MakeError(Code::kInvalidArgument, "%s has no use with a target size%s",
                     options.pure ? "--pure" : "--pack",
                     options.pure ? "" : "; `edgewise pack` packs the file afterwards");
  }
  EW_TRY(job->plan.preset, FindPreset(kTargetPreset));
  job->plan.pure = true;
  job->target_bytes = options.target_bytes;
  job->target_bpw = options.target_bpw;
  if (options.target_bytes > 0) job->recipe.Set("target_bytes", options.target_bytes);
  if (options.target_bpw > 0) job->recipe.Set("target_bpw", options.target_bpw);
  return Ok{};
}

Status SetMethod(const QuantizeOptions& options, Job* job) {
  job->method = options.method;
  job->calibration = options.calibration;
  const bool calibrated = options.method != QuantizeMethod::kRoundToNearest ||
                          options.scale != ScaleMethod::kNone || options.preset.empty();
  if (calibrated == options.calibration.path.empty()) {
    const std::string method = "--method " + MethodName(options);
    return MakeError(Code::kInvalidArgument,
                     calibrated ? "%s needs --calibration FILE, made by `edgewise calibrate`"
                                : "--calibration has no use with %s",
                     options.preset.empty() ? "a target size" : method.c_str());
  }
  job->rotate = options.rotate;
  job->scale = options.scale;
  if (!calibrated) return Ok{};
  if (!Info(job->plan.preset->type).quantized()) {
    return MakeError(Code::kInvalidArgument,
                     "--method %s has no use with %s, which is no block format",
                     MethodName(options).c_str(), job->plan.preset->name);
  }
  job->plan.has_importance = true;
  EW_TRY(const SourceHash hash, HashFiles({options.calibration.path}, [] { return false; }));
  job->recipe.Set("method", MethodName(options)).Set("calibration_sha256", hash.digest);
  EW_TRY(job->calibration_file, IsGguf(options.calibration.path));
  if (!job->calibration_file && options.calibration.max_tokens > 0) {
    job->recipe.Set("calibration_tokens", options.calibration.max_tokens);
  }
  return Ok{};
}

// The names of --method. A calibration file is of the columns before a rotation, so that one goes
// only with methods that need none or can do with a text.
struct Method {
  const char* name;
  QuantizeMethod rounding;
  bool rotate;
  ScaleMethod scale;
};
constexpr Method kMethods[] = {
    {"rtn", QuantizeMethod::kRoundToNearest, false, ScaleMethod::kNone},
    {"imatrix", QuantizeMethod::kImatrix, false, ScaleMethod::kNone},
    {"gptq", QuantizeMethod::kGptq, false, ScaleMethod::kNone},
    {"awq", QuantizeMethod::kImatrix, false, ScaleMethod::kAwq},
    {"awq+gptq", QuantizeMethod::kGptq, false, ScaleMethod::kAwq},
    {"smooth", QuantizeMethod::kRoundToNearest, false, ScaleMethod::kSmooth},
    {"rotate+rtn", QuantizeMethod::kRoundToNearest, true, ScaleMethod::kNone},
    {"rotate+gptq", QuantizeMethod::kGptq, true, ScaleMethod::kNone},
};

Job PackJob(const char* command, const PackOptions& options) {
  Job job;
  job.recipe.Set("command", command);
  job.threads = options.threads;
  job.overwrite = options.overwrite;
  job.dry_run = options.dry_run;
  return job;
}

}  // namespace

std::string MethodName(const QuantizeOptions& options) {
  for (const Method& known : kMethods) {
    if (known.rounding == options.method && known.rotate == options.rotate &&
        known.scale == options.scale) {
      return known.name;
    }
  }
  EW_CHECK(false);  // these do not go together
}

Status ParseMethod(std::string_view name, QuantizeOptions* options) {
  std::vector<std::string> names;
  for (const Method& known : kMethods) {
    names.emplace_back(known.name);
    if (name != known.name) continue;
    options->method = known.rounding;
    options->rotate = known.rotate;
    options->scale = known.scale;
    return Ok{};
  }
  return MakeError(Code::kInvalidArgument, "--method %s: no such method; known are %s",
                   Quote(name).c_str(), Join(names, ", ").c_str());
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
  Job job;
  job.recipe.Set("command", "quantize");
  job.plan.pure = options.pure;
  EW_TRY(SetTarget(options, &job));
  job.plan.overrides = options.overrides;
  job.plan.output_type = options.output_type;
  job.plan.embedding_type = options.embedding_type;
  job.plan.leave_output = options.leave_output;
  job.plan.allow_requantize = options.allow_requantize;
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
  EW_TRY(const Checkpoint checkpoint, Checkpoint::Open(in_path));
  return WriteModel(checkpoint, out_path, std::move(job), progress);
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
    if (row.predicted_kl > 0) item.Set("predicted_kl", row.predicted_kl);
    item.Set("rmse", row.rmse).Set("relative_rmse", row.relative_rmse).Set("reason", row.reason);
    tensors.Append(std::move(item));
  }
  Json json;
  json.Set("output", summary.output).Set("bytes", summary.bytes);
  json.Set("bits_per_weight", summary.bits_per_weight).Set("parameters", summary.parameters);
  json.Set("seconds", summary.seconds).Set("peak_rss_bytes", summary.peak_rss_bytes);
  json.Set("source_bytes", summary.source_bytes).Set("source_sha256", summary.source_sha256);
  json.Set("scaled_inputs", summary.scaled_inputs);
  if (summary.predicted_kl > 0) json.Set("predicted_kl", summary.predicted_kl);
  json.Set("packed_tensors", summary.packing.packed).Set("left_in_rows", summary.packing.left);
  json.Set("tensors", std::move(tensors));
  return json;
}

}  // namespace edgewise
