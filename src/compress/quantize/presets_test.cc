#include "compress/quantize/presets.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

namespace edgewise {
namespace {

const Preset& Get(const char* name) {
  auto preset = FindPreset(name);
  REQUIRE_MESSAGE(preset, name);
  return **preset;
}

// The choice for layer `index` of a 32-layer model.
DType At(const char* preset, TensorRole role, uint32_t index, uint32_t group_size = 1) {
  MixPosition at;
  at.role = role;
  at.index = index;
  at.count = 32;
  at.group_size = group_size;
  at.columns = 4096;
  return MixType(Get(preset), at);
}

TEST_CASE("every preset has its own name and file type, and a format that can be written") {
  std::set<std::string> names;
  std::set<uint32_t> file_types;
  for (const Preset& preset : AllPresets()) {
    CAPTURE(preset.name);
    CHECK(names.insert(preset.name).second);
    CHECK(file_types.insert(preset.file_type).second);
    CHECK((Info(preset.type).encode != nullptr));
    CHECK(std::string(preset.summary).size() > 3);
  }
  CHECK(names.size() == 26);
}

TEST_CASE("names are found in any case, with llama-quantize's aliases") {
  CHECK(std::string(Get("Q4_K_M").name) == "q4_k_m");
  CHECK(std::string(Get("q4_k").name) == "q4_k_m");
  CHECK(std::string(Get("Q5_K").name) == "q5_k_m");
  CHECK(std::string(Get("q3_K").name) == "q3_k_m");
  CHECK(std::string(Get("iq4_NL").name) == "iq4_nl");
  CHECK(Get("f32").file_type == 0);
  CHECK(Get("f16").file_type == 1);
  CHECK(Get("q8_0").file_type == 7);
  CHECK(Get("q4_k_m").file_type == 15);
  CHECK(Get("bf16").file_type == 32);
  const auto unknown = FindPreset("q4_x");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().code == Code::kInvalidArgument);
  CHECK(unknown.error().message.find("q4_x") != std::string::npos);
  CHECK(unknown.error().message.find("q4_k_m") != std::string::npos);
}

TEST_CASE("roles by name") {
  CHECK(RoleOf("output.weight") == TensorRole::kOutput);
  CHECK(RoleOf("token_embd.weight") == TensorRole::kTokenEmbedding);
  CHECK(RoleOf("blk.7.attn_v.weight") == TensorRole::kAttnV);
  CHECK(RoleOf("blk.7.attn_qkv.weight") == TensorRole::kAttnV);
  CHECK(RoleOf("blk.7.attn_output.weight") == TensorRole::kAttnOutput);
  CHECK(RoleOf("blk.7.ffn_down.weight") == TensorRole::kFfnDown);
  CHECK(RoleOf("blk.7.attn_q.weight") == TensorRole::kOther);
  CHECK(RoleOf("blk.7.ffn_up.weight") == TensorRole::kOther);
}

TEST_CASE("q4_k_m spends bits on the first and last eighth and on every third layer between") {
  // Of 32 layers: 0-3, then 6, 9, ..., 27, then 28-31.
  std::set<uint32_t> rich;
  for (uint32_t layer = 0; layer < 32; ++layer) {
    const DType type = At("q4_k_m", TensorRole::kFfnDown, layer);
    CHECK((type == DType::kQ6_K || type == DType::kQ4_K));
    CHECK(type == At("q4_k_m", TensorRole::kAttnV, layer));
    if (type == DType::kQ6_K) rich.insert(layer);
  }
  CHECK(rich == std::set<uint32_t>{0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31});
  CHECK(At("q4_k_m", TensorRole::kOther, 0) == DType::kQ4_K);
  CHECK(At("q4_k_m", TensorRole::kAttnOutput, 0) == DType::kQ4_K);
  CHECK(At("q5_k_m", TensorRole::kFfnDown, 3) == DType::kQ6_K);
  CHECK(At("q5_k_m", TensorRole::kFfnDown, 4) == DType::kQ5_K);
}

TEST_CASE("the other mixtures") {
  CHECK(At("q4_k_s", TensorRole::kAttnV, 3) == DType::kQ5_K);
  CHECK(At("q4_k_s", TensorRole::kAttnV, 4) == DType::kQ4_K);
  CHECK(At("q4_k_s", TensorRole::kFfnDown, 3) == DType::kQ5_K);
  CHECK(At("q4_k_s", TensorRole::kFfnDown, 4) == DType::kQ4_K);
  CHECK(At("q3_k_m", TensorRole::kAttnV, 1) == DType::kQ5_K);
  CHECK(At("q3_k_m", TensorRole::kAttnV, 2) == DType::kQ4_K);
  CHECK(At("q3_k_m", TensorRole::kFfnDown, 1) == DType::kQ5_K);
  CHECK(At("q3_k_m", TensorRole::kFfnDown, 2) == DType::kQ4_K);
  CHECK(At("q3_k_m", TensorRole::kAttnOutput, 9) == DType::kQ4_K);
  CHECK(At("q3_k_l", TensorRole::kAttnOutput, 9) == DType::kQ5_K);
  CHECK(At("q3_k_l", TensorRole::kFfnDown, 9) == DType::kQ5_K);
  CHECK(At("q3_k_s", TensorRole::kFfnDown, 0) == DType::kQ3_K);
  CHECK(At("q2_k", TensorRole::kAttnV, 5, 4) == DType::kQ4_K);
  CHECK(At("q2_k", TensorRole::kAttnV, 5, 2) == DType::kQ3_K);
  CHECK(At("q2_k", TensorRole::kAttnOutput, 5) == DType::kQ3_K);
  CHECK(At("q2_k_s", TensorRole::kFfnDown, 3) == DType::kQ4_K);
  CHECK(At("q2_k_s", TensorRole::kFfnDown, 4) == DType::kQ2_K);
  CHECK(At("iq4_xs", TensorRole::kAttnV, 5, 4) == DType::kQ5_K);
  CHECK(At("iq4_xs", TensorRole::kAttnV, 5, 1) == DType::kIQ4_XS);
  CHECK(At("iq4_xs", TensorRole::kFfnDown, 3) == DType::kQ5_K);
  CHECK(At("iq4_nl", TensorRole::kFfnDown, 4) == DType::kIQ4_NL);
  CHECK(At("q4_0", TensorRole::kFfnDown, 0) == DType::kQ4_0);
  CHECK(At("q6_k", TensorRole::kFfnDown, 0) == DType::kQ6_K);
  CHECK(At("s24_q4", TensorRole::kFfnDown, 0) == DType::kS24_Q4);
  CHECK(At("s24_q4", TensorRole::kTokenEmbedding, 0) == DType::kQ6_K);
  CHECK(At("s24_q8", TensorRole::kAttnV, 0) == DType::kS24_Q8);
  CHECK(At("s24_q8", TensorRole::kTokenEmbedding, 0) == DType::kQ8_0);
  CHECK(At("bm_q4", TensorRole::kFfnDown, 0) == DType::kBM_Q4);
  CHECK(At("bm_q4", TensorRole::kTokenEmbedding, 0) == DType::kQ6_K);
  CHECK(At("bm_q8", TensorRole::kTokenEmbedding, 0) == DType::kQ8_0);
  CHECK(At("s24_f16", TensorRole::kAttnV, 0) == DType::kS24_F16);
  CHECK(At("s24_f16", TensorRole::kTokenEmbedding, 0) == DType::kF16);
  CHECK(At("s24_bf16", TensorRole::kOutput, 0) == DType::kBF16);
}

TEST_CASE("importance weights change the rules that guard against their absence") {
  MixPosition at;
  at.role = TensorRole::kFfnDown;
  at.count = 32;
  at.has_importance = true;
  at.columns = 4096;
  CHECK(MixType(Get("iq4_xs"), at) == DType::kIQ4_XS);
  CHECK(MixType(Get("q4_0"), at) == DType::kQ4_1);
  CHECK(MixType(Get("q5_0"), at) == DType::kQ5_1);
}

TEST_CASE("the output matrix, its own or the tied embedding, has six bits at least") {
  MixPosition at;
  at.role = TensorRole::kOutput;
  at.count = 1;
  at.columns = 4096;
  CHECK(MixType(Get("q4_0"), at) == DType::kQ6_K);
  CHECK(MixType(Get("q2_k"), at) == DType::kQ6_K);
  CHECK(MixType(Get("q8_0"), at) == DType::kQ8_0);
  CHECK(MixType(Get("s24_q4"), at) == DType::kQ6_K);
  CHECK(MixType(Get("s24_q8"), at) == DType::kQ8_0);
  CHECK(MixType(Get("bm_q4"), at) == DType::kQ6_K);
  CHECK(MixType(Get("bm_q8"), at) == DType::kQ8_0);
  CHECK(MixType(Get("f16"), at) == DType::kF16);
  at.columns = 288;
  CHECK(MixType(Get("q4_k_m"), at) == DType::kQ8_0);
  at.columns = 4096;
  at.role = TensorRole::kTokenEmbedding;
  CHECK(MixType(Get("q4_k_m"), at) == DType::kQ4_K);
  at.tied = true;
  CHECK(MixType(Get("q4_k_m"), at) == DType::kQ6_K);
}

TEST_CASE("attn_v of an 80-layer model with shared values") {
  MixPosition at;
  at.role = TensorRole::kAttnV;
  at.index = 13;
  at.count = 80;
  at.group_size = 8;
  at.large_gqa = true;
  at.columns = 8192;
  CHECK(MixType(Get("q4_k_s"), at) == DType::kQ5_K);
  CHECK(MixType(Get("q3_k_s"), at) == DType::kQ5_K);
  CHECK(MixType(Get("q6_k"), at) == DType::kQ6_K);
}

}  // namespace
}  // namespace edgewise
