// The tables of the instruction set folders. Each folder is one object file that exports one of
// these and nothing else.
#pragma once

#include "kernels/kernels.h"

namespace edgewise::kernels {

extern const Kernels kScalar;
extern const Kernels kAvx2;
extern const Kernels kAvxVnni;
extern const Kernels kAvx512Vnni;
extern const Kernels kAvx512Vbmi2;
extern const Kernels kAvx512Bf16;
extern const Kernels kAmx;
extern const Kernels kNeon;
extern const Kernels kDotprod;
extern const Kernels kI8mm;

}  // namespace edgewise::kernels
