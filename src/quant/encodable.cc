#include "quant/encodable.h"

#include <algorithm>
#include <cstring>

#include "quant/block_parts.h"

namespace edgewise {
namespace {

// The bits of the largest magnitude; those of a NaN or an infinity are at least kInfinityBits.
constexpr uint32_t kInfinityBits = 0x7F800000u;

uint32_t MagnitudeBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits & 0x7FFFFFFFu;
}

uint32_t LargestBits(const float* values, size_t n) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, MagnitudeBits(values[i]));
  return largest;
}

// The smallest magnitude that `type` cannot hold. Block formats keep their scales and offsets in
// half precision, so that a weight past its range is as unsafe there as in F16.
uint32_t OverflowBits(DType type) {
  if (type == DType::kF32 || type == DType::kF64) return kInfinityBits;
  if (type == DType::kBF16 || type == DType::kS24_BF16) return 0x7F7F8000u;  // rounds to infinity
  return 0x477FF000u;  // 65520, which rounds to infinity
}

size_t FirstAtLeast(const float* values, size_t n, uint32_t bits) {
  size_t i = 0;
  while (i < n && MagnitudeBits(values[i]) < bits) ++i;
  return i;
}

EncodeProblem FindAtLeast(const float* values, size_t n, uint32_t limit) {
  const uint32_t largest = LargestBits(values, n);
  if (largest < limit) return {};
  if (largest < kInfinityBits) return {EncodeFault::kOverflow, FirstAtLeast(values, n, limit)};
  return {EncodeFault::kNotFinite, FirstAtLeast(values, n, kInfinityBits)};
}

}  // namespace

EncodeProblem FindEncodeProblem(DType type, const float* values, size_t n) {
  const EncodeProblem problem = FindAtLeast(values, n, OverflowBits(type));
  const uint32_t group = Info(type).sparse_group;
  if (problem.fault != EncodeFault::kNone || group == 0) return problem;
  for (size_t i = 0; i < n; i += group) {
    if (std::count(values + i, values + i + group, 0.0f) < group / 2) {
      return {EncodeFault::kDense, i};
    }
  }
  return {};
}

EncodeProblem FindNotFinite(const float* values, size_t n) {
  return FindAtLeast(values, n, kInfinityBits);
}

bool KeepsZeros(DType type) {
  const BlockForm* form = FormOf(type);
  if (form == nullptr || Info(type).sparse()) return true;
  return form->grid == nullptr && form->min_low == 0 && form->min_high == 0;
}

}  // namespace edgewise
