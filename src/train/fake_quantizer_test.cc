// Training through a quantizer: the network sees what a file would hold, gradients pass through.
#include "train/fake_quantizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "quant/encodable.h"
#include "train/trainer.h"

namespace edgewise::train {
namespace {

// Its rows are whole blocks of every format.
ModelSpec WideSpec() {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.n_layers = 1;
  spec.dim = 256;
  spec.n_heads = 4;
  spec.n_kv_heads = 1;
  spec.head_dim = 64;
  spec.ffn_dim = 256;
  spec.vocab_size = 11;
  spec.context_length = 64;
  spec.rope.rotary_dim = 64;
  spec.tied_embeddings = true;
  return spec;
}

std::vector<DType> MatricesIn(DType format, const ParameterLayout& layout) {
  std::vector<DType> formats;
  for (const Parameter& parameter : layout.all()) {
    formats.push_back(parameter.shape.rank() == 2 ? format : DType::kF32);
  }
  return formats;
}

// Random weights; for a sparse format two of each four are zero.
std::vector<float> WeightsFor(DType format, const ParameterLayout& layout) {
  std::vector<float> weights = RandomParameters(WideSpec(), layout, 7);
  if (!Info(format).sparse()) return weights;
  for (size_t i = 0; i < layout.matrix_size(); i += 4) weights[i + i / 4 % 2] = weights[i + 2] = 0;
  return weights;
}

// Row by row, without threads.
std::vector<float> Rounded(const std::vector<DType>& formats, const ParameterLayout& layout,
                           const std::vector<float>& weights) {
  std::vector<float> rounded(weights.size());
  for (size_t i = 0; i < formats.size(); ++i) {
    const Parameter& parameter = layout.all()[i];
    const size_t columns = parameter.shape.columns();
    std::vector<std::byte> row(Info(formats[i]).RowBytes(columns));
    const size_t end = parameter.offset + parameter.shape.elements();
    for (size_t at = parameter.offset; at < end; at += columns) {
      Info(formats[i]).encode(weights.data() + at, nullptr, row.data(), columns);
      Info(formats[i]).decode(row.data(), rounded.data() + at, columns);
    }
  }
  return rounded;
}

std::vector<DType> WritableFormats() {
  std::vector<DType> formats;
  for (const DTypeInfo& info : AllDTypes()) {
    if (info.encode != nullptr) formats.push_back(info.id);
  }
  return formats;
}

struct Quiet final : TrainingObserver, Progress {
  std::vector<StepReport> reports;
  Status OnStep(const StepReport& report, const TrainerState&) override {
    reports.push_back(report);
    return Ok{};
  }
  void Update(std::string_view, uint64_t, uint64_t) override {}
  bool Cancelled() const override { return false; }
};

Corpus Counting(size_t documents) {
  Corpus corpus;
  for (size_t d = 0; d < documents; ++d) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < 12; ++i) tokens.push_back(static_cast<int32_t>((d + i) % 11));
    corpus.Append(tokens);
  }
  return corpus;
}

TrainerOptions Options(uint64_t steps, std::vector<DType> formats) {
  TrainerOptions options;
  options.schedule = {.peak = 1e-3, .steps = steps};
  options.batch = {.tokens = 24, .sequence = 12, .seed = 1};
  options.precision = Precision::kF32;
  options.network.keep_zeros = true;
  options.formats = std::move(formats);
  return options;
}

struct Trained {
  TrainerState state;
  std::vector<StepReport> reports;
};

Trained Train(const TrainerOptions& options, std::vector<float> weights, int threads) {
  Trained trained;
  trained.state.weights = std::move(weights);
  const Corpus corpus = Counting(20), held_out = Counting(5);
  ThreadPool pool(threads);
  CrossEntropyLoss loss(&pool);
  Quiet quiet;
  const Status status = RunTraining(WideSpec(), options, corpus, &held_out, &loss, &pool, &quiet,
                                    &quiet, &trained.state);
  REQUIRE_MESSAGE(status.has_value(), (status ? "" : status.error().message));
  trained.reports = quiet.reports;
  return trained;
}

TEST_CASE("the network sees decode(encode(w)) of every format, by any number of threads") {
  const ParameterLayout layout(WideSpec());
  for (const DType format : WritableFormats()) {
    CAPTURE(std::string(Info(format).name));
    const std::vector<DType> formats = MatricesIn(format, layout);
    const std::vector<float> weights = WeightsFor(format, layout);
    const std::vector<float> expected = Rounded(formats, layout, weights);
    REQUIRE(CheckFormats(layout.all(), formats, false, weights.data()).has_value());
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      FakeQuantizer quantizer(layout.all(), formats, &pool);
      const auto seen = quantizer.Apply(weights.data());
      REQUIRE(seen.has_value());
      CHECK(std::equal(expected.begin(), expected.end(), *seen));
    }
  }
  ThreadPool pool(1);
  const std::vector<float> weights = WeightsFor(DType::kF32, layout);
  CHECK(*FakeQuantizer(layout.all(), {}, &pool).Apply(weights.data()) == weights.data());
}

TEST_CASE(
    "a step's loss and gradient are those at the quantized weights, and so is each measurement") {
  const ParameterLayout layout(WideSpec());
  for (const DType format : WritableFormats()) {
    CAPTURE(std::string(Info(format).name));
    const std::vector<DType> formats = MatricesIn(format, layout);
    const std::vector<float> weights = WeightsFor(format, layout);
    TrainerOptions floats = Options(1, {});
    floats.network.keep_zeros = false;
    TrainerOptions quantized = Options(1, formats);
    quantized.network.keep_zeros = Info(format).sparse();
    const Trained through = Train(quantized, weights, 2);
    const Trained at = Train(floats, Rounded(formats, layout, weights), 2);
    CHECK(through.reports[0].loss == at.reports[0].loss);
    // Without a mask the gradient passes to every weight.
    if (!quantized.network.keep_zeros)
      CHECK(through.reports[0].gradient_norm == at.reports[0].gradient_norm);
    // The trained floats are no numbers of the format, but those measured are.
    ThreadPool pool(2);
    auto ops = MakeCpuOps(&pool, Precision::kF32);
    auto network = Network::Create(WideSpec(), ops.get(), {});
    REQUIRE(network.has_value());
    const std::vector<float> written = Rounded(formats, layout, through.state.weights);
    Quiet quiet;
    CrossEntropyLoss cross_entropy(&pool);
    const auto loss =
        HeldOutLoss(Counting(5), floats.batch, written.data(), &cross_entropy, quiet, &*network);
    REQUIRE(loss.has_value());
    CHECK(*through.reports[0].held_out == *loss);
    if (Info(format).quantized()) CHECK(written != through.state.weights);
  }
}

TEST_CASE("zeros stay zeros in the floats and in sparse formats") {
  const ParameterLayout layout(WideSpec());
  for (const DType format : {DType::kS24_Q4, DType::kS24_Q8, DType::kBM_Q4, DType::kQ3_K}) {
    CAPTURE(std::string(Info(format).name));
    const std::vector<DType> formats = MatricesIn(format, layout);
    const std::vector<float> weights = WeightsFor(DType::kS24_Q4, layout);
    const Trained trained = Train(Options(5, formats), weights, 2);
    const std::vector<float> seen = Rounded(formats, layout, trained.state.weights);
    size_t zeros = 0, moved = 0;
    for (size_t i = 0; i < layout.matrix_size(); ++i) {
      if (weights[i] != 0) {
        moved += trained.state.weights[i] != weights[i];
        continue;
      }
      ++zeros;
      REQUIRE(trained.state.weights[i] == 0);
      REQUIRE(seen[i] == 0);
    }
    CHECK(zeros == layout.matrix_size() / 2);
    CHECK(moved > zeros / 2);
  }
}

TEST_CASE("formats that keep zeros do so for any weights, and the others do not") {
  Rng rng(3);
  for (const DType format : WritableFormats()) {
    CAPTURE(std::string(Info(format).name));
    std::vector<float> values(1 << 14), decoded(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = i % 4 < 2 ? 0.0f : static_cast<float>(0.5 + rng.Gaussian());
    }
    std::vector<std::byte> blocks(Info(format).RowBytes(values.size()));
    Info(format).encode(values.data(), nullptr, blocks.data(), values.size());
    Info(format).decode(blocks.data(), decoded.data(), values.size());
    bool kept = true;
    for (size_t i = 0; i < values.size(); ++i) kept &= values[i] != 0 || decoded[i] == 0;
    CHECK(kept == KeepsZeros(format));
  }
}

TEST_CASE("what cannot be trained is refused with its tensor") {
  const ParameterLayout layout(WideSpec());
  std::vector<float> weights = WeightsFor(DType::kF32, layout);
  const auto fails = [&](std::vector<DType> formats, bool keep_zeros, const std::string& part) {
    const Status status = CheckFormats(layout.all(), formats, keep_zeros, weights.data());
    CAPTURE(part);
    REQUIRE(!status.has_value());
    CAPTURE(status.error().message);
    CHECK(status.error().message.find(part) != std::string::npos);
  };
  fails({DType::kF32}, false, "1 formats for");
  fails(MatricesIn(DType::kI8, layout), false, "i8 cannot be written");
  fails(MatricesIn(DType::kS24_Q4, layout), false, "more than 2 of 4 weights are not 0");
  weights[5] = 0;
  fails(MatricesIn(DType::kQ4_1, layout), true, "would not stay so in q4_1");
  weights[256 + 7] = 1e6f;
  fails(MatricesIn(DType::kQ4_0, layout), false, "row 1, column 7");
  weights[256 + 7] = std::numeric_limits<float>::quiet_NaN();
  fails(MatricesIn(DType::kF32, layout), false, "not finite");
  ModelSpec narrow = WideSpec();
  narrow.ffn_dim = 96;
  const ParameterLayout other(narrow);
  const std::vector<float> values(other.size(), 1.0f);
  const Status status =
      CheckFormats(other.all(), MatricesIn(DType::kQ3_K, other), false, values.data());
  REQUIRE(!status.has_value());
  CHECK(status.error().message.find("rows of 96 are not blocks of 256") != std::string::npos);
}

}  // namespace
}  // namespace edgewise::train
