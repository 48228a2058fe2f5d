#include "model/arch/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "model/arch/sliding.h"
#include "model/rope.h"

namespace edgewise {
namespace {

Error Missing(const char* key) {
  return MakeError(Code::kBadData, "config.json: \"%s\" is missing", key);
}

Error Mistyped(const char* key, const char* wanted, const Json& value) {
  return MakeError(Code::kBadData, "config.json: \"%s\" must be %s, but is %s", key, wanted,
                   Quote(value.Dump()).c_str());
}

Result<std::vector<float>> ReadFactors(const ConfigReader& params, const char* key) {
  const Json* value = params.Find(key);
  if (!value) return Missing(key);
  const JsonArray* items = value->AsArray();
  if (!items) return Mistyped(key, "an array of numbers", *value);
  std::vector<float> factors;
  for (const Json& item : *items) {
    const auto number = item.AsDouble();
    if (!number) return Mistyped(key, "an array of numbers", *value);
    factors.push_back(static_cast<float>(*number));
  }
  return factors;
}

// Where the original context length may stand: with the scaling, or at the top of the file.
Result<uint32_t> OriginalContext(const ConfigReader& config, const ConfigReader& params,
                                 uint32_t fallback) {
  constexpr const char* kKey = "original_max_position_embeddings";
  return params.Find(kKey) ? params.Uint(kKey) : config.Uint(kKey, fallback);
}

Status ReadLlama3(const ConfigReader& config, const ConfigReader& params, RopeSpec* rope) {
  rope->scaling = RopeScalingKind::kLlama3;
  EW_TRY(rope->factor, params.Float("factor", 8.0f));
  EW_TRY(rope->low_freq_factor, params.Float("low_freq_factor", 1.0f));
  EW_TRY(rope->high_freq_factor, params.Float("high_freq_factor", 4.0f));
  EW_TRY(rope->original_context, OriginalContext(config, params, 8192));
  return Ok{};
}

Status ReadYarn(const ConfigReader& config, const ConfigReader& params, uint32_t context,
                RopeSpec* rope) {
  rope->scaling = RopeScalingKind::kYarn;
  EW_TRY(rope->factor, params.Float("factor"));
  EW_TRY(rope->original_context, OriginalContext(config, params, context));
  EW_TRY(rope->beta_fast, params.Float("beta_fast", 32.0f));
  EW_TRY(rope->beta_slow, params.Float("beta_slow", 1.0f));
  EW_TRY(const bool truncate, params.Bool("truncate", true));
  if (!truncate) {
    return MakeError(Code::kUnsupported, "config.json: YaRN with \"truncate\": false");
  }
  double attention = YarnAttentionFactor(rope->factor);
  EW_TRY(const float mscale, params.Float("mscale", 0.0f));
  EW_TRY(const float mscale_all, params.Float("mscale_all_dim", 0.0f));
  if (mscale != 0 && mscale_all != 0) {
    attention =
        YarnAttentionFactor(rope->factor, mscale) / YarnAttentionFactor(rope->factor, mscale_all);
  }
  EW_TRY(rope->attention_factor, params.Float("attention_factor", static_cast<float>(attention)));
  return Ok{};
}

Status ReadLongRope(const ConfigReader& config, const ConfigReader& params, uint32_t context,
                    RopeSpec* rope) {
  rope->scaling = RopeScalingKind::kLongRope;
  EW_TRY(rope->short_factors, ReadFactors(params, "short_factor"));
  EW_TRY(rope->long_factors, ReadFactors(params, "long_factor"));
  EW_TRY(rope->original_context, OriginalContext(config, params, context));
  const double original = rope->original_context;
  const double scale = context / original;
  const double attention =
      scale > 1.0 ? std::sqrt(1.0 + std::log(scale) / std::log(original)) : 1.0;
  EW_TRY(rope->attention_factor, params.Float("attention_factor", static_cast<float>(attention)));
  return Ok{};
}

Status ReadRopeScaling(const ConfigReader& config, const ConfigReader& params, uint32_t context,
                       RopeSpec* rope) {
  EW_TRY(const std::string old_name, params.String("type", "default"));
  EW_TRY(const std::string type, params.String("rope_type", old_name));
  if (type == "default") return Ok{};
  if (type == "linear") {
    rope->scaling = RopeScalingKind::kLinear;
    EW_TRY(rope->factor, params.Float("factor"));
    return Ok{};
  }
  if (type == "llama3") return ReadLlama3(config, params, rope);
  if (type == "yarn") return ReadYarn(config, params, context, rope);
  if (type == "longrope" || type == "su") return ReadLongRope(config, params, context, rope);
  return MakeError(Code::kUnsupported,
                   "config.json: RoPE scaling %s is not supported; linear, llama3, yarn and "
                   "longrope are",
                   Quote(type).c_str());
}

// Reads "rope_parameters" (either one object, or one per layer type), "rope_scaling" and the older
// keys beside them.
Status ReadRope(const ConfigReader& config, float default_base, ModelSpec* spec) {
  static const Json kNothing = Json(JsonObject{});
  const Json* found = config.Find("rope_parameters");
  if (!found) found = config.Find("rope_scaling");
  const Json& all = found ? *found : kNothing;
  const Json* full = all.Find("full_attention");
  const ConfigReader params(full && full->is_object() ? *full : all);
  RopeSpec& rope = spec->rope;
  EW_TRY(const float base, config.Float("rope_theta", default_base));
  EW_TRY(rope.base, params.Float("rope_theta", base));
  EW_TRY(const float share, config.Float("partial_rotary_factor", 1.0f));
  EW_TRY(const float rotary_share, params.Float("partial_rotary_factor", share));
  if (!(rotary_share > 0 && rotary_share <= 1)) {
    return MakeError(Code::kBadData, "config.json: partial_rotary_factor is %g",
                     static_cast<double>(rotary_share));
  }
  rope.rotary_dim = static_cast<uint32_t>(static_cast<double>(rotary_share) * spec->head_dim);
  EW_TRY(spec->local_rope_base, config.Float("rope_local_base_freq", 0.0f));
  if (const Json* sliding = all.Find("sliding_attention"); sliding && sliding->is_object()) {
    EW_TRY(spec->local_rope_base, ConfigReader(*sliding).Float("rope_theta", base));
  }
  return ReadRopeScaling(config, params, spec->context_length, &rope);
}

}  // namespace

const Json* ConfigReader::Find(std::string_view key) const {
  const Json* value = config_->Find(key);
  return value && !value->is_null() ? value : nullptr;
}

Result<uint32_t> ConfigReader::Uint(const char* key, std::optional<uint32_t> fallback) const {
  const Json* value = Find(key);
  if (!value) {
    if (fallback) return *fallback;
    return Missing(key);
  }
  const auto number = value->AsUint();
  if (!number || *number > std::numeric_limits<uint32_t>::max()) {
    return Mistyped(key, "a whole number below 2^32", *value);
  }
  return static_cast<uint32_t>(*number);
}

Result<float> ConfigReader::Float(const char* key, std::optional<float> fallback) const {
  const Json* value = Find(key);
  if (!value) {
    if (fallback) return *fallback;
    return Missing(key);
  }
  const auto number = value->AsDouble();
  if (!number || std::abs(*number) > std::numeric_limits<float>::max()) {
    return Mistyped(key, "a number", *value);
  }
  return static_cast<float>(*number);
}

Result<bool> ConfigReader::Bool(const char* key, bool fallback) const {
  const Json* value = Find(key);
  if (!value) return fallback;
  const auto flag = value->AsBool();
  if (!flag) return Mistyped(key, "true or false", *value);
  return *flag;
}

Result<std::string> ConfigReader::String(const char* key, std::string fallback) const {
  const Json* value = Find(key);
  if (!value) return fallback;
  const std::string* text = value->AsString();
  if (!text) return Mistyped(key, "a string", *value);
  return *text;
}

Result<ModelSpec> ReadCommonConfig(const ConfigReader& config, const ConfigDefaults& defaults) {
  ModelSpec spec;
  EW_TRY(spec.n_layers, config.Uint("num_hidden_layers"));
  EW_TRY(spec.dim, config.Uint("hidden_size"));
  EW_TRY(spec.n_heads, config.Uint("num_attention_heads", defaults.n_heads));
  EW_TRY(spec.n_kv_heads,
         config.Uint("num_key_value_heads", defaults.n_kv_heads.value_or(spec.n_heads)));
  if (!config.Find("head_dim") && !defaults.head_dim &&
      (spec.n_heads == 0 || spec.dim % spec.n_heads != 0)) {
    return MakeError(Code::kBadData,
                     "config.json: hidden_size %u is no multiple of num_attention_heads %u and "
                     "head_dim is missing",
                     spec.dim, spec.n_heads);
  }
  const uint32_t shared = spec.n_heads == 0 ? 0 : spec.dim / spec.n_heads;
  EW_TRY(spec.head_dim, config.Uint("head_dim", defaults.head_dim.value_or(shared)));
  EW_TRY(spec.ffn_dim, config.Uint("intermediate_size"));
  EW_TRY(spec.vocab_size, config.Uint("vocab_size", defaults.vocab_size));
  EW_TRY(spec.context_length, config.Uint("max_position_embeddings", defaults.context_length));
  EW_TRY(spec.norm_eps, config.Float("rms_norm_eps", defaults.norm_eps));
  EW_TRY(spec.tied_embeddings, config.Bool("tie_word_embeddings", defaults.tied_embeddings));
  EW_TRY(ReadRope(config, defaults.rope_base, &spec));
  return spec;
}

Status ExpectActivation(const ConfigReader& config, const char* key, const char* name,
                        const char* other) {
  EW_TRY(const std::string found, config.String(key, name));
  if (found == name || (other && found == other)) return Ok{};
  return MakeError(Code::kUnsupported, "config.json: \"%s\" is %s; only %s is supported", key,
                   Quote(found).c_str(), name);
}

Status ExpectScaling(const ModelSpec& spec, std::initializer_list<RopeScalingKind> kinds) {
  if (spec.rope.scaling == RopeScalingKind::kNone ||
      std::find(kinds.begin(), kinds.end(), spec.rope.scaling) != kinds.end()) {
    return Ok{};
  }
  return MakeError(Code::kUnsupported,
                   "config.json: this kind of RoPE scaling is not supported in a %s",
                   spec.architecture.c_str());
}

Status ExpectFalse(const ConfigReader& config, const char* key, const char* what) {
  EW_TRY(const bool set, config.Bool(key, false));
  if (!set) return Ok{};
  return MakeError(Code::kUnsupported, "config.json: \"%s\" is true: %s", key, what);
}

Status ReadLayerTypes(const ConfigReader& config, uint32_t window, uint32_t default_period,
                      ModelSpec* spec) {
  const Json* value = config.Find("layer_types");
  if (!value) {
    SetSliding(window, default_period, spec);
    return Ok{};
  }
  const JsonArray* names = value->AsArray();
  if (!names || names->size() != spec->n_layers) {
    return Mistyped("layer_types", "an array with one name per layer", *value);
  }
  std::vector<bool> slides;
  for (const Json& item : *names) {
    const std::string* name = item.AsString();
    if (!name || (*name != "sliding_attention" && *name != "full_attention")) {
      return MakeError(Code::kUnsupported, "config.json: layer type %s",
                       Quote(item.Dump()).c_str());
    }
    slides.push_back(*name == "sliding_attention");
  }
  return SetSlidingPattern(slides, window, default_period, spec);
}

}  // namespace edgewise
