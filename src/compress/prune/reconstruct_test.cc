// The least squares fit of what is left of a matrix.
#include "compress/prune/reconstruct.h"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "compress/prune/problem.h"

namespace edgewise {
namespace {

// `w` without the columns that are not in `kept`.
std::vector<float> Cut(const Problem& p, const std::vector<uint32_t>& kept) {
  std::vector<float> cut(p.w.size());
  for (size_t row = 0; row < p.rows; ++row) {
    for (const uint32_t c : kept) cut[row * p.n + c] = p.w[row * p.n + c];
  }
  return cut;
}

std::vector<float> Fitted(const Problem& p, const std::vector<uint32_t>& kept, int threads) {
  ThreadPool pool(threads);
  const auto fit = Reconstruction::Create(p.h, p.n, kept, &pool);
  REQUIRE(fit);
  std::vector<float> values = Cut(p, kept);
  fit->Run(p.w, &pool, values);
  return values;
}

TEST_CASE("the fit is a minimum, and leaves removed columns at zero") {
  const Problem p(70, 48, 1);
  std::vector<uint32_t> kept;
  for (uint32_t c = 0; c < 48; ++c) {
    if (c % 3 != 1) kept.push_back(c);
  }
  const std::vector<float> values = Fitted(p, kept, 2);
  CHECK(Fitted(p, kept, 1) == values);
  const double least = p.Error(values), cut = p.Error(Cut(p, kept));
  CHECK(least < 0.6 * cut);
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % 48 % 3 == 1) REQUIRE(values[i] == 0);
  }
  // No step of a kept weight gains more than damping may have left.
  std::vector<float> moved = values;
  for (const uint32_t c : {0u, 2u, 47u}) {
    for (const float step : {-0.01f, 0.01f}) {
      moved[5 * 48 + c] += step;
      CHECK(p.Error(moved) > least - 1e-3 * cut);
      moved[5 * 48 + c] = values[5 * 48 + c];
    }
  }
}

TEST_CASE("what a lost column does, its copy can do") {
  Problem p(8, 16, 2);
  for (size_t i = 0; i < 16; ++i) p.h[9 * 16 + i] = p.h[3 * 16 + i];
  for (size_t i = 0; i < 16; ++i) p.h[i * 16 + 9] = p.h[i * 16 + 3];
  std::vector<uint32_t> kept;
  for (uint32_t c = 0; c < 16; ++c) {
    if (c != 9) kept.push_back(c);
  }
  CHECK(p.Error(Fitted(p, kept, 1)) < 0.01 * p.Error(Cut(p, kept)));
}

TEST_CASE("columns that no input reaches stay as they are; moments that are not finite are named") {
  const Problem p(8, 16, 3, 4);
  const std::vector<uint32_t> kept = {1, 4, 5, 12};
  const std::vector<float> values = Fitted(p, kept, 1);
  for (size_t row = 0; row < 8; ++row) CHECK(values[row * 16 + 4] == p.w[row * 16 + 4]);
  std::vector<float> h = p.h;
  h[17] = std::numeric_limits<float>::quiet_NaN();
  ThreadPool pool(1);
  CHECK(Fails(Reconstruction::Create(h, 16, kept, &pool), Code::kBadData, "calibrate"));
}

}  // namespace
}  // namespace edgewise
