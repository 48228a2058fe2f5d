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
    constexpr int kAndOr = 0xEA;  // (shifted & lower) | upper
    return _mm512_ternarylogic_epi64(_mm512_srlv_epi64(raw, shifts), And(lower, Splat(15)),
                                     _mm512_andnot_si512(lower, Splat(8)), kAndOr);
  }
  // 32 bytes, and zeros.
  static Bytes Load32(const void* p) {
    return _mm512_zextsi256_si512(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  // 32 bytes, and 32 more.
  static Bytes Join(const void* p, const void* more) {
    return _mm512_inserti64x4(Load32(p), _mm256_loadu_si256(static_cast<const __m256i*>(more)), 1);
  }

  // Lane r of sums[h]: the sum of lanes 8 h to 8 h + 7 of row(r), r < 16. With kFit16 the sums of
  // two lanes fit 16 bits.
  template <bool kFit16, class Row>
  [[gnu::always_inline]] static void AddLanes(Row row, Ints sums[2]) {
    const Ints low = AddQuarters(AddFour<kFit16>(row, 0), AddFour<kFit16>(row, 4));
    const Ints high = AddQuarters(AddFour<kFit16>(row, 8), AddFour<kFit16>(row, 12));
    sums[0] = _mm512_shuffle_i32x4(low, high, 0x88);
    sums[1] = _mm512_shuffle_i32x4(low, high, 0xDD);
  }

 private:
  // In each 128 bits: the sums of their lanes of rows first to first + 3.
  template <bool kFit16, class Row>
  [[gnu::always_inline]] static Ints AddFour(Row row, size_t first) {
    if constexpr (kFit16) {
      return AddPairs(AddPairs(row(first), row(first + 1)),
                      AddPairs(row(first + 2), row(first + 3)));
    }
    const Ints a = Interleave(row(first), row(first + 2));
    const Ints b = Interleave(row(first + 1), row(first + 3));
    return AddInts(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  }
  // 128 bits after 128 bits: the sums of the halves of a, then of those of b.
  static Ints AddQuarters(Ints a, Ints b) {
    return AddInts(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xDD));
  }
  // In each 128 bits: the sums of neighbours in a, then of those in b, which fit 16 bits.
  static Ints AddPairs(Ints a, Ints b) {
    return _mm512_madd_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(1));
  }
  // In each 128 bits: lanes 0 + 2 and 1 + 3 of a, each followed by that of b.
  static Ints Interleave(Ints a, Ints b) {
    return AddInts(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
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
