// The operations of skeleton/gemm.h in AVX512_BF16: a unit is two BF16, multiplied and added to one
// float by vdpbf16ps.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"
#include "kernels/avx512vnni/gemm.h"

namespace edgewise::kernels {
namespace {

struct Avx512Bf16Gemm : Avx512Gemm {
  static constexpr size_t kUnit = 2, kStep = 2;

  static V Convert(__m512 upper, __m512 lower) {
    const __m512bh pairs = _mm512_cvtne2ps_pbh(upper, lower);
    V v;
    memcpy(&v, &pairs, sizeof(v));
    return v;
  }
  static __m512bh Pairs(V v) {
    __m512bh pairs;
    memcpy(&pairs, &v, sizeof(pairs));
    return pairs;
  }
  static uint32_t Unit(const float* p, size_t k_stride, size_t count) {
    const uint32_t low = count > 0 ? FloatToBf16(p[0]) : 0;
    const uint32_t high = count > 1 ? FloatToBf16(p[k_stride]) : 0;
    return high << 16 | low;
  }
  // 8 values, 4 units, of each of rows 0, 4, 8 and 12.
  static V LoadAlongK(const float* const* rows, size_t k) {
    const auto two = [k](const float* first, const float* second) {
      return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(first + k)),
                                _mm256_loadu_ps(second + k), 1);
    };
    return Convert(two(rows[8], rows[12]), two(rows[0], rows[4]));
  }
  template <size_t kCount>
  static V LoadFirst(const float* p, size_t k_stride) {
    const V v = Convert(LoadLanes<kCount>(p + k_stride), LoadLanes<kCount>(p));
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, _mm512_castps_si512(v)));
  }
  template <size_t kCount>
  static void StoreFirst(char* p, V v) {
    StoreLanes<kCount>(reinterpret_cast<float*>(p), v);
  }
  static V LoadUnits(const char* p) { return LoadBytes(p); }
  static V Broadcast(const char* p) {
    int32_t bits;
    memcpy(&bits, p, sizeof(bits));
    return _mm512_castsi512_ps(_mm512_set1_epi32(bits));
  }
  static V Step(V sum, V a, V b) { return _mm512_dpbf16_ps(sum, Pairs(a), Pairs(b)); }
};

}  // namespace
}  // namespace edgewise::kernels
