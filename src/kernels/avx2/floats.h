// The float vectors of skeleton/vector_ops.h in AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace edgewise::kernels {
namespace {

struct Avx2Floats {
  using V = __m256;
  using Halves = __m128i;
  struct D {
    __m256d low, high;
  };
  static constexpr size_t kWidth = 8;
  static constexpr size_t kTokens = 3;  // 12 sums, 3 activations and a weight fill 16 registers

  static V Zero() { return _mm256_setzero_ps(); }
  static V Set(float value) { return _mm256_set1_ps(value); }
  static V Load(const float* p) { return _mm256_loadu_ps(p); }
  static V LoadBytes(const void* p) {
    return _mm256_castsi256_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static void Store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static V Add(V a, V b) { return _mm256_add_ps(a, b); }
  static V Sub(V a, V b) { return _mm256_sub_ps(a, b); }
  static V Mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static V Div(V a, V b) { return _mm256_div_ps(a, b); }
  static V Sqrt(V a) { return _mm256_sqrt_ps(a); }
  static V Fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static V Fnma(V a, V b, V c) { return _mm256_fnmadd_ps(a, b, c); }
  // The second argument when either is NaN.
  static V Max(V a, V b) { return _mm256_max_ps(a, b); }
  static V Min(V a, V b) { return _mm256_min_ps(a, b); }
  static V Abs(V a) { return _mm256_andnot_ps(Set(-0.0f), a); }
  static V CopySign(V magnitude, V sign) {
    return _mm256_or_ps(Abs(magnitude), _mm256_and_ps(Set(-0.0f), sign));
  }
  static V Round(V a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // p * 2^k for integral k of -151 to 129, in two steps, so that subnormal and infinite results
  // come out right.
  static V TimesPow2(V p, V k) {
    const __m256i whole = _mm256_cvtps_epi32(k);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return Mul(Mul(p, Pow2(half)), Pow2(_mm256_sub_epi32(whole, half)));
  }
  static V Pow2(__m256i k) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k, _mm256_set1_epi32(127)), 23));
  }
  static V SelectLess(V a, V b, V if_less, V otherwise) {
    return _mm256_blendv_ps(otherwise, if_less, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
  }

  static float Sum(V v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  // y[0] += the sum of a, y[1] += that of b, ...
  static void AddSums(V a, V b, V c, V d, float* y) {
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256d low = _mm256_unpacklo_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd));
    const __m256d high = _mm256_unpackhi_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd));
    const __m256 abcd = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
    _mm_storeu_ps(y, _mm_add_ps(_mm_loadu_ps(y), sums));
  }
  static float Largest(V v) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }

  static V SwapPairs(V v) { return _mm256_permute_ps(v, 0xB1); }
  // p[0], p[0], p[1], p[1], ...
  static V DuplicatePairs(const float* p) {
    const __m256 four = _mm256_castps128_ps256(_mm_loadu_ps(p));
    return _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  }
  // Negates lanes 0, 2, 4, ...
  static V AlternateSign(V v) {
    return _mm256_xor_ps(v, _mm256_setr_ps(-0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f));
  }

  static Halves LoadHalves(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
  // From 4 kept halves, by the bytes that each of eight has.
  static Halves Spread(const uint8_t* from, const uint8_t*, const uint8_t* kept) {
    return _mm_shuffle_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kept)),
                            _mm_load_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static V FromF16(Halves h) { return _mm256_cvtph_ps(h); }
  static V FromBf16(Halves h) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
  }
  static V LoadF16(const void* p) { return FromF16(LoadHalves(p)); }
  static V LoadInt8(const int8_t* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  // The 4-bit codes that kWidth bytes have in their low or, with shift 4, high halves.
  static V LoadNibbles(const uint8_t* p, int shift) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i codes = _mm_and_si128(_mm_srli_epi16(bytes, shift), _mm_set1_epi8(15));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
  }
  static V SetF16(uint16_t h) { return _mm256_cvtph_ps(_mm_set1_epi16(static_cast<int16_t>(h))); }
  static void StoreF16(void* p, V v) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }

  static D ZeroD() { return {_mm256_setzero_pd(), _mm256_setzero_pd()}; }
  static D ToD(V v) {
    return {_mm256_cvtps_pd(_mm256_castps256_ps128(v)),
            _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))};
  }
  static D AddD(D sum, V v) {
    const D d = ToD(v);
    return {_mm256_add_pd(sum.low, d.low), _mm256_add_pd(sum.high, d.high)};
  }
  static D AddSquareD(D sum, V v) {
    const D d = ToD(v);
    return {_mm256_fmadd_pd(d.low, d.low, sum.low), _mm256_fmadd_pd(d.high, d.high, sum.high)};
  }
  static double SumD(D sum) {
    const __m256d four = _mm256_add_pd(sum.low, sum.high);
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
  }
};

}  // namespace
}  // namespace edgewise::kernels
