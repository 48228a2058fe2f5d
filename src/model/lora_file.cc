#include "model/lora_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/file.h"
#include "base/strings.h"
#include "formats/safetensors_writer.h"
#include "model/arch/tensors.h"
#include "model/hf_layout.h"

namespace edgewise {
namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";
constexpr uint64_t kMaxConfigBytes = 16u << 20;
constexpr std::string_view kPeftPrefix = "base_model.model.";
constexpr std::string_view kWeight = ".weight";

// How a kind of file names the two parts of a matrix's adapter.
struct Naming {
  std::string_view a, b;  // endings
};
constexpr Naming kPeft = {".lora_A.weight", ".lora_B.weight"};
constexpr Naming kGguf = {".lora_a", ".lora_b"};

std::string PeftModule(const NeededTensor& needed) {
  return std::string(kPeftPrefix) +
         needed.hf_name.substr(0, needed.hf_name.size() - kWeight.size());
}

// The linear layers of a model by the names that a kind of file gives them.
std::unordered_map<std::string, NeededTensor> LinearLayers(const ModelSpec& spec, bool peft) {
  std::unordered_map<std::string, NeededTensor> layers;
  for (NeededTensor& needed : NeededTensors(spec)) {
    if (!needed.linear || needed.name == "token_embd.weight") continue;
    std::string name = peft ? PeftModule(needed) : needed.name;
    layers.emplace(std::move(name), std::move(needed));
  }
  return layers;
}

struct Parts {
  const TensorView *a = nullptr, *b = nullptr;
};

// The parts of each matrix, by its name in the file.
Result<std::map<std::string, Parts>> FindParts(const TensorIndex& tensors, const Naming& naming) {
  std::map<std::string, Parts> parts;
  for (const NamedTensor& tensor : tensors.all()) {
    const std::string_view name = tensor.name;
    if (name.ends_with(naming.a)) {
      parts[std::string(name.substr(0, name.size() - naming.a.size()))].a = &tensor.view;
    } else if (name.ends_with(naming.b)) {
      parts[std::string(name.substr(0, name.size() - naming.b.size()))].b = &tensor.view;
    } else {
      return MakeError(
          Code::kUnsupported, "%s: is no part of a LoRA adapter, whose tensors end in %s and %s",
          Quote(name).c_str(), std::string(naming.a).c_str(), std::string(naming.b).c_str());
    }
  }
  if (parts.empty()) return MakeError(Code::kBadData, "holds no adapters");
  return parts;
}

Result<std::vector<float>> ReadValues(const TensorView& view, const std::string& name) {
  if (Info(view.dtype).decode == nullptr) {
    return MakeError(Code::kUnsupported, "%s: an adapter in %s", Quote(name).c_str(),
                     Info(view.dtype).name);
  }
  std::vector<float> values(view.shape.elements());
  view.Decode(0, values.size(), values.data());
  if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) {
    return MakeError(Code::kBadData, "%s: holds a value that is not finite", Quote(name).c_str());
  }
  return values;
}

Result<LoraPair> ReadPair(const std::string& name, const Parts& parts, const Naming& naming,
                          const NeededTensor& needed, bool permute) {
  const std::string a_name = name + std::string(naming.a), b_name = name + std::string(naming.b);
  if (parts.a == nullptr || parts.b == nullptr) {
    return MakeError(Code::kBadData, "%s is missing beside %s",
                     Quote(parts.a ? b_name : a_name).c_str(),
                     Quote(parts.a ? a_name : b_name).c_str());
  }
  const Shape &a = parts.a->shape, &b = parts.b->shape;
  const uint64_t out = needed.shape.rows(), in = needed.shape.columns();
  if (a.rank() != 2 || b.rank() != 2 || a.columns() != in || b.rows() != out ||
      a.rows() != b.columns() || a.rows() == 0) {
    return MakeError(Code::kInvalidArgument,
                     "%s of %s and %s of %s do not fit the model's %s of %s: the adapter is of "
                     "another model",
                     Quote(a_name).c_str(), a.ToString().c_str(), Quote(b_name).c_str(),
                     b.ToString().c_str(), needed.name.c_str(), needed.shape.ToString().c_str());
  }
  LoraPair pair{.weight = needed.name, .rank = a.rows(), .in = in, .out = out, .a = {}, .b = {}};
  EW_TRY(pair.a, ReadValues(*parts.a, a_name));
  EW_TRY(pair.b, ReadValues(*parts.b, b_name));
  if (permute && needed.permuted_heads > 0) {
    pair.b = MoveHeadRows(pair.b, out, needed.permuted_heads, true);
  }
  return pair;
}

Result<LoraAdapter> ReadPairs(const TensorIndex& tensors, double alpha, const ModelSpec& spec,
                              bool peft) {
  if (!(alpha > 0 && std::isfinite(alpha))) {
    return MakeError(Code::kBadData, "LoRA's alpha must be above 0, not %g", alpha);
  }
  const Naming& naming = peft ? kPeft : kGguf;
  EW_TRY(const auto parts, FindParts(tensors, naming));
  const auto layers = LinearLayers(spec, peft);
  LoraAdapter adapter;
  adapter.alpha = alpha;
  for (const auto& [name, part] : parts) {
    const auto layer = layers.find(name);
    if (layer == layers.end()) {
      return MakeError(Code::kInvalidArgument,
                       "%s: the model has no such linear layer; the adapter is of another model",
                       Quote(name).c_str());
    }
    EW_TRY(LoraPair pair, ReadPair(name, part, naming, layer->second, peft));
    adapter.pairs.push_back(std::move(pair));
  }
  return adapter;
}

// What PEFT can do and we cannot.
Status CheckPeftConfig(const Json& config) {
  const Json* type = config.Find("peft_type");
  if (type == nullptr || !type->is_string() || *type->AsString() != "LORA") {
    return MakeError(Code::kUnsupported, "peft_type must be \"LORA\"");
  }
  for (const char* key : {"use_rslora", "use_dora", "fan_in_fan_out", "lora_bias"}) {
    const Json* value = config.Find(key);
    if (value != nullptr && value->AsBool().value_or(false)) {
      return MakeError(Code::kUnsupported, "%s: is a variant of LoRA that Edgewise lacks", key);
    }
  }
  const Json* pattern = config.Find("alpha_pattern");
  if (pattern != nullptr && pattern->is_object() && !pattern->AsObject()->empty()) {
    return MakeError(Code::kUnsupported, "alpha_pattern: Edgewise knows one alpha for all layers");
  }
  return Ok{};
}

Status WriteGguf(const LoraAdapter& adapter, const ModelSpec& spec, const std::string& path,
                 bool overwrite) {
  Metadata metadata;
  metadata.Set("general.architecture", spec.architecture);
  metadata.Set("general.type", std::string("adapter"));
  metadata.Set("adapter.type", std::string("lora"));
  metadata.Set("adapter.lora.alpha", static_cast<float>(adapter.alpha));
  std::vector<GgufTensorDecl> tensors;
  for (const LoraPair& pair : adapter.pairs) {
    tensors.push_back({pair.weight + std::string(kGguf.a), DType::kF32, Shape{pair.rank, pair.in}});
    tensors.push_back(
        {pair.weight + std::string(kGguf.b), DType::kF32, Shape{pair.out, pair.rank}});
  }
  EW_TRY(GgufWriter writer, GgufWriter::Create(path, overwrite, metadata, std::move(tensors)));
  for (const LoraPair& pair : adapter.pairs) {
    EW_TRY(writer.Write(std::as_bytes(std::span(pair.a))));
    EW_TRY(writer.Write(std::as_bytes(std::span(pair.b))));
  }
  return writer.Finish();
}

// As PEFT writes it for inference.
Json PeftConfig(const LoraAdapter& adapter, const std::vector<std::string>& modules) {
  Json config{JsonObject{}};
  config.Set("peft_type", "LORA").Set("task_type", "CAUSAL_LM");
  config.Set("base_model_name_or_path", nullptr).Set("inference_mode", true);
  config.Set("r", adapter.pairs.front().rank).Set("lora_alpha", adapter.alpha);
  config.Set("lora_dropout", 0.0).Set("bias", "none").Set("fan_in_fan_out", false);
  config.Set("modules_to_save", nullptr);
  return config.Set("target_modules", JsonArray(modules.begin(), modules.end()));
}

Status WritePeft(const LoraAdapter& adapter, const ModelSpec& spec, const std::string& folder,
                 bool overwrite) {
  std::map<std::string, NeededTensor> by_name;
  for (NeededTensor& needed : NeededTensors(spec)) by_name.emplace(needed.name, std::move(needed));
  std::vector<SafetensorsDecl> tensors;
  std::vector<std::string> modules;  // "q_proj"
  for (const LoraPair& pair : adapter.pairs) {
    const std::string module = PeftModule(by_name.at(pair.weight));
    tensors.push_back({module + std::string(kPeft.a), "F32", {pair.rank, pair.in}});
    tensors.push_back({module + std::string(kPeft.b), "F32", {pair.out, pair.rank}});
    modules.push_back(module.substr(module.rfind('.') + 1));
  }
  std::sort(modules.begin(), modules.end());
  modules.erase(std::unique(modules.begin(), modules.end()), modules.end());
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return MakeError(Code::kIo, "%s: cannot be made: %s", folder.c_str(), error.message().c_str());
  }
  EW_TRY(SafetensorsWriter writer,
         SafetensorsWriter::Create(folder + "/" + kWeightsFile, overwrite, std::move(tensors),
                                   {{"format", "pt"}}));
  for (size_t i = 0; i < adapter.pairs.size(); ++i) {
    const LoraPair& pair = adapter.pairs[i];
    const uint32_t heads = by_name.at(pair.weight).permuted_heads;
    const std::vector<float> b = heads > 0 ? MoveHeadRows(pair.b, pair.out, heads, false) : pair.b;
    EW_TRY(writer.Write(2 * i, std::as_bytes(std::span(pair.a))));
    EW_TRY(writer.Write(2 * i + 1, std::as_bytes(std::span(b))));
  }
  EW_TRY(writer.Finish());
  EW_TRY(AtomicFile config, AtomicFile::Create(folder + "/" + kConfigFile, overwrite));
  EW_TRY(config.Write(PeftConfig(adapter, modules).Dump(2) + "\n"));
  return config.Commit();
}

}  // namespace

Result<LoraAdapter> ParsePeftAdapter(const Json& config, const SafetensorsFile& file,
                                     const ModelSpec& spec) {
  EW_TRY(CheckPeftConfig(config).In(kConfigFile));
  const Json* alpha = config.Find("lora_alpha");
  if (alpha == nullptr || !alpha->is_number()) {
    return MakeError(Code::kBadData, "%s: lora_alpha is missing", kConfigFile);
  }
  return ReadPairs(file.tensors(), *alpha->AsDouble(), spec, true);
}

Result<LoraAdapter> ParseGgufAdapter(const GgufFile& file, const ModelSpec& spec) {
  const Metadata& metadata = file.metadata();
  EW_TRY(const std::string type, metadata.GetString("general.type", ""));
  EW_TRY(const std::string kind, metadata.GetString("adapter.type", ""));
  if (type != "adapter" || kind != "lora") {
    return MakeError(Code::kInvalidArgument,
                     "is no LoRA adapter: general.type is %s and adapter.type %s",
                     Quote(type).c_str(), Quote(kind).c_str());
  }
  EW_TRY(const std::string architecture, metadata.GetString("general.architecture", ""));
  if (architecture != spec.architecture) {
    return MakeError(Code::kInvalidArgument, "is an adapter of a %s, the model is a %s",
                     Quote(architecture).c_str(), Quote(spec.architecture).c_str());
  }
  EW_TRY(const double alpha, metadata.GetDouble("adapter.lora.alpha"));
  return ReadPairs(file.tensors(), alpha, spec, false);
}

std::vector<std::string> AdapterFiles(const std::string& path) {
  if (!IsDirectory(path)) return {path};
  return {path + "/" + kConfigFile, path + "/" + kWeightsFile};
}

Result<LoraAdapter> ReadAdapter(const std::string& path, const ModelSpec& spec) {
  if (!IsDirectory(path)) {
    EW_TRY(const GgufFile file, GgufFile::Open(path));
    return ParseGgufAdapter(file, spec).In(path);
  }
  EW_TRY(const std::string text, ReadFile(path + "/" + kConfigFile, kMaxConfigBytes));
  EW_TRY(const Json config, ParseJson(text).In(path + "/" + kConfigFile));
  EW_TRY(const SafetensorsFile file, SafetensorsFile::Open(path + "/" + kWeightsFile));
  return ParsePeftAdapter(config, file, spec).In(path);
}

Status WriteAdapter(const LoraAdapter& adapter, const ModelSpec& spec, const std::string& path,
                    bool overwrite) {
  return path.ends_with(".gguf") ? WriteGguf(adapter, spec, path, overwrite)
                                 : WritePeft(adapter, spec, path, overwrite);
}

}  // namespace edgewise
