// AVX2 with FMA and F16C.
#include "kernels/avx2/bytes.h"
#include "kernels/avx2/floats.h"
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
  t.name = "avx2";
  SetFloatKernels<Avx2Floats>(&t);
  SetBlockKernels<Avx2Bytes>(&t);
  SetVectorKernels<Avx2Floats>(&t);
  t.quantize_q8_32 = QuantizeQ8_32;
  t.quantize_q8_256 = QuantizeQ8_256;
  t.attend = Attend<Avx2Floats>;
  return t;
}

}  // namespace

constinit const Kernels kAvx2 = Table();

}  // namespace edgewise::kernels
