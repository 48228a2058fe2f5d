#include "model/arch/keys.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/strings.h"
#include "model/arch/sliding.h"
#include "model/rope.h"

namespace edgewise {
namespace {

// Reads a 1-D tensor of factors. Its values count as untrusted; CheckSpec looks at them.
std::vector<float> ReadFactors(const TensorIndex& tensors, const char* name) {
  const TensorView* view = tensors.Find(name);
  if (!view || view->shape.rank() != 1 || view->shape.columns() > (1u << 13)) return {};
  std::vector<float> factors(view->shape.columns());
  view->DecodeRow(0, factors.data());
  return factors;
}

Status ReadYarnKeys(const ArchKeys& keys, ModelSpec* spec) {
  RopeSpec& rope = spec->rope;
  rope.scaling = RopeScalingKind::kYarn;
  EW_TRY(rope.factor, keys.Float("rope.scaling.factor"));
  EW_TRY(rope.beta_fast, keys.Float("rope.scaling.yarn_beta_fast", 32.0f));
  EW_TRY(rope.beta_slow, keys.Float("rope.scaling.yarn_beta_slow", 1.0f));
  EW_TRY(const float extrapolation, keys.Float("rope.scaling.yarn_ext_factor", 1.0f));
  EW_TRY(const float log_multiplier, keys.Float("rope.scaling.yarn_log_multiplier", 0.0f));
  if (extrapolation != 1.0f || log_multiplier != 0.0f) {
    return MakeError(Code::kUnsupported,
                     "YaRN with rope.scaling.yarn_ext_factor or yarn_log_multiplier");
  }
  const float standard = static_cast<float>(YarnAttentionFactor(rope.factor));
  EW_TRY(const float attention, keys.Float("rope.scaling.yarn_attn_factor", standard));
  EW_TRY(const float more, keys.Float("rope.scaling.attn_factor", 1.0f));
  rope.attention_factor = attention * more;
  return Ok{};
}

Status ReadLinearKeys(const ArchKeys& keys, ModelSpec* spec) {
  EW_TRY(const float older, keys.Float("rope.scale_linear", 1.0f));
  EW_TRY(const float factor, keys.Float("rope.scaling.factor", older));
  if (factor == 0.0f || factor == 1.0f) return Ok{};
  spec->rope.scaling = RopeScalingKind::kLinear;
  spec->rope.factor = factor;
  return Ok{};
}

Status ReadRopeKeys(const ArchKeys& keys, const TensorIndex& tensors, ModelSpec* spec) {
  RopeSpec& rope = spec->rope;
  EW_TRY(rope.base, keys.Float("rope.freq_base", 10000.0f));
  EW_TRY(rope.rotary_dim, keys.Uint("rope.dimension_count", spec->head_dim));
  rope.frequency_factors = ReadFactors(tensors, "rope_freqs.weight");
  EW_TRY(const std::string type,
         keys.metadata().GetString(keys.Name("rope.scaling.type"), "linear"));
  if (type == "yarn" || type == "longrope" || tensors.Find("rope_factors_long.weight")) {
    EW_TRY(rope.original_context,
           keys.Uint("rope.scaling.original_context_length", spec->context_length));
  }
  if (tensors.Find("rope_factors_long.weight") || type == "longrope") {
    rope.scaling = RopeScalingKind::kLongRope;
    rope.long_factors = ReadFactors(tensors, "rope_factors_long.weight");
    rope.short_factors = ReadFactors(tensors, "rope_factors_short.weight");
    EW_TRY(rope.attention_factor, keys.Float("rope.scaling.attn_factor", 1.0f));
    return Ok{};
  }
  if (type == "yarn") return ReadYarnKeys(keys, spec);
  if (type == "linear") return ReadLinearKeys(keys, spec);
  if (type == "none") return Ok{};
  return MakeError(Code::kUnsupported, "%s is %s; none, linear, yarn and longrope are supported",
                   keys.Name("rope.scaling.type").c_str(), Quote(type).c_str());
}

void ReadVariant(const TensorIndex& tensors, ModelSpec* spec) {
  spec->tied_embeddings = tensors.Find("output.weight") == nullptr;
  spec->fused_qkv = tensors.Find("blk.0.attn_qkv.weight") != nullptr;
  spec->fused_gate_up = tensors.Find("blk.0.ffn_gate.weight") == nullptr;
  spec->qkv_bias = tensors.Find(spec->fused_qkv ? "blk.0.attn_qkv.bias" : "blk.0.attn_q.bias");
  spec->output_bias = tensors.Find("blk.0.attn_output.bias") != nullptr;
}

// The embedding's rows are the vocabulary; a size stated elsewhere must agree.
Status ReadVocabSize(const ArchKeys& keys, const TensorIndex& tensors, ModelSpec* spec) {
  const TensorView* embedding = tensors.Find("token_embd.weight");
  if (!embedding || embedding->shape.rank() != 2) {
    return MakeError(Code::kBadData, "tensor token_embd.weight is missing or no matrix");
  }
  const uint64_t rows = embedding->shape[0];
  if (rows > std::numeric_limits<uint32_t>::max()) {
    return MakeError(Code::kBadData, "token_embd.weight has too many rows");
  }
  spec->vocab_size = static_cast<uint32_t>(rows);
  EW_TRY(const uint32_t stated, keys.Uint("vocab_size", spec->vocab_size));
  const auto* tokens = keys.metadata().FindStrings("tokenizer.ggml.tokens");
  if (stated == rows && (!tokens || tokens->size() == rows)) return Ok{};
  return MakeError(Code::kBadData,
                   "the embedding has %llu rows, but the vocabulary has %llu entries",
                   static_cast<unsigned long long>(rows),
                   static_cast<unsigned long long>(stated != rows ? stated : tokens->size()));
}

}  // namespace

Result<uint32_t> ArchKeys::Uint(const char* suffix, std::optional<uint32_t> fallback) const {
  const std::string name = prefix_ + suffix;
  if (fallback && !metadata_->Find(name)) return *fallback;
  auto value = metadata_->GetUint(name);
  if (!value) return MakeError(Code::kBadData, "%s", value.error().message.c_str());
  if (*value > std::numeric_limits<uint32_t>::max()) {
    return MakeError(Code::kBadData, "%s is out of range", name.c_str());
  }
  return static_cast<uint32_t>(*value);
}

Result<float> ArchKeys::Float(const char* suffix, std::optional<float> fallback) const {
  const std::string name = prefix_ + suffix;
  if (fallback && !metadata_->Find(name)) return *fallback;
  auto value = metadata_->GetDouble(name);
  if (!value) return MakeError(Code::kBadData, "%s", value.error().message.c_str());
  return static_cast<float>(*value);
}

Result<ModelSpec> ReadCommonKeys(const ArchKeys& keys, const TensorIndex& tensors) {
  ModelSpec spec;
  EW_TRY(spec.name, keys.metadata().GetString("general.name", ""));
  EW_TRY(spec.n_layers, keys.Uint("block_count"));
  EW_TRY(spec.dim, keys.Uint("embedding_length"));
  EW_TRY(spec.n_heads, keys.Uint("attention.head_count"));
  EW_TRY(spec.n_kv_heads, keys.Uint("attention.head_count_kv", spec.n_heads));
  const uint32_t shared = spec.n_heads == 0 ? 0 : spec.dim / spec.n_heads;
  EW_TRY(spec.head_dim, keys.Uint("attention.key_length", shared));
  EW_TRY(const uint32_t value_dim, keys.Uint("attention.value_length", spec.head_dim));
  if (value_dim != spec.head_dim) {
    return MakeError(Code::kUnsupported, "keys of %u and values of %u per head", spec.head_dim,
                     value_dim);
  }
  EW_TRY(spec.ffn_dim, keys.Uint("feed_forward_length"));
  EW_TRY(spec.context_length, keys.Uint("context_length"));
  EW_TRY(spec.norm_eps, keys.Float("attention.layer_norm_rms_epsilon"));
  EW_TRY(spec.attention_scale, keys.Float("attention.scale", 0.0f));
  EW_TRY(ReadVocabSize(keys, tensors, &spec));
  EW_TRY(ReadRopeKeys(keys, tensors, &spec));
  ReadVariant(tensors, &spec);
  return spec;
}

Status ReadSlidingKeys(const ArchKeys& keys, uint32_t default_window, uint32_t default_period,
                       ModelSpec* spec) {
  constexpr const char* kPattern = "attention.sliding_window_pattern";
  EW_TRY(const uint32_t window, keys.Uint("attention.sliding_window", default_window));
  const MetaValue* pattern = keys.metadata().Find(keys.Name(kPattern));
  if (!pattern) {
    SetSliding(window, default_period, spec);
    return Ok{};
  }
  if (std::holds_alternative<MetaArray>(*pattern)) {
    EW_TRY(const std::vector<int64_t> flags, keys.metadata().GetInts(keys.Name(kPattern)));
    std::vector<bool> slides;
    for (const int64_t flag : flags) slides.push_back(flag != 0);
    slides.resize(std::min<size_t>(slides.size(), spec->n_layers));
    return SetSlidingPattern(slides, window, default_period, spec);
  }
  // The file counts full layers: every layer is full at 1, none at 0.
  EW_TRY(const uint32_t period, keys.Uint(kPattern));
  SetSliding(window, period == 0 ? 1 : period == 1 ? 0 : period, spec);
  return Ok{};
}

void SetKey(const ModelSpec& spec, const char* suffix, MetaValue value, Metadata* metadata) {
  metadata->Set(spec.architecture + "." + suffix, std::move(value));
}

void WriteSizeKeys(const ModelSpec& spec, Metadata* metadata) {
  SetKey(spec, "block_count", spec.n_layers, metadata);
  SetKey(spec, "embedding_length", spec.dim, metadata);
  SetKey(spec, "feed_forward_length", spec.ffn_dim, metadata);
  SetKey(spec, "attention.head_count", spec.n_heads, metadata);
  SetKey(spec, "attention.head_count_kv", spec.n_kv_heads, metadata);
}

void WriteCommonKeys(const ModelSpec& spec, Metadata* metadata) {
  SetKey(spec, "context_length", spec.context_length, metadata);
  WriteSizeKeys(spec, metadata);
  WriteRopeScalingKeys(spec, metadata);
  SetKey(spec, "rope.freq_base", spec.rope.base, metadata);
  if (spec.rope.rotary_dim != spec.head_dim) {
    SetKey(spec, "rope.dimension_count", spec.rope.rotary_dim, metadata);
  }
  SetKey(spec, "attention.layer_norm_rms_epsilon", spec.norm_eps, metadata);
}

void WriteRopeScalingKeys(const ModelSpec& spec, Metadata* metadata) {
  const RopeSpec& rope = spec.rope;
  switch (rope.scaling) {
    case RopeScalingKind::kNone:
    case RopeScalingKind::kLlama3:  // stands in the tensor rope_freqs
      break;
    case RopeScalingKind::kLinear:
      SetKey(spec, "rope.scaling.type", std::string("linear"), metadata);
      SetKey(spec, "rope.scaling.factor", rope.factor, metadata);
      break;
    case RopeScalingKind::kYarn:
      SetKey(spec, "rope.scaling.type", std::string("yarn"), metadata);
      SetKey(spec, "rope.scaling.factor", rope.factor, metadata);
      SetKey(spec, "rope.scaling.original_context_length", rope.original_context, metadata);
      if (rope.attention_factor != static_cast<float>(YarnAttentionFactor(rope.factor))) {
        SetKey(spec, "rope.scaling.yarn_attn_factor", rope.attention_factor, metadata);
      }
      if (rope.beta_fast != 32.0f) {
        SetKey(spec, "rope.scaling.yarn_beta_fast", rope.beta_fast, metadata);
      }
      if (rope.beta_slow != 1.0f) {
        SetKey(spec, "rope.scaling.yarn_beta_slow", rope.beta_slow, metadata);
      }
      break;
    case RopeScalingKind::kLongRope:  // the factors stand in tensors
      SetKey(spec, "rope.scaling.attn_factor", rope.attention_factor, metadata);
      break;
  }
}

void WriteHeadDimKeys(const ModelSpec& spec, Metadata* metadata) {
  SetKey(spec, "attention.key_length", spec.head_dim, metadata);
  SetKey(spec, "attention.value_length", spec.head_dim, metadata);
}

void WriteSlidingKeys(const ModelSpec& spec, uint32_t default_period, Metadata* metadata) {
  if (spec.sliding_window == 0) return;
  SetKey(spec, "attention.sliding_window", spec.sliding_window, metadata);
  if (spec.sliding_period == default_period) return;
  SetKey(spec, "attention.sliding_window_pattern",
         spec.sliding_period == 1 ? uint32_t{0} : spec.sliding_period, metadata);
}

std::string SizeLabel(uint64_t parameters) {
  struct Scale {
    double above;
    char suffix;
  };
  constexpr Scale kScales[] = {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}, {0, 'K'}};
  const double count = static_cast<double>(parameters);
  const Scale* scale = std::find_if(std::begin(kScales), std::end(kScales) - 1,
                                    [&](const Scale& each) { return count > each.above; });
  const double value = count / std::max(scale->above, 1e3);
  // Two significant digits at least: a rounded value below 10 gets one decimal, zero gets two.
  const long rounded = std::lround(value);
  const int decimals = rounded == 0 ? 2 : rounded < 10 ? 1 : 0;
  return Format("%.*f%c", decimals, value, scale->suffix);
}

}  // namespace edgewise
