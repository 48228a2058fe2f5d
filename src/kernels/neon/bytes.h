// The byte operations of skeleton/linear_blocks.h in NEON: 32 bytes are two registers, dots fill 4
// int32 lanes.
#pragma once

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace edgewise::kernels {
namespace {

struct NeonBytes {
  struct Bytes {
    int8x16_t low, high;  // bytes 0-15, 16-31
  };
  using Ints = int32x4_t;
  using Floats = float32x4_t;
  struct Scale {
    int32_t low, high;
  };
  static constexpr size_t kTile = 4;

  static int8x16_t Signed(uint8x16_t v) { return vreinterpretq_s8_u8(v); }
  static uint8x16_t Unsigned(int8x16_t v) { return vreinterpretq_u8_s8(v); }

  static Bytes Load(const void* p) {
    const int8_t* bytes = static_cast<const int8_t*>(p);
    return {vld1q_s8(bytes), vld1q_s8(bytes + 16)};
  }
  static Bytes Splat(int8_t value) { return {vdupq_n_s8(value), vdupq_n_s8(value)}; }
  static Bytes And(Bytes a, Bytes b) { return {vandq_s8(a.low, b.low), vandq_s8(a.high, b.high)}; }
  static Bytes Or(Bytes a, Bytes b) { return {vorrq_s8(a.low, b.low), vorrq_s8(a.high, b.high)}; }
  template <int k>
  static Bytes ShiftLeft(Bytes a) {
    return {vshlq_n_s8(a.low, k), vshlq_n_s8(a.high, k)};
  }
  template <int k>
  static Bytes ShiftRight(Bytes a) {
    if constexpr (k == 0) {
      return a;
    } else {
      return {Signed(vshrq_n_u8(Unsigned(a.low), k)), Signed(vshrq_n_u8(Unsigned(a.high), k))};
    }
  }

  // The low nibbles of 16 bytes, then their high nibbles.
  static Bytes LoadNibbles(const void* p) {
    const uint8x16_t raw = vld1q_u8(static_cast<const uint8_t*>(p));
    return {Signed(vandq_u8(raw, vdupq_n_u8(15))), Signed(vshrq_n_u8(raw, 4))};
  }

  // Byte j is 16 where bit j of the 4 bytes is set, else 0.
  static Bytes HighBits(const void* p) {
    const uint8_t* bytes = static_cast<const uint8_t*>(p);
    const uint8x8_t bit = vcreate_u8(0x8040201008040201ull);
    const uint8x16_t select = vcombine_u8(bit, bit);
    const uint8x16_t low = vcombine_u8(vdup_n_u8(bytes[0]), vdup_n_u8(bytes[1]));
    const uint8x16_t high = vcombine_u8(vdup_n_u8(bytes[2]), vdup_n_u8(bytes[3]));
    const uint8x16_t sixteen = vdupq_n_u8(16);
    return {Signed(vandq_u8(vtstq_u8(low, select), sixteen)),
            Signed(vandq_u8(vtstq_u8(high, select), sixteen))};
  }

  static Bytes Lookup(const int8_t* table, Bytes index) {
    const int8x16_t values = vld1q_s8(table);
    return {vqtbl1q_s8(values, Unsigned(index.low)), vqtbl1q_s8(values, Unsigned(index.high))};
  }

  // Two products fit 16 bits: 2 * 128 * 127.
  static int32x4_t Dot16(int8x16_t w, int8x16_t x) {
    const int16x8_t pairs = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpaddlq_s16(vmlal_high_s8(pairs, w, x));
  }
  static Ints Dot(Bytes w, Bytes x) {
    return vaddq_s32(Dot16(w.low, x.low), Dot16(w.high, x.high));
  }
  static Ints DotSigned(Bytes w, Bytes x) { return Dot(w, x); }
  static Ints ScaledDot(Ints sum, Bytes w, Bytes x, Scale scale) {
    sum = vmlaq_n_s32(sum, Dot16(w.low, x.low), scale.low);
    return vmlaq_n_s32(sum, Dot16(w.high, x.high), scale.high);
  }
  static Ints ScaledDotSigned(Ints sum, Bytes w, Bytes x, Scale scale) {
    return ScaledDot(sum, w, x, scale);
  }
  static Scale MakeScale(const int16_t* two) { return {two[0], two[1]}; }
  // The sums of an activation block lie at any address, hence the loads of bytes.
  static int16x8_t Load8(const int16_t* p) {
    return vreinterpretq_s16_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(p)));
  }
  static Ints DotSums(const int16_t* a, const int16_t* b) {
    const int16x8_t a0 = Load8(a), a1 = Load8(a + 8), b0 = Load8(b), b1 = Load8(b + 8);
    int32x4_t sum = vmull_s16(vget_low_s16(a0), vget_low_s16(b0));
    sum = vmlal_high_s16(sum, a0, b0);
    sum = vmlal_s16(sum, vget_low_s16(a1), vget_low_s16(b1));
    return vmlal_high_s16(sum, a1, b1);
  }

  static Ints ZeroInts() { return vdupq_n_s32(0); }
  static Ints Sub(Ints a, Ints b) { return vsubq_s32(a, b); }
  static Floats ToFloats(Ints a) { return vcvtq_f32_s32(a); }

  static Floats Zero() { return vdupq_n_f32(0); }
  static Floats Set(float value) { return vdupq_n_f32(value); }
  static Floats Add(Floats a, Floats b) { return vaddq_f32(a, b); }
  static Floats Mul(Floats a, Floats b) { return vmulq_f32(a, b); }
  static Floats Fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
  static float Sum(Floats v) { return vaddvq_f32(v); }
  static float Half(uint16_t h) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
  }
  static float FmaScalar(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
};

}  // namespace
}  // namespace edgewise::kernels
