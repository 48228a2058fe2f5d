// The operations of skeleton/gemm.h that the float vectors of NEON lack.
#pragma once

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/neon/floats.h"

namespace edgewise::kernels {
namespace {

struct NeonGemm : NeonFloats {
  static constexpr size_t kRows = 8, kVectors = 3;  // 24 sums, 3 columns and a row of 32 registers

  static V LoadRows(const float* const* rows, size_t k) { return Load(rows[0] + k); }
  static void Transpose4(V* v) {
    const float64x2_t even01 = vreinterpretq_f64_f32(vtrn1q_f32(v[0], v[1]));
    const float64x2_t odd01 = vreinterpretq_f64_f32(vtrn2q_f32(v[0], v[1]));
    const float64x2_t even23 = vreinterpretq_f64_f32(vtrn1q_f32(v[2], v[3]));
    const float64x2_t odd23 = vreinterpretq_f64_f32(vtrn2q_f32(v[2], v[3]));
    v[0] = vreinterpretq_f32_f64(vzip1q_f64(even01, even23));
    v[1] = vreinterpretq_f32_f64(vzip1q_f64(odd01, odd23));
    v[2] = vreinterpretq_f32_f64(vzip2q_f64(even01, even23));
    v[3] = vreinterpretq_f32_f64(vzip2q_f64(odd01, odd23));
  }
  static V RoundToBf16(V v) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t up = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    const uint32x4_t rounded = vbslq_u32(vceqq_f32(v, v), up, quiet);
    return vreinterpretq_f32_u32(vandq_u32(rounded, vdupq_n_u32(0xFFFF0000)));
  }
};

}  // namespace
}  // namespace edgewise::kernels
