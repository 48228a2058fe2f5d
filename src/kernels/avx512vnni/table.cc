// AVX-512 F, BW, DQ, VL and VNNI.
#include "kernels/avx512vnni/bytes.h"
#include "kernels/avx512vnni/floats.h"
#include "kernels/skeleton/attention.h"
#include "kernels/skeleton/linear_blocks.h"
#include "kernels/skeleton/linear_floats.h"
#include "kernels/skeleton/quantize.h"
#include "kernels/skeleton/vector_ops.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "avx512vnni";
  SetFloatKernels<Avx512Floats>(&t);
  SetBlockKernels<VnniBytes>(&t);
  SetVectorKernels<Avx512Floats>(&t);
  t.quantize_q8_32 = QuantizeQ8_32;
  t.quantize_q8_256 = QuantizeQ8_256;
  t.attend = Attend<Avx512Floats>;
  return t;
}

}  // namespace

constinit const Kernels kAvx512Vnni = Table();

}  // namespace edgewise::kernels
