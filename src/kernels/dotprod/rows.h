// The operations of skeleton/linear_packed.h in NEON with SDOT.
#pragma once

#include <arm_neon.h>

#include "kernels/neon/rows.h"

namespace edgewise::kernels {
namespace {

struct DotprodRows : NeonRows {
  template <bool>
  static Part Step(Part part, Bytes w, Bytes x) {
    return vdotq_s32(part, w, x);
  }
};

}  // namespace
}  // namespace edgewise::kernels
