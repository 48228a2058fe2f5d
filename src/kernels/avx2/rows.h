// The operations of skeleton/linear_packed.h in AVX2: 4 columns of 8 rows a register.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace edgewise::kernels {
namespace {

struct Avx2Rows {
  using Bytes = __m256i;
  using Part = __m256i;  // 16 int16: two for each row
  using Ints = __m256i;
  using Floats = __m256;
  static constexpr size_t kBytes = 32, kLanes = 8;
  static constexpr size_t kTokens = 4;
  static constexpr bool kBiased = false;  // signed weights stay signed
  static constexpr bool kPartIsInts = false;

  // maddubs adds two products in 16 bits, and more steps fit where weights are small. A signed
  // weight of -128 counts as 128.
  template <int kLargest, bool kSigned>
  static constexpr size_t kPartSteps =
      kSigned                            ? 1
      : 32767 / (2 * 127 * kLargest) < 8 ? 32767 / (2 * 127 * kLargest)
                                         : 8;

  static Bytes Load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static void Store(void* p, Bytes v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  // From here on the compiler does not know what w holds.
  static void Forget(Bytes& w) { asm volatile("" : "+x"(w)); }
  static Bytes Splat(int8_t value) { return _mm256_set1_epi8(value); }
  static Bytes And(Bytes a, Bytes b) { return _mm256_and_si256(a, b); }
  static Bytes Or(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
  static Bytes Xor(Bytes a, Bytes b) { return _mm256_xor_si256(a, b); }
  template <int k>
  static Bytes ShiftLeft(Bytes a) {
    return _mm256_slli_epi16(a, k);
  }
  template <int k>
  static Bytes ShiftRight(Bytes a) {
    return _mm256_srli_epi16(a, k);
  }
  // 16 bytes, in every 128 bits.
  static Bytes Repeat16(const int8_t* sixteen) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  }
  // Byte index[i] < 16 of the 128 bits of byte i.
  static Bytes Shuffle(Bytes bytes, Bytes index) { return _mm256_shuffle_epi8(bytes, index); }
  static Bytes Lookup(const int8_t* table, Bytes index) { return Shuffle(Repeat16(table), index); }
  // Byte index[i] < 16, and 0 where index[i] has its highest bit set.
  template <class Sixteen>
  static Sixteen Shuffle16(Sixteen bytes, Sixteen index) {
    return reinterpret_cast<Sixteen>(
        _mm_shuffle_epi8(reinterpret_cast<__m128i>(bytes), reinterpret_cast<__m128i>(index)));
  }
  // Byte i of each 32-bit word becomes 16 where bit 4 step + i of the word is set, else 0.
  static Bytes FifthBits(Bytes words, size_t step) {
    const __m256i from = _mm256_set_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0, 0x0C0C0C0C,
                                          0x08080808, 0x04040404, 0);
    const __m256i bytes = _mm256_shuffle_epi8(
        words, _mm256_add_epi8(from, _mm256_set1_epi8(static_cast<char>(step / 2))));
    const __m256i select = _mm256_set1_epi32(step % 2 == 0 ? 0x08040201 : 0x80402010u);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, select), select);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
  }

  static Bytes Repeat(const int8_t* four) {
    int32_t bits;
    memcpy(&bits, four, 4);
    return _mm256_set1_epi32(bits);
  }
  static Part ZeroPart() { return _mm256_setzero_si256(); }
  // maddubs wants unsigned * signed: the sign of w moves to x, which is never -128.
  template <bool kSigned>
  static Part Step(Part part, Bytes w, Bytes x) {
    if constexpr (kSigned) {
      return _mm256_add_epi16(part,
                              _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
    }
    return _mm256_add_epi16(part, _mm256_maddubs_epi16(w, x));
  }
  static Ints Widen(Part part) { return _mm256_madd_epi16(part, _mm256_set1_epi16(1)); }
  static Ints AddInts(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static Ints SubInts(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
  template <int k>
  static Ints SetShifted(int32_t value) {
    return _mm256_slli_epi32(_mm256_set1_epi32(value), k);
  }

  static Floats LoadFloats(const float* p) { return _mm256_loadu_ps(p); }
  static void StoreFloats(float* p, Floats v) { _mm256_storeu_ps(p, v); }
  static Floats Set(float value) { return _mm256_set1_ps(value); }
  static Floats Mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats Fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static Floats ToFloats(Ints a) { return _mm256_cvtepi32_ps(a); }
  static Floats FromHalves(const void* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static Floats FromUint8(const void* p) {
    return ToFloats(_mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
  }
  static Floats FromInt8(const void* p) {
    return ToFloats(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
  }
};

}  // namespace
}  // namespace edgewise::kernels
