// Properties of the forward pass: independence of batching and threads, KV formats, errors.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "formats/gguf.h"
#include "model/model.h"
#include "model/tiny_model.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

using kernels::KvFormat;

const Model& Stories() {
  static const std::unique_ptr<Model> model =
      LoadTestModel(SourcePath("models/edgewise-stories-3M"));
  return *model;
}

struct Setup {
  int threads = 1;
  uint32_t max_batch = 512;
  uint32_t capacity = 128;
  KvFormat format = KvFormat::kF32;
};

KvCache MakeCache(const Model& model, uint32_t capacity, KvFormat format) {
  auto cache = KvCache::Create(model.spec(), capacity, format);
  REQUIRE(cache.has_value());
  return *std::move(cache);
}

std::vector<float> Logits(const Model& model, std::span<const int32_t> tokens, const Setup& setup,
                          size_t first_logits = 0) {
  ThreadPool pool(setup.threads);
  ForwardPass pass(model, &pool, setup.max_batch);
  KvCache cache = MakeCache(model, setup.capacity, setup.format);
  std::vector<float> logits((tokens.size() - first_logits) * model.spec().vocab_size);
  REQUIRE(pass.Run(tokens, &cache, first_logits, logits).has_value());
  return logits;
}

double Largest(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return worst;
}

TEST_CASE("blocks of any size give the logits of one block") {
  const std::vector<int32_t> tokens = TinyTokens(110, Stories().spec().vocab_size);
  for (const KvFormat format : {KvFormat::kF32, KvFormat::kQ4_0}) {
    const std::vector<float> whole = Logits(Stories(), tokens, {.format = format});
    for (const uint32_t batch : {1u, 2u, 7u, 32u, 33u, 69u}) {
      CAPTURE(batch);
      CHECK(Logits(Stories(), tokens, {.max_batch = batch, .format = format}) == whole);
    }
  }
}

TEST_CASE("the number of threads changes no bit") {
  const std::vector<int32_t> tokens = TinyTokens(70, Stories().spec().vocab_size);
  for (const KvFormat format : {KvFormat::kF32, KvFormat::kQ4_0}) {
    for (const uint32_t batch : {1u, 5u, 512u}) {
      CAPTURE(batch);
      Setup setup = {.threads = 1, .max_batch = batch, .format = format};
      const std::vector<float> one = Logits(Stories(), tokens, setup);
      for (setup.threads = 2; setup.threads <= 3; ++setup.threads) {
        CAPTURE(setup.threads);
        CHECK(Logits(Stories(), tokens, setup) == one);
      }
    }
  }
}

TEST_CASE("one token's logits are split among threads without a changed bit") {
  // A vocabulary that makes this one product of a decode step worth splitting.
  TinySizes sizes;
  sizes.vocab = 30001;
  TemporaryFolder folder;
  TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 21).Write(folder.path());
  const auto model = LoadTestModel(folder.path());
  const std::vector<int32_t> tokens = TinyTokens(6, sizes.vocab);
  const std::vector<float> one = Logits(*model, tokens, {.threads = 1, .max_batch = 1});
  CHECK(Logits(*model, tokens, {.threads = 2, .max_batch = 1}) == one);
  CHECK(Logits(*model, tokens, {.threads = 3, .max_batch = 1}) == one);
}

TEST_CASE("logits are computed from any token on") {
  const std::vector<int32_t> tokens = TinyTokens(40, Stories().spec().vocab_size);
  const size_t vocab = Stories().spec().vocab_size;
  const std::vector<float> whole = Logits(Stories(), tokens, {});
  for (const uint32_t batch : {512u, 16u}) {
    for (const size_t first : {size_t{1}, size_t{15}, size_t{16}, size_t{17}, size_t{39}}) {
      CAPTURE(first);
      const std::vector<float> part = Logits(Stories(), tokens, {.max_batch = batch}, first);
      const std::vector<float> expected(whole.begin() + static_cast<std::ptrdiff_t>(first * vocab),
                                        whole.end());
      CHECK(part == expected);
    }
  }
}

TEST_CASE("sequences computed together give the bits of each alone") {
  const size_t vocab = Stories().spec().vocab_size;
  const std::vector<int32_t> a = TinyTokens(50, static_cast<uint32_t>(vocab), 1);
  const std::vector<int32_t> b = TinyTokens(23, static_cast<uint32_t>(vocab), 2);
  const std::vector<int32_t> c = TinyTokens(40, static_cast<uint32_t>(vocab), 3);
  for (const KvFormat format : {KvFormat::kF16, KvFormat::kQ4_0}) {
    const auto alone = [&](const std::vector<int32_t>& tokens, size_t first) {
      return Logits(Stories(), tokens, {.format = format}, first);
    };
    std::vector<float> expected = alone(a, 49);
    const std::vector<float> of_b = alone(b, 0), of_c = alone(c, 36);
    expected.insert(expected.end(), of_b.begin(), of_b.end());
    expected.insert(expected.end(), of_c.begin(), of_c.end());
    for (const auto& [threads, batch] :
         {std::pair{1, 1u}, {3, 1u}, {1, 7u}, {3, 51u}, {1, 512u}, {3, 512u}}) {
      CAPTURE(batch);
      ThreadPool pool(threads);
      ForwardPass pass(Stories(), &pool, batch);
      std::vector<KvCache> caches;
      for (int i = 0; i < 3; ++i) caches.push_back(MakeCache(Stories(), 64, format));
      // The third one has a past of its own.
      REQUIRE(pass.Run(std::span(c).first(30), &caches[2], 30, {}).has_value());
      const SequenceTokens together[] = {
          {a, &caches[0], 49}, {b, &caches[1], 0}, {std::span(c).subspan(30), &caches[2], 6}};
      std::vector<float> logits(expected.size());
      REQUIRE(pass.Run(together, logits).has_value());
      CHECK(logits == expected);
      CHECK(caches[0].size() == 50);
      CHECK(caches[1].size() == 23);
      CHECK(caches[2].size() == 40);
    }
  }
}

TEST_CASE("a bad sequence leaves the others of its batch alone") {
  ThreadPool pool(1);
  ForwardPass pass(Stories(), &pool);
  KvCache one = MakeCache(Stories(), 8, KvFormat::kF32),
          two = MakeCache(Stories(), 1, KvFormat::kF32);
  const std::vector<int32_t> tokens = {1, 2};
  const auto refused = [&](std::vector<SequenceTokens> batch) {
    const Status status = pass.Run(batch, {});
    REQUIRE_FALSE(status.has_value());
    CHECK(status.error().code == Code::kInvalidArgument);
    CHECK(one.size() == 0);
    CHECK(two.size() == 0);
    return status.error().message;
  };
  CHECK(refused({{tokens, &one, 2}, {tokens, &two, 2}}).find("do not fit") != std::string::npos);
  CHECK(refused({{tokens, &one, 2}, {tokens, &one, 2}}).find("same KV cache") != std::string::npos);
  CHECK(refused({{tokens, &one, 2}, {{}, &two, 0}}).find("no tokens") != std::string::npos);
  CHECK(refused({}).find("no tokens") != std::string::npos);
}

TEST_CASE("a sliding window keeps its cache small and changes no bit") {
  TemporaryFolder folder;
  const TinySizes sizes;
  Json config = TinyConfig("MistralForCausalLM", "mistral", sizes);
  config.Set("sliding_window", 40).Set("max_position_embeddings", 4096);
  TinyWeights(config, sizes, {}, 5).Write(folder.path());
  const auto model = LoadTestModel(folder.path());
  REQUIRE(model->spec().sliding_window == 40);
  const std::vector<int32_t> tokens = TinyTokens(1500, model->spec().vocab_size);
  const std::span<const int32_t> all(tokens);
  const size_t vocab = model->spec().vocab_size;
  KvCache large = MakeCache(*model, 4096, KvFormat::kF32);
  KvCache small = MakeCache(*model, 320, KvFormat::kF32);  // too short for a ring
  CHECK(large.bytes() == small.bytes());
  ThreadPool pool(2);
  ForwardPass pass(*model, &pool, 2000);  // more than a ring takes at a time
  std::vector<float> logits(1500 * vocab), last(150 * vocab);
  REQUIRE(pass.Run(tokens, &large, 0, logits).has_value());
  // The window reaches 39 tokens back in each layer, so a shorter past gives the same logits.
  const size_t past = 39 * model->spec().n_layers;
  REQUIRE(pass.Run(all.subspan(1350 - past - 20, past + 20 + 150), &small, past + 20, last)
              .has_value());
  CHECK(Largest(last, {logits.end() - static_cast<std::ptrdiff_t>(last.size()), logits.end()}) <
        1e-4);

  // Going back within the ring's slack is exact; further back the cache starts anew.
  REQUIRE(large.Truncate(1500 - 256) == 1500 - 256);
  std::vector<float> again(256 * vocab);
  REQUIRE(pass.Run(all.subspan(1500 - 256), &large, 0, again).has_value());
  CHECK(again ==
        std::vector<float>(logits.end() - static_cast<std::ptrdiff_t>(again.size()), logits.end()));
  REQUIRE(large.Truncate(1300) == 1300);
  CHECK(large.Truncate(1243) == 0);
  CHECK(large.size() == 0);
  REQUIRE(pass.Run(all.first(100), &large, 99, std::span(again).first(vocab)).has_value());
  CHECK(std::equal(again.begin(), again.begin() + static_cast<std::ptrdiff_t>(vocab),
                   logits.begin() + static_cast<std::ptrdiff_t>(99 * vocab)));
}

TEST_CASE("tokens without logits leave the same cache") {
  const std::vector<int32_t> tokens = TinyTokens(30, Stories().spec().vocab_size);
  const size_t vocab = Stories().spec().vocab_size;
  const std::vector<float> whole = Logits(Stories(), tokens, {});
  ThreadPool pool(1);
  ForwardPass pass(Stories(), &pool, 8);
  KvCache cache = MakeCache(Stories(), 30, KvFormat::kF32);
  REQUIRE(pass.Run(std::span(tokens).first(29), &cache, 29, {}).has_value());
  CHECK(cache.size() == 29);
  std::vector<float> last(vocab);
  REQUIRE(pass.Run(std::span(tokens).subspan(29), &cache, 0, last).has_value());
  CHECK(Largest(last, {whole.end() - static_cast<std::ptrdiff_t>(vocab), whole.end()}) < 2e-5);
}

TEST_CASE("a truncated cache refilled gives the same logits") {
  const std::vector<int32_t> tokens = TinyTokens(40, Stories().spec().vocab_size);
  const std::vector<int32_t> other = TinyTokens(20, Stories().spec().vocab_size, 77);
  ThreadPool pool(2);
  ForwardPass pass(Stories(), &pool);
  KvCache cache = MakeCache(Stories(), 64, KvFormat::kF16);
  const std::span<const int32_t> all(tokens);
  REQUIRE(pass.Run(all.first(25), &cache, 25, {}).has_value());
  std::vector<float> expected(15 * Stories().spec().vocab_size), again(expected.size());
  REQUIRE(pass.Run(all.subspan(25), &cache, 0, expected).has_value());
  REQUIRE(cache.Truncate(25) == 25);
  REQUIRE(pass.Run(other, &cache, other.size(), {}).has_value());
  REQUIRE(cache.Truncate(25) == 25);
  CHECK(cache.size() == 25);
  REQUIRE(pass.Run(all.subspan(25), &cache, 0, again).has_value());
  CHECK(again == expected);
}

// A model with two heads of 32 values, one of them of keys.
std::unique_ptr<Model> Heads32(uint64_t window) {
  TinySizes sizes;
  sizes.heads = 2;
  sizes.kv_heads = 1;
  sizes.head_dim = 32;
  Json config = window > 0 ? TinyConfig("MistralForCausalLM", "mistral", sizes)
                           : TinyConfig("LlamaForCausalLM", "llama", sizes);
  config.Set("max_position_embeddings", 4096);
  if (window > 0) config.Set("sliding_window", window);
  TemporaryFolder folder;
  TinyWeights(config, sizes, {}, 6).Write(folder.path());
  return LoadTestModel(folder.path());
}

TEST_CASE("in 4 bits what is taken back leaves no trace") {
  for (const uint64_t window : {0, 40}) {
    const auto model = Heads32(window);
    const size_t vocab = model->spec().vocab_size;
    ThreadPool pool(1);
    ForwardPass pass(*model, &pool);
    KvCache cache = MakeCache(*model, 1000, KvFormat::kQ4_0);
    std::vector<int32_t> kept;
    Rng rng(12);
    size_t whole_blocks = 0;
    for (int step = 0; step < 80; ++step) {
      const bool far = step % 16 == 15;
      const size_t back = rng.Below(far ? kept.size() : std::min<size_t>(kept.size() + 1, 40));
      const auto wanted = static_cast<uint32_t>(kept.size() - back);
      const uint32_t left = cache.Truncate(wanted);
      CHECK((left == wanted || (back > 0 && left == (window > 0 ? 0 : wanted / 32 * 32))));
      if (!far) CHECK(left == wanted);
      whole_blocks += left != wanted;
      kept.resize(left);
      const std::vector<int32_t> more =
          TinyTokens(std::min<size_t>(1 + rng.Below(110), 1000 - left), vocab, 1000 + step);
      kept.insert(kept.end(), more.begin(), more.end());
      std::vector<float> logits(more.size() * vocab);
      REQUIRE(pass.Run(more, &cache, 0, logits).has_value());
      REQUIRE(logits == Logits(*model, kept, {.capacity = 1000, .format = KvFormat::kQ4_0}, left));
    }
    CHECK(whole_blocks > 0);
  }
}

TEST_CASE("KV formats: half is nearly exact, 8 and 4 bits are close, sizes are as told") {
  const std::vector<int32_t> tokens = TinyTokens(60, Stories().spec().vocab_size);
  const std::vector<float> exact = Logits(Stories(), tokens, {.format = KvFormat::kF32});
  const double half = Largest(Logits(Stories(), tokens, {.format = KvFormat::kF16}), exact);
  const double q8 = Largest(Logits(Stories(), tokens, {.format = KvFormat::kQ8_0}), exact);
  const double q4 = Largest(Logits(Stories(), tokens, {.format = KvFormat::kQ4_0}), exact);
  MESSAGE("largest difference: F16 " << half << ", Q8_0 " << q8 << ", Q4_0 " << q4);
  CHECK(half > 0);
  CHECK(half < 0.05);
  CHECK(q8 > half);
  CHECK(q8 < 0.5);
  CHECK(q4 > q8);
  CHECK(q4 < 5);
  // 4 layers, 8 heads of 32 values, keys and values.
  CHECK(MakeCache(Stories(), 10, KvFormat::kF32).bytes() == 4 * 2 * 32 * 8 * 128);
  CHECK(MakeCache(Stories(), 10, KvFormat::kF16).bytes() == 4 * 2 * 32 * 8 * 64);
  CHECK(MakeCache(Stories(), 10, KvFormat::kQ8_0).bytes() == 4 * 2 * 32 * 8 * 34);
  CHECK(MakeCache(Stories(), 10, KvFormat::kQ4_0).bytes() == 4 * 32 * 8 * (20 + 64 + 20));
  CHECK(MakeCache(Stories(), 512, KvFormat::kQ4_0).bytes() == 4 * 8 * (512 * (20 + 20) + 288 * 64));
}

// Writes the stories model with its matrices in the format that `choose` gives for a tensor name.
void WriteQuantized(const std::string& path, DType (*choose)(const std::string& name)) {
  const Checkpoint& source = Stories().checkpoint();
  std::vector<GgufTensorDecl> decls;
  for (const CheckpointTensor& tensor : source.tensors()) {
    const bool matrix = tensor.shape.rank() == 2;
    decls.push_back({tensor.name, matrix ? choose(tensor.name) : DType::kF32, tensor.shape});
  }
  auto writer = GgufWriter::Create(path, false, source.metadata(), decls);
  REQUIRE(writer.has_value());
  for (size_t i = 0; i < decls.size(); ++i) {
    const auto tensor = source.Load(i);
    REQUIRE(tensor.has_value());
    const TensorView& view = tensor->view();
    std::vector<float> row(view.shape.columns());
    std::vector<std::byte> encoded(Info(decls[i].dtype).RowBytes(row.size()));
    for (uint64_t r = 0; r < view.shape.rows(); ++r) {
      view.DecodeRow(r, row.data());
      Info(decls[i].dtype).encode(row.data(), nullptr, encoded.data(), row.size());
      REQUIRE(writer->Write(encoded).has_value());
    }
  }
  REQUIRE(writer->Finish().has_value());
}

DType EightBits(const std::string&) { return DType::kQ8_0; }
// Layers with the same input in formats with different activation blocks.
DType Mixed(const std::string& name) {
  if (name.ends_with("attn_v.weight")) return DType::kF16;
  if (name.ends_with("attn_k.weight") || name.ends_with("ffn_up.weight")) return DType::kQ8_0;
  return name.ends_with("ffn_down.weight") ? DType::kQ6_K : DType::kQ4_K;
}

TEST_CASE("quantized weights: close, and the same for any batch and any number of threads") {
  struct Case {
    DType (*choose)(const std::string&);
    double largest, mean;
  };
  TemporaryFolder folder;
  const std::vector<int32_t> tokens = TinyTokens(64, Stories().spec().vocab_size, 5);
  const std::vector<float> exact = Logits(Stories(), tokens, {});
  for (const Case& each : {Case{EightBits, 0.8, 0.06}, Case{Mixed, 6.0, 0.6}}) {
    const std::string path = folder / (each.choose == Mixed ? "mixed.gguf" : "q8.gguf");
    WriteQuantized(path, each.choose);
    const auto model = LoadTestModel(path);
    CHECK(model->weight_bytes() < Stories().weight_bytes());
    const std::vector<float> logits = Logits(*model, tokens, {});
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      sum += std::abs(static_cast<double>(logits[i]) - static_cast<double>(exact[i]));
    }
    const double mean = sum / static_cast<double>(logits.size());
    MESSAGE("mean difference " << mean << ", largest " << Largest(logits, exact));
    CHECK(mean > 0);
    CHECK(mean < each.mean);
    CHECK(Largest(logits, exact) < each.largest);
    for (const int threads : {2, 3}) CHECK(Logits(*model, tokens, {.threads = threads}) == logits);
    CHECK(Largest(Logits(*model, tokens, {.threads = 2, .max_batch = 1}), logits) <
          0.05 * each.mean);
  }
}

// `model` with the tensors of `other` whose names begin with one of `prefixes`.
std::unique_ptr<Model> Mixed(const TinyModel& model, const TinyModel& other,
                             const std::vector<std::string>& prefixes) {
  TinyModel mixed = model;
  for (auto& [name, tensor] : mixed.tensors) {
    const std::string& full = name;
    const bool taken = std::any_of(prefixes.begin(), prefixes.end(),
                                   [&](const std::string& p) { return full.rfind(p, 0) == 0; });
    if (taken) tensor = other.tensors.at(name);
  }
  TemporaryFolder folder;
  mixed.Write(folder.path());
  return LoadTestModel(folder.path());
}

TEST_CASE("a part of another model gives the bits of a model that has its tensors") {
  const TinyModel first = TinyLlama(1), second = TinyLlama(2);
  const auto base = Mixed(first, first, {}), other = Mixed(second, second, {});
  const std::vector<int32_t> tokens = TinyTokens(20, base->spec().vocab_size);
  struct Case {
    ModelPart part;
    std::vector<std::string> prefixes;
  };
  const Case cases[] = {
      {{ModelPart::Kind::kEmbedding, 0}, {"model.embed_tokens"}},
      {{ModelPart::Kind::kLayer, 0}, {"model.layers.0."}},
      {{ModelPart::Kind::kLayer, 2}, {"model.layers.2."}},
      {{ModelPart::Kind::kOutput, 0}, {"model.norm", "lm_head"}},
  };
  ThreadPool pool(1);
  ForwardPass pass(*base, &pool);
  for (const Case& c : cases) {
    REQUIRE(pass.Substitute(*other, c.part));
    KvCache cache = MakeCache(*base, 64, KvFormat::kF32);
    std::vector<float> logits(tokens.size() * base->spec().vocab_size);
    REQUIRE(pass.Run(tokens, &cache, 0, logits));
    CHECK(logits == Logits(*Mixed(first, second, c.prefixes), tokens, {}));
    CHECK(logits != Logits(*base, tokens, {}));
  }
  CHECK(!pass.Substitute(*other, {ModelPart::Kind::kLayer, 3}));
  const Status foreign = pass.Substitute(Stories(), {ModelPart::Kind::kLayer, 0});
  REQUIRE(!foreign);
  CHECK(foreign.error().code == Code::kInvalidArgument);
}

TEST_CASE("hidden states times the output matrix are the logits") {
  const Model& model = Stories();  // tied: the embedding is the output matrix
  const std::vector<int32_t> tokens = TinyTokens(9, model.spec().vocab_size);
  const size_t dim = model.spec().dim, vocab = model.spec().vocab_size;
  ThreadPool pool(1);
  ForwardPass pass(model, &pool, 4);
  KvCache cache = MakeCache(model, 64, KvFormat::kF32);
  std::vector<float> states(7 * dim), row(dim);
  REQUIRE(pass.RunStates(tokens, &cache, 2, states));
  CHECK(cache.size() == 9);
  const std::vector<float> logits = Logits(model, tokens, {}, 2);
  const auto embedding = model.checkpoint().Load(*model.checkpoint().Find("token_embd.weight"));
  REQUIRE(embedding);
  for (const size_t token : {size_t{0}, size_t{17}, vocab - 1}) {
    embedding->view().DecodeRow(token, row.data());
    for (size_t i = 0; i < 7; ++i) {
      double product = 0;
      for (size_t j = 0; j < dim; ++j) {
        product += static_cast<double>(row[j]) * static_cast<double>(states[i * dim + j]);
      }
      CHECK(product == doctest::Approx(logits[i * vocab + token]).epsilon(1e-3));
    }
  }
  CHECK(!pass.RunStates(tokens, &cache, 2, std::span(states).first(dim)));
}

TEST_CASE("bad requests are refused and leave the cache alone") {
  const uint32_t vocab = Stories().spec().vocab_size;
  ThreadPool pool(1);
  ForwardPass pass(Stories(), &pool);
  KvCache cache = MakeCache(Stories(), 4, KvFormat::kF32);
  std::vector<float> logits(vocab);
  const auto refused = [&](const std::vector<int32_t>& tokens, size_t first, size_t floats) {
    logits.resize(floats);
    const Status status = pass.Run(tokens, &cache, first, logits);
    REQUIRE_FALSE(status.has_value());
    CHECK(status.error().code == Code::kInvalidArgument);
    CHECK(cache.size() == 0);
    return status.error().message;
  };
  CHECK(refused({}, 0, 0).find("no tokens") != std::string::npos);
  CHECK(refused({-1}, 0, vocab).find("-1") != std::string::npos);
  CHECK(refused({3, static_cast<int32_t>(vocab)}, 1, vocab).find("outside") != std::string::npos);
  CHECK(refused({1, 2, 3, 4, 5}, 4, vocab).find("do not fit") != std::string::npos);
  CHECK(refused({1, 2}, 3, 0).find("logits") != std::string::npos);
  CHECK(refused({1, 2}, 0, vocab).find("logits") != std::string::npos);
}

TEST_CASE("caches that cannot be made, or belong to another model, are refused") {
  TemporaryFolder folder;
  TinyLlama().Write(folder.path());
  const auto tiny = LoadTestModel(folder.path());
  const auto none = KvCache::Create(tiny->spec(), 0, KvFormat::kF32);
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().code == Code::kInvalidArgument);
  const auto odd = KvCache::Create(tiny->spec(), 4, KvFormat::kQ8_0);  // heads of 12
  REQUIRE_FALSE(odd.has_value());
  CHECK(odd.error().code == Code::kInvalidArgument);
  CHECK(odd.error().message.find("12") != std::string::npos);

  KvCache foreign = MakeCache(Stories(), 4, KvFormat::kF32);
  ThreadPool pool(1);
  ForwardPass pass(*tiny, &pool);
  const Status status = pass.Run(std::vector<int32_t>{1}, &foreign, 1, {});
  REQUIRE_FALSE(status.has_value());
  CHECK(status.error().code == Code::kInvalidArgument);
}

TEST_CASE("a full cache takes exactly its capacity") {
  ThreadPool pool(1);
  ForwardPass pass(Stories(), &pool);
  KvCache cache = MakeCache(Stories(), 8, KvFormat::kF32);
  const std::vector<int32_t> tokens = TinyTokens(8, 100);
  REQUIRE(pass.Run(tokens, &cache, 8, {}).has_value());
  CHECK(cache.size() == cache.capacity());
  CHECK_FALSE(pass.Run(std::span(tokens).first(1), &cache, 1, {}).has_value());
}

}  // namespace
}  // namespace edgewise
