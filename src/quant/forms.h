// The block forms that the table in block_parts.cc lists.
#pragma once

#include "quant/block_parts.h"

namespace edgewise::quant {

extern const BlockForm kFormQ4_0, kFormQ4_1, kFormQ5_0, kFormQ5_1, kFormQ8_0;
extern const BlockForm kFormQ2_K, kFormQ3_K, kFormQ4_K, kFormQ5_K, kFormQ6_K;
extern const BlockForm kFormIQ4_NL, kFormIQ4_XS;
extern const BlockForm kFormS24_Q4, kFormS24_Q8;
extern const BlockForm kFormBM_Q4, kFormBM_Q8;

}  // namespace edgewise::quant
