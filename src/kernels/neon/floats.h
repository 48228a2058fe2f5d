// The float vectors of skeleton/vector_ops.h in NEON.
#pragma once

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace edgewise::kernels {
namespace {

struct NeonFloats {
  using V = float32x4_t;
  using Halves = uint8x8_t;
  struct D {
    float64x2_t low, high;
  };
  static constexpr size_t kWidth = 4;
  static constexpr size_t kTokens = 6;  // 24 sums and 6 activations of 32 registers

  static V Zero() { return vdupq_n_f32(0); }
  static V Set(float value) { return vdupq_n_f32(value); }
  static V Load(const float* p) { return vld1q_f32(p); }
  static V LoadBytes(const void* p) {
    return vreinterpretq_f32_u8(vld1q_u8(static_cast<const uint8_t*>(p)));
  }
  static void Store(float* p, V v) { vst1q_f32(p, v); }
  static V Add(V a, V b) { return vaddq_f32(a, b); }
  static V Sub(V a, V b) { return vsubq_f32(a, b); }
  static V Mul(V a, V b) { return vmulq_f32(a, b); }
  static V Div(V a, V b) { return vdivq_f32(a, b); }
  static V Sqrt(V a) { return vsqrtq_f32(a); }
  static V Fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
  static V Fnma(V a, V b, V c) { return vfmsq_f32(c, a, b); }
  // The second argument unless the first is truly beyond it: a NaN in the first is passed over, as
  // on x86.
  static V Max(V a, V b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static V Min(V a, V b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static V Abs(V a) { return vabsq_f32(a); }
  static V CopySign(V magnitude, V sign) {
    return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude);
  }
  static V Round(V a) { return vrndnq_f32(a); }
  // p * 2^k for integral k of -151 to 129, in two steps, so that subnormal and infinite results
  // come out right.
  static V TimesPow2(V p, V k) {
    const int32x4_t whole = vcvtq_s32_f32(k);
    const int32x4_t half = vshrq_n_s32(whole, 1);
    return Mul(Mul(p, Pow2(half)), Pow2(vsubq_s32(whole, half)));
  }
  static V Pow2(int32x4_t k) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(k, vdupq_n_s32(127)), 23));
  }
  static V SelectLess(V a, V b, V if_less, V otherwise) {
    return vbslq_f32(vcltq_f32(a, b), if_less, otherwise);
  }

  static float Sum(V v) { return vaddvq_f32(v); }
  // y[0] += the sum of a, y[1] += that of b, ...
  static void AddSums(V a, V b, V c, V d, float* y) {
    vst1q_f32(y, vaddq_f32(vld1q_f32(y), vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d))));
  }
  static float Largest(V v) { return vmaxnmvq_f32(v); }

  static V SwapPairs(V v) { return vrev64q_f32(v); }
  // p[0], p[0], p[1], p[1].
  static V DuplicatePairs(const float* p) {
    const float32x2_t two = vld1_f32(p);
    return vcombine_f32(vdup_lane_f32(two, 0), vdup_lane_f32(two, 1));
  }
  // Negates lanes 0 and 2.
  static V AlternateSign(V v) {
    const uint32x4_t signs = vreinterpretq_u32_u64(vdupq_n_u64(0x80000000u));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(v), signs));
  }

  static Halves LoadHalves(const void* p) { return vld1_u8(static_cast<const uint8_t*>(p)); }
  // From 2 kept halves, by the bytes that each of four has.
  static Halves Spread(const uint8_t* from, const uint8_t*, const uint8_t* kept) {
    uint32_t pair;
    memcpy(&pair, kept, sizeof(pair));
    return vtbl1_u8(vcreate_u8(pair), vld1_u8(from));
  }
  static V FromF16(Halves h) { return vcvt_f32_f16(vreinterpret_f16_u8(h)); }
  static V FromBf16(Halves h) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(h), 16));
  }
  static V LoadF16(const void* p) { return FromF16(LoadHalves(p)); }
  static V LoadInt8(const int8_t* p) {
    const int8x8_t four = vreinterpret_s8_s32(vld1_dup_s32(reinterpret_cast<const int32_t*>(p)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(four))));
  }
  // The 4-bit codes that kWidth bytes have in their low or, with shift 4, high halves.
  static V LoadNibbles(const uint8_t* p, int shift) {
    const uint8x8_t bytes = vreinterpret_u8_u32(vld1_dup_u32(reinterpret_cast<const uint32_t*>(p)));
    const uint8x8_t codes =
        vand_u8(vshl_u8(bytes, vdup_n_s8(static_cast<int8_t>(-shift))), vdup_n_u8(15));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(codes))));
  }
  static V SetF16(uint16_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))); }
  static void StoreF16(void* p, V v) {
    vst1_u8(static_cast<uint8_t*>(p), vreinterpret_u8_f16(vcvt_f16_f32(v)));
  }

  static D ZeroD() { return {vdupq_n_f64(0), vdupq_n_f64(0)}; }
  static D ToD(V v) { return {vcvt_f64_f32(vget_low_f32(v)), vcvt_high_f64_f32(v)}; }
  static D AddD(D sum, V v) {
    const D d = ToD(v);
    return {vaddq_f64(sum.low, d.low), vaddq_f64(sum.high, d.high)};
  }
  static D AddSquareD(D sum, V v) {
    const D d = ToD(v);
    return {vfmaq_f64(sum.low, d.low, d.low), vfmaq_f64(sum.high, d.high, d.high)};
  }
  static double SumD(D sum) { return vaddvq_f64(vaddq_f64(sum.low, sum.high)); }
};

}  // namespace
}  // namespace edgewise::kernels
