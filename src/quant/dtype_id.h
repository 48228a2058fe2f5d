// The identifiers of the number formats; freestanding, because kernel files include it.
#pragma once

#include <stdint.h>

namespace edgewise {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kS24_Q4,
  kS24_Q8,
  kBM_Q4,
  kBM_Q8,
  kS24_F16,
  kS24_BF16,
  kI8,
  kI16,
  kI32,
  kI64,
  kF64,  // stored and passed on; decode works, encode is null for integers
};
inline constexpr int kDTypeCount = 26;

}  // namespace edgewise
