// Test only: values through a sparse format and back, and what that costs.
#pragma once

#include <cstdint>
#include <vector>

#include "base/rng.h"
#include "quant/dtype.h"

namespace edgewise {

using Values = std::vector<float>;

constexpr uint16_t kOne = 0x3C00;  // a half

template <class Block>
Values Decode(DType type, const Block& block) {
  Values values(64);
  Info(type).decode(&block, values.data(), 64);
  return values;
}

inline Values RoundTrip(DType type, const Values& x, const float* weights = nullptr) {
  std::vector<uint8_t> bytes(Info(type).RowBytes(x.size()));
  Info(type).encode(x.data(), weights, bytes.data(), x.size());
  Values y(x.size());
  Info(type).decode(bytes.data(), y.data(), y.size());
  return y;
}

inline Values Random(size_t n, uint64_t seed) {
  Rng rng(seed);
  Values x(n);
  for (float& v : x) v = static_cast<float>(rng.Gaussian());
  return x;
}

inline double Error(const Values& x, const Values& y) {
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i) error += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
  return error;
}

}  // namespace edgewise
