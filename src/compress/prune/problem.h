// Test only: a matrix and inputs that are correlated and of very different size, as those of layers
// are.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/rng.h"
#include "calibrate/statistics.h"
#include "compress/prune/input_metric.h"

namespace edgewise {

struct Problem {
  Problem(size_t rows_in, size_t n_in, uint64_t seed, size_t dead_column = SIZE_MAX)
      : rows(rows_in), n(n_in), w(rows_in * n_in), h(n_in * n_in), moments(n_in) {
    Rng rng(seed);
    for (float& value : w) value = static_cast<float>(0.05 * rng.Gaussian());
    std::vector<double> size(n), sums(n * n), x(n);
    for (double& s : size) s = std::exp(0.7 * rng.Gaussian());
    std::vector<float> token(n);
    for (size_t t = 0; t < 3 * n; ++t) {
      double common = 0;
      for (size_t j = 0; j < n; ++j) {
        common = 0.8 * common + 0.6 * rng.Gaussian();
        token[j] = j == dead_column ? 0 : static_cast<float>(size[j] * (common + 0.1));
      }
      moments.Add(token.data(), 1, n);
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < n; ++j) sums[i * n + j] += static_cast<double>(token[i]) * token[j];
      }
    }
    for (size_t i = 0; i < n * n; ++i) h[i] = static_cast<float>(sums[i]);
  }

  InputMetric Metric() const {
    ThreadPool pool(1);
    auto input = InputMetric::Create(h, n, &pool);
    REQUIRE(input.has_value());
    return *std::move(input);
  }
  double Error(const std::vector<float>& q) const {
    ThreadPool pool(1);
    return ReconstructionError(w, q, h, n, &pool);
  }

  size_t rows, n;
  std::vector<float> w;   // (rows, n)
  std::vector<float> h;   // (n, n)
  ColumnMoments moments;  // (n)
};

// True when `result` is an error of this code whose message has `part` in it.
template <class T>
bool Fails(const Result<T>& result, Code code, const std::string& part) {
  return !result.has_value() && result.error().code == code &&
         result.error().message.find(part) != std::string::npos;
}

}  // namespace edgewise
