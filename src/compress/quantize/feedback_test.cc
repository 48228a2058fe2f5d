#include "compress/quantize/feedback.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "quant/block_parts.h"

namespace edgewise {
namespace {

using Doubles = std::vector<double>;

// sum x x^T of tokens whose columns are correlated and of very different size.
std::vector<float> Moments(size_t n, size_t tokens, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> h(n * n), x(n);
  for (size_t t = 0; t < tokens; ++t) {
    const double common = rng.Gaussian();
    for (size_t j = 0; j < n; ++j) {
      const double size = j % 17 == 3 ? 6 : 1;
      x[j] = static_cast<float>(size * (rng.Gaussian() + 0.7 * common));
    }
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) h[i * n + j] += x[i] * x[j];
    }
  }
  return h;
}

std::vector<float> Weights(size_t rows, size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> w(rows * n);
  for (float& value : w) value = static_cast<float>(0.05 * rng.Gaussian());
  return w;
}

ErrorMetric MakeMetric(const std::vector<float>& h, size_t n, double damping = 0.01) {
  ThreadPool pool(1);
  auto metric = ErrorMetric::Create(h, n, damping, &pool);
  REQUIRE(metric.has_value());
  return *std::move(metric);
}

std::vector<std::byte> Quantized(const std::vector<float>& w, const ErrorMetric& metric, DType type,
                                 const FeedbackOptions& options, double* error = nullptr,
                                 int threads = 1) {
  ThreadPool pool(threads);
  std::vector<std::byte> blocks(Info(type).RowBytes(w.size()));
  const double total = QuantizeWithFeedback(w.data(), w.size() / metric.n(), metric, type, options,
                                            &pool, blocks.data());
  if (error != nullptr) *error = total;
  return blocks;
}

// sum over rows of (w - q) H (w - q)^T in double precision.
double TrueError(const std::vector<float>& w, const std::vector<std::byte>& blocks, DType type,
                 const ErrorMetric& metric) {
  const size_t n = metric.n();
  std::vector<float> q(w.size());
  Info(type).decode(blocks.data(), q.data(), q.size());
  double total = 0;
  for (size_t row = 0; row < w.size(); row += n) {
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        total += (static_cast<double>(w[row + i]) - q[row + i]) * metric.h(i)[j] *
                 (static_cast<double>(w[row + j]) - q[row + j]);
      }
    }
  }
  return total;
}

// In place: the inverse of a positive definite (n, n), by Gauss-Jordan.
Doubles Inverse(Doubles a, size_t n) {
  Doubles inverse(n * n);
  for (size_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  for (size_t k = 0; k < n; ++k) {
    const double pivot = a[k * n + k];
    for (size_t j = 0; j < n; ++j) {
      a[k * n + j] /= pivot;
      inverse[k * n + j] /= pivot;
    }
    for (size_t i = 0; i < n; ++i) {
      const double by = a[i * n + k];
      if (i == k || by == 0) continue;
      for (size_t j = 0; j < n; ++j) {
        a[i * n + j] -= by * a[k * n + j];
        inverse[i * n + j] -= by * inverse[k * n + j];
      }
    }
  }
  return inverse;
}

// U upper triangular with U^T U = a.
Doubles UpperCholesky(const Doubles& a, size_t n) {
  Doubles u(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < i; ++k) sum -= u[k * n + i] * u[k * n + j];
      u[i * n + j] = i == j ? std::sqrt(sum) : sum / u[i * n + i];
    }
  }
  return u;
}

TEST_CASE("the factor gives the damped second moments") {
  constexpr size_t kN = 300;  // several blocks of the factorization, the last one partly filled
  const auto h = Moments(kN, 500, 1);
  const ErrorMetric metric = MakeMetric(h, kN);
  double mean = 0, worst = 0;
  for (size_t j = 0; j < kN; ++j) mean += h[j * kN + j] / static_cast<double>(kN);
  for (size_t i = 0; i < kN; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double product = 0;
      for (size_t k = i; k < kN; ++k) {
        product += static_cast<double>(metric.factor(k)[i]) * metric.factor(k)[j];
      }
      const double expected = h[i * kN + j] + (i == j ? 0.01 * mean : 0);
      worst = std::max(worst, std::fabs(product - expected));
    }
  }
  CHECK(worst < 1e-5 * mean * 36);
}

// Algorithm 1 of the paper, column by column, on the scales that the blocks carry.
TEST_CASE("the recursion is that of GPTQ") {
  constexpr size_t kN = 96, kRows = 40;
  const ErrorMetric metric = MakeMetric(Moments(kN, 300, 2), kN);
  const auto w = Weights(kRows, kN, 3);
  const auto blocks = Quantized(w, metric, DType::kQ4_0, {.fits = 1, .descents = 0});
  Doubles h(kN * kN);
  for (size_t i = 0; i < kN; ++i) {
    for (size_t j = 0; j < kN; ++j) h[i * kN + j] = metric.h(i)[j];
  }
  const Doubles u = UpperCholesky(Inverse(h, kN), kN);
  const size_t block_bytes = Info(DType::kQ4_0).block_bytes;
  size_t different = 0;
  for (size_t row = 0; row < kRows; ++row) {
    Doubles left(w.begin() + static_cast<std::ptrdiff_t>(row * kN),
                 w.begin() + static_cast<std::ptrdiff_t>((row + 1) * kN));
    for (size_t j = 0; j < kN; ++j) {
      BlockParts parts;
      FormOf(DType::kQ4_0)->unpack(blocks.data() + (row * kN + j) / 32 * block_bytes, &parts);
      const double d = HalfToFloat(parts.d);
      const double q = std::min(7.0, std::max(-8.0, std::nearbyint(left[j] / d)));
      different += q != parts.value[j % 32];
      const double off = (left[j] - q * d) / u[j * kN + j];
      for (size_t k = j; k < kN; ++k) left[k] -= off * u[j * kN + k];
    }
  }
  CHECK(different == 0);
}

TEST_CASE("on every format feedback beats rounding and descent beats feedback alone") {
  constexpr size_t kN = 512, kRows = 36;
  const ErrorMetric metric = MakeMetric(Moments(kN, 1000, 4), kN);
  const auto w = Weights(kRows, kN, 5);
  for (const DTypeInfo& info : AllDTypes()) {
    if (FormOf(info.id) == nullptr) continue;
    CAPTURE(info.name);
    std::vector<std::byte> plain(info.RowBytes(w.size()));
    info.encode(w.data(), nullptr, plain.data(), w.size());
    double fed = 0, descended = 0;
    const auto without = Quantized(w, metric, info.id, {.fits = 2, .descents = 0}, &fed);
    const auto with = Quantized(w, metric, info.id, {}, &descended);
    const double rounded = TrueError(w, plain, info.id, metric);
    CHECK(fed < 0.9 * rounded);
    CHECK(descended < fed);
    CHECK(fed == doctest::Approx(TrueError(w, without, info.id, metric)).epsilon(1e-3));
    CHECK(descended == doctest::Approx(TrueError(w, with, info.id, metric)).epsilon(1e-3));
    CHECK(Quantized(w, metric, info.id, {}, nullptr, 3) == with);
  }
}

TEST_CASE("moments of too few tokens are damped until they can be factored") {
  constexpr size_t kN = 64;
  const auto h = Moments(kN, 3, 6);
  for (const double damping : {0.01, 1e-12}) {
    const ErrorMetric metric = MakeMetric(h, kN, damping);
    for (size_t j = 0; j < kN; ++j) {
      CHECK(std::isfinite(metric.factor(j)[j]));
      CHECK(metric.factor(j)[j] > 0);
    }
  }
  const std::vector<float> dead(kN * kN);
  const ErrorMetric metric = MakeMetric(dead, kN);
  const auto w = Weights(4, kN, 7);
  double error = 0;
  Quantized(w, metric, DType::kQ8_0, {}, &error);
  CHECK(std::isfinite(error));
  auto broken = h;
  broken[5 * kN + 5] = std::numeric_limits<float>::infinity();
  ThreadPool pool(1);
  const auto failed = ErrorMetric::Create(broken, kN, 0.01, &pool);
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().code == Code::kBadData);
}

TEST_CASE("rows of zeros stay zeros") {
  constexpr size_t kN = 256;
  const ErrorMetric metric = MakeMetric(Moments(kN, 400, 8), kN);
  const std::vector<float> w(2 * kN);
  for (const DTypeInfo& info : AllDTypes()) {
    if (FormOf(info.id) == nullptr) continue;
    CAPTURE(info.name);
    double error = 1;
    Quantized(w, metric, info.id, {}, &error);
    CHECK(error == 0);
  }
}

}  // namespace
}  // namespace edgewise
