// The portable level: every entry, in plain C++. It is the referee of the other levels.
#include "kernels/scalar/attention.h"
#include "kernels/scalar/gemm.h"
#include "kernels/scalar/linear.h"
#include "kernels/scalar/vector_ops.h"
#include "kernels/skeleton/gemm.h"
#include "kernels/skeleton/hadamard.h"
#include "kernels/skeleton/quantize.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "scalar";
  const auto set = [&t](DType type, ActFormat act, void (*run)(const LinearArgs&)) {
    t.linear[static_cast<int>(type)] = {act, run};
  };
  set(DType::kF32, ActFormat::kF32, LinearFloat<F32Weights>);
  set(DType::kF16, ActFormat::kF32, LinearFloat<F16Weights>);
  set(DType::kBF16, ActFormat::kF32, LinearFloat<Bf16Weights>);
  set(DType::kS24_F16, ActFormat::kF32, LinearFloat<S24Weights<HalfToFloat>>);
  set(DType::kS24_BF16, ActFormat::kF32, LinearFloat<S24Weights<Bf16ToFloat>>);
  set(DType::kQ4_0, ActFormat::kQ8, LinearBlocks32<DType::kQ4_0, Q4_0>);
  set(DType::kQ4_1, ActFormat::kQ8, LinearBlocks32<DType::kQ4_1, Q4_1>);
  set(DType::kQ5_0, ActFormat::kQ8, LinearBlocks32<DType::kQ5_0, Q5_0>);
  set(DType::kQ5_1, ActFormat::kQ8, LinearBlocks32<DType::kQ5_1, Q5_1>);
  set(DType::kQ8_0, ActFormat::kQ8, LinearBlocks32<DType::kQ8_0, Q8_0>);
  set(DType::kIQ4_NL, ActFormat::kQ8, LinearBlocks32<DType::kIQ4_NL, IQ4_NL>);
  set(DType::kQ2_K, ActFormat::kQ8, LinearBlocks256<DType::kQ2_K, Q2_K>);
  set(DType::kQ3_K, ActFormat::kQ8, LinearBlocks256<DType::kQ3_K, Q3_K>);
  set(DType::kQ4_K, ActFormat::kQ8, LinearBlocks256<DType::kQ4_K, Q4_K>);
  set(DType::kQ5_K, ActFormat::kQ8, LinearBlocks256<DType::kQ5_K, Q5_K>);
  set(DType::kQ6_K, ActFormat::kQ8, LinearBlocks256<DType::kQ6_K, Q6_K>);
  set(DType::kIQ4_XS, ActFormat::kQ8, LinearBlocks256<DType::kIQ4_XS, IQ4_XS>);
  set(DType::kS24_Q4, ActFormat::kQ8, LinearBlocks64<DType::kS24_Q4, S24_Q4>);
  set(DType::kS24_Q8, ActFormat::kQ8, LinearBlocks64<DType::kS24_Q8, S24_Q8>);
  t.gemm_f32 = MakeGemm<GemmFloats<PlainGemm, false>>();
  t.gemm_bf16 = MakeGemm<GemmFloats<PlainGemm, true>>();
  set(DType::kBM_Q4, ActFormat::kQ8, LinearBlocks64<DType::kBM_Q4, BM_Q4>);
  set(DType::kBM_Q8, ActFormat::kQ8, LinearBlocks64<DType::kBM_Q8, BM_Q8>);
  t.quantize_q8 = QuantizeQ8;
  t.dot_f32 = DotF32;
  t.rms_norm = RmsNorm;
  t.layer_norm = LayerNorm;
  t.rope_interleaved = RopeInterleaved;
  t.rope_neox = RopeNeox;
  t.silu_mul = SiluMul;
  t.gelu_tanh_mul = GeluTanhMul;
  t.add = Add;
  t.scale = Scale;
  t.softcap = Softcap;
  t.f32_to_f16 = F32ToF16;
  t.attend = Attend;
  t.hadamard = Hadamard;
  t.int8_products = Int8Products;
  t.log_sum_exp = LogSumExp;
  t.softmax = Softmax;
  t.exp = ExpEach;
  t.sum_squares = SumSquares;
  t.adamw = AdamW;
  return t;
}

}  // namespace

constinit const Kernels kScalar = Table();

}  // namespace edgewise::kernels
