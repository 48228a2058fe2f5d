#include "pipeline/convert.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/strings.h"
#include "compress/quantize/presets.h"
#include "formats/gguf.h"
#include "model/checkpoint.h"
#include "model/lora_adapter.h"
#include "model/lora_file.h"
#include "pipeline/estimate.h"
#include "pipeline/source_hash.h"
#include "pipeline/write_model.h"

namespace edgewise {
namespace {

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

// How the job is run, which every verb's options say alike.
template <class Options>
void SetRun(const Options& options, WriteJob* job) {
  job->threads = options.threads;
  job->overwrite = options.overwrite;
  job->dry_run = options.dry_run;
  job->estimate = options.estimate;
}

// The formats to choose from, where a preset gives them to none.
constexpr const char* kTargetPreset = "q4_0";

Status SetTarget(const QuantizeOptions& options, WriteJob* job) {
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
  job->target_header_bytes = options.target_header_bytes;
  if (options.target_bytes > 0) job->recipe.Set("target_bytes", options.target_bytes);
  if (options.target_bpw > 0) job->recipe.Set("target_bpw", options.target_bpw);
  return Ok{};
}

// Takes a calibration file or a text, and tells the recipe.
Status SetCalibration(const CalibrationText& calibration, WriteJob* job) {
  EW_TRY(const SourceHash hash, HashFiles({calibration.path}, [] { return false; }));
  job->recipe.Set("calibration_sha256", hash.digest);
  EW_TRY(job->calibration_file, IsGguf(calibration.path));
  if (!job->calibration_file && calibration.max_tokens > 0) {
    job->recipe.Set("calibration_tokens", calibration.max_tokens);
  }
  return Ok{};
}

Status SetMethod(const QuantizeOptions& options, WriteJob* job) {
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
  job->recipe.Set("method", MethodName(options));
  return SetCalibration(options.calibration, job);
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

Result<WriteJob> QuantizeJob(const QuantizeOptions& options) {
  WriteJob job;
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
  SetRun(options, &job);
  job.calibration_planned = options.calibration_planned;
  job.planned_calibration = options.planned_calibration;
  job.source = options.source;
  EW_CHECK(options.journal_path.empty() || !options.pack);
  job.journal_path = options.journal_path;
  return job;
}

// The format of the matrices, where they are floats.
Result<DType> FloatFormat(const Checkpoint& checkpoint) {
  DType type = DType::kF32;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (Info(tensor.dtype).quantized()) {
      return MakeError(Code::kInvalidArgument,
                       "tensor %s is quantized already (%s); prune the f16, bf16 or f32 model that "
                       "it comes from",
                       tensor.name.c_str(), Info(tensor.dtype).name);
    }
    if (IsPrunable(tensor)) type = DenseOf(tensor.dtype);
  }
  return type;
}

// Sets what is pruned and tells the recipe. Returns whether the method needs a calibration.
bool SetWeightPruning(const PruneOptions& options, WriteJob* job) {
  job->prune = options;
  job->recipe.Set("method", PruneMethodName(options.method));
  if (options.method == PruneMethod::kMask) return false;
  job->recipe.Set("sparsity", options.sparsity.ToString());
  if (options.permute) job->recipe.Set("permute", true);
  if (options.steps > 1) job->recipe.Set("steps", options.steps);
  if (options.method == PruneMethod::kRandom) job->recipe.Set("seed", options.seed);
  if (options.owl) job->recipe.Set("owl", true);
  return NeedsCalibration(options.method);
}

// The same for structure.
bool SetStructuredPruning(const StructureOptions& options, WriteJob* job) {
  job->structure = options;
  job->recipe.Set("method", StructureMethodName(options.method));
  const StructureRequest& request = options.request;
  for (const auto& [key, amount] : {std::pair("ffn", &request.ffn),
                                    {"heads", &request.heads},
                                    {"width", &request.width},
                                    {"layers", &request.layers}}) {
    if (amount->given()) job->recipe.Set(key, amount->ToString());
  }
  if (request.multiple > 0) job->recipe.Set("multiple", request.multiple);
  if (!options.repair) job->recipe.Set("repair", false);
  if (options.method == StructureMethod::kRandom) job->recipe.Set("seed", options.seed);
  return NeedsText(options);
}

Result<SourceHash> HashMask(const std::string& path) {
  std::vector<std::string> files = {path};
  if (IsDirectory(path)) {
    EW_TRY(const Checkpoint model, Checkpoint::Open(path));
    EW_TRY(files, SourceFiles(model, ""));
  }
  return HashFiles(files, [] { return false; });
}

// Opens the masks, where the method takes some, and tells the recipe.
Status SetMasks(const PruneJobOptions& options, WriteJob* job) {
  job->save_mask = options.save_mask;
  job->predict = options.predict && job->prune;
  const bool given = job->prune && job->prune->method == PruneMethod::kMask;
  if (given == options.masks.empty()) {
    return MakeError(Code::kInvalidArgument,
                     given ? "--method mask needs --mask FILE, a mask file or a pruned model"
                           : "--mask goes with --method mask only");
  }
  if (!given) return Ok{};
  EW_TRY(MaskSet masks, MaskSet::Open(options.masks));
  job->prune->masks = std::make_shared<const MaskSet>(std::move(masks));
  Json digests{JsonArray{}};
  for (const std::string& path : options.masks) {
    EW_TRY(const SourceHash hash, HashMask(path));
    digests.Append(hash.digest);
  }
  job->recipe.Set("masks_sha256", std::move(digests));
  return Ok{};
}

Result<WriteJob> PruneJob(const Checkpoint& checkpoint, const PruneJobOptions& options) {
  WriteJob job;
  EW_TRY(const DType type, FloatFormat(checkpoint).In(checkpoint.path()));
  EW_TRY(job.plan.preset, FindPreset(Info(type).name));
  job.recipe.Set("command", "prune");
  if (options.structure && !options.structure->repair &&
      !options.structure->request.LeavesInputsToFit()) {
    return MakeError(Code::kInvalidArgument,
                     "--no-repair has no use with --layers alone, which leave nothing to repair");
  }
  const bool calibrated = options.structure ? SetStructuredPruning(*options.structure, &job)
                                            : SetWeightPruning(options.prune, &job);
  EW_TRY(SetMasks(options, &job));
  job.calibration = options.calibration;
  if (calibrated == options.calibration.path.empty()) {
    const char* method = options.structure ? StructureMethodName(options.structure->method)
                                           : PruneMethodName(options.prune.method);
    return MakeError(Code::kInvalidArgument,
                     !calibrated ? "--calibration has no use with --method %s"
                     : options.structure
                         ? "--method %s needs --calibration: a text that shows what "
                           "the layers see, to choose, to fit the rest or to scale "
                           "norms by"
                         : "--method %s needs --calibration: a file made by "
                           "`edgewise calibrate`, or a text",
                     method);
  }
  if (!options.calibration.path.empty()) EW_TRY(SetCalibration(options.calibration, &job));
  job.tokenizer_path = options.tokenizer_path;
  SetRun(options, &job);
  job.source = options.source;
  EW_CHECK(options.journal_path.empty() || !options.structure);
  job.journal_path = options.journal_path;
  return job;
}

WriteJob PackJob(const char* command, const PackOptions& options) {
  WriteJob job;
  job.recipe.Set("command", command);
  SetRun(options, &job);
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

namespace {

Result<Checkpoint> Merge(const std::string& adapter_path, const Checkpoint& model) {
  EW_TRY(LoraAdapter adapter, ReadAdapter(adapter_path, model.spec()));
  return MergeAdapter(model, std::move(adapter));
}

// The files of the model and of the adapter, both of which decide the result.
Result<SourceHash> HashWithAdapter(const Checkpoint& model, const ConvertOptions& options,
                                   const Progress* progress) {
  EW_TRY(std::vector<std::string> files, SourceFiles(model, options.tokenizer_path));
  const std::vector<std::string> adapter = AdapterFiles(options.lora);
  files.insert(files.end(), adapter.begin(), adapter.end());
  std::sort(files.begin(), files.end());
  if (options.dry_run) return PlaceholderHash(files);
  return HashFiles(files, [&] { return progress->Cancelled(); });
}

}  // namespace

Result<ConvertSummary> Convert(const std::string& in_path, const std::string& out_path,
                               const ConvertOptions& options, Progress* progress) {
  if (options.to && Info(*options.to).quantized() && *options.to != DType::kQ8_0) {
    return MakeError(Code::kInvalidArgument,
                     "convert writes f32, f16, bf16, s24_f16, s24_bf16 or q8_0; for %s use "
                     "`edgewise quantize`",
                     Info(*options.to).name);
  }
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  EW_TRY(Checkpoint checkpoint, Checkpoint::Open(in_path));
  const DType to = options.to.value_or(HalfOf(checkpoint));
  WriteJob job;
  SourceHash source;
  if (!options.lora.empty()) {
    EW_TRY(source, HashWithAdapter(checkpoint, options, progress));
    EW_TRY(checkpoint, Merge(options.lora, checkpoint));
    job.source = &source;
    job.plan.allow_requantize = true;
  }
  EW_TRY(job.plan.preset, FindPreset(Info(to).name));
  job.recipe.Set("command", "convert").Set("to", Info(to).name);
  if (!options.lora.empty()) job.recipe.Set("lora", true);
  job.rotate = options.rotate;
  job.tokenizer_path = options.tokenizer_path;
  SetRun(options, &job);
  return WriteModel(checkpoint, out_path, std::move(job), progress);
}

Result<QuantizeSummary> Quantize(const std::string& in_path, const std::string& out_path,
                                 const QuantizeOptions& options, Progress* progress) {
  EW_TRY(WriteJob job, QuantizeJob(options));
  EW_TRY(const Checkpoint model, Checkpoint::Open(in_path));
  return WriteModel(model, out_path, std::move(job), progress);
}

Result<QuantizeSummary> Quantize(const Checkpoint& model, const std::string& out_path,
                                 const QuantizeOptions& options, Progress* progress) {
  EW_TRY(WriteJob job, QuantizeJob(options));
  return WriteModel(model, out_path, std::move(job), progress);
}

Result<ConvertSummary> Prune(const std::string& in_path, const std::string& out_path,
                             const PruneJobOptions& options, Progress* progress) {
  EW_TRY(const Checkpoint model, Checkpoint::Open(in_path));
  return Prune(model, out_path, options, progress);
}

Result<ConvertSummary> Prune(const Checkpoint& model, const std::string& out_path,
                             const PruneJobOptions& options, Progress* progress) {
  EW_TRY(WriteJob job, PruneJob(model, options));
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
  WriteJob job = PackJob("pack", options);
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

namespace {

Json SizesToJson(const StructureSizes& sizes) {
  Json json;
  json.Set("layers", sizes.layers).Set("channels", sizes.channels);
  return json.Set("groups", sizes.groups).Set("neurons", sizes.neurons);
}

Json ListToJson(const std::vector<uint32_t>& values) {
  Json list{JsonArray{}};
  for (const uint32_t value : values) list.Append(value);
  return list;
}

Json LossToJson(const UnitLoss& loss) {
  Json json;
  json.Set("removed", ListToJson(loss.removed)).Set("score", loss.score);
  return json.Set("relative_error", loss.error);
}

Json StructureToJson(const StructureSummary& structure) {
  Json notes{JsonArray{}}, layers{JsonArray{}}, json;
  for (const std::string& note : structure.notes) notes.Append(note);
  for (const LayerLoss& loss : structure.layers) {
    Json row;
    row.Set("layer", loss.layer).Set("heads", LossToJson(loss.heads));
    layers.Append(row.Set("ffn", LossToJson(loss.ffn)));
  }
  json.Set("before", SizesToJson(structure.before)).Set("after", SizesToJson(structure.after));
  json.Set("notes", std::move(notes));
  json.Set("removed_layers", ListToJson(structure.removed_layers));
  json.Set("channel_score", structure.channel_score).Set("layers", std::move(layers));
  return json;
}

}  // namespace

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
    if (row.density < 1) item.Set("density", row.density);
    if (row.output_error > 0) item.Set("output_error", row.output_error);
    item.Set("rmse", row.rmse).Set("relative_rmse", row.relative_rmse).Set("reason", row.reason);
    tensors.Append(std::move(item));
  }
  Json json;
  json.Set("output", summary.output).Set("bytes", summary.bytes);
  json.Set("bits_per_weight", summary.bits_per_weight).Set("parameters", summary.parameters);
  json.Set("seconds", summary.seconds).Set("peak_rss_bytes", summary.peak_rss_bytes);
  if (summary.density < 1) json.Set("density", summary.density);
  if (summary.structure) json.Set("structure", StructureToJson(*summary.structure));
  if (summary.estimate) SetEstimate(*summary.estimate, &json);
  json.Set("source_bytes", summary.source_bytes).Set("source_sha256", summary.source_sha256);
  json.Set("scaled_inputs", summary.scaled_inputs);
  if (summary.predicted_kl > 0) json.Set("predicted_kl", summary.predicted_kl);
  json.Set("packed_tensors", summary.packing.packed).Set("left_in_rows", summary.packing.left);
  json.Set("tensors", std::move(tensors));
  return json;
}

}  // namespace edgewise
