// The operations of skeleton/gemm.h that the float vectors of AVX2 lack.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/avx2/floats.h"

namespace edgewise::kernels {
namespace {

struct Avx2Gemm : Avx2Floats {
  static constexpr size_t kRows = 6, kVectors = 2;  // 12 sums, 2 columns and a row of 16 registers

  template <size_t kCount>
  static __m256i First() {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(kCount)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  template <size_t kCount>
  static V LoadLanes(const float* p) {
    return _mm256_maskload_ps(p, First<kCount>());
  }
  template <size_t kCount>
  static void StoreLanes(float* p, V v) {
    _mm256_maskstore_ps(p, First<kCount>(), v);
  }
  static V LoadRows(const float* const* rows, size_t k) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[0] + k)),
                                _mm_loadu_ps(rows[4] + k), 1);
  }
  static void Transpose4(V* v) {
    const V low01 = _mm256_unpacklo_ps(v[0], v[1]), high01 = _mm256_unpackhi_ps(v[0], v[1]);
    const V low23 = _mm256_unpacklo_ps(v[2], v[3]), high23 = _mm256_unpackhi_ps(v[2], v[3]);
    v[0] = _mm256_shuffle_ps(low01, low23, 0x44);
    v[1] = _mm256_shuffle_ps(low01, low23, 0xEE);
    v[2] = _mm256_shuffle_ps(high01, high23, 0x44);
    v[3] = _mm256_shuffle_ps(high01, high23, 0xEE);
  }
  static V RoundToBf16(V v) {
    const __m256i bits = _mm256_castps_si256(v), upper = _mm256_set1_epi32(-0x10000);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const V is_nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    return _mm256_and_ps(
        _mm256_blendv_ps(_mm256_castsi256_ps(up), _mm256_castsi256_ps(quiet), is_nan),
        _mm256_castsi256_ps(upper));
  }
};

}  // namespace
}  // namespace edgewise::kernels
