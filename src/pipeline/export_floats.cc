#include "pipeline/export_floats.h"

#include <filesystem>
#include <span>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/strings.h"
#include "compress/quantize/quantize.h"
#include "formats/metadata.h"
#include "formats/safetensors_writer.h"
#include "model/arch/arch.h"
#include "model/arch/tensors.h"
#include "model/checkpoint.h"
#include "model/hf_layout.h"
#include "pipeline/hf_output.h"
#include "quant/encodable.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxConfigBytes = 1u << 20;

// Where the config.json and the tokenizer's files come from.
struct Companions {
  std::string config;     // a file
  std::string tokenizer;  // a folder
};

Result<Companions> FindCompanions(const Checkpoint& model, const ExportOptions& options) {
  const bool folder = model.kind() == CheckpointKind::kHfFolder;
  if (!folder && (options.config.empty() || options.tokenizer.empty())) {
    return MakeError(Code::kInvalidArgument,
                     "%s: brings no config.json and no tokenizer files: name those of the model "
                     "that it was made from with --config and --tokenizer",
                     model.path().c_str());
  }
  Companions found = {options.config.empty() ? model.path() : options.config,
                      options.tokenizer.empty() ? model.path() : options.tokenizer};
  if (IsDirectory(found.config)) found.config += "/config.json";
  if (!HoldsTokenizer(found.tokenizer)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: no folder with the files of a tokenizer (tokenizer.json, ...)",
                     found.tokenizer.c_str());
  }
  return found;
}

// All keys of `a` are in `b`, with the same values.
Status CheckKeys(const std::string& path, const Metadata& a, const char* verb, const Metadata& b,
                 const char* other) {
  for (const auto& [key, value] : a.all()) {
    const MetaValue* found = b.Find(key);
    if (found != nullptr && *found == value) continue;
    return MakeError(Code::kInvalidArgument, "%s: %s %s for %s, and %s %s", path.c_str(), verb,
                     Describe(value).c_str(), key.c_str(), other,
                     found == nullptr ? "nothing" : Describe(*found).c_str());
  }
  return Ok{};
}

// Both describe the same model: its tensors, and what its architecture's keys say.
Status CheckConfig(const Checkpoint& config, const Checkpoint& model) {
  const std::string& path = config.path();
  if (config.spec().architecture != model.spec().architecture) {
    return MakeError(Code::kInvalidArgument, "%s: describes a %s, and the model is a %s",
                     path.c_str(), config.spec().architecture.c_str(),
                     model.spec().architecture.c_str());
  }
  for (const NeededTensor& needed : NeededTensors(config.spec())) {
    const auto index = model.Find(needed.name);
    if (!index) {
      return MakeError(Code::kInvalidArgument, "%s: describes %s, which the model lacks",
                       path.c_str(), needed.name.c_str());
    }
    const Shape& shape = model.tensors()[*index].shape;
    if (shape == needed.shape) continue;
    return MakeError(Code::kInvalidArgument, "%s: describes %s as %s, and the model has it as %s",
                     path.c_str(), needed.name.c_str(), needed.shape.ToString().c_str(),
                     shape.ToString().c_str());
  }
  for (const CheckpointTensor& tensor : model.tensors()) {
    if (config.Find(tensor.name)) continue;
    return MakeError(Code::kInvalidArgument, "%s: does not describe %s, which the model has",
                     path.c_str(), tensor.name.c_str());
  }
  // Both as one writer tells them, whoever wrote the model.
  EW_TRY(const Architecture* architecture, FindArchitecture(model.spec().architecture));
  Metadata wanted, has;
  architecture->write_keys(config.spec(), &wanted);
  architecture->write_keys(model.spec(), &has);
  EW_TRY(CheckKeys(path, wanted, "says", has, "the model"));
  return CheckKeys(path, has, "does not say", wanted, "it");
}

Status WriteTensors(const Checkpoint& model, DType type, bool overwrite, Progress* progress,
                    ExportSummary* summary) {
  const DTypeInfo& info = Info(type);
  std::vector<NeededTensor> tensors;
  std::vector<SafetensorsDecl> declarations;
  uint64_t done = 0;
  for (NeededTensor& needed : NeededTensors(model.spec())) {
    if (needed.hf_name.empty()) continue;  // made from config.json
    declarations.push_back(DeclareTensor(needed, type));
    summary->parameters += needed.shape.elements();
    tensors.push_back(std::move(needed));
  }
  EW_TRY(auto writer, SafetensorsWriter::Create(summary->output + "/model.safetensors", overwrite,
                                                std::move(declarations), {{"format", "pt"}}));
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (progress->Cancelled()) return MakeError(Code::kCancelled, "stopped; no model was written");
    const NeededTensor& tensor = tensors[i];
    EW_TRY(const std::vector<float> values, LoadForHf(model, tensor));
    const EncodeProblem problem = FindEncodeProblem(type, values.data(), values.size());
    if (problem.fault != EncodeFault::kNone) {
      return EncodingError(tensor.hf_name, tensor.shape.columns(), type, problem);
    }
    std::vector<std::byte> bytes(info.RowBytes(values.size()));
    info.encode(values.data(), nullptr, bytes.data(), values.size());
    EW_TRY(writer.Write(i, bytes));
    done += values.size();
    progress->Update("writing", done, summary->parameters);
  }
  summary->bytes = writer.total_bytes();
  return writer.Finish();
}

// The weights come first and config.json last, as in an export of quantized layers.
Status WriteFolder(const Checkpoint& model, const Companions& from, DType type, bool overwrite,
                   Progress* progress, ExportSummary* summary) {
  EW_TRY(const std::string text, ReadFile(from.config, kMaxConfigBytes));
  EW_TRY(const Json given, ParseJson(text).In(from.config));
  const char* name = type == DType::kF32 ? "float32" : type == DType::kF16 ? "float16" : "bfloat16";
  Json config{JsonObject{}};
  for (const auto& [key, value] : *given.AsObject()) {
    if (key == "quantization_config") continue;
    config.Set(key, key == "dtype" ? Json(name) : value);  // as newer versions call it
  }
  config.Set("torch_dtype", name);
  EW_TRY(WriteTensors(model, type, overwrite, progress, summary).In(model.path()));
  EW_TRY(CopyTokenizerFiles(from.tokenizer, summary->output, overwrite));
  return FinishFolder(summary->output, config, overwrite);
}

}  // namespace

bool IsFloatExport(std::string_view to) { return to == "f32" || to == "f16" || to == "bf16"; }

Status ExportFloats(const std::string& in_path, const ExportOptions& options, Progress* progress,
                    ExportSummary* summary) {
  if (options.bits != 4 || options.group_size != 128 || options.asymmetric) {
    return MakeError(Code::kInvalidArgument,
                     "bits, group size and zero points are those of quantized layers, and %s has "
                     "none; leave them out",
                     options.to.c_str());
  }
  EW_TRY(const Checkpoint model, Checkpoint::Open(in_path));
  EW_TRY(const Companions from, FindCompanions(model, options));
  EW_TRY(const Checkpoint config, Checkpoint::FromConfig(from.config));
  EW_TRY(CheckConfig(config, model));
  const std::string config_folder = std::filesystem::path(from.config).parent_path().string();
  for (const std::string& input : {in_path, from.tokenizer, config_folder}) {
    EW_TRY(CheckFolderOutput(input, summary->output, options.overwrite));
  }
  const DType type = *DTypeFromName(options.to);
  summary->bits_per_weight = Info(type).bits_per_weight();
  return WriteInFolder(summary->output, [&] {
    return WriteFolder(model, from, type, options.overwrite, progress, summary);
  });
}

}  // namespace edgewise
