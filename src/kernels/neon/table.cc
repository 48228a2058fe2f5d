// Armv8-A with NEON.
#include "kernels/neon/floats.h"
#include "kernels/neon/gemm.h"
#include "kernels/neon/rows.h"
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
  t.name = "neon";
  SetFloatKernels<NeonFloats>(&t);
  SetPackedKernels<NeonRows>(&t);
  SetSparseKernels<NeonRows>(&t);
  SetBitmaskKernels<NeonRows>(&t);
  SetVectorKernels<NeonFloats>(&t);
  t.gemm_f32 = MakeGemm<GemmFloats<NeonGemm, false>>();
  t.gemm_bf16 = MakeGemm<GemmFloats<NeonGemm, true>>();
  t.quantize_q8 = QuantizeQ8;
  t.attend = Attend<NeonFloats>;
  t.hadamard = Hadamard;
  return t;
}

}  // namespace

constinit const Kernels kNeon = Table();

}  // namespace edgewise::kernels
