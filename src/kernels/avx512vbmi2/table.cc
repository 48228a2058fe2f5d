// AVX-512 VBMI2, whose byte expansion puts values to their places by a mask: the bitmask formats.
// Everything else is that of AVX-512 VNNI.
#include <immintrin.h>

#include "kernels/avx512vnni/rows.h"
#include "kernels/skeleton/linear_bitmask.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

struct Vbmi2Rows : VnniRows {
  // The next byte of `values` where the mask has a bit, else that of `otherwise`.
  static Bytes Expand(uint64_t mask, Bytes values, Bytes otherwise) {
    return _mm512_mask_expand_epi8(otherwise, mask, values);
  }
  // The low nibbles of 16 bytes, their high nibbles, and 32 times 8.
  static Bytes WideNibbles(const uint8_t* p) {
    const __m512i raw = Repeat16(reinterpret_cast<const int8_t*>(p));
    const __m512i shifts = _mm512_set_epi64(0, 0, 0, 0, 4, 4, 0, 0);
    const __m512i lower = _mm512_set_epi64(0, 0, 0, 0, -1, -1, -1, -1);
    const __m512i nibbles =
        _mm512_and_si512(_mm512_and_si512(lower, Splat(15)), _mm512_srlv_epi64(raw, shifts));
    return Or(nibbles, _mm512_andnot_si512(lower, Splat(8)));
  }
  // 32 bytes, and zeros.
  static Bytes Load32(const void* p) {
    return _mm512_zextsi256_si512(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
};

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "avx512vbmi2";
  SetBitmaskKernels<Vbmi2Rows>(&t);
  return t;
}

}  // namespace

constinit const Kernels kAvx512Vbmi2 = Table();

}  // namespace edgewise::kernels
