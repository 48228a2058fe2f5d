// Armv8.6 SMMLA: the block formats with several activation rows. One row goes through SDOT;
// everything else is that of NEON.
#include <arm_neon.h>

#include "kernels/dotprod/rows.h"
#include "kernels/skeleton/linear_bitmask.h"
#include "kernels/skeleton/linear_packed.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

struct I8mmRows : DotprodRows {};

// SMMLA multiplies 8 columns of 2 activation rows with 8 columns of 2 weight rows.
template <>
struct Tile<I8mmRows> : I8mmRows {
  static constexpr size_t kPair = 2;
  static constexpr bool kPartIsInts = false;  // of 2 by 2 rows
  // Two steps hold columns 0 to 3 and 4 to 7 of rows 0 to 3: now all 8 of rows 0 and 1, 2 and 3.
  static void Arrange(Bytes* v) {
#pragma GCC unroll 4
    for (size_t s = 0; s < 8; s += 2) {
      const int32x4_t low = vreinterpretq_s32_s8(v[s]), high = vreinterpretq_s32_s8(v[s + 1]);
      v[s] = vreinterpretq_s8_s32(vzip1q_s32(low, high));
      v[s + 1] = vreinterpretq_s8_s32(vzip2q_s32(low, high));
    }
  }
  static Bytes Activations(const ActQ8* const* x, size_t b, size_t c) {
    return vcombine_s8(vld1_s8(x[0][b].q + c), vld1_s8(x[1][b].q + c));
  }
  template <bool>
  static Part Step(Part part, Bytes w, Bytes x) {
    return vmmlaq_s32(part, x, w);
  }
  static Ints Widen(const Part* part, size_t t) {
    const int64x2_t low = vreinterpretq_s64_s32(part[0]);
    const int64x2_t high = vreinterpretq_s64_s32(part[kPieces<I8mmRows>]);
    return vreinterpretq_s32_s64(t == 0 ? vzip1q_s64(low, high) : vzip2q_s64(low, high));
  }
};

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "i8mm";
  SetPackedKernels<I8mmRows>(&t);
  SetBitmaskKernels<I8mmRows>(&t);
  return t;
}

}  // namespace

constinit const Kernels kI8mm = Table();

}  // namespace edgewise::kernels
