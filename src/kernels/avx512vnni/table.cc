// AVX-512 F, BW, DQ, VL and VNNI.
#include "kernels/avx512vnni/floats.h"
#include "kernels/avx512vnni/gemm.h"
#include "kernels/avx512vnni/rows.h"
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
  t.name = "avx512vnni";
  SetFloatKernels<Avx512Floats>(&t);
  SetPackedKernels<VnniRows>(&t);
  SetSparseKernels<VnniRows>(&t);
  SetBitmaskKernels<VnniRows>(&t);
  SetVectorKernels<Avx512Floats>(&t);
  t.gemm_f32 = MakeGemm<GemmFloats<Avx512Gemm, false>>();
  t.gemm_bf16 = MakeGemm<GemmFloats<Avx512Gemm, true>>();
  t.quantize_q8 = QuantizeQ8;
  t.attend = Attend<Avx512Floats>;
  t.hadamard = Hadamard;
  return t;
}

}  // namespace

constinit const Kernels kAvx512Vnni = Table();

}  // namespace edgewise::kernels
