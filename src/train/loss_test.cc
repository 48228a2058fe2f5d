// Losses and their gradients against the formulas in double precision, and the known mistakes of
// distillation code.
#include "train/loss.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "train/test_batch.h"

namespace edgewise::train {
namespace {

constexpr size_t kVocab = 23;
constexpr int32_t kTarget = 7;

std::vector<double> Softmax(const std::vector<double>& z, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (const double x : z) sum += p.emplace_back(std::exp(x / temperature));
  for (double& x : p) x /= sum;
  return p;
}

double Kl(const std::vector<double>& p, const std::vector<double>& q) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] * std::log(p[i] / q[i]);
  return sum;
}

std::vector<double> Mix(double a, const std::vector<double>& p, const std::vector<double>& q) {
  std::vector<double> m(p.size());
  for (size_t i = 0; i < p.size(); ++i) m[i] = a * p[i] + (1 - a) * q[i];
  return m;
}

double ReferenceDivergence(const DistillationLoss& loss, const std::vector<double>& p,
                           const std::vector<double>& q) {
  const double b = loss.beta;
  switch (loss.divergence) {
    case Divergence::kForwardKl:
      return Kl(p, q);
    case Divergence::kReverseKl:
      return Kl(q, p);
    case Divergence::kJsd:
      return b * Kl(p, Mix(b, p, q)) + (1 - b) * Kl(q, Mix(b, p, q));
    case Divergence::kSkewKl:
      return Kl(p, Mix(b, p, q));
    case Divergence::kSkewReverse:
      return Kl(q, Mix(b, p, q));
  }
  return 0;
}

double Reference(const DistillationLoss& loss, const std::vector<double>& teacher,
                 const std::vector<double>& student) {
  const double t = loss.temperature;
  const double soft = ReferenceDivergence(loss, Softmax(teacher, t), Softmax(student, t));
  const double hard = -std::log(Softmax(student, 1)[kTarget]);
  return loss.alpha * t * t * soft + (1 - loss.alpha) * hard;
}

std::vector<double> RandomLogits(uint64_t seed, double size) {
  Rng rng(seed);
  std::vector<double> z(kVocab);
  for (double& x : z) x = static_cast<double>(static_cast<float>(size * rng.Gaussian()));
  return z;
}

std::vector<float> Floats(const std::vector<double>& x) { return {x.begin(), x.end()}; }

// The gradients of `loss` against central differences of the reference.
void Check(const std::function<double(const std::vector<double>&)>& reference, double loss,
           const std::vector<double>& student, const std::vector<float>& gradient, double scale) {
  CHECK(loss == doctest::Approx(reference(student)).epsilon(2e-5));
  double largest = 0;
  for (size_t i = 0; i < kVocab; ++i) {
    std::vector<double> up = student, down = student;
    up[i] += 1e-5;
    down[i] -= 1e-5;
    const double expected = scale * (reference(up) - reference(down)) / 2e-5;
    CHECK(static_cast<double>(gradient[i]) == doctest::Approx(expected).epsilon(1e-4).scale(0.01));
    largest = std::max(largest, std::abs(expected));
  }
  CHECK(largest > 1e-3);
}

TEST_CASE("cross-entropy") {
  const std::vector<double> student = RandomLogits(1, 2);
  std::vector<float> logits = Floats(student);
  const double loss = CrossEntropy(kVocab, kTarget, 0.5f, logits.data());
  const auto reference = [](const std::vector<double>& z) {
    return -std::log(Softmax(z, 1)[kTarget]);
  };
  Check(reference, loss, student, logits, 0.5);
}

TEST_CASE("every divergence at every temperature, mixed with the hard label or alone") {
  const std::vector<double> teacher = RandomLogits(2, 2), student = RandomLogits(3, 2);
  const std::vector<float> from = Floats(teacher);
  for (const char* name : {"kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl"}) {
    for (const double temperature : {1.0, 2.5}) {
      for (const double alpha : {0.0, 0.3, 1.0}) {
        CAPTURE(name);
        CAPTURE(temperature);
        CAPTURE(alpha);
        const DistillationLoss options = {*ParseDivergence(name), alpha, temperature, 0.2};
        CHECK(std::string(DivergenceName(options.divergence)) == name);
        std::vector<float> logits = Floats(student), work(2 * kVocab);
        const double loss =
            Distillation(options, kVocab, kTarget, from.data(), 2.0f, logits.data(), work.data());
        Check([&](const std::vector<double>& z) { return Reference(options, teacher, z); }, loss,
              student, logits, 2.0);
      }
    }
  }
}

TEST_CASE("a teacher equal to the student leaves nothing to learn") {
  const std::vector<float> same = Floats(RandomLogits(4, 3));
  for (const char* name : {"kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl"}) {
    std::vector<float> logits = same, work(2 * kVocab);
    const DistillationLoss options = {*ParseDivergence(name), 1, 2, 0.5};
    CHECK(std::abs(Distillation(options, kVocab, kTarget, same.data(), 1, logits.data(),
                                work.data())) < 1e-5);
    for (const float g : logits) CHECK(std::abs(g) < 1e-5f);
  }
}

// Probabilities of `ids`, and what is left of them.
std::vector<double> Merge(const std::vector<double>& p, const std::vector<int32_t>& ids) {
  std::vector<double> merged;
  double rest = 1;
  for (const int32_t id : ids) {
    merged.push_back(p[static_cast<size_t>(id)]);
    rest -= merged.back();
  }
  if (ids.size() < p.size()) merged.push_back(rest);
  return merged;
}

TEST_CASE("known tokens and one rest: every divergence against its formula") {
  const std::vector<double> teacher = RandomLogits(2, 2), student = RandomLogits(3, 2);
  std::vector<int32_t> all(kVocab);
  std::iota(all.begin(), all.end(), 0);
  for (const std::vector<int32_t>& ids : {std::vector<int32_t>{0, 4, 7, 22}, {11}, all}) {
    for (const char* name : {"kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl"}) {
      for (const double t : {1.0, 2.5}) {
        for (const double alpha : {0.3, 1.0}) {
          CAPTURE(name);
          CAPTURE(t);
          CAPTURE(alpha);
          CAPTURE(ids.size());
          const DistillationLoss options = {*ParseDivergence(name), alpha, t, 0.2};
          const std::vector<double> p = Merge(Softmax(teacher, t), ids);
          std::vector<float> log_p;
          for (const double x : p) log_p.push_back(static_cast<float>(std::log(x)));
          std::vector<float> logits = Floats(student), work(TopKWork(kVocab, ids.size()));
          const double loss = DistillationTopK(options, kVocab, kTarget, ids, log_p.data(), 2.0f,
                                               logits.data(), work.data());
          const auto reference = [&](const std::vector<double>& z) {
            const double soft = ReferenceDivergence(options, p, Merge(Softmax(z, t), ids));
            return alpha * t * t * soft - (1 - alpha) * std::log(Softmax(z, 1)[kTarget]);
          };
          Check(reference, loss, student, logits, 2.0);
          // Merging outcomes makes no divergence larger; with all tokens nothing is merged.
          const double whole = Reference(options, teacher, student);
          CHECK(loss <= whole + 1e-5);
          if (ids.size() == kVocab) CHECK(loss == doctest::Approx(whole).epsilon(1e-5));
        }
      }
    }
  }
}

// Hinton et al. 2015: the gradient of T^2 KL tends to the same limit as T grows.
TEST_CASE("T^2 keeps the size of gradients") {
  const std::vector<float> teacher = Floats(RandomLogits(5, 1)),
                           student = Floats(RandomLogits(6, 1));
  double norms[2];
  for (int i = 0; i < 2; ++i) {
    std::vector<float> logits = student, work(2 * kVocab);
    const DistillationLoss options = {Divergence::kForwardKl, 1, i == 0 ? 8.0 : 32.0, 0.5};
    Distillation(options, kVocab, kTarget, teacher.data(), 1, logits.data(), work.data());
    norms[i] = std::sqrt(std::inner_product(logits.begin(), logits.end(), logits.begin(), 0.0));
  }
  CHECK(norms[0] == doctest::Approx(norms[1]).epsilon(0.1));
}

TEST_CASE("extreme logits give finite gradients") {
  for (const char* name : {"kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl"}) {
    CAPTURE(name);
    std::vector<float> teacher(kVocab, -300), logits(kVocab, -300), work(2 * kVocab);
    teacher[1] = 300;
    logits[2] = 300;
    const DistillationLoss options = {*ParseDivergence(name), 0.5, 1, 0.1};
    const double loss =
        Distillation(options, kVocab, kTarget, teacher.data(), 1, logits.data(), work.data());
    CHECK(std::isfinite(loss));
    CHECK(std::all_of(logits.begin(), logits.end(), [](float g) { return std::isfinite(g); }));
    // Around the smallest numbers of floats, where a probability is not 0 but a share of it is.
    for (float spread = 80; spread < 110; spread += 0.25f) {
      std::vector<float> p(kVocab, 0), q(kVocab, 0);
      p[1] = spread;
      q[2] = spread + 1;
      const double small =
          Distillation(options, kVocab, kTarget, p.data(), 1, q.data(), work.data());
      REQUIRE(std::isfinite(small));
      REQUIRE(std::all_of(q.begin(), q.end(), [](float g) { return std::isfinite(g); }));
    }
  }
}

TEST_CASE("known tokens of extreme distributions give finite gradients") {
  const std::vector<int32_t> ids = {1, 2};
  for (const char* name : {"kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl"}) {
    CAPTURE(name);
    for (const float rest : {-200.0f, -1e-6f}) {
      const float log_p[] = {rest < -1 ? 0.0f : -14.0f, -65504.0f, rest};
      for (const size_t peak : {size_t{2}, size_t{9}}) {
        std::vector<float> logits(kVocab, -300), work(TopKWork(kVocab, ids.size()));
        logits[peak] = 300;
        const DistillationLoss options = {*ParseDivergence(name), 0.5, 1, 0.1};
        CHECK(std::isfinite(
            DistillationTopK(options, kVocab, kTarget, ids, log_p, 1, logits.data(), work.data())));
        CHECK(std::all_of(logits.begin(), logits.end(), [](float g) { return std::isfinite(g); }));
      }
    }
  }
}

TEST_CASE("refused options") {
  CHECK(!ParseDivergence("l2").has_value());
  for (const DistillationLoss& bad :
       {DistillationLoss{.alpha = -0.1}, DistillationLoss{.alpha = 1.5},
        DistillationLoss{.temperature = 0}, DistillationLoss{.temperature = std::nan("")},
        DistillationLoss{.beta = 0}, DistillationLoss{.beta = 1}}) {
    CHECK(!CheckLoss(bad).has_value());
  }
  CHECK(CheckLoss({}).has_value());
}

// Logits of the teacher that a row's number makes.
class FixedTeacher final : public Teacher {
 public:
  Status Begin(const Batch&) override {
    ++begun;
    return Ok{};
  }
  Status Logits(std::span<const uint32_t> rows, float* logits) override {
    for (const uint32_t row : rows) {
      const std::vector<float> z = Floats(RandomLogits(100 + row, 2));
      logits = std::copy(z.begin(), z.end(), logits);
    }
    return Ok{};
  }
  int begun = 0;
};

TEST_CASE("a teacher's rows meet the student's") {
  Batch batch;
  const int32_t tokens[] = {1, 2, 3, 4, 5};
  AppendSequence(tokens, &batch);
  const std::vector<uint32_t> rows = {0, 2, 3};
  ThreadPool pool(2);
  FixedTeacher teacher;
  const DistillationLoss options = {Divergence::kForwardKl, 0.7, 2, 0.5};
  TeacherLoss loss(options, &teacher, &pool);
  REQUIRE(loss.Begin(batch).has_value());
  CHECK(teacher.begun == 1);
  std::vector<float> logits, expected;
  double sum = 0;
  for (const uint32_t row : rows) {
    std::vector<float> z = Floats(RandomLogits(row, 2)), work(2 * kVocab);
    logits.insert(logits.end(), z.begin(), z.end());
    const std::vector<float> from = Floats(RandomLogits(100 + row, 2));
    sum +=
        Distillation(options, kVocab, batch.targets[row], from.data(), 0.1f, z.data(), work.data());
    expected.insert(expected.end(), z.begin(), z.end());
  }
  const auto total = loss.Rows(batch, rows, kVocab, 0.1f, logits.data());
  REQUIRE(total.has_value());
  CHECK(*total == doctest::Approx(sum));
  CHECK(logits == expected);
}

}  // namespace
}  // namespace edgewise::train
