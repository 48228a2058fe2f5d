// Armv8.2 SDOT: the block formats. Everything else is that of NEON.
#include <arm_neon.h>

#include "kernels/neon/rows.h"
#include "kernels/skeleton/linear_packed.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

struct DotprodRows : NeonRows {
  template <bool>
  static Part Step(Part part, Bytes w, Bytes x) {
    return vdotq_s32(part, w, x);
  }
};

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "dotprod";
  SetPackedKernels<DotprodRows>(&t);
  return t;
}

}  // namespace

constinit const Kernels kDotprod = Table();

}  // namespace edgewise::kernels
