// Learning scales, alone and with weights: what the network sees, and gradients against
// differences.
#include "train/block_scales.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "quant/block_parts.h"
#include "quant/scale_fields.h"
#include "train/test_models.h"
#include "train/test_training.h"
#include "train/trainer.h"

namespace edgewise::train {
namespace {

// A model of one layer whose rows are blocks of every format, with its matrices in `format`.
Checkpoint Quantized(DType format, const TemporaryFolder& folder) {
  const TinySizes sizes = {
      .dim = 256, .layers = 1, .heads = 4, .kv_heads = 1, .head_dim = 64, .ffn = 256, .vocab = 37};
  TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 3).Write(folder.path());
  const auto source = Checkpoint::Open(folder.path());
  REQUIRE(source);
  auto model = Checkpoint::Open(WriteMatricesIn(format, *source, folder));
  REQUIRE_MESSAGE(model, (model ? "" : model.error().message));
  return *model;
}

TEST_CASE("factors of 1 give the file's values, others the blocks that are written") {
  for (const DType format :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ2_K, DType::kQ3_K, DType::kQ6_K}) {
    CAPTURE(std::string(Info(format).name));
    const TemporaryFolder folder;
    const Checkpoint model = Quantized(format, folder);
    const ParameterLayout layout(model.spec());
    ThreadPool pool(2);
    auto scales = BlockScales::Create(model, &pool);
    REQUIRE(scales);
    CHECK(scales->weights() == 0);
    CHECK(scales->learned() ==
          layout.matrix_size() / Info(format).block * ScaleFieldsOf(format).size());
    std::vector<float> factors(scales->learned(), 1.0f);
    const auto same = scales->Apply(factors);
    REQUIRE(same);
    CHECK(std::vector<float>(*same, *same + layout.size()) == *LoadParameters(model, layout));
    Rng rng(1);
    for (float& factor : factors) factor = static_cast<float>(1 + 0.1 * rng.Gaussian());
    const auto changed = scales->Apply(factors);
    REQUIRE(changed);
    for (const BlockScales::ScaledTensor& tensor : scales->tensors()) {
      const std::vector<std::byte> blocks = scales->Blocks(tensor, factors);
      std::vector<float> values(tensor.parameter.shape.elements());
      Info(format).decode(blocks.data(), values.data(), values.size());
      const float* seen = *changed + tensor.parameter.offset;
      CHECK(std::vector<float>(seen, seen + values.size()) == values);
    }
  }
}

TEST_CASE("a factor's gradient is what doubling its half does to the weights") {
  for (const DType format : {DType::kQ5_1, DType::kQ4_K, DType::kIQ4_XS}) {
    CAPTURE(std::string(Info(format).name));
    const TemporaryFolder folder;
    const Checkpoint model = Quantized(format, folder);
    const ParameterLayout layout(model.spec());
    ThreadPool pool(3);
    auto scales = BlockScales::Create(model, &pool);
    REQUIRE(scales);
    const std::vector<float> before = *LoadParameters(model, layout);
    std::vector<float> g(layout.size()), gradients(scales->learned());
    Rng rng(2);
    for (float& value : g) value = static_cast<float>(rng.Gaussian());
    std::vector<float> factors(scales->learned(), 1.0f);
    scales->Reduce(factors, g.data(), gradients.data());
    for (size_t i = 0; i < factors.size(); i += 1 + factors.size() / 97) {
      factors[i] = 2;
      const float* after = *scales->Apply(factors);
      factors[i] = 1;
      double change = 0;
      for (size_t j = 0; j < g.size(); ++j) {
        change += static_cast<double>(g[j]) *
                  (static_cast<double>(after[j]) - static_cast<double>(before[j]));
      }
      REQUIRE(static_cast<double>(gradients[i]) == doctest::Approx(change).epsilon(1e-3));
    }
  }
}

// Weights of one matrix, and of a vector that is in no block format.
struct Matrix {
  std::vector<Parameter> parameters = {{"matrix", Shape{4, 512}, 0}, {"vector", Shape{8}, 2048}};
  std::vector<float> weights;

  Matrix() {
    Rng rng(3);
    for (size_t i = 0; i < 2056; ++i) {
      weights.push_back(static_cast<float>(0.1 * rng.Gaussian()) + 0.02f);
    }
  }
  // Two of four are zero, as sparse formats need it.
  void Prune() {
    for (size_t i = 0; i < 2048; ++i) {
      if (i % 4 < 2) weights[i] = 0;
    }
  }
};

// The weights, and behind them the factors.
std::vector<float> First(const Matrix& matrix, const BlockScales& scales) {
  std::vector<float> learned = matrix.weights;
  scales.AppendFactors(&learned);
  CHECK(learned.size() == scales.learned());
  return learned;
}

constexpr DType kBlockFormats[] = {DType::kQ4_0,   DType::kQ4_1,   DType::kQ5_0,   DType::kQ5_1,
                                   DType::kQ8_0,   DType::kQ2_K,   DType::kQ3_K,   DType::kQ4_K,
                                   DType::kQ5_K,   DType::kQ6_K,   DType::kIQ4_NL, DType::kIQ4_XS,
                                   DType::kS24_Q4, DType::kS24_Q8, DType::kBM_Q4,  DType::kBM_Q8};

TEST_CASE("with weights: codes are the nearest by scales that begin as the encoder's") {
  for (const DType format : kBlockFormats) {
    const DTypeInfo& info = Info(format);
    CAPTURE(std::string(info.name));
    Matrix matrix;
    if (info.sparse()) matrix.Prune();
    const DType formats[] = {format, DType::kF16};
    ThreadPool pool(2);
    auto scales = BlockScales::CreateWithWeights(matrix.parameters, formats, matrix.weights, &pool);
    REQUIRE(scales);
    CHECK(scales->weights() == 2056);
    CHECK(scales->learned() == 2056 + 2048 / info.block * ScaleFieldsOf(format).size());
    std::vector<float> learned = First(matrix, *scales);
    std::vector<std::byte> blocks(info.RowBytes(2048));
    std::vector<float> encoded(2048);
    info.encode(matrix.weights.data(), nullptr, blocks.data(), 2048);
    info.decode(blocks.data(), encoded.data(), 2048);
    const float* seen = *scales->Apply(learned);
    size_t farther = 0;
    for (size_t i = 0; i < 2048; ++i) {
      const float w = matrix.weights[i];
      farther += std::abs(seen[i] - w) > std::abs(encoded[i] - w) * 1.0001f + 1e-7f;
      if (info.sparse()) CHECK((w != 0 || seen[i] == 0));
    }
    CHECK(farther == 0);
    for (size_t i = 2048; i < 2056; ++i) {
      CHECK(seen[i] == HalfToFloat(FloatToHalf(matrix.weights[i])));
    }
    // Other weights and factors: still the blocks that are written.
    Rng rng(4);
    for (size_t i = 0; i < learned.size(); ++i) {
      learned[i] *= static_cast<float>(1 + 0.2 * rng.Gaussian());
    }
    seen = *scales->Apply(learned);
    info.decode(scales->Blocks(scales->tensors()[0], learned).data(), encoded.data(), 2048);
    CHECK(std::vector<float>(seen, seen + 2048) == encoded);
  }
}

// What is seen of a weight, in double precision, with the rounding or the code of a weight beyond
// its levels held fast: LSQ's gradients are those of this function.
struct Surrogate {
  double scale, offset;  // of the group, with factors of 1
  double rounding = 0;   // code - exact, of a weight within
  double code = 0;       // of one beyond
  bool within = false;

  double At(double weight, double factor, double factor_of_offset) const {
    const double s = scale * factor, o = offset * factor_of_offset;
    return within ? s * rounding + (weight + o) - o : s * code - o;
  }
};

TEST_CASE("with weights: gradients of weights and factors against differences") {
  for (const DType format : kBlockFormats) {
    const DTypeInfo& info = Info(format);
    CAPTURE(std::string(info.name));
    const BlockForm& form = *FormOf(format);
    Matrix matrix;
    if (info.sparse()) matrix.Prune();
    // The second block of 256 is all the same: groups with an offset and no scale.
    if (!info.sparse()) std::fill_n(matrix.weights.begin() + 256, 256, 0.05f);
    const DType formats[] = {format, DType::kF32};
    ThreadPool pool(3);
    auto scales = BlockScales::CreateWithWeights(matrix.parameters, formats, matrix.weights, &pool);
    REQUIRE(scales);
    const size_t fields = ScaleFieldsOf(format).size();
    std::vector<float> learned = First(matrix, *scales);
    Rng rng(5);
    for (size_t i = 0; i < 2048; ++i) learned[i] *= static_cast<float>(1 + 0.3 * rng.Gaussian());
    std::vector<float> gradients(scales->learned());
    for (size_t i = 0; i < 2056; ++i) gradients[i] = static_cast<float>(rng.Gaussian());
    const std::vector<float> g = gradients;
    scales->Reduce(learned, gradients.data(), gradients.data());
    const BlockScales::ScaledTensor& tensor = scales->tensors()[0];
    CHECK(tensor.unit == doctest::Approx(0.1).epsilon(0.5));
    size_t beyond = 0;
    for (size_t b = 0; b < tensor.block_count(); ++b) {
      BlockParts parts;
      form.unpack(tensor.blocks.data() + b * info.block_bytes, &parts);
      double of_factor[2] = {};
      for (size_t j = 0; j < info.block; ++j) {
        const size_t i = b * info.block + j, group = j / form.group;
        const double d = static_cast<double>(HalfToFloat(parts.d)),
                     dmin = static_cast<double>(HalfToFloat(parts.dmin));
        Surrogate s{d * parts.scale[group], dmin * parts.min[group]};
        const bool left_out = info.sparse() && (parts.kept >> j & 1) == 0;
        if (left_out) {
          CHECK(gradients[i] == 0);
          continue;
        }
        const auto weight = static_cast<double>(learned[i]), gradient = static_cast<double>(g[i]);
        // A group without a scale is a level beyond which every weight lies.
        const double exact = s.scale == 0 ? INFINITY : (weight + s.offset) / s.scale;
        std::vector<double> codes;
        if (form.grid != nullptr) {
          codes.assign(form.grid, form.grid + 16);
        } else {
          for (int code = form.low; code <= form.high; ++code) codes.push_back(code);
        }
        double nearest = codes[0];
        for (const double code : codes) {
          if (std::abs(code - exact) < std::abs(nearest - exact)) nearest = code;
        }
        s.within = exact >= codes.front() && exact <= codes.back();
        s.rounding = s.within ? nearest - exact : 0;
        s.code = nearest;
        beyond += !s.within;
        constexpr double kStep = 1e-3;
        const auto difference = [&](double of_weight, double of_d, double of_m) {
          return gradient *
                 (s.At(weight + of_weight, 1 + of_d, 1 + of_m) -
                  s.At(weight - of_weight, 1 - of_d, 1 - of_m)) /
                 (2 * kStep);
        };
        CHECK(static_cast<double>(gradients[i]) ==
              doctest::Approx(difference(kStep, 0, 0)).epsilon(1e-3));
        of_factor[0] += difference(0, kStep, 0);
        of_factor[1] += difference(0, 0, kStep);
      }
      for (size_t f = 0; f < fields; ++f) {
        const double got = static_cast<double>(gradients[2056 + b * fields + f] * tensor.unit);
        CHECK(std::abs(got - of_factor[f]) < 1e-3 * (std::abs(of_factor[f]) + 0.1));
      }
    }
    CHECK(beyond > 10);
    for (size_t i = 2048; i < 2056; ++i) CHECK(gradients[i] == g[i]);
  }
}

Corpus Lines() {
  Corpus corpus;
  for (size_t d = 0; d < 8; ++d) corpus.Append(TinyTokens(12, 37, d + 1));
  return corpus;
}

TrainerOptions LineOptions(BlockScales* scales) {
  TrainerOptions options;
  options.schedule = {.peak = 1e-2, .steps = 20};
  options.batch = {.tokens = 88, .sequence = 12, .seed = 1};
  options.precision = Precision::kF32;
  options.accumulation = 2;
  options.scales = scales;
  return options;
}

TEST_CASE("the loss falls, whatever the threads, and only factors are learned") {
  const TemporaryFolder folder;
  const Checkpoint model = Quantized(DType::kQ4_0, folder);
  const Corpus corpus = Lines();
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    auto scales = BlockScales::Create(model, &pool);
    REQUIRE(scales);
    TrainerState state;
    scales->AppendFactors(&state.weights);
    CrossEntropyLoss loss(&pool);
    Watcher watcher;
    const Status trained = RunTraining(model.spec(), LineOptions(&*scales), corpus, &corpus, &loss,
                                       &pool, &watcher, &watcher, &state);
    REQUIRE_MESSAGE(trained, (trained ? "" : trained.error().message));
    CHECK(watcher.reports.back().loss < watcher.reports.front().loss - 0.3);
    if (first.empty()) first = state.weights;
    CHECK(state.weights == first);
  }
}

TEST_CASE("with weights: threads, processes and a stop change no bit, and the loss falls") {
  const TemporaryFolder folder;
  const Checkpoint model = Quantized(DType::kF16, folder);
  const ParameterLayout layout(model.spec());
  const Corpus corpus = Lines();
  const std::vector<float> weights = *LoadParameters(model, layout);
  std::vector<DType> formats;
  for (const Parameter& parameter : layout.all()) {
    formats.push_back(parameter.shape.rank() == 2 ? DType::kQ2_K : DType::kF32);
  }
  const auto train = [&](const TrainerOptions& given, int threads, Watcher* watcher,
                         TrainerState* state) {
    ThreadPool pool(threads);
    auto scales = BlockScales::CreateWithWeights(layout.all(), formats, weights, &pool);
    REQUIRE(scales);
    TrainerOptions options = given;
    options.scales = &*scales;
    CrossEntropyLoss loss(&pool);
    return RunTraining(model.spec(), options, corpus, &corpus, &loss, &pool, watcher, watcher,
                       state);
  };
  TrainerState start;
  start.weights = weights;
  ThreadPool pool(1);
  BlockScales::CreateWithWeights(layout.all(), formats, weights, &pool)
      ->AppendFactors(&start.weights);
  const float last = start.weights.back();
  CheckSameRuns(LineOptions(nullptr), start, train);
  Watcher watcher;
  REQUIRE(train(LineOptions(nullptr), 2, &watcher, &start));
  CHECK(watcher.reports.back().loss < watcher.reports.front().loss - 0.1);
  CHECK(start.weights.back() != last);
}

TEST_CASE("a model without scales, and factors that a half cannot follow") {
  const TemporaryFolder floats, quantized;
  ThreadPool pool(1);
  const auto none = BlockScales::Create(Quantized(DType::kF16, floats), &pool);
  REQUIRE_FALSE(none);
  CHECK(none.error().message.find("quantize the model first") != std::string::npos);
  auto scales = BlockScales::Create(Quantized(DType::kQ8_0, quantized), &pool);
  REQUIRE(scales);
  const std::vector<float> large(scales->learned(), 1e9f);
  const auto applied = scales->Apply(large);
  REQUIRE_FALSE(applied);
  CHECK(applied.error().code == Code::kBadData);
  CHECK(applied.error().message.find("too large for a half") != std::string::npos);

  const Matrix matrix;
  const DType no_blocks[] = {DType::kF16, DType::kF32}, blocks[] = {DType::kQ4_K, DType::kF32};
  const auto empty =
      BlockScales::CreateWithWeights(matrix.parameters, no_blocks, matrix.weights, &pool);
  REQUIRE_FALSE(empty);
  CHECK(empty.error().message.find("no scales to learn") != std::string::npos);
  auto both = BlockScales::CreateWithWeights(matrix.parameters, blocks, matrix.weights, &pool);
  REQUIRE(both);
  std::vector<float> learned = First(matrix, *both);
  learned[700] = NAN;
  const auto wrong = both->Apply(learned);
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().message.find("tensor matrix: a scale or weight is not finite") !=
        std::string::npos);
}

}  // namespace
}  // namespace edgewise::train
