// The operations of skeleton/gemm.h that the float vectors of AVX-512 lack.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/avx512vnni/floats.h"

namespace edgewise::kernels {
namespace {

struct Avx512Gemm : Avx512Floats {
  static constexpr size_t kRows = 12, kVectors = 2;  // 24 sums, 2 columns and a row of 32 registers

  template <size_t kCount>
  static constexpr __mmask16 kFirst = static_cast<__mmask16>((1u << kCount) - 1);
  template <size_t kCount>
  static V LoadLanes(const float* p) {
    return _mm512_maskz_loadu_ps(kFirst<kCount>, p);
  }
  template <size_t kCount>
  static void StoreLanes(float* p, V v) {
    _mm512_mask_storeu_ps(p, kFirst<kCount>, v);
  }
  static V LoadRows(const float* const* rows, size_t k) {
    V v = _mm512_castps128_ps512(_mm_loadu_ps(rows[0] + k));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(rows[4] + k), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(rows[8] + k), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(rows[12] + k), 3);
  }
  static void Transpose4(V* v) {
    const V low01 = _mm512_unpacklo_ps(v[0], v[1]), high01 = _mm512_unpackhi_ps(v[0], v[1]);
    const V low23 = _mm512_unpacklo_ps(v[2], v[3]), high23 = _mm512_unpackhi_ps(v[2], v[3]);
    v[0] = _mm512_shuffle_ps(low01, low23, 0x44);
    v[1] = _mm512_shuffle_ps(low01, low23, 0xEE);
    v[2] = _mm512_shuffle_ps(high01, high23, 0x44);
    v[3] = _mm512_shuffle_ps(high01, high23, 0xEE);
  }
  static V RoundToBf16(V v) {
    const __m512i bits = _mm512_castps_si512(v), upper = _mm512_set1_epi32(-0x10000);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_mask_blend_epi32(is_nan, up, quiet), upper));
  }
};

}  // namespace
}  // namespace edgewise::kernels
