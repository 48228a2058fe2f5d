#include "model/arch/arch.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/strings.h"

namespace edgewise {
namespace {

constexpr const Architecture* kAll[] = {&kLlama, &kPhi3, &kQwen2, &kQwen3, &kGemma2, &kGemma3};

std::string KnownNames() {
  std::vector<std::string> names;
  for (const Architecture* row : kAll) names.emplace_back(row->name);
  return Join(names, ", ");
}

bool Contains(std::span<const char* const> names, std::string_view name) {
  return std::any_of(names.begin(), names.end(), [&](const char* each) { return name == each; });
}

struct Range {
  const char* what;
  uint64_t value, low, high;
};

Status CheckRange(const Range& range) {
  if (range.value >= range.low && range.value <= range.high) return Ok{};
  return MakeError(Code::kBadData, "%s is %llu; %llu to %llu is possible", range.what,
                   static_cast<unsigned long long>(range.value),
                   static_cast<unsigned long long>(range.low),
                   static_cast<unsigned long long>(range.high));
}

Status CheckPositive(const char* what, float value) {
  if (std::isfinite(value) && value > 0) return Ok{};
  return MakeError(Code::kBadData, "%s is %g; it must be finite and above 0", what,
                   static_cast<double>(value));
}

Status CheckFactors(const char* what, const std::vector<float>& factors, size_t expected) {
  if (factors.size() != expected) {
    return MakeError(Code::kBadData, "%s has %zu values; half the rotary dimension is %zu", what,
                     factors.size(), expected);
  }
  for (const float factor : factors) EW_TRY(CheckPositive(what, factor));
  return Ok{};
}

Status CheckRope(const ModelSpec& spec) {
  const RopeSpec& rope = spec.rope;
  EW_TRY(CheckRange({"the rotary dimension", rope.rotary_dim, 2, spec.head_dim}));
  if (rope.rotary_dim % 2 != 0) {
    return MakeError(Code::kBadData, "the rotary dimension %u is odd", rope.rotary_dim);
  }
  EW_TRY(CheckPositive("the RoPE base", rope.base));
  EW_TRY(CheckPositive("the RoPE scaling factor", rope.factor));
  EW_TRY(CheckPositive("the RoPE attention factor", rope.attention_factor));
  const size_t pairs = rope.rotary_dim / 2;
  if (!rope.frequency_factors.empty()) {
    EW_TRY(CheckFactors("rope_freqs", rope.frequency_factors, pairs));
  }
  if (rope.scaling == RopeScalingKind::kLlama3 || rope.scaling == RopeScalingKind::kYarn ||
      rope.scaling == RopeScalingKind::kLongRope) {
    EW_TRY(CheckRange({"the original context length", rope.original_context, 1, 1u << 30}));
  }
  if (rope.scaling == RopeScalingKind::kLlama3) {
    EW_TRY(CheckPositive("low_freq_factor", rope.low_freq_factor));
    EW_TRY(CheckPositive("high_freq_factor minus low_freq_factor",
                         rope.high_freq_factor - rope.low_freq_factor));
  }
  if (rope.scaling == RopeScalingKind::kYarn) {
    EW_TRY(CheckPositive("beta_fast", rope.beta_fast));
    EW_TRY(CheckPositive("beta_slow", rope.beta_slow));
    EW_TRY(CheckPositive("the RoPE base minus 1", rope.base - 1));
  }
  if (rope.scaling == RopeScalingKind::kLongRope) {
    EW_TRY(CheckFactors("short_factor", rope.short_factors, pairs));
    EW_TRY(CheckFactors("long_factor", rope.long_factors, pairs));
  }
  return Ok{};
}

Status CheckNotNegative(const char* what, float value) {
  if (std::isfinite(value) && value >= 0) return Ok{};
  return MakeError(Code::kBadData, "%s is %g; it must be finite and not negative", what,
                   static_cast<double>(value));
}

}  // namespace

std::span<const Architecture* const> AllArchitectures() { return kAll; }

Result<const Architecture*> FindArchitecture(std::string_view gguf_name) {
  for (const Architecture* row : kAll) {
    if (gguf_name == row->name) return row;
  }
  return MakeError(Code::kUnsupported, "architecture %s is not supported; these are: %s",
                   Quote(gguf_name).c_str(), KnownNames().c_str());
}

Result<const Architecture*> ArchitectureOfConfig(const Json& config) {
  const Json* type = config.Find("model_type");
  const std::string* type_name = type ? type->AsString() : nullptr;
  const Json* classes = config.Find("architectures");
  const JsonArray* class_list = classes ? classes->AsArray() : nullptr;
  const std::string* class_name =
      class_list && !class_list->empty() ? class_list->front().AsString() : nullptr;
  if (!type_name && !class_name) {
    return MakeError(Code::kBadData, "config.json: neither architectures nor model_type is there");
  }
  for (const Architecture* row : kAll) {
    if (class_name ? Contains(row->class_names, *class_name)
                   : Contains(row->model_types, *type_name)) {
      return row;
    }
  }
  return MakeError(Code::kUnsupported,
                   "config.json: model class %s is not supported; these families are: %s",
                   Quote(class_name ? *class_name : *type_name).c_str(), KnownNames().c_str());
}

Status CheckSpec(const ModelSpec& spec) {
  EW_TRY(CheckRange({"the number of layers", spec.n_layers, 1, 1u << 12}));
  EW_TRY(CheckRange({"the embedding size", spec.dim, 1, 1u << 24}));
  EW_TRY(CheckRange({"the number of heads", spec.n_heads, 1, 1u << 13}));
  EW_TRY(CheckRange({"the number of key/value heads", spec.n_kv_heads, 1, spec.n_heads}));
  EW_TRY(CheckRange({"the head size", spec.head_dim, 1, 1u << 13}));
  EW_TRY(CheckRange({"the feed-forward size", spec.ffn_dim, 1, 1u << 24}));
  EW_TRY(CheckRange({"the vocabulary size", spec.vocab_size, 1, 1u << 27}));
  EW_TRY(CheckRange({"the context length", spec.context_length, 1, 1u << 30}));
  EW_TRY(CheckRange({"the sliding period", spec.sliding_period, 1, 1u << 12}));
  if (spec.n_heads % spec.n_kv_heads != 0) {
    return MakeError(Code::kBadData, "%u heads cannot share %u key/value heads evenly",
                     spec.n_heads, spec.n_kv_heads);
  }
  EW_TRY(CheckNotNegative("the norm epsilon", spec.norm_eps));
  EW_TRY(CheckNotNegative("the attention scale", spec.attention_scale));
  EW_TRY(CheckNotNegative("the attention softcap", spec.attention_softcap));
  EW_TRY(CheckNotNegative("the logit softcap", spec.logit_softcap));
  EW_TRY(CheckNotNegative("the local RoPE base", spec.local_rope_base));
  return CheckRope(spec);
}

}  // namespace edgewise
