// Armv8.2 SDOT: the block formats. Everything else is that of NEON.
#include "kernels/dotprod/rows.h"
#include "kernels/skeleton/linear_bitmask.h"
#include "kernels/skeleton/linear_packed.h"
#include "kernels/skeleton/linear_sparse.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "dotprod";
  SetPackedKernels<DotprodRows>(&t);
  SetSparseKernels<DotprodRows>(&t);
  SetBitmaskKernels<DotprodRows>(&t);
  return t;
}

}  // namespace

constinit const Kernels kDotprod = Table();

}  // namespace edgewise::kernels
