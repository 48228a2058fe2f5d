// Real models against logits of independent implementations.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "model/model.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

std::unique_ptr<Model> LoadModel(const std::string& path) {
  auto checkpoint = Checkpoint::Open(path);
  REQUIRE_MESSAGE(checkpoint.has_value(), (checkpoint ? "" : checkpoint.error().message));
  ThreadPool pool(1);
  auto model = Model::Load(*std::move(checkpoint), &pool);
  REQUIRE_MESSAGE(model.has_value(), (model ? "" : model.error().message));
  return *std::move(model);
}

Json ReadJson(const std::string& path) {
  auto text = ReadFile(path, 1 << 26);
  REQUIRE(text.has_value());
  auto json = ParseJson(*text);
  REQUIRE(json.has_value());
  return *std::move(json);
}

std::vector<int32_t> Ids(const Json* list) {
  REQUIRE(list != nullptr);
  std::vector<int32_t> ids;
  for (const Json& id : *list->AsArray()) ids.push_back(static_cast<int32_t>(*id.AsInt()));
  return ids;
}

// Runs all tokens at once and returns (tokens, vocab_size) logits.
std::vector<float> AllLogits(const Model& model, const std::vector<int32_t>& ids,
                             kernels::KvFormat format = kernels::KvFormat::kF32) {
  ThreadPool pool(2);
  ForwardPass pass(model, &pool);
  auto cache = KvCache::Create(model.spec(), 256, format);
  REQUIRE(cache.has_value());
  std::vector<float> logits(ids.size() * model.spec().vocab_size);
  const Status status = pass.Run(ids, &*cache, 0, logits);
  REQUIRE_MESSAGE(status.has_value(), (status ? "" : status.error().message));
  return logits;
}

double MeanNll(const Model& model, const std::vector<int32_t>& ids,
               const std::vector<float>& logits) {
  double sum = 0;
  const size_t vocab = model.spec().vocab_size;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const float* row = logits.data() + i * vocab;
    sum += kernels::Active().log_sum_exp(row, vocab) - static_cast<double>(row[ids[i + 1]]);
  }
  return sum / static_cast<double>(ids.size() - 1);
}

// The largest difference from the golden logits.
double Compare(const Json& golden, const Model& model, const std::vector<float>& logits) {
  double worst = 0;
  const size_t vocab = model.spec().vocab_size;
  for (const Json& entry : *golden.Find("logits")->AsArray()) {
    const auto position = static_cast<size_t>(*entry.Find("position")->AsInt());
    const JsonArray& values = *entry.Find("values")->AsArray();
    REQUIRE(values.size() == vocab);
    for (size_t i = 0; i < vocab; ++i) {
      const double expected = *values[i].AsDouble();
      worst =
          std::max(worst, std::abs(expected - static_cast<double>(logits[position * vocab + i])));
    }
  }
  return worst;
}

std::vector<int32_t> Greedy(const Model& model, const std::vector<int32_t>& prompt, size_t count) {
  ThreadPool pool(1);
  ForwardPass pass(model, &pool);
  auto cache = KvCache::Create(model.spec(), 256, kernels::KvFormat::kF32);
  REQUIRE(cache.has_value());
  std::vector<float> logits(model.spec().vocab_size);
  std::vector<int32_t> input = prompt, output;
  while (output.size() < count) {
    REQUIRE(pass.Run(input, &*cache, input.size() - 1, logits).has_value());
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    output.push_back(static_cast<int32_t>(best));
    input = {output.back()};
  }
  return output;
}

TEST_CASE("stories260K gives the logits of an independent implementation") {
  EW_EXTERNAL_OR_SKIP(path, "models/stories260K/stories260K.bin");
  EW_EXTERNAL_OR_SKIP(golden_path, "golden/stories260K_logits.json");
  const auto model = LoadModel(path);
  const ModelSpec& spec = model->spec();
  CHECK(spec.architecture == "llama");
  CHECK(spec.dim == 64);
  CHECK(spec.ffn_dim == 172);
  CHECK(spec.n_layers == 5);
  CHECK(spec.n_heads == 8);
  CHECK(spec.n_kv_heads == 4);
  CHECK(spec.vocab_size == 512);
  const Json golden = ReadJson(golden_path);
  const std::vector<int32_t> ids = Ids(golden.Find("token_ids"));
  const std::vector<float> logits = AllLogits(*model, ids);
  const double worst = Compare(golden, *model, logits);
  MESSAGE("largest difference " << worst);
  CHECK(worst < 1e-4);
  CHECK(std::abs(MeanNll(*model, ids, logits) - *golden.Find("mean_nll")->AsDouble()) < 1e-5);
}

TEST_CASE("the Q8 checkpoint of stories260K reads and is close") {
  EW_EXTERNAL_OR_SKIP(path, "models/stories260K/stories260K-q8.bin");
  EW_EXTERNAL_OR_SKIP(golden_path, "golden/stories260K_logits.json");
  const auto model = LoadModel(path);
  const Json golden = ReadJson(golden_path);
  const std::vector<int32_t> ids = Ids(golden.Find("token_ids"));
  const std::vector<float> logits = AllLogits(*model, ids);
  CHECK(Compare(golden, *model, logits) > 0.0);
  CHECK(std::abs(MeanNll(*model, ids, logits) - *golden.Find("mean_nll")->AsDouble()) < 0.02);
}

TEST_CASE("edgewise-stories-3M gives the logits and the text of an independent implementation") {
  EW_EXTERNAL_OR_SKIP(golden_path, "golden/edgewise_stories_3M_logits.json");
  const auto model = LoadModel(SourcePath("models/edgewise-stories-3M"));
  const Json golden = ReadJson(golden_path);
  const std::vector<int32_t> ids = Ids(golden.Find("token_ids"));
  const std::vector<float> logits = AllLogits(*model, ids);
  const double worst = Compare(golden, *model, logits);
  MESSAGE("largest difference " << worst);
  CHECK(worst < 1e-3);
  CHECK(std::abs(MeanNll(*model, ids, logits) - *golden.Find("mean_nll")->AsDouble()) < 1e-4);
  const Json* greedy = golden.Find("greedy");
  REQUIRE(greedy != nullptr);
  const std::vector<int32_t> expected = Ids(greedy->Find("continuation_ids"));
  CHECK(Greedy(*model, Ids(greedy->Find("prompt_ids")), expected.size()) == expected);
}

TEST_CASE("edgewise-stories-3M accounts for its bytes") {
  const auto model = LoadModel(SourcePath("models/edgewise-stories-3M"));
  const ModelSpec& spec = model->spec();
  CHECK(spec.tied_embeddings);
  uint64_t bytes = 0;
  for (const CheckpointTensor& tensor : model->checkpoint().tensors()) {
    bytes += *TensorBytes(tensor.dtype, tensor.shape);
  }
  CHECK(model->weight_bytes() == bytes);
  CHECK(model->bytes_per_token() == bytes);
}

}  // namespace
}  // namespace edgewise
