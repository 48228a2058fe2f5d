// The operations of skeleton/linear_packed.h in NEON: 4 columns of 4 rows a register.
#pragma once

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace edgewise::kernels {
namespace {

struct NeonRows {
  using Bytes = int8x16_t;
  using Part = int32x4_t;
  using Ints = int32x4_t;
  using Floats = float32x4_t;
  static constexpr size_t kBytes = 16, kLanes = 4;
  static constexpr size_t kTokens = 2;
  static constexpr bool kBiased = false;
  static constexpr bool kPartIsInts = true;
  template <int kLargest, bool kSigned>
  static constexpr size_t kPartSteps = 8;

  static uint8x16_t Unsigned(int8x16_t v) { return vreinterpretq_u8_s8(v); }
  static int8x16_t Signed(uint8x16_t v) { return vreinterpretq_s8_u8(v); }

  static Bytes Load(const void* p) { return vld1q_s8(static_cast<const int8_t*>(p)); }
  static void Store(void* p, Bytes v) { vst1q_s8(static_cast<int8_t*>(p), v); }
  // From here on the compiler does not know what w holds.
  static void Forget(Bytes& w) { asm volatile("" : "+w"(w)); }
  static Bytes Splat(int8_t value) { return vdupq_n_s8(value); }
  static Bytes And(Bytes a, Bytes b) { return vandq_s8(a, b); }
  static Bytes Or(Bytes a, Bytes b) { return vorrq_s8(a, b); }
  static Bytes Xor(Bytes a, Bytes b) { return veorq_s8(a, b); }
  template <int k>
  static Bytes ShiftLeft(Bytes a) {
    return vshlq_n_s8(a, k);
  }
  template <int k>
  static Bytes ShiftRight(Bytes a) {
    if constexpr (k == 0) {
      return a;
    } else {
      return Signed(vshrq_n_u8(Unsigned(a), k));
    }
  }
  // 16 bytes, in every 128 bits.
  static Bytes Repeat16(const int8_t* sixteen) { return vld1q_s8(sixteen); }
  // Byte index[i] < 16 of the 128 bits of byte i.
  static Bytes Shuffle(Bytes bytes, Bytes index) { return vqtbl1q_s8(bytes, Unsigned(index)); }
  static Bytes Lookup(const int8_t* table, Bytes index) { return Shuffle(Repeat16(table), index); }
  // Byte index[i] < 16, and 0 where index[i] has its highest bit set.
  template <class Sixteen>
  static Sixteen Shuffle16(Sixteen bytes, Sixteen index) {
    return reinterpret_cast<Sixteen>(
        vqtbl1q_u8(reinterpret_cast<uint8x16_t>(bytes), reinterpret_cast<uint8x16_t>(index)));
  }
  // Byte i of each 32-bit word becomes 16 where bit 4 step + i of the word is set, else 0.
  static Bytes FifthBits(Bytes words, size_t step) {
    const uint8x16_t from = vreinterpretq_u8_u64(
        vcombine_u64(vcreate_u64(0x0404040400000000), vcreate_u64(0x0C0C0C0C08080808)));
    const uint8x16_t bytes =
        vqtbl1q_u8(Unsigned(words), vaddq_u8(from, vdupq_n_u8(static_cast<uint8_t>(step / 2))));
    const uint8x16_t select =
        vreinterpretq_u8_u32(vdupq_n_u32(step % 2 == 0 ? 0x08040201u : 0x80402010u));
    return Signed(vandq_u8(vtstq_u8(bytes, select), vdupq_n_u8(16)));
  }

  static Bytes Repeat(const int8_t* four) {
    int32_t bits;
    memcpy(&bits, four, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(bits));
  }
  static Part ZeroPart() { return vdupq_n_s32(0); }
  // The products of two columns each fit 16 bits together: 2 * 128 * 127.
  template <bool>
  static Part Step(Part part, Bytes w, Bytes x) {
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    const int16x8_t high = vmull_high_s8(w, x);
    return vpadalq_s16(part, vpaddq_s16(low, high));
  }
  static Ints Widen(Part part) { return part; }
  static Ints AddInts(Ints a, Ints b) { return vaddq_s32(a, b); }
  template <int k>
  static Ints SetShifted(int32_t value) {
    return vshlq_n_s32(vdupq_n_s32(value), k);
  }

  static Floats LoadFloats(const float* p) { return vld1q_f32(p); }
  static void StoreFloats(float* p, Floats v) { vst1q_f32(p, v); }
  static Floats Set(float value) { return vdupq_n_f32(value); }
  static Floats Mul(Floats a, Floats b) { return vmulq_f32(a, b); }
  static Floats Fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
  static Floats ToFloats(Ints a) { return vcvtq_f32_s32(a); }
  static Floats FromHalves(const void* p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(static_cast<const uint8_t*>(p))));
  }
  static uint8x8_t LoadFour(const void* p) {
    uint32_t bits;
    memcpy(&bits, p, 4);
    return vcreate_u8(bits);
  }
  static Floats FromUint8(const void* p) {
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(LoadFour(p)))));
  }
  static Floats FromInt8(const void* p) {
    const int8x8_t four = vreinterpret_s8_u8(LoadFour(p));
    return ToFloats(vmovl_s16(vget_low_s16(vmovl_s8(four))));
  }
};

}  // namespace
}  // namespace edgewise::kernels
