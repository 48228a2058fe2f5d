#include "compress/quantize/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "base/strings.h"
#include "compress/quantize/pattern.h"

namespace edgewise {
namespace {

// Parts of the names of matrices that llama.cpp never quantizes (tensor_allows_quantization), as
// far as our families have them.
constexpr std::string_view kFloatParts[] = {
    "_norm.weight",        "ffn_gate_inp.weight", "ssm_conv1d", "shortconv.conv.weight",
    "attn_rel_b.weight",   ".position_embd",      "altup",      "laurel",
    "per_layer_model_proj"};
constexpr std::string_view kFloatNames[] = {"position_embd.weight", "token_types.weight",
                                            "rope_freqs.weight", "rope_factors_long.weight",
                                            "rope_factors_short.weight"};

// Why a tensor is stored as plain numbers whatever the preset; null when it may be quantized.
const char* WhyFloat(const CheckpointTensor& tensor) {
  const DTypeInfo& from = Info(tensor.dtype);
  if (from.encode == nullptr && tensor.dtype != DType::kF64) return "integers";
  if (tensor.shape.rows() < 2) return "vector";
  if (!tensor.name.ends_with(".weight")) return "not a weight matrix";
  for (std::string_view part : kFloatParts) {
    if (tensor.name.find(part) != std::string::npos) return "small and sensitive";
  }
  for (std::string_view name : kFloatNames) {
    if (tensor.name == name) return "small and sensitive";
  }
  return nullptr;
}

// The layer in "blk.12.ffn_down.weight", or a number past all layers.
uint32_t LayerOf(std::string_view name) {
  if (!name.starts_with("blk.")) return UINT32_MAX;
  name.remove_prefix(4);
  const auto layer = ParseInt(name.substr(0, name.find('.')));
  return layer && *layer >= 0 && *layer < UINT32_MAX ? static_cast<uint32_t>(*layer) : UINT32_MAX;
}

// llama.cpp's choice for rows that the block does not divide (tensor_type_fallback); for sparse
// formats the dense ones of as many bits per value.
DType FallbackOf(DType type) {
  switch (type) {
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kS24_Q4:
    case DType::kBM_Q4:
      return DType::kQ4_0;
    case DType::kIQ4_XS:
      return DType::kIQ4_NL;
    case DType::kQ4_K:
      return DType::kQ5_0;
    case DType::kQ5_K:
      return DType::kQ5_1;
    case DType::kQ6_K:
    case DType::kS24_Q8:
    case DType::kBM_Q8:
      return DType::kQ8_0;
    case DType::kS24_BF16:
      return DenseOf(type);
    default:
      return DType::kF16;
  }
}

// Gives `plan` the type `wanted` or what fits its rows instead.
void SetFittingType(DType wanted, const char* why, TensorPlan* plan) {
  const uint64_t columns = plan->shape.columns();
  DType type = wanted;
  while (columns % Info(type).block != 0) type = FallbackOf(type);
  plan->to = type;
  plan->reason = why;
  if (type == wanted) return;
  if (!plan->reason.empty()) plan->reason += "; ";
  plan->reason +=
      Format("%u does not divide the row of %llu, so %s instead of %s", Info(wanted).block,
             static_cast<unsigned long long>(columns), Info(type).name, Info(wanted).name);
}

struct CompiledOverride {
  Pattern pattern;
  const TypeOverride* source;
  bool used = false;
};

Result<std::vector<CompiledOverride>> Compile(const std::vector<TypeOverride>& overrides) {
  std::vector<CompiledOverride> compiled;
  for (const TypeOverride& item : overrides) {
    if (Info(item.type).encode == nullptr) {
      return MakeError(Code::kInvalidArgument,
                       "%s cannot be written, so it cannot be asked for with --tensor-type",
                       Info(item.type).name);
    }
    EW_TRY(Pattern pattern, Pattern::Parse(item.pattern));
    compiled.push_back({std::move(pattern), &item});
  }
  return compiled;
}

// Positions of the tensors among those of their role, in layer order.
std::vector<MixPosition> Positions(std::span<const CheckpointTensor> tensors, const ModelSpec& spec,
                                   const PlanOptions& options) {
  std::vector<MixPosition> positions(tensors.size());
  std::vector<size_t> order(tensors.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(LayerOf(tensors[a].name), a) < std::pair(LayerOf(tensors[b].name), b);
  });
  const bool tied = std::none_of(tensors.begin(), tensors.end(),
                                 [](const auto& t) { return t.name == "output.weight"; });
  uint32_t counts[8] = {};
  for (size_t i : order) {
    MixPosition& at = positions[i];
    at.role = RoleOf(tensors[i].name);
    at.index = counts[static_cast<size_t>(at.role)]++;
    at.group_size = spec.n_kv_heads == 0 ? 1 : spec.n_heads / spec.n_kv_heads;
    at.large_gqa =
        spec.n_layers == 80 && (spec.architecture != "llama" || spec.n_heads != spec.n_kv_heads);
    at.tied = tied;
    at.has_importance = options.has_importance;
    at.columns = tensors[i].shape.columns();
  }
  for (MixPosition& at : positions) {
    at.count =
        at.role == TensorRole::kFfnDown ? spec.n_layers : counts[static_cast<size_t>(at.role)];
  }
  return positions;
}

// The type of a matrix that may be quantized.
void ChooseType(const MixPosition& at, const PlanOptions& options,
                std::vector<CompiledOverride>* overrides, TensorPlan* plan) {
  const DType usual = options.preset->type;
  CompiledOverride* chosen = nullptr;
  for (CompiledOverride& item : *overrides) {
    if (!item.pattern.FoundIn(plan->name)) continue;
    item.used = true;
    if (chosen == nullptr) chosen = &item;
  }
  if (options.embedding_type && at.role == TensorRole::kTokenEmbedding) {
    SetFittingType(*options.embedding_type, "asked for the token embedding", plan);
  } else if (options.output_type && (at.role == TensorRole::kOutput ||
                                     (at.role == TensorRole::kTokenEmbedding && at.tied))) {
    SetFittingType(*options.output_type, "asked for the output matrix", plan);
  } else if (chosen != nullptr) {
    SetFittingType(chosen->source->type,
                   Format("override %s", Quote(chosen->source->pattern).c_str()).c_str(), plan);
  } else if (options.pure) {
    SetFittingType(usual, "", plan);
  } else {
    const DType type = MixType(*options.preset, at);
    const bool output = at.role == TensorRole::kOutput || at.role == TensorRole::kTokenEmbedding;
    SetFittingType(type, type == usual ? "" : output ? "output matrix" : "sensitive layer", plan);
  }
}

}  // namespace

Result<DType> ParseFormat(std::string_view name) {
  if (const auto type = DTypeFromName(name); type && Info(*type).encode) return *type;
  std::vector<std::string> names;
  for (const DTypeInfo& info : AllDTypes()) {
    if (info.encode) names.emplace_back(info.name);
  }
  return MakeError(Code::kInvalidArgument, "unknown format %s; known are %s", Quote(name).c_str(),
                   Join(names, ", ").c_str());
}

Result<TypeOverride> ParseTypeOverride(std::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string_view::npos || equals == 0) {
    return MakeError(Code::kInvalidArgument,
                     "%s is not of the form PATTERN=FORMAT, as in attn_v=q8_0",
                     Quote(text).c_str());
  }
  EW_TRY(const DType type, ParseFormat(text.substr(equals + 1)).In(Quote(text)));
  TypeOverride result{std::string(text.substr(0, equals)), type};
  EW_TRY(Pattern checked, Pattern::Parse(result.pattern));
  return result;
}

Result<std::vector<TensorPlan>> PlanQuantization(std::span<const CheckpointTensor> tensors,
                                                 const ModelSpec& spec, bool source_is_gguf,
                                                 const PlanOptions& options) {
  EW_CHECK(options.preset != nullptr);
  EW_TRY(auto overrides, Compile(options.overrides));
  const auto positions = Positions(tensors, spec, options);
  std::vector<TensorPlan> plans;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const CheckpointTensor& tensor = tensors[i];
    TensorPlan plan{i, tensor.name, tensor.shape, tensor.dtype, tensor.dtype, "", {}, 0};
    const DTypeInfo& from = Info(tensor.dtype);
    if (const char* why = WhyFloat(tensor)) {
      const bool keep = source_is_gguf || (from.encode == nullptr && tensor.dtype != DType::kF64);
      plan.to = keep ? tensor.dtype : DType::kF32;
      plan.reason = why;
    } else if (options.leave_output && tensor.name == "output.weight") {
      plan.reason = "left as it is";
    } else {
      ChooseType(positions[i], options, &overrides, &plan);
    }
    if (plan.to != plan.from && from.quantized() && Info(plan.to).quantized() &&
        !options.allow_requantize) {
      return MakeError(
          Code::kInvalidArgument,
          "tensor %s is quantized already (%s); quantizing it again to %s loses more than "
          "quantizing the "
          "original would. Start from an f16, bf16 or f32 model, or pass --allow-requantize",
          tensor.name.c_str(), from.name, Info(plan.to).name);
    }
    plans.push_back(std::move(plan));
  }
  for (const CompiledOverride& item : overrides) {
    if (item.used) continue;
    return MakeError(
        Code::kInvalidArgument,
        "the override %s=%s matches no tensor that can be quantized; `inspect` lists the names",
        item.source->pattern.c_str(), Info(item.source->type).name);
  }
  return plans;
}

uint32_t FileTypeOf(std::span<const TensorPlan> plan) {
  std::unordered_map<DType, uint64_t> weights;
  for (const TensorPlan& entry : plan) weights[entry.to] += entry.shape.elements();
  const Preset* most = &AllPresets().front();
  for (const Preset& preset : AllPresets()) {
    if (weights[preset.type] > weights[most->type]) most = &preset;
  }
  return most->file_type;
}

}  // namespace edgewise
