// Training against libtorch: logits, losses, the gradient of every tensor, and whole steps.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "tests/interop/torch_model.h"
#include "train/network.h"
#include "train/test_models.h"
#include "train/trainer.h"

namespace edgewise {
namespace {

using train::Batch;
using train::DistillationLoss;

constexpr double kTolerance = 1e-4;
constexpr float kScale = 0.25f;
const std::string kDivergences[] = {"kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl"};

// |a - b| / |b|, of the Euclidean norms.
double Distance(std::span<const float> a, std::span<const double> b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = static_cast<double>(a[i]) - b[i];
    difference += d * d;
    size += b[i] * b[i];
  }
  return std::sqrt(difference / size);
}

// A model, and another of the same kind as its teacher.
struct Trained {
  ModelSpec spec;
  std::vector<float> weights, teacher;
  Batch batch;

  explicit Trained(const TinyModel& tiny) {
    weights = train::Parameters(tiny, &spec);
    batch = train::PackedBatch(spec.vocab_size);
    Rng rng(17);
    teacher = weights;
    for (float& weight : teacher) weight += static_cast<float>(0.1 * rng.Gaussian());
  }
};

// The gradient of each tensor has the direction and the size of the referee's.
void CheckTensors(const ModelSpec& spec, const std::vector<float>& ours,
                  const std::vector<double>& expected) {
  const train::ParameterLayout layout(spec);
  REQUIRE(expected.size() == layout.size());
  for (const train::Parameter& tensor : layout.all()) {
    CAPTURE(tensor.name);
    const size_t count = tensor.shape.elements();
    const std::span<const double> theirs(expected.data() + tensor.offset, count);
    CHECK(std::any_of(theirs.begin(), theirs.end(), [](double g) { return g != 0; }));
    CHECK(Distance({ours.data() + tensor.offset, count}, theirs) < kTolerance);
  }
}

void CheckOutcome(const Trained& m, train::Network* network, train::TokenLoss* loss,
                  const TorchOutcome& expected) {
  std::vector<float> gradients(m.weights.size());
  const auto sum =
      network->Train(m.batch, m.weights.data(), loss, kScale, /*seed=*/1, gradients.data());
  REQUIRE_MESSAGE(sum.has_value(), (sum ? "" : sum.error().message));
  CHECK(*sum == doctest::Approx(expected.loss).epsilon(kTolerance));
  CheckTensors(m.spec, gradients, expected.gradients);
}

TEST_CASE("logits, and the gradient of each tensor by every loss") {
  ThreadPool pool(2);
  const auto ops = train::MakeCpuOps(&pool, train::Precision::kF32);
  for (const train::NamedModel& trained : train::TrainedModels()) {
    CAPTURE(trained.name);
    const Trained m(trained.model);
    const TorchModel referee(m.spec, m.weights), teacher(m.spec, m.teacher);
    auto network = train::Network::Create(m.spec, ops.get(), {});
    REQUIRE(network.has_value());

    REQUIRE(network->Forward(m.batch, m.weights.data()).has_value());
    std::vector<uint32_t> rows(m.batch.size());
    std::iota(rows.begin(), rows.end(), 0u);
    std::vector<float> logits(rows.size() * m.spec.vocab_size);
    network->Logits(m.weights.data(), rows, logits.data());
    CHECK(Distance(logits, referee.Logits(m.batch)) < kTolerance);

    train::CrossEntropyLoss plain(&pool);
    CheckOutcome(m, &*network, &plain, referee.CrossEntropy(m.batch, double{kScale}));

    auto teaching = train::Network::Create(m.spec, ops.get(), {});
    REQUIRE(teaching.has_value());
    train::NetworkTeacher ours(*std::move(teaching), m.teacher.data());
    for (const std::string& name : kDivergences) {
      CAPTURE(name);
      const DistillationLoss options = {
          .divergence = *train::ParseDivergence(name), .alpha = 0.7, .temperature = 2, .beta = 0.2};
      train::TeacherLoss loss(options, &ours, &pool);
      CheckOutcome(m, &*network, &loss, referee.Distill(options, teacher, m.batch, double{kScale}));
    }
  }
}

TEST_CASE("distillation from all tokens and from the most probable, at temperatures and shares") {
  constexpr size_t kVocab = 41;
  constexpr int32_t kTarget = 7;
  const std::vector<int32_t> known = {0, 3, 7, 29, 40};
  Rng rng(3);
  std::vector<double> teacher(kVocab), student(kVocab);
  for (double& x : teacher) x = static_cast<double>(static_cast<float>(2 * rng.Gaussian()));
  for (double& x : student) x = static_cast<double>(static_cast<float>(2 * rng.Gaussian()));
  const std::vector<float> from(teacher.begin(), teacher.end());
  for (const std::string& name : kDivergences) {
    for (const double t : {1.0, 4.0}) {
      for (const double alpha : {0.0, 0.3, 1.0}) {
        CAPTURE(name);
        CAPTURE(t);
        CAPTURE(alpha);
        const DistillationLoss options = {*train::ParseDivergence(name), alpha, t, 0.3};
        const auto check = [&](double loss, const std::vector<float>& gradient,
                               const TorchOutcome& expected) {
          CHECK(loss == doctest::Approx(expected.loss).epsilon(kTolerance));
          CHECK(Distance(gradient, expected.gradients) < kTolerance);
        };
        std::vector<float> logits(student.begin(), student.end()), work(2 * kVocab);
        double loss = train::Distillation(options, kVocab, kTarget, from.data(), 1.0f,
                                          logits.data(), work.data());
        check(loss, logits, TorchDistillation(options, kTarget, teacher, student, {}));

        const double peak = *std::max_element(teacher.begin(), teacher.end()) / t;
        double total = 0, rest = 0;
        for (size_t i = 0; i < kVocab; ++i) {
          const double p = std::exp(teacher[i] / t - peak);
          total += p;
          if (!std::binary_search(known.begin(), known.end(), static_cast<int32_t>(i))) rest += p;
        }
        std::vector<float> log_p;
        for (const int32_t id : known) {
          log_p.push_back(
              static_cast<float>(teacher[static_cast<size_t>(id)] / t - peak - std::log(total)));
        }
        log_p.push_back(static_cast<float>(std::log(rest / total)));
        logits.assign(student.begin(), student.end());
        work.resize(train::TopKWork(kVocab, known.size()));
        loss = train::DistillationTopK(options, kVocab, kTarget, known, log_p.data(), 1.0f,
                                       logits.data(), work.data());
        check(loss, logits, TorchDistillation(options, kTarget, teacher, student, known));
      }
    }
  }
}

// Keeps the loss of each step.
class Losses final : public train::TrainingObserver {
 public:
  Status OnStep(const train::StepReport& report, const train::TrainerState&) override {
    reports.push_back(report);
    return Ok{};
  }
  std::vector<train::StepReport> reports;
};

TEST_CASE("AdamW: steps of accumulated batches, decayed, clipped and scheduled") {
  constexpr uint64_t kSteps = 20;
  const Trained m(TinyLlama());
  train::Corpus corpus;
  for (uint64_t d = 0; d < 40; ++d) {
    corpus.Append(TinyTokens(6 + d % 9, m.spec.vocab_size, 100 + d));
  }
  train::TrainerOptions options;
  options.schedule = {.peak = 3e-3, .steps = kSteps, .warmup = 4};
  options.batch = {.tokens = 48, .sequence = 16, .seed = 2};
  options.accumulation = 2;
  options.precision = train::Precision::kF32;
  ThreadPool pool(2);
  train::CrossEntropyLoss loss(&pool);
  NoProgress progress;
  Losses losses;
  train::TrainerState state;
  state.weights = m.weights;
  REQUIRE(
      train::RunTraining(m.spec, options, corpus, nullptr, &loss, &pool, &progress, &losses, &state)
          .has_value());
  REQUIRE(losses.reports.size() == kSteps);

  TorchModel referee(m.spec, m.weights);
  auto reader = train::BatchReader::Create(corpus, options.batch);
  REQUIRE(reader.has_value());
  size_t clipped = 0;
  for (const train::StepReport& report : losses.reports) {
    const std::vector<Batch> batches = {reader->Next(), reader->Next()};
    const double expected = referee.Step({.learning_rate = report.learning_rate,
                                          .beta1 = options.beta1,
                                          .beta2 = options.beta2,
                                          .eps = options.eps,
                                          .weight_decay = options.weight_decay,
                                          .clip = options.clip},
                                         batches);
    CHECK(report.loss == doctest::Approx(expected).epsilon(kTolerance));
    clipped += report.gradient_norm > options.clip;
  }
  CHECK(clipped > 0);
  CHECK(losses.reports.back().loss < losses.reports.front().loss - 0.3);
  // What all steps together changed.
  const std::vector<double> expected = referee.parameters();
  std::vector<float> ours(expected.size());
  std::vector<double> theirs(expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ours[i] = state.weights[i] - m.weights[i];
    theirs[i] = expected[i] - static_cast<double>(m.weights[i]);
  }
  CHECK(Distance(ours, theirs) < 1e-3);
}

}  // namespace
}  // namespace edgewise
