#include "compress/quantize/presets.h"

#include <cctype>
#include <string>

#include "base/strings.h"

namespace edgewise {
namespace {

// File types are LLAMA_FTYPE of llama.h, where it has them. Bits per weight in the summaries are
// those of the format, not of the mixture.
constexpr Preset kPresets[] = {
    {"q2_k_s", DType::kQ2_K, 21, "2.6 bits, smallest; poor without importance weights"},
    {"q2_k", DType::kQ2_K, 10, "2.6 bits, with 3 and 4 bits where it hurts most"},
    {"q3_k_s", DType::kQ3_K, 11, "3.4 bits"},
    {"q3_k_m", DType::kQ3_K, 12, "3.4 bits, with 4 and 5 bits where it hurts most"},
    {"q3_k_l", DType::kQ3_K, 13, "3.4 bits, with 5 bits where it hurts most"},
    {"iq4_xs", DType::kIQ4_XS, 30, "4.25 bits, nonlinear: best below q4_k_s"},
    {"iq4_nl", DType::kIQ4_NL, 25, "4.5 bits, nonlinear, any row that 32 divides"},
    {"q4_0", DType::kQ4_0, 2, "4.5 bits, the simplest and oldest"},
    {"q4_1", DType::kQ4_1, 3, "5 bits, with an offset"},
    {"q4_k_s", DType::kQ4_K, 14, "4.5 bits"},
    {"q4_k_m", DType::kQ4_K, 15, "4.5 bits, with 6 bits where it hurts most: the usual choice"},
    {"q5_0", DType::kQ5_0, 8, "5.5 bits"},
    {"q5_1", DType::kQ5_1, 9, "6 bits, with an offset"},
    {"q5_k_s", DType::kQ5_K, 16, "5.5 bits"},
    {"q5_k_m", DType::kQ5_K, 17, "5.5 bits, with 6 bits where it hurts most"},
    {"q6_k", DType::kQ6_K, 18, "6.6 bits, close to lossless"},
    {"q8_0", DType::kQ8_0, 7, "8.5 bits, lossless in practice"},
    {"s24_q4", DType::kS24_Q4, 0x2404,
     "3.25 bits, 2 of 4 weights: for models pruned 2:4, or by gptq"},
    {"s24_q8", DType::kS24_Q8, 0x2408,
     "5.25 bits, 2 of 4 weights: for models pruned 2:4, or by gptq"},
    {"bm_q4", DType::kBM_Q4, 0x2414,
     "3.25 bits, 32 of 64 weights: for models pruned 32:64, or by gptq"},
    {"bm_q8", DType::kBM_Q8, 0x2418,
     "5.25 bits, 32 of 64 weights: for models pruned 32:64, or by gptq"},
    {"s24_f16", DType::kS24_F16, 0x2410,
     "9 bits, 2 of 4 weights as IEEE halves: for models pruned 2:4"},
    {"s24_bf16", DType::kS24_BF16, 0x2411, "9 bits, the same as bfloat16"},
    {"f16", DType::kF16, 1, "16 bits, IEEE half"},
    {"bf16", DType::kBF16, 32, "16 bits, bfloat16"},
    {"f32", DType::kF32, 0, "32 bits"},
};

enum class When : uint8_t {
  kAlways,
  kSharedValues,  // four query heads or more share one value head: attn_v is small, so bits are
                  // cheap
  kMoreBits,      // the first and last eighth of the layers, and every third between
  kFirst2,
  kFirst4,
  kFirst8th,
  kFirst16th,
  kFirst8thBlind,      // without importance weights
  kFirst8thImportance  // with them
};

struct MixRule {
  const char* preset;
  TensorRole role;
  When when;
  DType type;
};

// The mixtures of llama_tensor_get_type in llama.cpp's src/llama-quant.cpp, for dense models, and
// for sparse ones dense embeddings. The first rule that fits decides.
constexpr MixRule kRules[] = {
    {"q2_k", TensorRole::kAttnV, When::kSharedValues, DType::kQ4_K},
    {"q2_k", TensorRole::kAttnV, When::kAlways, DType::kQ3_K},
    {"q2_k", TensorRole::kFfnDown, When::kAlways, DType::kQ3_K},
    {"q2_k", TensorRole::kAttnOutput, When::kAlways, DType::kQ3_K},
    {"q2_k_s", TensorRole::kAttnV, When::kSharedValues, DType::kQ4_K},
    {"q2_k_s", TensorRole::kFfnDown, When::kFirst8th, DType::kQ4_K},
    {"q3_k_m", TensorRole::kAttnV, When::kFirst2, DType::kQ5_K},
    {"q3_k_m", TensorRole::kAttnV, When::kAlways, DType::kQ4_K},
    {"q3_k_m", TensorRole::kFfnDown, When::kFirst16th, DType::kQ5_K},
    {"q3_k_m", TensorRole::kFfnDown, When::kAlways, DType::kQ4_K},
    {"q3_k_m", TensorRole::kAttnOutput, When::kAlways, DType::kQ4_K},
    {"q3_k_l", TensorRole::kAttnV, When::kAlways, DType::kQ5_K},
    {"q3_k_l", TensorRole::kFfnDown, When::kAlways, DType::kQ5_K},
    {"q3_k_l", TensorRole::kAttnOutput, When::kAlways, DType::kQ5_K},
    {"iq4_xs", TensorRole::kAttnV, When::kSharedValues, DType::kQ5_K},
    {"iq4_xs", TensorRole::kFfnDown, When::kFirst8thBlind, DType::kQ5_K},
    {"iq4_nl", TensorRole::kAttnV, When::kSharedValues, DType::kQ5_K},
    {"iq4_nl", TensorRole::kFfnDown, When::kFirst8thBlind, DType::kQ5_K},
    {"q4_0", TensorRole::kFfnDown, When::kFirst8thImportance, DType::kQ4_1},
    {"q4_k_s", TensorRole::kAttnV, When::kFirst4, DType::kQ5_K},
    {"q4_k_s", TensorRole::kFfnDown, When::kFirst8th, DType::kQ5_K},
    {"q4_k_m", TensorRole::kAttnV, When::kMoreBits, DType::kQ6_K},
    {"q4_k_m", TensorRole::kFfnDown, When::kMoreBits, DType::kQ6_K},
    {"q5_0", TensorRole::kFfnDown, When::kFirst8thImportance, DType::kQ5_1},
    {"q5_k_m", TensorRole::kAttnV, When::kMoreBits, DType::kQ6_K},
    {"q5_k_m", TensorRole::kFfnDown, When::kMoreBits, DType::kQ6_K},
    {"s24_q4", TensorRole::kTokenEmbedding, When::kAlways, DType::kQ6_K},
    {"s24_q8", TensorRole::kTokenEmbedding, When::kAlways, DType::kQ8_0},
    {"bm_q4", TensorRole::kTokenEmbedding, When::kAlways, DType::kQ6_K},
    {"bm_q8", TensorRole::kTokenEmbedding, When::kAlways, DType::kQ8_0},
};

bool Holds(When when, const MixPosition& at) {
  switch (when) {
    case When::kAlways:
      return true;
    case When::kSharedValues:
      return at.group_size >= 4;
    case When::kMoreBits: {
      const uint32_t eighth = at.count / 8;
      return at.index < eighth || at.index >= 7 * at.count / 8 || (at.index - eighth) % 3 == 2;
    }
    case When::kFirst2:
      return at.index < 2;
    case When::kFirst4:
      return at.index < 4;
    case When::kFirst8th:
      return at.index < at.count / 8;
    case When::kFirst16th:
      return at.index < at.count / 16;
    case When::kFirst8thBlind:
      return at.index < at.count / 8 && !at.has_importance;
    case When::kFirst8thImportance:
      return at.index < at.count / 8 && at.has_importance;
  }
  return false;
}

DType OutputType(const Preset& preset, uint64_t columns) {
  if (columns % Info(preset.type).block != 0) return DType::kQ8_0;
  const bool eight_bits =
      preset.type == DType::kQ8_0 || preset.type == DType::kS24_Q8 || preset.type == DType::kBM_Q8;
  return eight_bits ? DType::kQ8_0 : DType::kQ6_K;
}

}  // namespace

std::span<const Preset> AllPresets() { return kPresets; }

Result<const Preset*> FindPreset(std::string_view name) {
  std::string wanted;
  for (char c : name) wanted += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (wanted == "q3_k" || wanted == "q4_k" || wanted == "q5_k") wanted += "_m";
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) {
    if (wanted == preset.name) return &preset;
    names.emplace_back(preset.name);
  }
  return MakeError(Code::kInvalidArgument, "unknown format %s; known are %s", Quote(name).c_str(),
                   Join(names, ", ").c_str());
}

TensorRole RoleOf(std::string_view name) {
  const auto has = [name](std::string_view part) {
    return name.find(part) != std::string_view::npos;
  };
  if (name == "output.weight") return TensorRole::kOutput;
  if (name == "token_embd.weight") return TensorRole::kTokenEmbedding;
  if (has("attn_qkv.weight") || has("attn_v.weight")) return TensorRole::kAttnV;
  if (has("attn_output.weight")) return TensorRole::kAttnOutput;
  if (has("ffn_down")) return TensorRole::kFfnDown;
  return TensorRole::kOther;
}

DType MixType(const Preset& preset, const MixPosition& position) {
  const bool embedding =
      position.role == TensorRole::kOutput || position.role == TensorRole::kTokenEmbedding;
  if (embedding && DenseOf(preset.type) != preset.type) return DenseOf(preset.type);
  if (!Info(preset.type).quantized()) return preset.type;
  if (position.role == TensorRole::kOutput ||
      (position.role == TensorRole::kTokenEmbedding && position.tied)) {
    return OutputType(preset, position.columns);
  }
  DType type = preset.type;
  for (const MixRule& rule : kRules) {
    if (rule.role != position.role || std::string_view(rule.preset) != preset.name) continue;
    if (!Holds(rule.when, position)) continue;
    type = rule.type;
    break;
  }
  const bool values = position.role == TensorRole::kAttnV;
  if (values && position.large_gqa && (type == DType::kQ3_K || type == DType::kQ4_K))
    type = DType::kQ5_K;
  return type;
}

DType DenseOf(DType type) {
  if (type == DType::kS24_F16) return DType::kF16;
  return type == DType::kS24_BF16 ? DType::kBF16 : type;
}

}  // namespace edgewise
