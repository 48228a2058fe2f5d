// The operations of skeleton/linear_packed.h in AVX-512 with VNNI: 4 columns of 16 rows a register.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace edgewise::kernels {
namespace {

struct VnniRows {
  using Bytes = __m512i;
  using Part = __m512i;
  using Ints = __m512i;
  using Floats = __m512;
  static constexpr size_t kBytes = 64, kLanes = 16;
  static constexpr size_t kTokens = 12;  // 12 sums and 12 running dots of 32 registers
  static constexpr bool kBiased = true;  // vpdpbusd takes unsigned weights
  static constexpr bool kPartIsInts = true;
  template <int kLargest, bool kSigned>
  static constexpr size_t kPartSteps = 8;

  static Bytes Load(const void* p) { return _mm512_loadu_si512(p); }
  static void Store(void* p, Bytes v) { _mm512_storeu_si512(p, v); }
  // From here on the compiler does not know what w holds.
  static void Forget(Bytes& w) {
#if defined(__AVX512F__)
    asm volatile("" : "+v"(w));
#else
    asm volatile("" : "+m"(w));
#endif
  }
  static Bytes Splat(int8_t value) { return _mm512_set1_epi8(value); }
  static Bytes And(Bytes a, Bytes b) { return _mm512_and_si512(a, b); }
  static Bytes Or(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
  static Bytes Xor(Bytes a, Bytes b) { return _mm512_xor_si512(a, b); }
  template <int k>
  static Bytes ShiftLeft(Bytes a) {
    return _mm512_slli_epi16(a, k);
  }
  template <int k>
  static Bytes ShiftRight(Bytes a) {
    return _mm512_srli_epi16(a, k);
  }
  // 16 bytes, in every 128 bits.
  static Bytes Repeat16(const int8_t* sixteen) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  }
  // Byte index[i] < 16 of the 128 bits of byte i.
  static Bytes Shuffle(Bytes bytes, Bytes index) { return _mm512_shuffle_epi8(bytes, index); }
  static Bytes Lookup(const int8_t* table, Bytes index) { return Shuffle(Repeat16(table), index); }
  // Byte index[i] < 16, and 0 where index[i] has its highest bit set.
  template <class Sixteen>
  static Sixteen Shuffle16(Sixteen bytes, Sixteen index) {
    return reinterpret_cast<Sixteen>(
        _mm_shuffle_epi8(reinterpret_cast<__m128i>(bytes), reinterpret_cast<__m128i>(index)));
  }
  // Byte i of each 32-bit word becomes 16 where bit 4 step + i of the word is set, else 0.
  static Bytes FifthBits(Bytes words, size_t step) {
    const __m512i from =
        _mm512_broadcast_i32x4(_mm_set_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0));
    const __m512i bytes = _mm512_shuffle_epi8(
        words, _mm512_add_epi8(from, _mm512_set1_epi8(static_cast<char>(step / 2))));
    const __m512i select =
        _mm512_set1_epi32(static_cast<int>(step % 2 == 0 ? 0x08040201u : 0x80402010u));
    return _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(bytes, select), _mm512_set1_epi8(16));
  }

  // Step repeats the four bytes itself, as an operand in memory.
  static const int8_t* Repeat(const int8_t* four) { return four; }
  static Part ZeroPart() { return _mm512_setzero_si512(); }
  template <bool>
  static Part Step(Part part, Bytes w, const int8_t* four) {
#if defined(__AVX512VNNI__) && !defined(__clang__)  // gcc has no pattern for {1to16} here
    asm("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(part)
        : "v"(w), "m"(*reinterpret_cast<const int8_t(*)[4]>(four)));
    return part;
#else
    int32_t bits;
    memcpy(&bits, four, 4);
    return _mm512_dpbusd_epi32(part, w, _mm512_set1_epi32(bits));
#endif
  }
  template <bool>
  static Part Step(Part part, Bytes w, Bytes x) {
    return _mm512_dpbusd_epi32(part, w, x);
  }
  static Ints Widen(Part part) { return part; }
  static Ints AddInts(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Ints SubInts(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
  template <int k>
  static Ints SetShifted(int32_t value) {
    return _mm512_slli_epi32(_mm512_set1_epi32(value), k);
  }

  static Floats LoadFloats(const float* p) { return _mm512_loadu_ps(p); }
  static void StoreFloats(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  static Floats Set(float value) { return _mm512_set1_ps(value); }
  static Floats Mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats Fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats ToFloats(Ints a) { return _mm512_cvtepi32_ps(a); }
  static Floats FromHalves(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static Floats FromUint8(const void* p) {
    return ToFloats(_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  }
  static Floats FromInt8(const void* p) {
    return ToFloats(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  }
};

}  // namespace
}  // namespace edgewise::kernels
