#include "compress/quantize/targets.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "calibrate/statistics.h"

namespace edgewise {
namespace {

std::vector<float> Noise(Rng* rng, size_t n) {
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(rng->Uniform() * 2 - 1);
  return values;
}

double Error(const std::vector<float>& w, const std::vector<float>& f,
             const std::vector<float>& goal, const std::vector<float>& q, size_t n) {
  double error = 0;
  for (size_t row = 0; row < w.size() / n; ++row) {
    for (size_t t = 0; t < f.size() / n; ++t) {
      double sum = 0;
      for (size_t c = 0; c < n; ++c) {
        sum += static_cast<double>(w[row * n + c]) * f[t * n + c] -
               static_cast<double>(goal[row * n + c]) * q[t * n + c];
      }
      error += sum * sum;
    }
  }
  return error;
}

// The rows v that make v q closest to w f over all tokens: Gauss' elimination of (q q^T) v = q f^T
// w.
std::vector<double> LeastSquares(const std::vector<float>& w, const std::vector<float>& f,
                                 const std::vector<float>& q, size_t n) {
  const size_t rows = w.size() / n, width = n + rows;
  std::vector<double> a(n * width);  // (q q^T | q f^T W^T)
  for (size_t t = 0; t < q.size() / n; ++t) {
    for (size_t row = 0; row < rows; ++row) {
      double y = 0;
      for (size_t c = 0; c < n; ++c) y += static_cast<double>(w[row * n + c]) * f[t * n + c];
      for (size_t i = 0; i < n; ++i) a[i * width + n + row] += q[t * n + i] * y;
    }
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        a[i * width + j] += static_cast<double>(q[t * n + i]) * q[t * n + j];
      }
    }
  }
  for (size_t k = 0; k < n; ++k) {  // positive definite: no pivots needed
    for (size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double by = a[i * width + k] / a[k * width + k];
      for (size_t j = k; j < width; ++j) a[i * width + j] -= by * a[k * width + j];
    }
  }
  std::vector<double> best(w.size());
  for (size_t i = 0; i < w.size(); ++i) {
    const size_t row = i / n, c = i % n;
    best[i] = a[c * width + n + row] / a[c * width + c];
  }
  return best;
}

TEST_CASE("corrected weights give the outputs of the original inputs, as least squares would") {
  constexpr size_t kColumns = 40, kRows = 70, kTokens = 700;
  Rng rng(3);
  std::vector<float> w = Noise(&rng, kRows * kColumns), f = Noise(&rng, kTokens * kColumns), q = f;
  for (size_t i = 0; i < q.size(); ++i) {
    q[i] = 0.8f * f[i] + 0.3f * f[i / kColumns * kColumns + (i + 7) % kColumns] +
           static_cast<float>(rng.Uniform() - 0.5) * 0.1f;
  }
  w[5] = w[kColumns + 1] = 0;
  ThreadPool pool(2), alone(1);
  auto h = ProductSum::Create(kColumns, &pool), cross = ProductSum::CreateCross(kColumns, &pool);
  REQUIRE((h && cross));
  std::vector<float> difference(q.size());
  for (size_t i = 0; i < q.size(); ++i) difference[i] = f[i] - q[i];
  h->Add(q.data(), kTokens, kColumns);
  cross->AddCross(q.data(), kColumns, difference.data(), kColumns, kTokens);
  const float *sums = h->Finish(), *products = cross->Finish();
  const auto metric =
      ErrorMetric::Create({sums, sums + kColumns * kColumns}, kColumns, 1e-6, &pool);
  REQUIRE(metric);
  const std::span transposed(products, kColumns * kColumns);
  const std::vector<float> targets = CorrectTargets(w, *metric, transposed, &pool);
  CHECK(targets == CorrectTargets(w, *metric, transposed, &alone));

  const std::vector<double> best = LeastSquares(w, f, q, kColumns);
  for (size_t i = 0; i < targets.size(); ++i) {
    if (w[i] == 0) {
      CHECK(targets[i] == 0);
    } else {
      CHECK(targets[i] == doctest::Approx(best[i]).epsilon(2e-3));
    }
  }
  CHECK(Error(w, f, targets, q, kColumns) < 0.1 * Error(w, f, w, q, kColumns));
}

}  // namespace
}  // namespace edgewise
