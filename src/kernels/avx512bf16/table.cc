// AVX512_BF16: products of BF16. Everything else is that of AVX-512 with VNNI.
#include "kernels/avx512bf16/gemm.h"

#include "kernels/skeleton/gemm.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "avx512bf16";
  t.gemm_bf16 = MakeGemm<Avx512Bf16Gemm>();
  return t;
}

}  // namespace

constinit const Kernels kAvx512Bf16 = Table();

}  // namespace edgewise::kernels
