// The byte operations of skeleton/linear_blocks.h in AVX2: 32 bytes a register, 8 int32 or float
// lanes. Lanes 0-3 of a dot come from bytes 0-15, lanes 4-7 from bytes 16-31.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace edgewise::kernels {
namespace {

struct Avx2Bytes {
  using Bytes = __m256i;
  using Ints = __m256i;
  using Floats = __m256;
  using Scale = __m256i;  // 16 int16
  static constexpr size_t kTile = 4;

  static Bytes Load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static Bytes Splat(int8_t value) { return _mm256_set1_epi8(value); }
  static Bytes And(Bytes a, Bytes b) { return _mm256_and_si256(a, b); }
  static Bytes Or(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
  template <int k>
  static Bytes ShiftLeft(Bytes a) {
    return _mm256_slli_epi16(a, k);
  }
  template <int k>
  static Bytes ShiftRight(Bytes a) {
    return _mm256_srli_epi16(a, k);
  }

  // The low nibbles of 16 bytes, then their high nibbles.
  static Bytes LoadNibbles(const void* p) {
    const __m128i raw = _mm_loadu_si128(static_cast<const __m128i*>(p));
    const __m256i both =
        _mm256_inserti128_si256(_mm256_castsi128_si256(raw), _mm_srli_epi16(raw, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
  }

  // Byte j is 16 where bit j of the 4 bytes is set, else 0.
  static Bytes HighBits(const void* p) {
    int32_t bits;
    memcpy(&bits, p, 4);
    const __m256i spread =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
    const __m256i select = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201ull));
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, select), select);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
  }

  static Bytes Lookup(const int8_t* table, Bytes index) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), index);
  }

  // maddubs adds two products in 16 bits: 2 * 127 * 127 and, for q = -128, 2 * 128 * 127 still fit.
  static __m256i Pairs(Bytes w, Bytes x) { return _mm256_maddubs_epi16(w, x); }
  // It wants unsigned * signed: the sign of w moves to x, which is never -128.
  static __m256i PairsSigned(Bytes w, Bytes x) {
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  }
  static Ints Dot(Bytes w, Bytes x) { return _mm256_madd_epi16(Pairs(w, x), _mm256_set1_epi16(1)); }
  static Ints DotSigned(Bytes w, Bytes x) {
    return _mm256_madd_epi16(PairsSigned(w, x), _mm256_set1_epi16(1));
  }
  static Ints ScaledDot(Ints sum, Bytes w, Bytes x, Scale scale) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(Pairs(w, x), scale));
  }
  static Ints ScaledDotSigned(Ints sum, Bytes w, Bytes x, Scale scale) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(PairsSigned(w, x), scale));
  }
  static Scale MakeScale(const int16_t* two) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_set1_epi16(two[0])),
                                   _mm_set1_epi16(two[1]), 1);
  }
  static Ints DotSums(const int16_t* a, const int16_t* b) {
    return _mm256_madd_epi16(Load(a), Load(b));
  }

  static Ints ZeroInts() { return _mm256_setzero_si256(); }
  static Ints Sub(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
  static Floats ToFloats(Ints a) { return _mm256_cvtepi32_ps(a); }

  static Floats Zero() { return _mm256_setzero_ps(); }
  static Floats Set(float value) { return _mm256_set1_ps(value); }
  static Floats Add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats Mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats Fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static float Sum(Floats v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float Half(uint16_t h) { return _cvtsh_ss(h); }
  static float FmaScalar(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
};

}  // namespace
}  // namespace edgewise::kernels
