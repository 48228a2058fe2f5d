// Test only: gradients against differences of a loss in double precision.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/thread_pool.h"
#include "train/test_models.h"

namespace edgewise::train {

inline double Dot(const std::vector<float>& a, const std::vector<float>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// Moves one tensor of the model both ways in a random direction: `scale` times what that does to
// `loss` must be what the gradients say.
inline void CheckTensor(const TinyModel& tiny, const std::string& name,
                        const std::vector<float>& gradients, double scale,
                        FunctionRef<double(const TinyModel&)> loss) {
  CAPTURE(name);
  constexpr double kStep = 1e-3;
  Rng rng(name.size() * 31 + static_cast<uint64_t>(name.back()));
  TinyModel up = tiny, down = tiny;
  const std::vector<float>& values = tiny.tensors.at(name).values;
  const double size =
      std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 1e-6) /
                static_cast<double>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto move = static_cast<float>(kStep * size * rng.Gaussian());
    up.tensors[name].values[i] += move;
    down.tensors[name].values[i] -= move;
  }
  ModelSpec spec;
  std::vector<float> difference = Parameters(up, &spec);
  const std::vector<float> low = Parameters(down, &spec);
  double moved = 0, steep = 0, count = 0;
  for (size_t i = 0; i < low.size(); ++i) {
    difference[i] -= low[i];
    if (difference[i] == 0) continue;
    moved += static_cast<double>(difference[i] * difference[i]);
    steep += static_cast<double>(gradients[i] * gradients[i]);
    ++count;
  }
  REQUIRE(count > 0);
  const double expected = scale * (loss(up) - loss(down));
  const double typical = std::sqrt(moved * steep / count);
  CHECK(typical > 0);
  CHECK(std::abs(Dot(gradients, difference) - expected) < 1e-3 * (typical + std::abs(expected)));
}

}  // namespace edgewise::train
