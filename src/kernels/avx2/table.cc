// AVX2 with FMA and F16C.
#include "kernels/avx2/floats.h"
#include "kernels/avx2/gemm.h"
#include "kernels/avx2/rows.h"
#include "kernels/skeleton/attention.h"
#include "kernels/skeleton/gemm.h"
#include "kernels/skeleton/hadamard.h"
#include "kernels/skeleton/linear_bitmask.h"
#include "kernels/skeleton/linear_floats.h"
#include "kernels/skeleton/linear_packed.h"
#include "kernels/skeleton/linear_sparse.h"
#include "kernels/skeleton/quantize.h"
#include "kernels/skeleton/vector_ops.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "avx2";
  SetFloatKernels<Avx2Floats>(&t);
  SetPackedKernels<Avx2Rows>(&t);
  SetSparseKernels<Avx2Rows>(&t);
  SetBitmaskKernels<Avx2Rows>(&t);
  SetVectorKernels<Avx2Floats>(&t);
  t.gemm_f32 = MakeGemm<GemmFloats<Avx2Gemm, false>>();
  t.gemm_bf16 = MakeGemm<GemmFloats<Avx2Gemm, true>>();
  t.quantize_q8 = QuantizeQ8;
  t.attend = Attend<Avx2Floats>;
  t.hadamard = Hadamard;
  return t;
}

}  // namespace

constinit const Kernels kAvx2 = Table();

}  // namespace edgewise::kernels
