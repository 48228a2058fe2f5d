#include "quant/scale_fields.h"

#include <array>

#include "quant/blocks.h"

namespace edgewise {
namespace {

template <size_t... kOffsets>
constexpr std::array<uint8_t, sizeof...(kOffsets)> kFields = {static_cast<uint8_t>(kOffsets)...};

}  // namespace

std::span<const uint8_t> ScaleFieldsOf(DType type) {
  switch (type) {
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
    case DType::kS24_Q4:
    case DType::kS24_Q8:
    case DType::kBM_Q4:
    case DType::kBM_Q8:
      return kFields<0>;
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return kFields<0, 2>;
    case DType::kQ2_K:
      return kFields<offsetof(BlockQ2_K, d), offsetof(BlockQ2_K, dmin)>;
    case DType::kQ3_K:
      return kFields<offsetof(BlockQ3_K, d)>;
    case DType::kQ6_K:
      return kFields<offsetof(BlockQ6_K, d)>;
    default:
      return {};
  }
}

}  // namespace edgewise
