// The float vectors of skeleton/vector_ops.h in AVX-512.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace edgewise::kernels {
namespace {

struct Avx512Floats {
  using V = __m512;
  using Halves = __m256i;
  struct D {
    __m512d low, high;
  };
  static constexpr size_t kWidth = 16;
  static constexpr size_t kTokens = 6;  // 24 sums and 6 activations of 32 registers

  static V Zero() { return _mm512_setzero_ps(); }
  static V Set(float value) { return _mm512_set1_ps(value); }
  static V Load(const float* p) { return _mm512_loadu_ps(p); }
  static V LoadBytes(const void* p) { return _mm512_castsi512_ps(_mm512_loadu_si512(p)); }
  static void Store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static V Add(V a, V b) { return _mm512_add_ps(a, b); }
  static V Sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V Div(V a, V b) { return _mm512_div_ps(a, b); }
  static V Sqrt(V a) { return _mm512_sqrt_ps(a); }
  static V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V Fnma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }
  // The second argument when either is NaN.
  static V Max(V a, V b) { return _mm512_max_ps(a, b); }
  static V Min(V a, V b) { return _mm512_min_ps(a, b); }
  static V Abs(V a) { return _mm512_andnot_ps(Set(-0.0f), a); }
  static V CopySign(V magnitude, V sign) {
    return _mm512_or_ps(Abs(magnitude), _mm512_and_ps(Set(-0.0f), sign));
  }
  static V Round(V a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT); }
  static V TimesPow2(V p, V k) { return _mm512_scalef_ps(p, k); }
  static V SelectLess(V a, V b, V if_less, V otherwise) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), otherwise, if_less);
  }

  static __m256 Upper(V v) { return _mm512_extractf32x8_ps(v, 1); }
  static float Sum(V v) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), Upper(v));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  // y[0] += the sum of a, y[1] += that of b, ...
  static void AddSums(V a, V b, V c, V d, float* y) {
    const auto halve = [](V v) { return _mm256_add_ps(_mm512_castps512_ps256(v), Upper(v)); };
    const __m256 a8 = halve(a), b8 = halve(b), c8 = halve(c), d8 = halve(d);
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a8, b8), _mm256_unpackhi_ps(a8, b8));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c8, d8), _mm256_unpackhi_ps(c8, d8));
    const __m256d low = _mm256_unpacklo_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd));
    const __m256d high = _mm256_unpackhi_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd));
    const __m256 abcd = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
    _mm_storeu_ps(y, _mm_add_ps(_mm_loadu_ps(y), sums));
  }
  static float Largest(V v) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(v), Upper(v));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }

  static V SwapPairs(V v) { return _mm512_permute_ps(v, 0xB1); }
  // p[0], p[0], p[1], p[1], ...
  static V DuplicatePairs(const float* p) {
    const __m512i order = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(order, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
  }
  // Negates lanes 0, 2, 4, ...
  static V AlternateSign(V v) {
    return _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi64(0x80000000)));
  }

  static Halves LoadHalves(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  // From 8 kept halves, by the bytes of 4 that each of two eights has.
  static Halves Spread(const uint8_t* first, const uint8_t* second, const uint8_t* kept) {
    const auto load = [](const uint8_t* p) {
      return _mm_load_si128(reinterpret_cast<const __m128i*>(p));
    };
    const __m256i from =
        _mm256_or_si256(_mm256_set_m128i(load(second), load(first)),
                        _mm256_set_epi64x(0x0808080808080808, 0x0808080808080808, 0, 0));
    return _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kept))), from);
  }
  static V FromF16(Halves h) { return _mm512_cvtph_ps(h); }
  static V FromBf16(Halves h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
  }
  static V LoadF16(const void* p) { return FromF16(LoadHalves(p)); }
  static V LoadInt8(const int8_t* p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  // The 4-bit codes that kWidth bytes have in their low or, with shift 4, high halves.
  static V LoadNibbles(const uint8_t* p, int shift) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i codes = _mm_and_si128(_mm_srli_epi16(bytes, shift), _mm_set1_epi8(15));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
  }
  static V SetF16(uint16_t h) {
    return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<int16_t>(h)));
  }
  static void StoreF16(void* p, V v) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }

  static D ZeroD() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
  static D ToD(V v) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(v)), _mm512_cvtps_pd(Upper(v))};
  }
  static D AddD(D sum, V v) {
    const D d = ToD(v);
    return {_mm512_add_pd(sum.low, d.low), _mm512_add_pd(sum.high, d.high)};
  }
  static D AddSquareD(D sum, V v) {
    const D d = ToD(v);
    return {_mm512_fmadd_pd(d.low, d.low, sum.low), _mm512_fmadd_pd(d.high, d.high, sum.high)};
  }
  static double SumD(D sum) {
    const __m512d eight = _mm512_add_pd(sum.low, sum.high);
    const __m256d four =
        _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
  }
};

}  // namespace
}  // namespace edgewise::kernels
