// Stands before the compiler's own immintrin.h when the AVX-VNNI and AVX-512 kernels are built to
// run on a CPU without them: SIMDe computes their operations, and what its version in Debian 12
// lacks is below.
#pragma once

#include_next <immintrin.h>

#include <simde/x86/avx512.h>
#include <string.h>

namespace {

// Applies `convert` to each of `n` elements of the vector `in`.
template <class To, class ToLane, class FromLane, class From, class Convert>
inline To EmulateLanes(From in, int n, Convert convert) {
  FromLane from[sizeof(From) / sizeof(FromLane)];
  ToLane to[sizeof(To) / sizeof(ToLane)];
  memcpy(from, &in, sizeof(from));
  for (int i = 0; i < n; ++i) to[i] = convert(from[i]);
  To out;
  memcpy(&out, to, sizeof(out));
  return out;
}

inline __m512i EmulatedCvtEpu8(__m128i v) {
  return EmulateLanes<__m512i, int32_t, uint8_t>(v, 16, [](uint8_t x) { return int32_t{x}; });
}
inline __m512i EmulatedCvtEpi8(__m128i v) {
  return EmulateLanes<__m512i, int32_t, int8_t>(v, 16, [](int8_t x) { return int32_t{x}; });
}
inline __m512i EmulatedCvtEpu16(__m256i v) {
  return EmulateLanes<__m512i, int32_t, uint16_t>(v, 16, [](uint16_t x) { return int32_t{x}; });
}
inline __m512 EmulatedCvtEpi32(__m512i v) {
  return EmulateLanes<__m512, float, int32_t>(v, 16,
                                              [](int32_t x) { return static_cast<float>(x); });
}
inline __m512 EmulatedCvtPh(__m256i v) {
  return EmulateLanes<__m512, float, uint16_t>(v, 16, [](uint16_t x) { return _cvtsh_ss(x); });
}
inline __m256i EmulatedCvtToPh(__m512 v) {
  return EmulateLanes<__m256i, uint16_t, float>(
      v, 16, [](float x) { return static_cast<uint16_t>(_cvtss_sh(x, 0)); });
}
inline __m512d EmulatedCvtPsPd(__m256 v) {
  return EmulateLanes<__m512d, double, float>(v, 8, [](float x) { return double{x}; });
}
inline __m256 EmulatedUpper(__m512 v) {
  __m256 halves[2];
  memcpy(halves, &v, sizeof(v));
  return halves[1];
}
// Within each group of four, lane i becomes lane (order >> 2 i) & 3.
inline __m512 EmulatedPermute(__m512 v, int order) {
  float from[16], to[16];
  memcpy(from, &v, sizeof(v));
  for (int i = 0; i < 16; ++i) to[i] = from[i / 4 * 4 + ((order >> (2 * (i % 4))) & 3)];
  memcpy(&v, to, sizeof(v));
  return v;
}
inline __m512 EmulatedMaskzLoadu(__mmask16 mask, const float* p) {
  float to[16] = {};
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) to[i] = p[i];
  }
  __m512 v;
  memcpy(&v, to, sizeof(v));
  return v;
}
inline void EmulatedMaskStoreu(float* p, __mmask16 mask, __m512 v) {
  float from[16];
  memcpy(from, &v, sizeof(v));
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) p[i] = from[i];
  }
}
inline __m512i EmulatedZeroExtend(__m256i v) {
  __m512i out = simde_mm512_setzero_si512();
  memcpy(&out, &v, sizeof(v));
  return out;
}
// The next byte of `values` where the mask has a bit, else that of `otherwise`.
inline __m512i EmulatedExpand(__m512i otherwise, uint64_t mask, __m512i values) {
  uint8_t from[64], to[64];
  memcpy(from, &values, sizeof(values));
  memcpy(to, &otherwise, sizeof(otherwise));
  for (int i = 0, k = 0; i < 64; ++i) {
    if ((mask >> i & 1) != 0) to[i] = from[k++];
  }
  memcpy(&otherwise, to, sizeof(to));
  return otherwise;
}

}  // namespace

#undef _mm512_zextsi256_si512
#define _mm512_zextsi256_si512(v) EmulatedZeroExtend(v)
#undef _mm512_mask_expand_epi8
#define _mm512_mask_expand_epi8(otherwise, mask, values) EmulatedExpand(otherwise, mask, values)
#undef _mm512_madd_epi16  // SIMDe's takes a mask that it does not pass on
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)
#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32(sum, a, b) simde_mm256_dpbusd_epi32(sum, a, b)
#define _mm512_cvtepu8_epi32(v) EmulatedCvtEpu8(v)
#define _mm512_cvtepi8_epi32(v) EmulatedCvtEpi8(v)
#define _mm512_cvtepu16_epi32(v) EmulatedCvtEpu16(v)
#define _mm512_cvtepi32_ps(v) EmulatedCvtEpi32(v)
#define _mm512_cvtph_ps(v) EmulatedCvtPh(v)
#undef _mm512_cvtps_ph
#define _mm512_cvtps_ph(v, rounding) EmulatedCvtToPh(v)
#define _mm512_cvtps_pd(v) EmulatedCvtPsPd(v)
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps(v, upper) EmulatedUpper(v)
#undef _mm512_permute_ps
#define _mm512_permute_ps(v, order) EmulatedPermute(v, order)
#define _mm512_maskz_loadu_ps(mask, p) EmulatedMaskzLoadu(mask, p)
#define _mm512_mask_storeu_ps(p, mask, v) EmulatedMaskStoreu(p, mask, v)
