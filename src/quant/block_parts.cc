#include "quant/block_parts.h"

#include "quant/forms.h"

namespace edgewise {

const BlockForm* FormOf(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return &quant::kFormQ4_0;
    case DType::kQ4_1:
      return &quant::kFormQ4_1;
    case DType::kQ5_0:
      return &quant::kFormQ5_0;
    case DType::kQ5_1:
      return &quant::kFormQ5_1;
    case DType::kQ8_0:
      return &quant::kFormQ8_0;
    case DType::kQ2_K:
      return &quant::kFormQ2_K;
    case DType::kQ3_K:
      return &quant::kFormQ3_K;
    case DType::kQ4_K:
      return &quant::kFormQ4_K;
    case DType::kQ5_K:
      return &quant::kFormQ5_K;
    case DType::kQ6_K:
      return &quant::kFormQ6_K;
    case DType::kIQ4_NL:
      return &quant::kFormIQ4_NL;
    case DType::kIQ4_XS:
      return &quant::kFormIQ4_XS;
    case DType::kS24_Q4:
      return &quant::kFormS24_Q4;
    case DType::kS24_Q8:
      return &quant::kFormS24_Q8;
    case DType::kBM_Q4:
      return &quant::kFormBM_Q4;
    case DType::kBM_Q8:
      return &quant::kFormBM_Q8;
    default:
      return nullptr;
  }
}

}  // namespace edgewise
