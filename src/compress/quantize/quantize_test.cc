#include "compress/quantize/quantize.h"

#include <doctest/doctest.h>

#include <map>
#include <string>

#include "base/strings.h"

namespace edgewise {
namespace {

ModelSpec Spec(uint32_t layers, uint32_t heads, uint32_t kv_heads) {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.n_layers = layers;
  spec.n_heads = heads;
  spec.n_kv_heads = kv_heads;
  return spec;
}

// The tensors of a llama-shaped model, in the order of a converted file.
std::vector<CheckpointTensor> Llama(uint32_t layers, uint64_t dim, uint64_t ffn, bool tied,
                                    DType type = DType::kF16) {
  std::vector<CheckpointTensor> tensors = {{"token_embd.weight", type, {1000, dim}}};
  for (uint32_t layer = 0; layer < layers; ++layer) {
    const std::string block = Format("blk.%u.", layer);
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
      tensors.push_back({block + name + ".weight", type, {dim, dim}});
    }
    tensors.push_back({block + "ffn_gate.weight", type, {ffn, dim}});
    tensors.push_back({block + "ffn_up.weight", type, {ffn, dim}});
    tensors.push_back({block + "ffn_down.weight", type, {dim, ffn}});
    tensors.push_back({block + "attn_norm.weight", DType::kF32, {dim}});
    tensors.push_back({block + "ffn_norm.weight", DType::kF32, {dim}});
  }
  tensors.push_back({"output_norm.weight", DType::kF32, {dim}});
  if (!tied) tensors.push_back({"output.weight", type, {1000, dim}});
  return tensors;
}

PlanOptions With(const char* preset) {
  PlanOptions options;
  auto found = FindPreset(preset);
  REQUIRE(found);
  options.preset = *found;
  return options;
}

std::map<std::string, TensorPlan> Plan(const std::vector<CheckpointTensor>& tensors,
                                       const ModelSpec& spec, const PlanOptions& options,
                                       bool gguf = true) {
  auto plan = PlanQuantization(tensors, spec, gguf, options);
  REQUIRE_MESSAGE(plan, (plan ? "" : plan.error().message));
  REQUIRE(plan->size() == tensors.size());
  std::map<std::string, TensorPlan> by_name;
  for (size_t i = 0; i < plan->size(); ++i) {
    CHECK((*plan)[i].source == i);
    CHECK((*plan)[i].name == tensors[i].name);
    CHECK((*plan)[i].from == tensors[i].dtype);
    by_name.emplace((*plan)[i].name, (*plan)[i]);
  }
  return by_name;
}

TEST_CASE("q4_k_m of a 22-layer model, untied") {
  auto plan = Plan(Llama(22, 2048, 5632, false), Spec(22, 32, 4), With("q4_k_m"));
  CHECK(plan.at("token_embd.weight").to == DType::kQ4_K);
  CHECK(plan.at("output.weight").to == DType::kQ6_K);
  CHECK(plan.at("output.weight").reason == "output matrix");
  CHECK(plan.at("output_norm.weight").to == DType::kF32);
  CHECK(plan.at("output_norm.weight").reason == "vector");
  // An eighth of 22 layers is 2: 0, 1, then each third from 4 on, then 19 to 21.
  const std::string rich = "0 1 4 7 10 13 16 19 20 21 ";
  std::string values, downs;
  for (int layer = 0; layer < 22; ++layer) {
    const std::string block = Format("blk.%d.", layer);
    if (plan.at(block + "attn_v.weight").to == DType::kQ6_K) values += Format("%d ", layer);
    if (plan.at(block + "ffn_down.weight").to == DType::kQ6_K) downs += Format("%d ", layer);
    CHECK(plan.at(block + "attn_q.weight").to == DType::kQ4_K);
    CHECK(plan.at(block + "attn_q.weight").reason.empty());
    CHECK(plan.at(block + "ffn_norm.weight").to == DType::kF32);
  }
  CHECK(values == rich);
  CHECK(downs == rich);
}

TEST_CASE("the order of the file does not decide which layer is which") {
  auto tensors = Llama(12, 256, 512, true);
  std::vector<CheckpointTensor> turned(tensors.rbegin(), tensors.rend());
  const ModelSpec spec = Spec(12, 4, 4);
  auto a = Plan(tensors, spec, With("q4_k_s"));
  auto b = Plan(turned, spec, With("q4_k_s"));
  for (const auto& [name, plan] : a) CHECK(b.at(name).to == plan.to);
  CHECK(a.at("blk.3.attn_v.weight").to == DType::kQ5_K);
  CHECK(a.at("blk.10.attn_v.weight").to == DType::kQ4_K);
  CHECK(a.at("token_embd.weight").to == DType::kQ6_K);  // tied
}

TEST_CASE("rows that 256, 64 or 32 do not divide take the next format that fits, and say so") {
  const ModelSpec spec = Spec(4, 4, 4);
  const auto to = [&](const char* preset, uint64_t columns) {
    std::vector<CheckpointTensor> one = {{"blk.1.attn_q.weight", DType::kF16, {8, columns}}};
    auto plan = Plan(one, spec, With(preset)).at("blk.1.attn_q.weight");
    const bool fits = columns % Info(With(preset).preset->type).block == 0;
    CHECK(plan.reason.empty() == fits);
    if (!fits)
      CHECK(plan.reason.find(Format("%llu", static_cast<unsigned long long>(columns))) !=
            std::string::npos);
    return plan.to;
  };
  CHECK(to("q4_k_s", 288) == DType::kQ5_0);
  CHECK(to("q5_k_s", 288) == DType::kQ5_1);
  CHECK(to("q6_k", 288) == DType::kQ8_0);
  CHECK(to("q3_k_s", 288) == DType::kQ4_0);
  CHECK(to("q2_k", 288) == DType::kQ4_0);
  CHECK(to("iq4_xs", 288) == DType::kIQ4_NL);
  CHECK(to("iq4_nl", 288) == DType::kIQ4_NL);
  CHECK(to("s24_q4", 288) == DType::kQ4_0);
  CHECK(to("s24_q8", 288) == DType::kQ8_0);
  CHECK(to("bm_q4", 288) == DType::kQ4_0);
  CHECK(to("bm_q8", 288) == DType::kQ8_0);
  CHECK(to("bm_q8", 320) == DType::kBM_Q8);
  CHECK(to("s24_f16", 288) == DType::kS24_F16);
  CHECK(to("s24_q4", 320) == DType::kS24_Q4);
  CHECK(to("q8_0", 172) == DType::kF16);
  CHECK(to("q4_0", 172) == DType::kF16);
  CHECK(to("q4_k_s", 172) == DType::kF16);
  CHECK(to("q4_k_s", 512) == DType::kQ4_K);
}

TEST_CASE("tensors that are never quantized") {
  const ModelSpec spec = Spec(1, 4, 4);
  std::vector<CheckpointTensor> tensors = {{"blk.0.attn_q.bias", DType::kF16, {256}},
                                           {"blk.0.attn_q_norm.weight", DType::kBF16, {4, 256}},
                                           {"blk.0.ffn_gate_inp.weight", DType::kF16, {8, 256}},
                                           {"position_embd.weight", DType::kF16, {512, 256}},
                                           {"token_types.weight", DType::kF16, {2, 256}},
                                           {"rope_freqs.weight", DType::kF32, {16}},
                                           {"ids.weight", DType::kI32, {4, 256}},
                                           {"blk.0.attn_q.scales", DType::kF16, {4, 256}},
                                           {"blk.0.attn_q.weight", DType::kF16, {256, 256}}};
  auto from_folder = Plan(tensors, spec, With("q4_0"), false);
  auto from_gguf = Plan(tensors, spec, With("q4_0"), true);
  for (const auto& tensor : tensors) {
    CAPTURE(tensor.name);
    if (tensor.name == "blk.0.attn_q.weight") {
      CHECK(from_folder.at(tensor.name).to == DType::kQ4_0);
      continue;
    }
    CHECK_FALSE(from_folder.at(tensor.name).reason.empty());
    CHECK(from_gguf.at(tensor.name).to == tensor.dtype);
    CHECK(from_folder.at(tensor.name).to ==
          (tensor.dtype == DType::kI32 ? DType::kI32 : DType::kF32));
  }
}

TEST_CASE("overrides, output and embedding types, pure") {
  const auto tensors = Llama(4, 256, 512, false);
  const ModelSpec spec = Spec(4, 4, 4);
  PlanOptions options = With("q4_k_m");
  options.overrides = {{"blk\\.[12]\\.attn_v", DType::kQ8_0}, {"ATTN_V", DType::kBF16}};
  auto plan = Plan(tensors, spec, options);
  CHECK(plan.at("blk.0.attn_v.weight").to == DType::kBF16);
  CHECK(plan.at("blk.1.attn_v.weight").to == DType::kQ8_0);
  CHECK(plan.at("blk.2.attn_v.weight").to == DType::kQ8_0);
  CHECK(plan.at("blk.1.attn_v.weight").reason.find("override") != std::string::npos);

  options = With("q4_k_m");
  options.output_type = DType::kQ8_0;
  options.embedding_type = DType::kQ5_K;
  plan = Plan(tensors, spec, options);
  CHECK(plan.at("output.weight").to == DType::kQ8_0);
  CHECK(plan.at("token_embd.weight").to == DType::kQ5_K);

  options = With("q4_k_m");
  options.leave_output = true;
  CHECK(Plan(tensors, spec, options).at("output.weight").to == DType::kF16);

  options = With("q4_k_m");
  options.pure = true;
  for (const auto& [name, row] : Plan(tensors, spec, options)) {
    CHECK(row.to == (row.shape.rank() == 1 ? DType::kF32 : DType::kQ4_K));
  }

  options = With("f16");
  options.overrides = {{"ffn_down", DType::kQ4_K}};
  plan = Plan(tensors, spec, options);
  CHECK(plan.at("blk.3.ffn_down.weight").to == DType::kQ4_K);
  CHECK(plan.at("blk.3.ffn_up.weight").to == DType::kF16);
}

TEST_CASE("what is refused") {
  const auto tensors = Llama(2, 256, 512, false);
  const ModelSpec spec = Spec(2, 4, 4);
  const auto why = [&](const std::vector<CheckpointTensor>& list, const PlanOptions& options) {
    auto plan = PlanQuantization(list, spec, true, options);
    REQUIRE_FALSE(plan);
    CHECK(plan.error().code == Code::kInvalidArgument);
    return plan.error().message;
  };
  PlanOptions options = With("q4_0");
  options.overrides = {{"blk\\.9\\.", DType::kQ8_0}};
  CHECK(why(tensors, options).find("matches no tensor") != std::string::npos);
  options.overrides = {{"ffn_norm", DType::kQ8_0}};
  CHECK(why(tensors, options).find("that can be quantized") != std::string::npos);
  options.overrides = {{"ffn_(", DType::kQ8_0}};
  CHECK(why(tensors, options).find("without ')'") != std::string::npos);
  options.overrides = {{"ffn_up", DType::kI32}};
  CHECK(why(tensors, options).find("cannot be written") != std::string::npos);

  const auto quantized = Llama(2, 256, 512, false, DType::kQ8_0);
  CHECK(why(quantized, With("q4_0")).find("--allow-requantize") != std::string::npos);
  options = With("q4_0");
  options.allow_requantize = true;
  CHECK(Plan(quantized, spec, options).at("blk.0.attn_q.weight").to == DType::kQ4_0);
  CHECK(Plan(quantized, spec, With("f16")).at("blk.0.attn_q.weight").to ==
        DType::kF16);  // decoding loses nothing more
  options = With("q8_0");
  options.pure = true;
  CHECK(Plan(quantized, spec, options).at("blk.0.attn_q.weight").to ==
        DType::kQ8_0);  // nothing to do
}

TEST_CASE("parsing of an override") {
  auto parsed = ParseTypeOverride("blk\\.[0-3]\\.ffn=Q5_K");
  REQUIRE(parsed);
  CHECK(parsed->pattern == "blk\\.[0-3]\\.ffn");
  CHECK(parsed->type == DType::kQ5_K);
  for (const char* bad : {"attn_v", "=q4_0", "attn_v=", "attn_v=q9", "attn_v=i32", "(=q4_0", ""}) {
    CAPTURE(bad);
    auto result = ParseTypeOverride(bad);
    REQUIRE_FALSE(result);
    CHECK(result.error().code == Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace edgewise
