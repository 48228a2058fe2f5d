// The byte operations of skeleton/linear_blocks.h with VNNI: those of AVX2, but products are added
// up four at a time. 256-bit registers, because a block of 32 fills one.
#pragma once

#include <immintrin.h>
#include <stddef.h>

#include "kernels/avx2/bytes.h"

namespace edgewise::kernels {
namespace {

struct VnniBytes : Avx2Bytes {
  static constexpr size_t kTile = 8;

  static Ints Dot(Bytes w, Bytes x) { return _mm256_dpbusd_epi32(ZeroInts(), w, x); }
  static Ints DotSigned(Bytes w, Bytes x) {
    return _mm256_dpbusd_epi32(ZeroInts(), _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  }
  static Ints ScaledDot(Ints sum, Bytes w, Bytes x, Scale scale) {
    return _mm256_dpwssd_epi32(sum, Pairs(w, x), scale);
  }
  static Ints ScaledDotSigned(Ints sum, Bytes w, Bytes x, Scale scale) {
    return _mm256_dpwssd_epi32(sum, PairsSigned(w, x), scale);
  }
};

}  // namespace
}  // namespace edgewise::kernels
