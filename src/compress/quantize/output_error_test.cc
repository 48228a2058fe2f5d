#include "compress/quantize/output_error.h"

#include <doctest/doctest.h>

#include <vector>

#include "base/rng.h"

namespace edgewise {
namespace {

constexpr size_t kRows = 70, kN = 64, kTokens = 100;

std::vector<float> Random(size_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(rng.Gaussian());
  return values;
}

// sum over tokens of |(w - q) x|^2, x (tokens, n), from the outputs themselves.
double ErrorOfOutputs(const std::vector<float>& w, const std::vector<float>& q,
                      const std::vector<float>& x) {
  double total = 0;
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t r = 0; r < kRows; ++r) {
      double y = 0;
      for (size_t c = 0; c < kN; ++c) {
        y += (static_cast<double>(w[r * kN + c]) - q[r * kN + c]) * x[t * kN + c];
      }
      total += y * y;
    }
  }
  return total;
}

TEST_CASE("the error from second moments is that of the outputs") {
  const std::vector<float> w = Random(kRows * kN, 1), x = Random(kTokens * kN, 2);
  std::vector<float> h(kN * kN);
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t i = 0; i < kN * kN; ++i) h[i] += x[t * kN + i / kN] * x[t * kN + i % kN];
  }
  std::vector<float> scales(kN);
  for (size_t c = 0; c < kN; ++c) scales[c] = 0.5f + static_cast<float>(c % 7);
  const DTypeInfo& info = Info(DType::kQ4_0);
  for (const bool scaled : {false, true}) {
    std::vector<float> wide = w, q(w.size());
    for (size_t i = 0; scaled && i < wide.size(); ++i) wide[i] *= scales[i % kN];
    std::vector<std::byte> blocks(info.RowBytes(w.size()));
    info.encode(wide.data(), nullptr, blocks.data(), w.size());
    info.decode(blocks.data(), q.data(), w.size());
    for (size_t i = 0; scaled && i < q.size(); ++i) q[i] /= scales[i % kN];
    const double expected = ErrorOfOutputs(w, q, x);
    ThreadPool one(1), three(3);
    const std::span<const float> by = scaled ? std::span<const float>(scales) : std::span<float>();
    const double found = OutputError(w, kN, {DType::kQ4_0, {}, by}, h, &one);
    CHECK(found == doctest::Approx(expected).epsilon(1e-4));
    CHECK(found == OutputError(w, kN, {DType::kQ4_0, {}, by}, h, &three));
    if (scaled) continue;
    CHECK(OutputError(w, kN, DType::kQ4_0, blocks, h, &three) == found);
    std::vector<float> identity(kN * kN);
    for (size_t i = 0; i < kN; ++i) identity[i * kN + i] = 1;
    CHECK(OutputError(w, kN, DType::kQ4_0, blocks, {}, &one) ==
          doctest::Approx(OutputError(w, kN, DType::kQ4_0, blocks, identity, &one)).epsilon(1e-5));
  }
}

}  // namespace
}  // namespace edgewise
