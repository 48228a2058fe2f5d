// Armv8.2 SDOT: the block formats. Everything else is that of NEON.
#include <arm_neon.h>

#include "kernels/neon/bytes.h"
#include "kernels/skeleton/linear_blocks.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

struct DotprodBytes : NeonBytes {
  static Ints Dot(Bytes w, Bytes x) {
    return vdotq_s32(vdotq_s32(ZeroInts(), w.low, x.low), w.high, x.high);
  }
  static Ints DotSigned(Bytes w, Bytes x) { return Dot(w, x); }
  static Ints ScaledDot(Ints sum, Bytes w, Bytes x, Scale scale) {
    sum = vmlaq_n_s32(sum, vdotq_s32(ZeroInts(), w.low, x.low), scale.low);
    return vmlaq_n_s32(sum, vdotq_s32(ZeroInts(), w.high, x.high), scale.high);
  }
  static Ints ScaledDotSigned(Ints sum, Bytes w, Bytes x, Scale scale) {
    return ScaledDot(sum, w, x, scale);
  }
};

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "dotprod";
  SetBlockKernels<DotprodBytes>(&t);
  return t;
}

}  // namespace

constinit const Kernels kDotprod = Table();

}  // namespace edgewise::kernels
