// Operations that the network's tests do not reach, against formulas in double precision.
#include "train/ops.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace edgewise::train {
namespace {

std::vector<float> Random(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(n);
  for (float& value : x) value = static_cast<float>(rng.Gaussian());
  return x;
}

// sum over all outputs of dy * LayerNorm(x).
double LayerNormSum(const std::vector<double>& x, const std::vector<double>& w,
                    const std::vector<double>& b, const std::vector<float>& dy, size_t n) {
  double total = 0;
  for (size_t row = 0; row < x.size() / n; ++row) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < n; ++i) mean += x[row * n + i] / static_cast<double>(n);
    for (size_t i = 0; i < n; ++i) {
      variance += std::pow(x[row * n + i] - mean, 2) / static_cast<double>(n);
    }
    for (size_t i = 0; i < n; ++i) {
      const double h = (x[row * n + i] - mean) / std::sqrt(variance + 1e-5);
      total += static_cast<double>(dy[row * n + i]) * (h * w[i] + b[i]);
    }
  }
  return total;
}

TEST_CASE("LayerNorm forward and backward") {
  constexpr size_t kRows = 3, kGroups = 2, n = 10, kCount = kRows * kGroups;
  const std::vector<float> x = Random(kCount * n, 1), w = Random(n, 2), b = Random(n, 3),
                           dy = Random(kCount * n, 4);
  ThreadPool pool(2);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  const NormShape shape = {NormKind::kLayer, kRows, kGroups, n, 1e-5f};
  std::vector<float> y(x.size()), dx(x.size(), 1.0f), dw(n, 2.0f), db(n), inverse(kCount),
      mean(kCount);
  const NormStatistics statistics = {inverse.data(), mean.data()};
  const NormWeights weights = {w.data(), b.data()};
  ops->Norm(shape, weights, {x.data(), kGroups * n}, {y.data(), kGroups * n}, statistics);
  ops->NormBackward(shape, weights, {x.data(), kGroups * n}, statistics, {dy.data(), kGroups * n},
                    {dx.data(), kGroups * n}, true, {dw.data(), db.data()});

  const std::vector<double> xd(x.begin(), x.end()), wd(w.begin(), w.end()), bd(b.begin(), b.end());
  double sum = 0;
  for (size_t i = 0; i < y.size(); ++i) sum += static_cast<double>(dy[i] * y[i]);
  CHECK(sum == doctest::Approx(LayerNormSum(xd, wd, bd, dy, n)).epsilon(1e-5));
  const auto slope = [&](std::vector<double> at, size_t i, auto&& total) {
    at[i] += 1e-5;
    const double up = total(at);
    at[i] -= 2e-5;
    return (up - total(at)) / 2e-5;
  };
  for (size_t i = 0; i < x.size(); ++i) {
    const double d = slope(xd, i, [&](const auto& v) { return LayerNormSum(v, wd, bd, dy, n); });
    CHECK(static_cast<double>(dx[i]) == doctest::Approx(1 + d).epsilon(1e-4).scale(1));
  }
  for (size_t i = 0; i < n; ++i) {
    const double d = slope(wd, i, [&](const auto& v) { return LayerNormSum(xd, v, bd, dy, n); });
    CHECK(static_cast<double>(dw[i]) == doctest::Approx(2 + d).epsilon(1e-4).scale(1));
    const double e = slope(bd, i, [&](const auto& v) { return LayerNormSum(xd, wd, v, dy, n); });
    CHECK(static_cast<double>(db[i]) == doctest::Approx(e).epsilon(1e-4).scale(1));
  }
}

// How far weights after steps with 8-bit moments are from those with floats, as a share of their
// way; every third gradient is smaller by a factor than those in its block.
double ApartIn8Bits(float small, int threads, std::vector<float>* weights) {
  constexpr size_t n = 1000, decayed = 700;  // three whole blocks and a part
  ThreadPool pool(threads);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  const std::vector<float> start = Random(n, 5);
  std::vector<float> w = start, mean(n), variance(n);
  std::vector<float> mean_scales(MomentBlocks(n)), variance_scales(MomentBlocks(n));
  std::vector<uint8_t> mean_codes(n, MomentGrid::Signed().Encode(0)), variance_codes(n);
  *weights = start;
  for (uint64_t step = 1; step <= 20; ++step) {
    std::vector<float> g = Random(n, 10 + step);
    for (size_t i = 0; i < n; i += 3) g[i] *= small;
    const AdamStep adam{0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, decayed, 1, step};
    ops->Adam(adam, g.data(), n, {mean.data(), variance.data()}, w.data());
    ops->Adam(
        adam, g.data(), n,
        {mean_scales.data(), variance_scales.data(), mean_codes.data(), variance_codes.data()},
        weights->data());
  }
  double moved = 0, apart = 0;
  for (size_t i = 0; i < n; ++i) {
    moved += std::pow(static_cast<double>(w[i] - start[i]), 2);
    apart += std::pow(static_cast<double>((*weights)[i] - w[i]), 2);
  }
  return std::sqrt(apart / moved);
}

TEST_CASE("AdamW with moments in 8 bits moves weights as with floats, on any number of threads") {
  std::vector<float> one, three;
  CHECK(ApartIn8Bits(1, 1, &one) < 0.03);
  CHECK(ApartIn8Bits(1e-3f, 1, &one) < 0.2);  // at the coarse end of the grids
  CHECK(ApartIn8Bits(1e-3f, 3, &three) < 0.2);
  CHECK(one == three);
}

TEST_CASE("AdamW as in Loshchilov and Hutter 2019") {
  constexpr size_t n = 50, decayed = 30;
  ThreadPool pool(2);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  std::vector<float> w = Random(n, 5), mean(n), variance(n);
  std::vector<double> wd(w.begin(), w.end()), md(n), vd(n);
  for (uint64_t step = 1; step <= 5; ++step) {
    const std::vector<float> g = Random(n, 10 + step);
    ops->Adam({0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, decayed, 0.5f, step}, g.data(), n,
              {mean.data(), variance.data()}, w.data());
    const auto t = static_cast<double>(step);
    for (size_t i = 0; i < n; ++i) {
      const double gd = 0.5 * static_cast<double>(g[i]);
      md[i] = 0.9 * md[i] + 0.1 * gd;
      vd[i] = 0.95 * vd[i] + 0.05 * gd * gd;
      const double m = md[i] / (1 - std::pow(0.9, t)), v = vd[i] / (1 - std::pow(0.95, t));
      wd[i] -= 0.01 * (m / (std::sqrt(v) + 1e-8) + (i < decayed ? 0.1 * wd[i] : 0));
    }
  }
  for (size_t i = 0; i < n; ++i) {
    CHECK(static_cast<double>(w[i]) == doctest::Approx(wd[i]).epsilon(1e-5).scale(1));
  }
}

TEST_CASE("dropout keeps the mean, drops its share, and repeats itself") {
  constexpr size_t n = 100000;
  ThreadPool one(1), three(3);
  std::vector<float> x(n, 1.0f), again(n, 1.0f), other(n, 1.0f);
  MakeCpuOps(&one, Precision::kF32)->Dropout(0.2f, 7, n, x.data());
  MakeCpuOps(&three, Precision::kF32)->Dropout(0.2f, 7, n, again.data());
  MakeCpuOps(&three, Precision::kF32)->Dropout(0.2f, 8, n, other.data());
  CHECK(x == again);
  CHECK(x != other);
  const auto dropped = static_cast<double>(std::count(x.begin(), x.end(), 0.0f));
  CHECK(dropped / n == doctest::Approx(0.2).epsilon(0.02));
  CHECK(*std::max_element(x.begin(), x.end()) == 1.25f);
}

TEST_CASE("sums of squares do not depend on threads") {
  const std::vector<float> x = Random(100003, 9);
  double expected = 0;
  for (const float value : x) expected += static_cast<double>(value) * static_cast<double>(value);
  ThreadPool one(1), three(3);
  const double sum = MakeCpuOps(&one, Precision::kF32)->SumOfSquares(x.data(), x.size());
  CHECK(sum == doctest::Approx(expected).epsilon(1e-12));
  CHECK(sum == MakeCpuOps(&three, Precision::kF32)->SumOfSquares(x.data(), x.size()));
}

}  // namespace
}  // namespace edgewise::train
