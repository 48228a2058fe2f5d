#include "compress/quantize/scale.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "compress/quantize/equivalence.h"
#include "compress/quantize/output_error.h"

namespace edgewise {
namespace {

// Rows that blocks of 32 divide.
constexpr TinySizes kSizes = {
    .dim = 64, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .ffn = 96, .vocab = 37};

std::vector<TensorPlan> PlanFor(const Checkpoint& model, const char* preset) {
  PlanOptions options;
  options.preset = *FindPreset(preset);
  options.pure = true;
  auto plan = PlanQuantization(model.tensors(), model.spec(), false, options);
  REQUIRE(plan.has_value());
  return *std::move(plan);
}

CalibrationFile Calibrated(const Checkpoint& model, const std::string& path, bool hessians = true) {
  ThreadPool pool(2);
  NoProgress silent;
  TokenSequences sequences;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    sequences.push_back(TinyTokens(60, model.spec().vocab_size, seed));
  }
  CalibrateOptions options;
  options.hessians = hessians;
  const auto done = Calibrate(model, sequences, {}, path, options, &pool, &silent);
  REQUIRE_MESSAGE(done, (done ? "" : done.error().message));
  auto file = CalibrationFile::Open(path);
  REQUIRE(file.has_value());
  return *std::move(file);
}

Result<Scaling> Scale(const Checkpoint& model, const CalibrationFile& calibration,
                      ScaleMethod method, const char* preset = "q4_0", int threads = 2) {
  ThreadPool pool(threads);
  NoProgress silent;
  return ScaleInputs(model, PlanFor(model, preset), calibration, method, &pool, &silent);
}

struct Family {
  const char *model_class, *type;
  TinyParts parts;
};

constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", "llama", {}},
    {"LlamaForCausalLM", "llama", {.bias_qkv = true, .bias_output = true}},
    {"Qwen2ForCausalLM", "qwen2", {.bias_qkv = true}},
    {"Qwen3ForCausalLM", "qwen3", {.qk_norm = true}},
    {"Phi3ForCausalLM", "phi3", {.fused = true}},
    {"Gemma2ForCausalLM", "gemma2", {.gemma = true, .head = false}},
    {"Gemma3ForCausalLM", "gemma3_text", {.qk_norm = true, .gemma = true, .head = false}}};

Checkpoint Tiny(const Family& family, const TemporaryFolder& folder) {
  Json config = TinyConfig(family.model_class, family.type, kSizes);
  if (family.parts.head) config.Set("tie_word_embeddings", false);
  if (family.parts.bias_output) config.Set("attention_bias", true);
  if (family.parts.gemma) {
    config.Set("query_pre_attn_scalar", 16).Set("sliding_window", 16);
    config.Set("hidden_activation", "gelu_pytorch_tanh");
  }
  return Written(TinyWeights(config, kSizes, family.parts, 3), folder);
}

TEST_CASE("a scaled model computes the same logits, in every family") {
  for (const Family& family : kFamilies) {
    CAPTURE(std::string(family.type));
    TemporaryFolder folder;
    const Checkpoint before = Tiny(family, folder);
    const CalibrationFile calibration = Calibrated(before, folder / "calibration.gguf");
    for (const ScaleMethod method : {ScaleMethod::kAwq, ScaleMethod::kSmooth}) {
      const auto scaling = Scale(before, calibration, method);
      REQUIRE_MESSAGE(scaling, (scaling ? "" : scaling.error().message));
      CHECK(scaling->inputs == 4 * kSizes.layers);
      CHECK(scaling->scaled > kSizes.layers);
      if (method == ScaleMethod::kSmooth) CHECK(scaling->scaled == scaling->inputs);
      CheckEquivalent(before, scaling->model);
      CHECK(Values(scaling->model, "blk.1.ffn_down.weight") !=
            Values(before, "blk.1.ffn_down.weight"));
      const auto again = Scale(before, calibration, method, "q4_0", 1);
      REQUIRE(again.has_value());
      CHECK(Values(again->model, "blk.1.ffn_down.weight") ==
            Values(scaling->model, "blk.1.ffn_down.weight"));
    }
  }
}

TEST_CASE("the scaled calibration is that of the scaled model") {
  for (const Family& family : {kFamilies[1], kFamilies[4]}) {
    TemporaryFolder folder;
    const Checkpoint before = Tiny(family, folder);
    const CalibrationFile calibration = Calibrated(before, folder / "calibration.gguf");
    const auto scaling = Scale(before, calibration, ScaleMethod::kSmooth);
    REQUIRE(scaling.has_value());
    const CalibrationFile fresh = Calibrated(scaling->model, folder / "fresh.gguf");
    for (const std::string& weight : fresh.weights()) {
      CAPTURE(weight);
      const auto expected = fresh.Moments(weight), found = scaling->calibration.Moments(weight);
      REQUIRE(found.has_value());
      const auto h = fresh.Hessian(weight), divided = scaling->calibration.Hessian(weight);
      REQUIRE(divided.has_value());
      const size_t n = found->columns();
      for (size_t c = 0; c < n; ++c) {
        CHECK(found->sum_squares[c] == doctest::Approx(expected->sum_squares[c]).epsilon(1e-3));
        CHECK(found->sum_abs[c] == doctest::Approx(expected->sum_abs[c]).epsilon(1e-3));
        CHECK(found->max_abs[c] == doctest::Approx(expected->max_abs[c]).epsilon(1e-3));
        const double limit = 1e-3 * std::sqrt((*h)[c * n + c] * (*h)[0]);
        CHECK(std::fabs((*divided)[c * n] - (*h)[c * n]) <= limit);
      }
    }
  }
}

TEST_CASE("columns that matter more than their weights say are rounded finer") {
  TemporaryFolder folder;
  TinyModel model = TinyWeights(TinyConfig("LlamaForCausalLM", "llama", kSizes), kSizes, {}, 5);
  // The same function with inputs 20 times as large in two columns.
  for (const size_t column : {7u, 40u}) {
    model.tensors["model.layers.0.input_layernorm.weight"].values[column] *= 20;
    for (const char* name : {"q", "k", "v"}) {
      auto& values =
          model.tensors[std::string("model.layers.0.self_attn.") + name + "_proj.weight"].values;
      for (size_t i = column; i < values.size(); i += kSizes.dim) values[i] /= 20;
    }
  }
  const Checkpoint before = Written(model, folder);
  const CalibrationFile calibration = Calibrated(before, folder / "calibration.gguf");
  const auto scaling = Scale(before, calibration, ScaleMethod::kAwq);
  REQUIRE(scaling.has_value());
  CheckEquivalent(before, scaling->model);
  ThreadPool pool(2);
  const auto error = [&](const Checkpoint& checkpoint, const CalibrationFile& moments) {
    const auto h = moments.Hessian("blk.0.attn_q.weight");
    REQUIRE(h.has_value());
    return OutputError(Values(checkpoint, "blk.0.attn_q.weight"), kSizes.dim,
                       {DType::kQ4_0, {}, {}}, *h, &pool);
  };
  CHECK(error(scaling->model, scaling->calibration) < 0.25 * error(before, calibration));
}

TEST_CASE("what scaling needs, and where there is nothing to scale") {
  TemporaryFolder folder;
  const Checkpoint model = Tiny(kFamilies[0], folder);
  const CalibrationFile plain = Calibrated(model, folder / "plain.gguf", false);
  const auto blind = Scale(model, plain, ScaleMethod::kAwq);
  REQUIRE_FALSE(blind);
  CHECK(blind.error().message.find("second moments") != std::string::npos);
  CHECK(Scale(model, plain, ScaleMethod::kSmooth).has_value());
  const auto floats = Scale(model, plain, ScaleMethod::kAwq, "f16");
  REQUIRE(floats.has_value());
  CHECK(floats->inputs == 0);

  // What llama-imatrix writes: sums of squares and counts alone.
  std::vector<GgufTensorDecl> tensors;
  for (const std::string& weight : plain.weights()) {
    const uint64_t columns = plain.Moments(weight)->columns();
    tensors.push_back({weight + ".in_sum2", DType::kF32, Shape{1, columns}});
    tensors.push_back({weight + ".counts", DType::kF32, Shape{1, 1}});
  }
  Metadata metadata;
  metadata.Set("general.type", std::string("imatrix"));
  auto writer = GgufWriter::Create(folder / "imatrix.gguf", false, metadata, tensors);
  REQUIRE(writer.has_value());
  for (const GgufTensorDecl& tensor : tensors) {
    const std::vector<float> ones(tensor.shape.elements(), 1.0f);
    REQUIRE(writer->Write(std::as_bytes(std::span(ones))));
  }
  REQUIRE(writer->Finish());
  const auto imatrix = CalibrationFile::Open(folder / "imatrix.gguf");
  REQUIRE(imatrix.has_value());
  for (const ScaleMethod method : {ScaleMethod::kAwq, ScaleMethod::kSmooth}) {
    const auto foreign = Scale(model, *imatrix, method);
    REQUIRE_FALSE(foreign);
    CHECK(foreign.error().message.find("magnitudes") != std::string::npos);
  }
}

}  // namespace
}  // namespace edgewise
